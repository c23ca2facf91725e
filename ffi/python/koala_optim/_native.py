"""The functions of the library that look at objects of Python, many of them in one call, and what these need of CPython
and of DLPack."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

from ._library import capsule_pointer, path


def exchange_api(kind: Any) -> int | None:
    """The table of functions that PyTorch's tensors export for DLPack since 2.10. It stays for as long as PyTorch."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    address: int | None = None if capsule is None else capsule_pointer(capsule, b"dlpack_exchange_api")
    return address


def function_address(name: str) -> int:
    """Where a function of CPython is."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def array_address(numbers: array[Any]) -> int:
    """Where the numbers of an array are, for as long as it is not changed in length."""
    return numbers.buffer_info()[0]


def _load() -> Any:
    # Not by cffi, which lets other threads run Python during a call.
    library = ctypes.PyDLL(path())
    pointer, size, anything = ctypes.c_void_p, ctypes.c_size_t, ctypes.py_object
    library.koala_layout_size.restype = library.koala_record_size.restype = size
    for function in (library.koala_record_layouts, library.koala_compare_layouts):
        function.restype = size
        function.argtypes = (pointer, pointer, anything, size, anything, pointer, pointer)
    for function in (library.koala_record_tensors, library.koala_compare_tensors):
        function.restype, function.argtypes = size, (pointer, pointer, size, pointer)
    library.koala_compare_entries.restype = ctypes.c_bool
    library.koala_compare_entries.argtypes = (pointer, anything, pointer, size)
    library.koala_compare_lists.restype = ctypes.c_bool
    library.koala_compare_lists.argtypes = (pointer, pointer, anything, pointer, size)
    library.koala_walk.restype, library.koala_walk.argtypes = ctypes.c_bool, (pointer, pointer, anything)
    return library


library = _load()
get_item = function_address("PyList_GetItem")
