"""The state of one parameter's filter: three tensors, made for the first step, or checked after they were loaded."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._places import Place, empty_like, in_order_of

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
    """The state of a parameter in the optimizer's `state`, on the parameter's device and in the order of its memory. It
    is made if there is none.

    Raises:
        TypeError, ValueError: There is one that does not go with the parameter.
    """
    parameter = place.parameter
    # Metal has no float64.
    wide = torch.float32 if parameter.device.type == "mps" else torch.float64
    entries = states[parameter]
    if not entries:
        dtype = state_dtype or parameter.dtype
        entries["v"] = empty_like(parameter, dtype).zero_()
        entries["h"] = empty_like(parameter, dtype).zero_()
        entries["scalars"] = torch.zeros(4, dtype=wide, device=parameter.device)
    else:
        check_state(place, entries)
        for name in ("v", "h"):
            entries[name] = in_order_of(parameter, entries[name].to(parameter.device))
        entries["scalars"] = entries["scalars"].to(parameter.device, wide).contiguous()
    return State(entries["v"], entries["h"], entries["scalars"])


def check_state(place: Place, entries: Mapping[str, Any]) -> None:
    """Looks at whether a parameter and a state go together.

    Raises:
        TypeError, ValueError: They do not.
    """
    parameter = place.parameter
    if set(entries) != set(State._fields):
        raise ValueError(f"{place} has a state of {', '.join(entries)}, expected {', '.join(State._fields)}")
    for name in ("v", "h"):
        tensor = entries[name]
        if tensor.shape != parameter.shape:
            raise ValueError(f"{place} has a state of another shape: {name} is of {tuple(tensor.shape)}")
        if tensor.dtype not in (parameter.dtype, torch.float32, torch.bfloat16):
            raise TypeError(f"{place} is of {parameter.dtype}, which {name} of {tensor.dtype} does not go with")
    if entries["h"].dtype != entries["v"].dtype:
        raise TypeError(f"{place} has v of {entries['v'].dtype}, h of {entries['h'].dtype}")
    if entries["scalars"].shape != (4,):
        raise ValueError(f"{place} has scalars of shape {tuple(entries['scalars'].shape)}, expected four")
