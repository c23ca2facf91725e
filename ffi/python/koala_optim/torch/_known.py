"""Whether an optimizer's groups and state are what they were, and the state where it was: asked in every step.

Users may edit `state` between two steps, and tensors may come to have other memory while they stay the same objects:
by `share_memory_()`, on a queue of torch.multiprocessing, by `data = ...`.
"""

from __future__ import annotations

import ctypes
import weakref
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from .._library import capsule_pointer
from .._native import array_address, function_address, get_item, library
from ._layouts import layouts_of


class KnownLists:
    """The items of some lists, as they were when this was made."""

    def __init__(self, lists: Sequence[Sequence[Any]]) -> None:
        self._kept = [[*items] for items in lists]
        self._addresses = array("Q", [number for items in self._kept for number in (len(items), *map(id, items))])
        self._arguments = array_address(self._addresses), len(lists)

    def is_in(self, lists: list[list[Any]]) -> bool:
        """Whether these are as many lists of the same items."""
        count = self._arguments[1]
        return len(lists) == count and library.koala_compare_lists(_list_size, get_item, lists, *self._arguments)


class KnownState:
    """The entries of those names that a state had when this was made. Others are not looked at. A state with entries in
    a mapping that is no dict is never found again: how to compare these, and what keeps them alive, is not known.

    Args:
        states: An optimizer's state: a dict of dicts.
        names: Those whose tensors are meant.
    """

    def __init__(self, states: Mapping[Any, Any], names: Sequence[str]) -> None:
        # All that is remembered by its address is kept alive.
        self._is_comparable = all(isinstance(entries, dict) for entries in states.values())
        known = states.items() if self._is_comparable else ()
        self._kept = [(key, entries, _own(entries, names)) for key, entries in known]
        addresses: list[int] = []
        for key, entries, own in self._kept:
            addresses += (id(key), id(entries), len(own))
            for name, value in own:
                addresses += (id(name), id(value))
        self._addresses = array("Q", addresses)
        self._arguments = array_address(self._addresses), len(self._kept)
        values = [value for *_, own in self._kept for _, value in own]
        self._memory = _memory_of([value for value in values if isinstance(value, Tensor)])

    def is_in(self, states: Any) -> bool:
        """Whether a state has the same, and each of them lies where it did."""
        if not self._is_comparable or not isinstance(states, dict):
            return False
        is_same = library.koala_compare_entries(_dict_next, states, *self._arguments)
        return is_same and self._memory.is_as_before()


class Memory(Protocol):
    """Some tensors, and how they lay when this was made."""

    def is_as_before(self) -> bool:
        """Whether each of them still lies so, at the same address."""


def _own(entries: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    """The entries of those names, in their order."""
    return [item for item in entries.items() if item[0] in names]


def _memory_of(tensors: list[Tensor]) -> Memory:
    if _api is not None:
        handles = Handles(tensors, _api)
        if handles.complete:
            return handles
    return Passes(tensors)


class Handles:
    """`Memory` by PyTorch's stable interface for C, which asks a tensor in some nanoseconds."""

    def __init__(self, tensors: list[Tensor], api: array[int]) -> None:
        self._count = len(tensors)
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(tensors)
        self._handles = array("Q", [capsule_pointer(capsule, None) for capsule in capsules])
        weakref.finalize(self, _release, self._handles).atexit = False
        self._records = array("B", bytes(len(tensors) * library.koala_record_size()))
        self._arguments = array_address(api), array_address(self._handles), len(tensors), array_address(self._records)
        # Whether all of them have been recorded.
        self.complete: bool = library.koala_record_tensors(*self._arguments) == self._count

    def is_as_before(self) -> bool:
        """See `Memory.is_as_before`."""
        found: int = library.koala_compare_tensors(*self._arguments)
        return found == self._count


class Passes:
    """`Memory` by asking PyTorch of all of them in each step."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors, self._layouts = tensors, layouts_of(tensors)
        addresses = self._layouts.addresses(tensors)
        self._addresses = None if addresses is None else array("Q", addresses)

    def is_as_before(self) -> bool:
        """See `Memory.is_as_before`."""
        return self._addresses is not None and self._layouts.addresses(self._tensors) == self._addresses


def _release(handles: array[int]) -> None:
    for handle in handles:
        _pytorch.aoti_torch_delete_tensor_object(ctypes.c_void_p(handle))


def _load_pytorch() -> Any:
    """The library that has PyTorch's tensors, which is loaded already; None where it is not found."""
    for path in Path(torch.__file__).with_name("lib").glob("*torch_cpu.*"):
        if path.suffix in (".so", ".dylib", ".dll"):
            return ctypes.PyDLL(str(path))
    return None


def _find_api() -> array[int] | None:
    """The addresses of the functions of a `TensorApi`; None if this PyTorch lacks one."""
    names = ("get_data_ptr", "get_dtype", "get_dim", "get_sizes", "get_strides", "delete_tensor_object")
    try:
        functions = [getattr(_pytorch, f"aoti_torch_{name}") for name in names]
        torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors  # noqa: B018
    except AttributeError:
        return None
    return array("Q", [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions[:-1]])


_pytorch = _load_pytorch()
_api = _find_api()
_list_size = function_address("PyList_Size")
_dict_next = function_address("PyDict_Next")
