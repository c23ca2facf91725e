"""Where tensors are, and whether they still lie as before: asked of all of them at once, in every step."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Callable, Optional, Protocol

from torch import Tensor

from .._native import array_address, exchange_api, get_item, library

Addresses = Optional["array[int]"]

_bytes = attrgetter("nbytes")
_type = attrgetter("dtype")


class Layouts(Protocol):
    """Types, shapes and strides of some tensors, as they were when this was made."""

    def addresses(self, tensors: list[Tensor]) -> Addresses:
        """Where tensors are that should lie as those did: None if one does not, or is None. The next call may write
        into the same array.
        """

    def part(self, selected: Sequence[bool]) -> Layouts:
        """Those of some of the tensors."""


def layouts_of(tensors: list[Tensor]) -> Layouts:
    """Remembers how tensors lie."""
    if _exchange is not None:
        layouts = Exchanged(tensors, _exchange)
        if layouts.complete:
            return layouts
    return Listed(tensors)


class Exchanged:
    """`Layouts` in one call, by what PyTorch exports for DLPack since 2.10.

    Attributes:
        exchange: Where that is.
        records: A `Layout` of src/exchange.rs for each tensor.
    """

    def __init__(self, tensors: list[Tensor], exchange: int) -> None:
        self._prepare(bytes(len(tensors) * library.koala_layout_size()), len(tensors), exchange)
        # Whether there is nothing in the tensors that it cannot describe.
        self.complete = self._call(library.koala_record_layouts, tensors)

    def part(self, selected: Sequence[bool]) -> Layouts:
        """See `Layouts.part`."""
        size, whole = library.koala_layout_size(), self.records.tobytes()
        chosen = b"".join([whole[size * place : size * (place + 1)] for place, is_in in enumerate(selected) if is_in])
        part = Exchanged.__new__(Exchanged)
        part._prepare(chosen, len(chosen) // size, self.exchange)
        return part

    def _prepare(self, layouts: bytes, count: int, exchange: int) -> None:
        self.exchange, self._count = exchange, count
        self._addresses, self.records = array("Q", bytes(8 * count)), array("B", layouts)
        self._arrays = array_address(self.records), array_address(self._addresses)

    def addresses(self, tensors: list[Tensor]) -> Addresses:
        """See `Layouts.addresses`."""
        return self._addresses if self._call(library.koala_compare_layouts, tensors) else None

    def _call(self, function: Callable[..., int], tensors: list[Tensor]) -> bool:
        if len(tensors) != self._count:
            return False
        try:
            found = function(self.exchange, get_item, tensors, self._count, None, *self._arrays)
        except Exception:
            # There is one that DLPack cannot describe.
            return False
        return found == self._count


class Listed:
    """`Layouts` by a few passes over the tensors, each at C's speed."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._known = self._look(tensors)

    def part(self, selected: Sequence[bool]) -> Layouts:
        """See `Layouts.part`."""
        part = Listed([])
        part._known = tuple(list(compress(known, selected)) for known in self._known)
        return part

    def addresses(self, tensors: list[Tensor]) -> Addresses:
        """See `Layouts.addresses`."""
        try:
            if self._look(tensors) == self._known:
                return array("Q", list(map(Tensor.data_ptr, tensors)))
        except (AttributeError, TypeError, RuntimeError):
            # One is None, or has no strides.
            pass
        return None

    @staticmethod
    def _look(tensors: list[Tensor]) -> tuple[list[Any], ...]:
        return list(map(_type, tensors)), list(map(_bytes, tensors)), list(map(Tensor.stride, tensors))


_exchange = exchange_api(Tensor)
