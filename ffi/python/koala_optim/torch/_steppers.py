"""What steps the parameters of an optimizer: tables of libkoala's where it has a kernel, and operations of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from .._library import check, ffi, lib
from .._settings import ON_BREAKDOWN, ON_NON_FINITE, OnBreakdown, OnNonFinite, backend_number, number
from ._around import warn
from ._cuda import new_tables
from ._kinds import KINDS, KOALA_PLUS_PLUS, Kind, Numbers
from ._operations import Operations
from ._places import Place, has_kernel
from ._table import Table
from ._threads import Threads, counted

Stepper = Union[Table, Operations]


@dataclass(frozen=True)
class Configuration:
    """What holds for all groups, and does not change.

    Attributes:
        method: The name of a `Kind`.
        on_non_finite, on_breakdown, backend, threads, fallback: Arguments of `KoalaPlusPlus`.

    Raises:
        TypeError, ValueError: One of them is not as it has to be.
        BackendError: This processor lacks the backend.
    """

    method: str
    on_non_finite: OnNonFinite = "keep_tensor"
    on_breakdown: OnBreakdown = "restart"
    backend: str = "fastest"
    threads: int = 1
    fallback: Literal["torch", "error"] = "torch"

    def __post_init__(self) -> None:
        counted(self.threads)
        if self.fallback not in ("torch", "error"):
            raise ValueError(f"fallback is {self.fallback!r}, expected 'torch' or 'error'")
        self.step()

    def step(self) -> Any:
        """A `koala_step *` with it."""
        step = ffi.new("koala_step *")
        check(lib.koala_step_init(step, ffi.sizeof("koala_step")))
        step.backend = backend_number("fastest" if self.is_by_pytorch else self.backend)
        step.on_non_finite = number("on_non_finite", self.on_non_finite, ON_NON_FINITE)
        step.on_breakdown = number("on_breakdown", self.on_breakdown, ON_BREAKDOWN)
        return step

    @property
    def kind(self) -> Kind:
        """See `method`."""
        return KINDS[self.method]

    @property
    def is_by_pytorch(self) -> bool:
        """Whether operations of PyTorch were asked for, which only KOALA++ has."""
        return self.backend == "torch" and self.method == KOALA_PLUS_PLUS

    @property
    def is_atomic(self) -> bool:
        """Whether trouble with one parameter may keep all of them."""
        return self.on_non_finite in ("keep_all", "error") or self.on_breakdown == "error"

    @property
    def raises(self) -> bool:
        """Whether trouble with a parameter may be an error, so that a step has to wait for its device."""
        return "error" in (self.on_non_finite, self.on_breakdown)


def new_steppers(
    places: Sequence[Place],
    groups: list[dict[str, Any]],
    states: MutableMapping[Any, Any],
    configuration: Configuration,
    noise: float,
    numbers: Mapping[int, Numbers],
    numbers_of_groups: Sequence[int],
) -> Sequence[Stepper]:
    """What steps all parameters.

    Args:
        places, groups, states: See `Table`.
        noise: R before the next step.
        numbers: Those of the method that there are among the groups.
        numbers_of_groups: Which of them each group has.

    Raises:
        TypeError: Neither libkoala nor PyTorch's operations are to step a parameter.
    """
    kernel = [has_kernel(place) and not configuration.is_by_pytorch for place in places]
    others = [place for place, has in zip(places, kernel) if not has]
    if others and not configuration.is_by_pytorch:
        tables, why_not = new_tables(places, groups, states, configuration, noise)
        if tables:
            return tables
        _announce(others, why_not, configuration)
    if others and configuration.is_atomic:
        # Only one of them can tell whether all are well.
        others, kernel = list(places), [False] * len(places)
    steppers: list[Stepper] = []
    threads = 1 if configuration.is_atomic else counted(configuration.threads)
    executor = Threads(threads - 1) if threads > 1 else None
    for index, shared in numbers.items():
        own = [place for place, has in zip(places, kernel) if has and numbers_of_groups[place.group] == index]
        if own:
            step, kind = configuration.step(), configuration.kind
            steppers.append(Table(own, groups, states, kind, shared, step, threads, executor))
    if others:
        steppers.append(Operations(others, groups, states, configuration.step()))
    return steppers


def _announce(others: Sequence[Place], why_not: str, configuration: Configuration) -> None:
    """Says that operations of PyTorch step what libkoala cannot."""
    device = others[0].parameter.device
    if configuration.fallback == "error":
        raise TypeError(f"{others[0]} is on {device}, where libkoala has no kernel{why_not}")
    stepped = f"{len(others)} parameters are stepped by operations of PyTorch"
    warn(f"libkoala has no kernel for {device}{why_not}: {stepped}")
