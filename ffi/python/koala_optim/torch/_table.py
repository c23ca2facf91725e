"""The parameters that libkoala steps: a table of their memory, made once, and one call for a step.

A step asks whether every parameter and gradient lies as before; only if one does not does it look closer. Then it
writes where the gradients are, and calls.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import Executor
from itertools import compress
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._library import KoalaError, check, ffi, lib
from .._settings import STATE_TYPES, VARIANTS, number
from ._layouts import Layouts, layouts_of
from ._places import TYPES, Place, check_gradient, empty_like, in_order_of, layout_of
from ._state import State, state_of

_gradient = attrgetter("grad")

_WORDS = ffi.sizeof("koala_tensor") // 8
_GRADIENT = ffi.offsetof("koala_tensor", "gradient") // 8


class _Row(NamedTuple):
    """What a parameter has in the table, and what keeps it alive."""

    struct: Any
    state: State
    # Where the parameter is; and what is stepped in its place, if its elements lie apart.
    pointer: int
    work: Tensor | None


class Table:
    """The parameters of an optimizer that libkoala steps.

    Args:
        places: The parameters.
        groups: The optimizer's groups.
        states: The optimizer's state.
        step: A `koala_step *`, with the policies and the backend.
        threads: How many threads share the parameters.
        executor: Runs all of them but the calling one.
    """

    def __init__(
        self,
        places: Sequence[Place],
        groups: list[dict[str, Any]],
        states: MutableMapping[Any, Any],
        step: Any,
        threads: int,
        executor: Executor | None,
    ) -> None:
        parts = _divide(places, threads)
        self._places = [place for part in parts for place in part]
        # Where in the places each part ends.
        self._ends = [sum(map(len, parts[: index + 1])) for index in range(len(parts))]
        self._parameters = [place.parameter for place in self._places]
        self._rows: list[_Row | None] = [None] * len(self._places)
        self._groups, self._states, self._step, self._executor = groups, states, step, executor
        self._values: list[tuple[Any, ...]] = [()] * len(groups)
        self._settings = ffi.new("koala_settings[]", len(groups))
        for settings in self._settings:
            settings.size = ffi.sizeof("koala_settings")
        step.groups, step.group_count = self._settings, len(groups)
        # What the last step found: which parameters have a gradient, and of those how both lie, and where the parameter
        # is.
        self._present: list[bool] = []
        self._all_present = False
        self._active: list[Place] = []
        self._active_parameters: list[Tensor] = []
        self._parameter_layouts: Layouts = layouts_of([])
        self._gradient_layouts: Layouts = layouts_of([])
        self._pointers = array("Q")
        # Whether a gradient has to be copied in each step, and the parameters that have to be.
        self._copies = False
        self._works: list[tuple[Tensor, Tensor]] = []
        self._table: Any = None
        self._reports: Any = ()
        self._words = memoryview(b"")
        self._calls: list[tuple[Any, ...]] = []

    def step(self, loss: float, noise: float) -> bool:
        """Steps every parameter that has a gradient.

        Returns:
            Whether the noise goes on: not if "keep_all" kept them all.

        Raises:
            TypeError, ValueError: A parameter, gradient, state or setting is not as it has to be. Nothing has been
                written.
            NonFiniteError, BreakdownError: As the policies say.
        """
        addresses, _kept = self._gradients()
        self._update_settings()
        self._words[_GRADIENT::_WORDS] = memoryview(addresses)
        step = self._step
        step.loss, step.noise = loss, noise
        for parameter, work in self._works:
            work.copy_(parameter.detach())
        self._call()
        for parameter, work in self._works:
            parameter.detach().copy_(work)
        # What autograd has saved of a parameter is not what it was.
        _increment_version(self._active_parameters)
        if step.on_non_finite != lib.KOALA_ON_NON_FINITE_KEEP_ALL:
            return True
        return not any(call[-1].non_finite for call in self._calls)

    def outcomes(self) -> Iterator[tuple[str, int]]:
        """What the last step did with each parameter that had a gradient, by its name."""
        for place, report in zip(self._active, self._reports):
            yield place.name, report.outcome

    def _gradients(self) -> tuple[array[int], Any]:
        """Where the gradients are, with the table fit for them; and what has to be kept until the step is done."""
        gradients: list[Tensor] = list(map(_gradient, self._parameters))
        given = gradients
        known = not self._copies
        if not self._all_present:
            present = [gradient is not None for gradient in gradients]
            known = known and present == self._present
            given = list(compress(gradients, present))
        if known:
            addresses = self._gradient_layouts.addresses(given)
            if addresses is not None and self._parameter_layouts.addresses(self._active_parameters) == self._pointers:
                return addresses, given
        with torch.no_grad():
            lent = self._arrange(gradients)
        return array("Q", map(Tensor.data_ptr, lent)), lent

    def _arrange(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Looks at everything, and makes the table fit."""
        present = [gradient is not None for gradient in gradients]
        given = [gradient for gradient in gradients if gradient is not None]
        places = list(compress(self._places, present))
        self._present = []  # Unless all goes well, the next step looks again.
        self._all_present = False
        lent, rows = [], []
        for index, (place, gradient) in enumerate(zip(self._places, gradients)):
            if gradient is not None:
                check_gradient(place, gradient)
                rows.append(self._row(index, place))
                lent.append(in_order_of(place.parameter, gradient.detach().resolve_neg()))
        self._fill(rows, present)
        parameters = [place.parameter for place in places]
        self._active, self._active_parameters = places, parameters
        self._works = [(place.parameter, row.work) for place, row in zip(places, rows) if row.work is not None]
        self._parameter_layouts, self._gradient_layouts = layouts_of(parameters), layouts_of(given)
        self._pointers = array("Q", [row.pointer for row in rows])
        self._copies = any(one.data_ptr() != other.data_ptr() for one, other in zip(lent, given) if one.numel())
        self._present, self._all_present = present, all(present)
        return lent

    def _fill(self, rows: list[_Row], present: list[bool]) -> None:
        count = len(rows)
        self._table = ffi.new("koala_tensor[]", count)
        for index, row in enumerate(rows):
            self._table[index] = row.struct[0]
        self._words = memoryview(ffi.buffer(self._table)).cast("B").cast("Q")
        self._reports = ffi.new("koala_tensor_report[]", count)
        ends = [sum(present[:end]) for end in self._ends]
        self._calls = []
        for first, end in zip([0, *ends], ends):
            if end > first:
                report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
                self._calls.append((self._table + first, end - first, self._reports + first, report))

    def _row(self, index: int, place: Place) -> _Row:
        """What the table says of a parameter, but for its gradient."""
        parameter, known = place.parameter, self._rows[index]
        state = state_of(place, self._states, self._groups[place.group]["state_dtype"])
        if known is not None and known.pointer == parameter.data_ptr() and _same(known.state, state):
            if known.struct.length == parameter.numel() and known.struct.type == TYPES[parameter.dtype]:
                return known
        if parameter.device.type != "cpu":
            raise ValueError(f"{place} is on {parameter.device}, but was on the CPU before")
        struct = ffi.new("koala_tensor *")
        struct.size = ffi.sizeof("koala_tensor")
        struct.length = parameter.numel()
        struct.type = TYPES[parameter.dtype]
        state_type = "same" if state.v.dtype == parameter.dtype else str(state.v.dtype).replace("torch.", "")
        struct.state_type = STATE_TYPES[state_type]
        struct.group = place.group
        work = None if layout_of(parameter) == "dense" else empty_like(parameter, parameter.dtype)
        struct.parameters = _address(parameter if work is None else work)
        struct.v, struct.h = _address(state.v), _address(state.h)
        struct.scalars = ffi.cast("koala_scalars *", state.scalars.data_ptr())
        row = self._rows[index] = _Row(struct, state, parameter.data_ptr(), work)
        return row

    def _update_settings(self) -> None:
        for index, group in enumerate(self._groups):
            values = (
                float(group["lr"]),
                group["weight_decay"],
                group["initial_variance"],
                group["process_noise"],
                group["variant"],
            )
            if values != self._values[index]:
                settings = self._settings[index]
                settings.learning_rate, settings.weight_decay = values[:2]
                settings.initial_variance, settings.process_noise = values[2:4]
                settings.variant = number("variant", group["variant"], VARIANTS)
                self._values[index] = values

    def _call(self) -> None:
        calls = self._calls
        if len(calls) == 1 or self._executor is None:
            for call in calls:
                self._call_library(*call)
            return
        others = [self._executor.submit(self._call_library, *call) for call in calls[1:]]
        try:
            self._call_library(*calls[0])
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error

    def _call_library(self, table: Any, count: int, reports: Any, report: Any) -> None:
        try:
            check(lib.koala_step_tensors(self._step, table, count, reports, report))
        except KoalaError as error:
            first = table - self._table

            def name(match: re.Match[str]) -> str:
                return str(self._active[first + int(match[1])])[:-1]

            raise type(error)(error.status, re.sub(r'tensor "(\d+)"', name, str(error))) from None


def _divide(places: Sequence[Place], count: int) -> list[list[Place]]:
    """Divides parameters into parts of about the same number of elements, each in their order."""
    parts: list[list[int]] = [[] for _ in range(max(1, count))]
    loads = [0] * len(parts)
    for index in sorted(range(len(places)), key=lambda index: -places[index].parameter.numel()):
        lightest = loads.index(min(loads))
        parts[lightest].append(index)
        loads[lightest] += places[index].parameter.numel()
    return [[places[index] for index in sorted(part)] for part in parts]


def _address(tensor: Tensor) -> Any:
    return ffi.cast("void *", tensor.data_ptr())


def _increment_version(tensors: list[Tensor]) -> None:
    try:
        torch.autograd.graph.increment_version(tensors)
    except TypeError:
        # Before PyTorch 2.7 it takes one.
        for tensor in tensors:
            torch.autograd.graph.increment_version(tensor)


def _same(one: State, other: State) -> bool:
    return all(left is right for left, right in zip(one, other))
