"""Parameters of which each process has a part: how they are recognised. And DTensors, whole ones too: what of them is
in this process, as plain tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# The pieces of DTensors that are parameters.
_pieces: Any = WeakTensorKeyDictionary()


def is_dtensor(tensor: Tensor) -> bool:
    """Whether it is a DTensor, in a PyTorch that may have none."""
    return type(tensor).__name__ == "DTensor"


def how_divided(parameter: Any) -> str | None:
    """What it is that a parameter is a part of; None if it is whole, as far as it can be seen: a tensor that somebody
    has taken out of a DTensor looks like any other.
    """
    if is_dtensor(parameter):
        if all(placement.is_replicate() for placement in parameter.placements):
            return None
        return f"a DTensor of placements {parameter.placements}, as of fully_shard (FSDP2) or tensor parallelism"
    if getattr(parameter, "_fsdp_flattened", False):
        return "a flat parameter of FullyShardedDataParallel, or its part of one"
    return None


def are_flattened(given: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Whether what all groups have now are flat pieces of what they were given: none of it, but other tensors of one
    dimension, not all of the shapes that were given; and fewer of them, or one process's part of as many elements. So
    are those of DeepSpeed's ZeRO and BF16_Optimizer, and of Megatron.
    """
    known, shapes = set(map(id, given)), [parameter.shape for parameter in given]
    if not now or any(parameter.dim() != 1 or id(parameter) in known for parameter in now):
        return False
    if all(parameter.shape in shapes for parameter in now):
        return False
    return len(now) < len(given) or (len(now) == len(given) and _are_parts(given, now))


def _are_parts(given: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Whether each tensor is the part that one of several processes has of another, with or without padding to a
    multiple of two elements for each process.
    """
    distributed: Any = torch.distributed
    count = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    pairs = [(whole.numel(), part.numel()) for whole, part in zip(given, now)]
    return count > 1 and all(part in (-(-whole // count), 2 * -(-whole // (2 * count))) for whole, part in pairs)


@torch.no_grad()
def local(tensor: Any) -> Tensor:
    """What of a tensor is in this process, in the same memory: all of it, but for a DTensor."""
    found: Tensor = tensor.to_local() if is_dtensor(tensor) else tensor
    return found


def piece_of(parameter: Any) -> Tensor:
    """What of a DTensor is in this process, in the same memory: always the same tensor, which moves with it."""
    found = local(parameter)
    piece: Tensor | None = _pieces.get(parameter)
    if piece is None:
        piece = _pieces[parameter] = found.detach()
    elif piece.data_ptr() != found.data_ptr() or piece.shape != found.shape or piece.stride() != found.stride():
        piece.data = found.detach()
    return piece.requires_grad_(parameter.requires_grad)


@torch.no_grad()
def lend_gradient(parameter: Any) -> None:
    """Gives a DTensor's piece its part of the gradient. Where the gradient is divided in another way, all processes
    have to call this.

    Raises:
        TypeError: The gradient is no DTensor.
    """
    gradient = parameter.grad
    if gradient is not None:
        if not is_dtensor(gradient):
            raise TypeError(f"a DTensor has a gradient of type {type(gradient).__name__}")
        if gradient.placements != parameter.placements:
            gradient = gradient.redistribute(placements=parameter.placements)
        gradient = local(gradient)
    piece_of(parameter).grad = gradient


def like_owner(owner: Any, entries: Mapping[str, Tensor], per_shard: bool) -> dict[str, Any]:
    """The state of a DTensor's piece as that of the DTensor: vectors are divided as it is, so that checkpoints of a
    whole model can have them. The scalars are the same in all processes; unless each steps its shard as a tensor of its
    own: then those of all shards lie side by side.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard

    def wrap(name: str, tensor: Tensor) -> Any:
        if name != "scalars":
            shape = {"shape": owner.shape, "stride": owner.stride()}
            return DTensor.from_local(tensor, owner.device_mesh, owner.placements, run_check=False, **shape)
        if how_divided(owner) is None or not per_shard:
            return tensor
        placements = [Replicate() if placement.is_replicate() else Shard(0) for placement in owner.placements]
        return DTensor.from_local(tensor, owner.device_mesh, placements, run_check=False)

    return {name: wrap(name, tensor) for name, tensor in entries.items()}
