"""KOALA-M's prediction, which moves parameters before their gradients are taken."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._library import check, ffi, lib
from ._table import Table
from ._walk import PythonWalk, Seen, Walk


class Prediction(Table):
    """The parameters that a prediction of KOALA-M moves: those that are trained, with a gradient or without."""

    def predict(self) -> tuple[float, int]:
        """Moves them.

        Returns:
            The sum of the squares of how far they were from their averages, and how many elements they have.

        Raises:
            TypeError, ValueError: As `Table.prepare_step`. Nothing has been written.
        """
        self._step.method = self._numbers.struct
        _kept = self.look()
        distance, elements = ffi.new("double *"), ffi.new("size_t *")

        def call() -> None:
            count = len(self._active)
            check(lib.koala_predict_tensors(self._step, self._table, count, distance, elements), self._name)

        self._take_step(call)
        return distance[0], elements[0]

    def _given(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        # The gradients may not be there yet, and are not looked at: the parameters stand in for them.
        return [parameter if parameter.requires_grad else None for parameter in parameters]

    def _new_walk(self, seen: Seen) -> Walk:
        return PythonWalk(seen, self._column, self._given)
