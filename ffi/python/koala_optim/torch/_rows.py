"""The rows of a table: what libkoala is told of a parameter beside its gradient, and how parameters are divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._library import ffi
from .._settings import STATE_TYPES
from ._places import Place


class Row(NamedTuple):
    """What a parameter has in the table, but for its gradient."""

    # Of what it was made: where parameter and state are, and their types and lengths.
    key: tuple[Any, ...]
    # The struct, as it lies in memory.
    content: bytes
    # What is stepped in the place of a parameter whose elements lie apart.
    work: Tensor | None


def divide(places: Sequence[Place], count: int) -> list[list[Place]]:
    """Divides parameters into parts of about the same number of elements, each in their order."""
    parts: list[list[int]] = [[] for _ in range(max(1, count))]
    loads = [0] * len(parts)
    for index in sorted(range(len(places)), key=lambda index: -places[index].parameter.numel()):
        lightest = loads.index(min(loads))
        parts[lightest].append(index)
        loads[lightest] += places[index].parameter.numel()
    return [[places[index] for index in sorted(part)] for part in parts]


def address_of(tensor: Tensor) -> Any:
    """A `void *`."""
    return ffi.cast("void *", tensor.data_ptr())


def state_type_of(place: Place, state: dict[str, Tensor]) -> int:
    """The `koala_state_type` of a state."""
    dtypes = {tensor.dtype for name, tensor in state.items() if name != "scalars"} or {place.parameter.dtype}
    (dtype,) = dtypes
    return STATE_TYPES["same" if dtype == place.parameter.dtype else str(dtype).replace("torch.", "")]


def describe(struct: Any, state: dict[str, Tensor]) -> None:
    """Writes into a struct where a state is. A vector that the method does not have stays NULL."""
    for name, tensor in state.items():
        setattr(struct, name, ffi.cast("koala_scalars *" if name == "scalars" else "void *", tensor.data_ptr()))


def increment_version(tensors: list[Tensor]) -> None:
    """Lets autograd know that what it has saved of these is not what it was."""
    try:
        torch.autograd.graph.increment_version(tensors)
    except TypeError:
        # Before PyTorch 2.7 it takes one.
        for tensor in tensors:
            torch.autograd.graph.increment_version(tensor)
