"""The parameters of a step, divided into those that take one call of the kernel, which share a method with all of its
numbers. Several calls are made as one would be: what keeps all parameters of a call keeps those of the others too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy
from torch import Tensor

from .. import numpy as kernel
from .._library import KoalaError, check, ffi, lib, renamed
from .._methods import Method
from ._places import Place, layout_of
from ._table import increment_version

_Some = TypeVar("_Some", bound=Method)


class Call(NamedTuple):
    """Parameters of one method, and what the kernel takes of each of them."""

    method: Method
    places: list[Place]
    tensors: list[kernel.Tensor]

    def step(self, **options: Any) -> kernel.Report:
        """See `koala_optim.numpy.step_many`. Errors have the names of parameters."""
        with self._written():
            return kernel.step_many(self.tensors, method=self.method, **options)

    def predict(self, method: _Some, backend: str) -> _Some:
        """See `koala_optim.numpy.predict`."""
        with self._written():
            return kernel.predict(self.tensors, method, backend=backend)

    def look(self, **options: Any) -> kernel.Report:
        """Looks at all that a step looks at, and writes nothing.

        Returns:
            The report of a step by "keep_all", in which another parameter is not finite.
        """
        zeros = numpy.zeros(1)
        other = kernel.Tensor(zeros, numpy.full(1, math.nan), *kernel.new_state(zeros, method=self.method))
        options["on_non_finite"] = "keep_all"
        with self._named():
            report = kernel.step_many([*self.tensors, other], method=self.method, **options)
        return report._replace(non_finite=report.non_finite - 1, tensors=report.tensors[:-1])

    def check(self, **options: Any) -> None:
        """Looks at what the kernel looks at before it reads an element, and writes nothing.

        Raises:
            KoalaError: It refuses a number or a tensor.
        """
        count, zeros = len(self.tensors), numpy.zeros(1)
        other = kernel.Tensor(zeros, numpy.zeros(1), *kernel.new_state(zeros, method=self.method))
        with self._named():
            call = kernel._Call([*self.tensors, other], method=self.method, **options)
            # There is no such group, so that the last tensor is refused, after all others.
            call.tensors[count].group = len(call.groups)
            status = lib.koala_step_tensors(call.step, call.tensors, count + 1, ffi.NULL, ffi.NULL)
            if status != lib.KOALA_STATUS_UNKNOWN_GROUP:
                check(status)

    @contextmanager
    def _written(self) -> Iterator[None]:
        with self._named():
            yield
        for place, tensor in zip(self.places, self.tensors):
            if layout_of(place.parameter) != "dense":
                work = tensor.parameters
                assert isinstance(work, Tensor)
                place.parameter.detach().copy_(work.view(place.parameter.shape))
        increment_version([place.parameter for place in self.places])

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except KoalaError as error:
            raise renamed(error, lambda number: str(self.places[number])[:-1]) from None


def step_all(calls: Sequence[Call], **options: Any) -> list[kernel.Report]:
    """Steps the tensors of all calls, or none of them. The arguments are those of `koala_optim.numpy.step_many`.

    Raises:
        KoalaError: As `koala_optim.numpy.step_many`. Nothing has been written.
    """
    if len(calls) > 1:
        looks = [call.look(**options) for call in calls]
        for call, look in zip(calls, looks):
            if look.non_finite and options["on_non_finite"] == "keep_all":
                return looks
            if look.non_finite and options["on_non_finite"] == "error":
                # It says which one is not finite, by an error.
                call.step(**options)
    return [call.step(**options) for call in calls]
