"""The processes of torch.distributed that step together: what each of them measured is averaged before it is used, so
that replicas stay equal to the bit; and their parameters are compared once, before the first step.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

import torch
from torch import Tensor

from ._around import warn
from ._divided import are_flattened, how_divided
from ._loss import Measurement
from ._places import Place, places_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

ProcessGroupOrFalse = Union["ProcessGroup", Literal[False], None]

# A hash is taken of so many elements at once: in a processor they stay in its cache.
_CHUNK, _CHUNK_ELSEWHERE = 1 << 16, 1 << 24

# What the bits of an element are read as: of float64, two of them.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}

# 2⁶⁴ over the golden ratio, as a signed number: it scatters small numbers over 64 bits.
_SCATTER = 0x9E3779B97F4A7C15 - (1 << 64)


# What a rank that could not measure has.
_NOTHING: Measurement = (math.nan, math.nan)


class Agreed(NamedTuple):
    """What all ranks go by.

    Attributes:
        measurement: L and m, averaged.
        found_inf: Above 0 if a GradScaler found on one of the ranks that something is infinite; None without a scaler.
    """

    measurement: Measurement
    found_inf: Tensor | None


class Ranks:
    """The ranks that an optimizer's step is averaged over.

    Args:
        process_group: None: the default group, once torch.distributed is initialized with more than one process; a
            process group; or False: none.
        per_shard: Whether a part of a tensor is stepped as a tensor of its own.

    Raises:
        TypeError: It is something else.
    """

    def __init__(self, process_group: ProcessGroupOrFalse, per_shard: bool = False) -> None:
        distributed: Any = torch.distributed
        if process_group is not None and process_group is not False:
            known = (distributed.ProcessGroup,) if distributed.is_available() else ()
            # In a process outside of it, `new_group` returns a number for the group.
            outside = distributed.is_available() and process_group is distributed.GroupMember.NON_GROUP_MEMBER
            if not (isinstance(process_group, known) or outside):
                raise TypeError(f"process_group is {process_group!r}, expected a process group, None or False")
        self._group: Any = process_group
        self.per_shard = per_shard
        # What all groups were given, until the first step.
        self._given: list[Tensor] | None = []
        # Whether they had flat pieces of it in its place by then.
        self.flattened = False
        self._compared = False

    def __deepcopy__(self, memo: Any) -> Ranks:
        ranks: Ranks = Ranks.__new__(Ranks)
        ranks.__dict__.update(self.__dict__, _given=None, _compared=False)
        return ranks

    def __getstate__(self) -> dict[str, Any]:
        if self._group is not None and self._group is not False:
            raise TypeError("an optimizer with a process_group of its own cannot be pickled; its state_dict() can be")
        return {**self.__dict__, "_given": None, "_compared": False}

    def give(self, parameters: Sequence[Tensor]) -> None:
        """Says what a new group has."""
        if self._given is not None:
            self._given.extend(parameters)

    def look_at(self, groups: Sequence[dict[str, Any]]) -> None:
        """Before the first step, looks at whether groups have what they were given."""
        if self._given is not None:
            now = [parameter for group in groups for parameter in group["params"]]
            self.flattened = are_flattened(self._given, now)
            self._given = None

    def are_several(self) -> bool:
        """Whether other processes take each step together with this one."""
        return self._current_group() is not None

    def agree(
        self, measure: Callable[[], Measurement], groups: list[dict[str, Any]], found_inf: Tensor | None
    ) -> Agreed:
        """The average of what all ranks measured: the same bits on each of them. Each rank counts the same, as it does
        where gradients are averaged. What is not finite on one rank is not finite on any.

        Args:
            measure: Measures this rank's loss, and looks at what else may be wrong here. If it raises, this process
                raises that, and the others raise too; but where measurements are on a GPU, which nothing waits for
                after the first step, the others have one that is not finite.
            groups: The optimizer's.
            found_inf: As in `Agreed`, of this rank.

        Raises:
            RuntimeError: `measure` raised on another rank.
        """
        group = self._current_group()
        if group is None:
            return Agreed(measure(), found_inf)
        failed, measurement = None, _NOTHING
        try:
            measurement = measure()
        except Exception as error:
            failed = error
        device = _device_of(group, groups)
        numbers = (failed is not None, not self._compared, 0.0 if found_inf is None else found_inf, *measurement)
        rows = _gather(group, torch.stack([_on(device, number) for number in numbers]))
        if failed is not None:
            raise failed
        waits = device.type == "cpu" or not isinstance(measurement, Tensor) or not self._compared
        if waits and rows[:, 0].any():
            raise _elsewhere(group, rows[:, 0])
        if waits and rows[:, 1].any():
            # Parts are not the same, and need not be.
            whole = [place for place in places_of(groups) if not (self.flattened or how_divided(place.owner))]
            _compare(group, whole, device)
            self._compared = True
        mean = _mean(rows[:, 3:])
        return Agreed(
            mean if isinstance(measurement, Tensor) else (mean[0].item(), mean[1].item()),
            None if found_inf is None else rows[:, 2].amax(),
        )

    def _current_group(self) -> Any:
        """The process group, if there is more than this process in it."""
        distributed: Any = torch.distributed
        if self._group is False or not (distributed.is_available() and distributed.is_initialized()):
            return None
        group = distributed.group.WORLD if self._group is None else self._group
        return group if distributed.get_world_size(group) > 1 else None


def _device_of(group: Any, groups: list[dict[str, Any]]) -> torch.device:
    """Where the group's backend takes tensors from: where the parameters are, if it does, and on the CPU else. It is
    the same kind of device on all ranks, whatever they were given as the loss.
    """
    pairs = torch.distributed.get_backend_config(group).split(",")
    backends = dict(pair.split(":", 1) for pair in pairs)
    here = next((parameter.device for one in groups for parameter in one["params"]), torch.device("cpu"))
    # gloo takes a GPU's tensors too, over the CPU, which waits for them.
    if backends.get(here.type, "gloo") != "gloo":
        return here
    if "cpu" in backends:
        return torch.device("cpu")
    kind = next(iter(backends))
    return torch.device(kind, getattr(torch, kind).current_device())


def _on(device: torch.device, number: float | Tensor) -> Tensor:
    """A float64 there, which nothing waits for if that is a GPU."""
    if not isinstance(number, Tensor):
        return torch.full((), number, dtype=torch.float64, device=device)
    return number.detach().reshape(()).to(device, torch.float64, non_blocking=device.type != "cpu")


def _gather(group: Any, row: Tensor) -> Tensor:
    """The rows of all ranks, in their order."""
    rows = row.new_empty(torch.distributed.get_world_size(group), *row.shape)
    torch.distributed.all_gather(list(rows), row, group)
    return rows


def _mean(rows: Tensor) -> Tensor:
    """Adds neighbours, then their sums, and so on: an order that nothing but the number of ranks decides."""
    count = len(rows)
    while len(rows) > 1:
        if len(rows) % 2:
            rows = torch.cat([rows, torch.zeros_like(rows[:1])])
        rows = rows[0::2] + rows[1::2]
    return rows[0] / count


def _elsewhere(group: Any, failed: Tensor) -> RuntimeError:
    ranks = [torch.distributed.get_global_rank(group, index) for index in failed.nonzero().flatten().tolist()]
    which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
    return RuntimeError(f"{which} could not take this step, and says why; no parameter has been written on any rank")


def _compare(group: Any, places: Sequence[Place], device: torch.device) -> None:
    """Warns if the parameters are not the same on all ranks. All of them come to the same end."""
    prints = [fingerprint(place.parameter).to(device) for place in places]
    own = torch.stack(prints) if prints else torch.zeros(0, dtype=torch.int64, device=device)
    found = _gather(group, torch.stack([torch.tensor(len(prints), device=device), fingerprint(own)]))
    if (found == found[0]).all():
        return
    counts = found[:, 0].tolist()
    if min(counts) < max(counts):
        what = f"the ranks have different numbers of parameters ({', '.join(map(str, counts))})"
    else:
        rows = _gather(group, own)
        differs = rows != rows[0]
        index = int(differs.any(0).nonzero()[0])
        rank = torch.distributed.get_global_rank(group, int(differs[:, index].nonzero()[0]))
        first = torch.distributed.get_global_rank(group, 0)
        what = f"{places[index]} has other numbers on rank {rank} than on rank {first}"
    warn(
        f"{what}: replicas that begin apart stay apart. Give all of them the same parameters, as "
        "DistributedDataParallel does; where they are not meant to be the same, give the process_group of those that "
        "are, or, if each rank steps some of the tensors, filter this warning"
    )


@torch.no_grad()
def fingerprint(tensor: Tensor) -> Tensor:
    """A hash of shape, type and bits, as one int64 on the tensor's device, where it is the same on every device."""
    integers = tensor.detach().contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
    # The sum of integers does not depend on its order. Each is multiplied by a number of its own, which is odd.
    total = torch.full((), _hash((str(tensor.dtype), *tensor.shape)), dtype=torch.int64, device=tensor.device)
    size = _CHUNK if tensor.device.type == "cpu" else _CHUNK_ELSEWHERE
    for begin in range(0, len(integers), size):
        chunk = integers[begin : begin + size]
        weights = torch.arange(begin + 1, begin + 1 + len(chunk), device=tensor.device) * _SCATTER
        total += (chunk * (weights ^ (weights >> 32) | 1)).sum()
    return total


def _hash(values: Sequence[Any]) -> int:
    """Of what prints the same on every rank: Python's own hash of texts differs from process to process."""
    return zlib.crc32(repr(values).encode())
