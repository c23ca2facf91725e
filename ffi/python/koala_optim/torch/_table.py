"""The parameters that libkoala steps: a table of their memory, made once, and one call for a step.

A step asks whether every parameter, gradient and entry of the state is there and lies as before; only if one does not
does it look closer. Then the table says where the gradients are, and libkoala is called.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import Executor
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from .._library import check, ffi, lib
from .._settings import Settings
from ._kinds import Kind, Numbers
from ._known import KnownState
from ._layouts import Layouts, layouts_of
from ._places import TYPES, Place, check_apart, check_gradient, empty_like, in_order_of, layout_of
from ._rows import Row, address_of, describe, divide, increment_version, state_type_of
from ._state import entries_of, has_state
from ._walk import Seen, Walk, gradients_of, new_walk


class Table:
    """The parameters of an optimizer that libkoala steps on the CPU.

    Args:
        places: The parameters, one at least, in groups that share the numbers of a method.
        groups: The optimizer's groups.
        states: The optimizer's state.
        kind: The method.
        numbers: Its numbers.
        step: A `koala_step *`, with the policies and the backend.
        threads: How many threads share the parameters.
        executor: Runs all of them but the calling one.
    """

    # The struct that libkoala takes of each.
    _struct_name = "koala_tensor"
    _where = "the CPU"

    def __init__(
        self,
        places: Sequence[Place],
        groups: list[dict[str, Any]],
        states: MutableMapping[Any, Any],
        kind: Kind,
        numbers: Numbers,
        step: Any,
        threads: int = 1,
        executor: Executor | None = None,
    ) -> None:
        parts = divide(places, threads)
        self._places = [place for part in parts for place in part]
        # Where in the places each part ends.
        self._ends = [sum(map(len, parts[: index + 1])) for index in range(len(parts))]
        self._parameters = [place.parameter for place in self._places]
        self._rows: list[Row | None] = [None] * len(self._places)
        # Which rows say what is: not those of parameters that have not been looked at since something changed.
        self._is_valid = [False] * len(self._places)
        self._groups, self._states, self._step, self._executor = groups, states, step, executor
        self._kind, self._numbers = kind, numbers
        self._vectors = [kind.vectors_of(group) for group in groups]
        self._maximizes = [kind.direction_of(group) for group in groups]
        self._values: list[tuple[Any, ...]] = [()] * len(groups)
        self._settings = ffi.new("koala_settings[]", len(groups))
        for settings in self._settings:
            Settings().to_c(settings)
        step.groups, step.group_count = self._settings, len(groups)
        # What the rows are of: how all parameters lie, and where, and what the state has.
        self._parameter_layouts: Layouts = layouts_of([])
        self._pointers = array("Q")
        self._known_state: KnownState | None = None
        # Looks whether all is as the last step found it; None: the next step takes a closer look.
        self._walk: Walk | None = None
        # The parameters that had a gradient.
        self._active: list[Place] = []
        self._active_parameters: list[Tensor] = []
        # The parameters that have to be copied there and back in each step.
        self._works: list[tuple[Tensor, Tensor]] = []
        self._table: Any = None
        self._reports: Any = ()
        # The reports of the last step.
        self._found: Any = ()
        # The words of the table that are addresses of gradients, and where the first of them is.
        self._column, self._first = memoryview(b""), 0
        self._calls: list[tuple[Any, ...]] = []

    def take(self, groups: list[dict[str, Any]], states: MutableMapping[Any, Any]) -> None:
        """Goes on with these: as many groups with the same parameters in them, and the state that there is now."""
        self._groups, self._states = groups, states

    def prepare_step(self, loss: float, noise: float, factor: float, alone: bool) -> Callable[[], bool]:
        """Looks at all that a step of every parameter that has a gradient, multiplied by that factor, would use.

        Args:
            alone: Whether nothing else is stepped, so that libkoala may look as it steps.

        Returns:
            What takes the step, and says whether the noise goes on: not if "keep_all" kept all parameters.

        Raises:
            TypeError, ValueError: A parameter, gradient, state or setting is not as it has to be. Nothing has been
                written. What is returned raises them too.
            NonFiniteError, BreakdownError: As the policies say, and only by what is returned.
        """
        step = self._step
        step.gradient_factor, step.gradient_limit = factor, self._groups[0]["gradient_limit"]
        step.loss, step.noise, step.method = loss, noise, self._numbers.struct
        kept = self.look()
        if len(self._calls) > 1 or not alone:
            self._have_all_looked_at()

        def finish(_kept: Any = kept) -> bool:
            self._take_step(self._call)
            if step.on_non_finite != lib.KOALA_ON_NON_FINITE_KEEP_ALL:
                return True
            return not any(call[-1].non_finite for call in self._calls)

        return finish

    def finds_trouble(self) -> bool:
        """Whether something is not finite in a step that `prepare_step` has looked at. Writes nothing but the outcomes
        of a step that keeps all parameters.
        """
        # Beside another tensor, of which one number is not finite.
        numbers = ffi.new("double[]", [0.0, math.nan, 0.0, 0.0])
        other = ffi.new(f"{self._struct_name} *")
        other.size, other.length, other.type = ffi.sizeof(self._struct_name), 1, TYPES[torch.float64]
        other.parameters, other.gradient, other.v, other.h = (numbers + place for place in range(4))
        report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
        self._found = ffi.new("koala_tensor_report[]", len(self._active) + 1)
        policy, self._step.on_non_finite = self._step.on_non_finite, lib.KOALA_ON_NON_FINITE_KEEP_ALL
        status = self._call_beside(other, self._found, report)
        self._step.on_non_finite = policy
        check(status, self._name)
        return bool(report.non_finite > 1)

    @property
    def gain(self) -> float:
        """The largest one in the last step."""
        return max((call[-1].gain for call in self._calls), default=0.0)

    def check(self) -> None:
        """Looks at all that the next step may refuse, and writes nothing.

        Raises:
            TypeError, ValueError: As `step`.
        """
        self.prepare_step(0.0, 1.0, self._groups[0]["gradient_factor"], alone=False)
        # libkoala looks at settings after tensors, and so without any.
        check(lib.koala_step_tensors(self._step, ffi.NULL, 0, ffi.NULL, ffi.NULL))

    def look(self) -> Any:
        """Looks at gradients and settings, and has the table say what the next step takes.

        Returns:
            What has to be kept until it is taken.

        Raises:
            TypeError, ValueError: As `step`.
        """
        kept: Any = None
        if self._walk is not None and self._known_state is not None and self._known_state.is_in(self._states):
            kept = self._walk.take()
        if kept is None:
            with torch.no_grad():
                kept = self._arrange(self._given(self._parameters))
            self._column[:] = memoryview(array("Q", map(Tensor.data_ptr, kept)))
        for index in self._changed_settings():
            self._change_settings(index)
        return kept

    def _take_step(self, call: Callable[[], None]) -> None:
        """Has `call` step what the table says."""
        for parameter, work in self._works:
            work.copy_(parameter.detach())
        self._found = self._reports
        call()
        for parameter, work in self._works:
            parameter.detach().copy_(work)
        increment_version(self._active_parameters)

    def outcomes(self) -> Iterator[tuple[str, int]]:
        """What the last step did with each parameter that had a gradient, by its name."""
        for place, report in zip(self._active, self._found):
            yield place.name, report.outcome

    def _given(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients there are."""
        return gradients_of(parameters)

    def _new_walk(self, seen: Seen) -> Walk:
        """Looks in the next step whether all is as it was seen."""
        return new_walk(seen, self._column, self._first)

    def _rows_are_valid(self) -> bool:
        """Whether parameters and state are where they were when the rows were made."""
        if self._known_state is None or self._parameter_layouts.addresses(self._parameters) != self._pointers:
            return False
        return self._known_state.is_in(self._states)

    def _arrange(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Looks at everything that may have changed, and makes the table fit."""
        present = [gradient is not None for gradient in gradients]
        given = [gradient for gradient in gradients if gradient is not None]
        self._walk = None
        if not self._rows_are_valid():
            self._known_state = None
            self._is_valid = [False] * len(self._places)
        if not all(compress(self._is_valid, present)):
            self._known_state = None
            # First, so that no state is made for a parameter that is not as it was meant.
            for place, gradient in zip(compress(self._places, present), given):
                if not has_state(self._states.get(place.owner, {}), self._vectors[place.group]):
                    check_gradient(place, gradient)
            self._make_rows(present)
        rows = [row for row in compress(self._rows, present) if row is not None]
        self._active = list(compress(self._places, present))
        self._active_parameters = [place.parameter for place in self._active]
        self._works = [(place.parameter, row.work) for place, row in zip(self._active, rows) if row.work is not None]
        lent, layouts = self._lend(given, present)
        self._fill(rows, present)
        if layouts is not None:
            seen = Seen(self._parameters, self._parameter_layouts, self._pointers, present, layouts)
            self._walk = self._new_walk(seen)
        return lent

    def _make_rows(self, present: Sequence[bool]) -> None:
        """Makes the rows of parameters that have a gradient, and remembers what all rows are of."""
        for index, (place, has_gradient) in enumerate(zip(self._places, present)):
            if has_gradient and not self._is_valid[index]:
                self._rows[index] = self._row(index, place)
                self._is_valid[index] = True
        check_apart(list(compress(self._places, self._is_valid)))
        self._parameter_layouts = layouts_of(self._parameters)
        self._pointers = array("Q", map(Tensor.data_ptr, self._parameters))
        self._known_state = KnownState(self._states, (*self._kind.vectors, "scalars"))

    def _lend(self, given: list[Tensor], present: Sequence[bool]) -> tuple[list[Tensor], Layouts | None]:
        """The gradients as libkoala reads them: those that lie as their parameters do are not copied.

        Returns:
            Also how they lie, unless one of them has to be copied in each step.
        """
        layouts = self._parameter_layouts.part(present)
        maximizes = [self._maximizes[place.group] for place in self._active]
        is_copied = bool(self._works) or any(maximizes) or any(map(Tensor.is_neg, given))
        if not is_copied and layouts.addresses(given) is not None:
            return given, layouts
        lent = []
        for place, gradient, maximize in zip(self._active, given, maximizes):
            check_gradient(place, gradient)
            gradient = gradient.detach()
            lent.append(in_order_of(place.parameter, gradient.neg() if maximize else gradient))
        is_copied = any(one.data_ptr() != other.data_ptr() for one, other in zip(lent, given) if one.numel())
        return lent, None if is_copied else layouts_of(given)

    def _is_here(self, parameter: Tensor) -> bool:
        return parameter.device.type == "cpu"

    def _fill(self, rows: list[Row], present: list[bool]) -> None:
        count = len(rows)
        self._table = ffi.new(f"{self._struct_name}[]", count)
        ffi.buffer(self._table)[:] = b"".join([row.content for row in rows])
        words = memoryview(ffi.buffer(self._table)).cast("B").cast("Q")
        size, offset = ffi.sizeof(self._struct_name), ffi.offsetof(self._struct_name, "gradient")
        self._column = words[offset // 8 :: size // 8]
        self._first = int(ffi.cast("uintptr_t", self._table)) + offset
        self._reports = self._found = ffi.new("koala_tensor_report[]", count)
        ends = [sum(present[:end]) for end in self._ends]
        self._calls = []
        for first, end in zip([0, *ends], ends):
            if end > first:
                report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
                self._calls.append((self._table + first, end - first, self._reports + first, report))

    def _row(self, index: int, place: Place) -> Row:
        """What the table says of a parameter, but for its gradient."""
        parameter, known = place.parameter, self._rows[index]
        if not self._is_here(parameter):
            raise ValueError(f"{place} is on {parameter.device}, but was on {self._where} before")
        state, layout = self._state(place), layout_of(parameter)
        types = [tensor.dtype for tensor in (parameter, *state.values())]
        key = (*map(Tensor.data_ptr, (parameter, *state.values())), parameter.numel(), *types, layout)
        if known is not None and known.key == key:
            return known
        work = None if layout == "dense" else empty_like(parameter, parameter.dtype)
        struct = ffi.new(f"{self._struct_name} *")
        struct.size = ffi.sizeof(self._struct_name)
        struct.length = parameter.numel()
        struct.type = TYPES[parameter.dtype]
        struct.parameters = address_of(parameter if work is None else work)
        self._describe_state(struct, index, state)
        return Row(key, bytes(ffi.buffer(struct)), work)

    def _state(self, place: Place) -> dict[str, Tensor]:
        """The vectors and scalars of a parameter."""
        dtype, vectors = self._groups[place.group].get("state_dtype"), self._vectors[place.group]
        return entries_of(place, self._states, dtype, vectors, False, self._kind.may_begin_late)

    def _describe_state(self, struct: Any, index: int, state: dict[str, Tensor]) -> None:
        struct.state_type = state_type_of(self._places[index], state)
        struct.group = self._places[index].group
        describe(struct, state)

    def _change_settings(self, index: int) -> None:
        """What there is to do when the settings of a group are others: nothing, where a step is given all of them."""

    def _learning_rate(self, index: int) -> Any:
        """That of a group: a number, or what stands for one that only a device knows."""
        return float(self._groups[index]["lr"])

    def _changed_settings(self) -> Iterator[int]:
        """The groups whose settings are not what they were."""
        for index, group in enumerate(self._groups):
            rate = self._learning_rate(index)
            values = (rate, *self._kind.settings_of(group))
            if values != self._values[index]:
                settings = self._settings[index]
                # One that only a device knows is given to libkoala by `_change_settings`.
                settings.learning_rate = rate if isinstance(rate, float) else 0.0
                self._kind.fill(settings, values[1:])
                yield index
                self._values[index] = values

    def _have_all_looked_at(self) -> None:
        """Has libkoala look at the whole table, so that no part of it is written if another one is wrong. A tensor is
        added to which no group belongs: libkoala refuses it, after all others, before it writes.
        """
        other = ffi.new(f"{self._struct_name} *")
        other.size, other.group = ffi.sizeof(self._struct_name), len(self._groups)
        status = self._call_beside(other, ffi.NULL, ffi.NULL)
        if status != lib.KOALA_STATUS_UNKNOWN_GROUP:
            check(status, self._name)

    def _call_beside(self, other: Any, reports: Any, report: Any) -> int:
        """Calls libkoala with the whole table and one tensor more. Returns the status."""
        count, scalars = len(self._active), ffi.new("koala_scalars *")
        other.scalars = scalars
        table = ffi.new(f"{self._struct_name}[]", count + 1)
        ffi.buffer(table)[:] = bytes(ffi.buffer(self._table)) + bytes(ffi.buffer(other))
        status: int = lib.koala_step_tensors(self._step, table, count + 1, reports, report)
        return status

    def _name(self, place: int) -> str:
        return str(self._active[place])[:-1]

    def _call(self) -> None:
        calls = self._calls
        if len(calls) <= 1 or self._executor is None:
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
        first = table - self._table
        status = lib.koala_step_tensors(self._step, table, count, reports, report)
        check(status, lambda place: self._name(first + place))
