"""A walk over the parameters of a table in each step: whether they and their gradients lie as they did, and where the
gradients are now."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from .._native import array_address, function_address, library
from ._layouts import Exchanged, Layouts


class Seen(NamedTuple):
    """What the last look at all parameters of a table found.

    Attributes:
        parameters: All of them.
        layouts: How they lie.
        addresses: Where.
        present: Which of them have a gradient.
        gradient_layouts: How these lie.
    """

    parameters: list[Tensor]
    layouts: Layouts
    addresses: array[int]
    present: list[bool]
    gradient_layouts: Layouts


class Walk(Protocol):
    """Goes over all parameters."""

    def take(self) -> list[Any] | None:
        """Writes into the table where the gradients are, if all is as it was seen. Else, returns None.

        Returns:
            The gradients, which have to be kept until the step is done.
        """


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Those there are."""
    return list(map(_gradient, parameters))


def new_walk(seen: Seen, column: memoryview, address: int) -> Walk:
    """A walk over what was seen.

    Args:
        column: The words of the table that are addresses of gradients.
        address: Where the first of them is.
    """
    if isinstance(seen.layouts, Exchanged) and isinstance(seen.gradient_layouts, Exchanged):
        return NativeWalk(seen, seen.layouts, seen.gradient_layouts, column, address)
    return PythonWalk(seen, column, gradients_of)


class NativeWalk:
    """`Walk` in one call of native code."""

    def __init__(
        self, seen: Seen, layouts: Exchanged, gradient_layouts: Exchanged, column: memoryview, address: int
    ) -> None:
        self._none = [None] * sum(seen.present)
        parameters, present = array("Q", map(id, seen.parameters)), array("B", seen.present)
        tools = _tools(layouts.exchange)
        # `Known` of src/walk.rs.
        known = array("Q", [len(parameters)])
        known.extend(
            map(array_address, (parameters, layouts.records, seen.addresses, present, gradient_layouts.records))
        )
        known.extend((address, column.strides[0] if column.strides else 0))
        # All that is given by its address is kept alive.
        self._kept = seen, column, parameters, present, known, tools
        self._arguments = array_address(tools), array_address(known)

    def take(self) -> list[Any] | None:
        """See `Walk.take`."""
        kept: list[Any] = self._none.copy()
        try:
            return kept if library.koala_walk(*self._arguments, kept) else None
        except Exception:
            # There is one that DLPack cannot describe.
            return None


class PythonWalk:
    """`Walk` by a few passes over all parameters, each at C's speed.

    Args:
        seen, column: See `new_walk`.
        given: Looks up what is in the place of each parameter's gradient.
    """

    def __init__(
        self, seen: Seen, column: memoryview, given: Callable[[Sequence[Tensor]], list[Tensor | None]]
    ) -> None:
        self._seen, self._column, self._given = seen, column, given

    def take(self) -> list[Any] | None:
        """See `Walk.take`."""
        seen = self._seen
        given = self._given(seen.parameters)
        if [gradient is not None for gradient in given] != seen.present:
            return None
        if seen.layouts.addresses(seen.parameters) != seen.addresses:
            return None
        gradients: list[Any] = list(compress(given, seen.present))
        addresses = seen.gradient_layouts.addresses(gradients)
        # How a tensor lies does not say whether its memory has the opposites of its numbers.
        if addresses is None or any(map(Tensor.is_neg, gradients)):
            return None
        self._column[:] = memoryview(addresses)
        return gradients


_gradient = attrgetter("grad")
_functions = [
    function_address(name)
    for name in ("PyObject_GetAttr", "PyObject_CallFunctionObjArgs", "PyList_SetItem", "Py_DecRef")
]
# They stay alive, as they are given by their addresses.
_objects = ["grad", Tensor.is_neg, None, False]


def _tools(exchange: int) -> array[int]:
    """`Tools` of src/walk.rs."""
    return array("Q", [exchange, *_functions, *map(id, _objects)])
