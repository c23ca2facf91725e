"""The parameters of an optimizer: which one is meant, which of them libkoala can step, how they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .._settings import ELEMENT_TYPES
from ._divided import how_divided, is_dtensor, lend_gradient, piece_of

# What libkoala reads, by dtype.
TYPES: dict[torch.dtype, int] = {
    torch.float32: ELEMENT_TYPES["float32"],
    torch.float64: ELEMENT_TYPES["float64"],
    torch.bfloat16: ELEMENT_TYPES["bfloat16"],
    torch.float16: ELEMENT_TYPES["float16"],
}

# Why a part of a tensor is refused, and what to do.
NEEDS_WHOLE = (
    "the step needs dot products of whole tensors. Keep parameters whole, as DistributedDataParallel does; or take "
    "AdamW or SGD, which need none of that; or give per_shard=True, by which each process steps its part as a tensor "
    "of its own, which is not the step of the whole tensor. Or add up dot products yourself, between "
    "koala_optim.numpy.dots and apply, the two halves of the step"
)


class Place(NamedTuple):
    """A parameter and where the optimizer has it.

    Attributes:
        parameter: θ, of any shape.
        group: The number of its group.
        name: `parameter "conv.weight"`, or the two numbers if it came without a name.
        owner: What the group has: the parameter; or a DTensor, and the parameter is what of it is in this process.
    """

    parameter: Tensor
    group: int
    name: str
    owner: Tensor

    def __str__(self) -> str:
        return f"{self.name}, of shape {tuple(self.owner.shape)},"


def places_of(groups: list[dict[str, Any]], first: int = 0) -> list[Place]:
    """Every parameter of every group, in order; `first` is the number of the first group."""
    places = []
    for number, group in enumerate(groups, first):
        names = group.get("param_names")
        for index, parameter in enumerate(group["params"]):
            name = f'parameter "{names[index]}"' if names else f"parameter {index} of group {number}"
            piece = piece_of(parameter) if is_dtensor(parameter) else parameter
            places.append(Place(piece, number, name, parameter))
    return places


def lend_gradients(places: list[Place]) -> list[Place]:
    """Gives pieces of DTensors their gradients. Returns the places."""
    for place in places:
        if place.owner is not place.parameter:
            lend_gradient(place.owner)
    return places


def take_back(places: list[Place]) -> None:
    """Has pieces of DTensors forget their gradients, whose memory is free as soon as the DTensors have none."""
    for place in places:
        if place.owner is not place.parameter:
            place.parameter.grad = None


def check_whole(place: Place, steps_parts: bool) -> None:
    """Looks at whether a parameter is whole, which it need not be if parts are stepped.

    Raises:
        TypeError: It is not.
    """
    how = how_divided(place.owner)
    if how is not None and not (steps_parts and "Partial(" not in how):
        raise TypeError(f"{place} is {how}, but {NEEDS_WHOLE}")


def has_kernel(place: Place) -> bool:
    """Whether libkoala can step a parameter; if not, operations of PyTorch have to.

    Raises:
        TypeError: Neither can.
    """
    parameter = place.parameter
    if parameter.layout != torch.strided:
        raise TypeError(f"{place} is of layout {parameter.layout}, expected a dense tensor")
    if parameter.dtype not in TYPES:
        raise TypeError(f"{place} is of {parameter.dtype}, expected one of {', '.join(map(str, TYPES))}")
    if layout_of(parameter) == "overlapping":
        raise ValueError(f"{place} has elements that share their memory (strides {parameter.stride()})")
    return parameter.device.type == "cpu"


def layout_of(tensor: Tensor) -> Literal["dense", "strided", "overlapping", "negated"]:
    """Whether elements lie side by side, in whatever order of dimensions; or with gaps; or over one another. "negated":
    the memory, however dense, has their opposites, as PyTorch leaves them for imaginary parts of conjugates.
    """
    layout = _order_of(tensor)
    return "negated" if layout != "overlapping" and tensor.is_neg() else layout


def _order_of(tensor: Tensor) -> Literal["dense", "strided", "overlapping"]:
    if tensor.is_contiguous():
        return "dense"
    reach, dense = 1, True
    for stride, extent in sorted(zip(tensor.stride(), tensor.shape)):
        if extent == 1:
            continue
        if stride < reach:
            return "overlapping"
        dense = dense and stride == reach
        reach += stride * (extent - 1)
    return "dense" if dense else "strided"


# Where a tensor's pointer is an address. On Metal it is that of an object which stands for the memory.
_WITH_ADDRESSES = ("cpu", "cuda")


def check_apart(places: Sequence[Place]) -> None:
    """Looks at whether parameters share memory, which would be stepped more than once.

    Raises:
        ValueError: Two of them do.
    """
    spans = [
        (*_span(place.parameter), number)
        for number, place in enumerate(places)
        if place.parameter.numel() and place.parameter.device.type in _WITH_ADDRESSES
    ]
    near: list[tuple[int, int, int]] = []
    reach = 0
    for span in sorted(spans):
        if span[0] >= reach:
            _check_near(places, near)
            near = []
        near.append(span)
        reach = max(reach, span[1])
    _check_near(places, near)


def _span(parameter: Tensor) -> tuple[int, int]:
    """Where a parameter begins and ends, in bytes."""
    begin = parameter.data_ptr()
    if parameter.is_contiguous():
        return begin, begin + parameter.nbytes
    last = sum(stride * (extent - 1) for stride, extent in zip(parameter.stride(), parameter.shape))
    return begin, begin + (last + 1) * parameter.element_size()


def _check_near(places: Sequence[Place], spans: Sequence[tuple[int, int, int]]) -> None:
    """Looks at parameters whose spans meet: their elements may still lie between one another."""
    if len(spans) < 2:
        return
    start, end = spans[0][0], max(end for _, end, _ in spans)
    # Whose each byte is: the number of the parameter, from 1.
    owners = torch.zeros(end - start, dtype=torch.int32)
    for begin, _, number in spans:
        parameter = places[number].parameter
        size = parameter.element_size()
        strides = (*(size * stride for stride in parameter.stride()), 1)
        own = owners.as_strided((*parameter.shape, size), strides, begin - start)
        if own.any():
            one, other = sorted((number, int(own.max()) - 1))
            raise ValueError(f"{places[one]} and {str(places[other])[:-1]} overlap in memory")
        own.fill_(number + 1)


def same_order(one: Tensor, other: Tensor) -> bool:
    """Whether two dense tensors of one shape have their elements in the same order in memory."""
    pairs = zip(one.stride(), other.stride(), one.shape)
    return all(left == right or extent == 1 for left, right, extent in pairs)


def empty_like(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """A dense tensor, in the order of the parameter's memory, or in row order where that has gaps."""
    if layout_of(parameter) == "dense":
        return torch.empty_strided(parameter.shape, parameter.stride(), dtype=dtype, device=parameter.device)
    return torch.empty(parameter.shape, dtype=dtype, device=parameter.device)


def in_order_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it in the order that `empty_like` has."""
    if parameter.is_contiguous() or layout_of(parameter) != "dense":
        return tensor.contiguous().resolve_neg()
    if layout_of(tensor) == "dense" and same_order(tensor, parameter):
        return tensor
    return empty_like(parameter, tensor.dtype).copy_(tensor)


def check_gradient(place: Place, gradient: Tensor) -> None:
    """Looks at what a step would read.

    Raises:
        TypeError, ValueError: It does not go with the parameter.
    """
    parameter = place.parameter
    if is_dtensor(gradient):
        raise TypeError(f"{place} has a DTensor as its gradient, but is none: give the optimizer the DTensor itself")
    if gradient.layout != torch.strided:
        raise TypeError(f"{place} has a gradient of layout {gradient.layout}, expected a dense one")
    if gradient.dtype != parameter.dtype:
        raise TypeError(f"{place} is of {parameter.dtype}, its gradient of {gradient.dtype}")
    if gradient.device != parameter.device:
        raise ValueError(f"{place} is on {parameter.device}, its gradient on {gradient.device}")
    if gradient.shape != parameter.shape:
        raise ValueError(f"{place} has a gradient of shape {tuple(gradient.shape)}")
