"""The state of one parameter: its vectors and scalars, made for the first step, or checked after they were loaded."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._divided import like_owner, local
from ._places import Place, empty_like, in_order_of

# The vectors of KOALA++.
VECTORS = ("v", "h")

STATE_DTYPES = (None, torch.float32, torch.bfloat16)


class State(NamedTuple):
    """The filter of one parameter between two steps.

    Attributes:
        v: v = H·P, the product of gradient and covariance, of the parameter's shape.
        h: The measurement row H of the step before, of the parameter's shape.
        scalars: Four float64: h·h, h·v, the innovation variance S, and the number of steps taken. All zero: the next
            step is a first step.
    """

    v: Tensor
    h: Tensor
    scalars: Tensor


def state_of(place: Place, states: MutableMapping[Any, Any], state_dtype: torch.dtype | None) -> State:
    """The filter of a parameter: see `entries_of`."""
    return State(**entries_of(place, states, state_dtype))


def entries_of(
    place: Place,
    states: MutableMapping[Any, Any],
    state_dtype: torch.dtype | None,
    vectors: Sequence[str] = VECTORS,
    per_shard: bool = False,
) -> MutableMapping[str, Tensor]:
    """The entries of a parameter in the optimizer's `state`, on the parameter's device and in the order of its memory:
    those vectors, and the scalars. They are made, of zeros, if there are none. Those of a DTensor are DTensors, of
    which this is what is in this process: see `like_owner`.

    Raises:
        TypeError, ValueError: There are some that do not go with the parameter.
    """
    parameter = place.parameter
    # Metal has no float64.
    wide = torch.float32 if parameter.device.type == "mps" else torch.float64
    kept: MutableMapping[str, Tensor] = states[place.owner]
    is_piece = place.owner is not parameter
    entries = {name: local(entry) for name, entry in kept.items()} if is_piece else kept
    if not entries:
        for name in vectors:
            entries[name] = empty_like(parameter, state_dtype or parameter.dtype).zero_()
        entries["scalars"] = torch.zeros(4, dtype=wide, device=parameter.device)
    else:
        check_state(place, entries, vectors)
        for name in vectors:
            entries[name] = in_order_of(parameter, entries[name].to(parameter.device))
        entries["scalars"] = entries["scalars"].to(parameter.device, wide).contiguous()
    if is_piece:
        moved = {name: entry for name, entry in entries.items() if name not in kept or entry is not local(kept[name])}
        kept.update(like_owner(place.owner, moved, per_shard))
    return entries


def check_state(place: Place, entries: Mapping[str, Any], vectors: Sequence[str] = VECTORS) -> None:
    """Looks at whether a parameter and a state with those vectors go together.

    Raises:
        TypeError, ValueError: They do not.
    """
    parameter, names = place.parameter, (*vectors, "scalars")
    if not all(name in entries for name in names):
        raise ValueError(f"{place} has a state of {', '.join(entries)}, expected {', '.join(names)}")
    for name in names:
        tensor = entries[name]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{place} has {name} of type {type(tensor).__name__}, expected a tensor")
    for name in vectors:
        tensor = entries[name]
        if tensor.shape != parameter.shape:
            raise ValueError(f"{place} has a state of another shape: {name} is of {tuple(tensor.shape)}")
        if tensor.dtype not in (parameter.dtype, torch.float32, torch.bfloat16):
            raise TypeError(f"{place} is of {parameter.dtype}, which {name} of {tensor.dtype} does not go with")
    if len({entries[name].dtype for name in vectors}) > 1:
        raise TypeError(f"{place} has v of {entries['v'].dtype}, h of {entries['h'].dtype}")
    if entries["scalars"].shape != (4,):
        raise ValueError(f"{place} has scalars of shape {tuple(entries['scalars'].shape)}, expected four")
