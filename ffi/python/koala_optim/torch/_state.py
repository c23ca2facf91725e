"""The state of one parameter: its vectors and scalars, made for the first step, or checked after they were loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._divided import like_owner, local
from ._places import Place, empty_like, in_order_of

# The vectors of KOALA++.
VECTORS = ("v", "h")

# The most steps that a float64 counts.
_LARGEST_WHOLE = 2**53

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
    may_begin_late: bool = False,
) -> dict[str, Tensor]:
    """The entries of a parameter in the optimizer's `state`, on the parameter's device, in the order of its memory and
    in the type of states: those vectors, and the scalars. They are made, of zeros, if there are none. Those of a
    DTensor are DTensors, of which this is what is in this process: see `like_owner`. Other entries are not ours.

    Args:
        may_begin_late: Whether a vector may be lacking beside scalars: it is zero then.

    Raises:
        TypeError, ValueError: There are some that do not go with the parameter, or a mapping that returns copies.
    """
    if place.owner not in states:
        states[place.owner] = {}
    entries: MutableMapping[str, Any] = states[place.owner]
    known = {name: local(entry) for name, entry in entries.items()}
    here = known
    if may_begin_late and "scalars" in known:
        here = {**{name: zeros_like(place.parameter, state_dtype) for name in vectors if name not in known}, **known}
    if has_state(here, vectors):
        check_state(place, here, vectors)
    fitting = fitting_state(place, here, state_dtype, vectors)
    changed = {name: entry for name, entry in fitting.items() if entry is not known.get(name)}
    if place.owner is not place.parameter:
        entries.update(like_owner(place.owner, changed, per_shard))
        return fitting
    entries.update(changed)
    if type(entries) is not dict and any(entries[name] is not entry for name, entry in fitting.items()):
        kind = type(entries).__name__
        raise TypeError(f"{place} has its state in a {kind}, which does not return the tensors that it has")
    return fitting


def has_state(entries: Mapping[str, Any], vectors: Sequence[str] = VECTORS) -> bool:
    """Whether a parameter has a state, whatever else is there."""
    return any(name in entries for name in (*vectors, "scalars"))


def fitting_state(
    place: Place, entries: Mapping[str, Any], state_dtype: torch.dtype | None, vectors: Sequence[str] = VECTORS
) -> dict[str, Tensor]:
    """Vectors and scalars as a step of the parameter takes them: those that are there, or copies, or zeros."""
    parameter = place.parameter
    dtype, device = state_dtype or parameter.dtype, parameter.device
    # Metal has no float64.
    wide = torch.float32 if device.type == "mps" else torch.float64
    if not has_state(entries, vectors):
        made = {name: zeros_like(parameter, dtype) for name in vectors}
        return {**made, "scalars": torch.zeros(4, dtype=wide, device=device)}
    fitting = {name: in_order_of(parameter, entries[name].to(device, dtype)) for name in vectors}
    return {**fitting, "scalars": entries["scalars"].to(device, wide).contiguous().resolve_neg()}


def zeros_like(parameter: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A vector of a new state, in that type or the parameter's."""
    return empty_like(parameter, dtype or parameter.dtype).zero_()


def check_state(place: Place, entries: Mapping[str, Any], vectors: Sequence[str] = VECTORS) -> None:
    """Looks at whether a parameter and a state with those vectors go together.

    Raises:
        TypeError, ValueError: They do not.
    """
    parameter, names = place.parameter, (*vectors, "scalars")
    if not all(name in entries for name in names):
        raise ValueError(f"{place} has a state of {', '.join(map(str, entries))}, expected {', '.join(names)}")
    for name in names:
        tensor = entries[name]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{place} has {name} of type {type(tensor).__name__}, expected a tensor")
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise TypeError(f"{place} has {name} of {tensor.dtype} and {tensor.layout}, expected dense real numbers")
        if tensor.is_meta and not parameter.is_meta:
            raise TypeError(f"{place} has {name} on meta, where it has no numbers")
    for name in vectors:
        if entries[name].shape != parameter.shape:
            raise ValueError(f"{place} has a state of another shape: {name} is of {tuple(entries[name].shape)}")
    if entries["scalars"].shape != (4,):
        raise ValueError(f"{place} has scalars of shape {tuple(entries['scalars'].shape)}, expected four")


def check_scalars(place: Place, scalars: Tensor) -> None:
    """Looks at the numbers, which waits for a device.

    Raises:
        ValueError: No step leaves such scalars.
    """
    values = scalars.tolist()
    h_h, _, variance, steps = values
    if not all(map(math.isfinite, values)) or h_h < 0 or variance < 0:
        text = "expected finite numbers, h·h and S at least 0"
    elif not (0 <= steps <= _LARGEST_WHOLE and steps == int(steps)):
        text = "whose last is no number of steps: expected a whole number from 0 to 2^53"
    else:
        return
    raise ValueError(f"{place} has scalars of {values}, {text}")
