"""libkoala, loaded: its functions and structs as `lib` and `ffi` of cffi, and its statuses as exceptions."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, Callable

from . import _koala

ffi: Any = _koala.ffi
lib: Any = _koala.lib


# For capsules of DLPack: the capsule and its name give an address.
capsule_pointer: Any = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.argtypes, capsule_pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p


def path() -> str:
    """The library's file. Whoever loads it gets the one that cffi has loaded, not a second one."""
    folder = Path(str(_koala.__file__)).parent
    # As maturin calls it on Linux, macOS and Windows.
    (found,) = [file for name in ("lib_koala.so", "lib_koala.dylib", "_koala.dll") if (file := folder / name).exists()]
    return str(found)


class KoalaError(Exception):
    """What libkoala says of a call that did nothing. Its text names the tensor and the numbers.

    Attributes:
        status: The number of the `koala_status`, as in koala.h.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ArgumentError(KoalaError, ValueError):
    """A buffer, length, type, number or name is not as it has to be."""


class NonFiniteError(KoalaError, ArithmeticError):
    """A loss, gradient, parameter or scalar is NaN or infinite, where that is an error."""


class BreakdownError(KoalaError, ArithmeticError):
    """An innovation variance would not be positive, where that is an error."""


class BackendError(KoalaError, RuntimeError):
    """There is no such backend, or it cannot run on this processor."""


class DeviceError(KoalaError, RuntimeError):
    """There is no CUDA driver or device, or its driver does not do as it should."""


class OutOfMemoryError(KoalaError, MemoryError):
    """There is not enough memory."""


class LibraryError(KoalaError, RuntimeError):
    """Threads could not be had, or there is a mistake in libkoala."""


_CLASSES: dict[int, type[KoalaError]] = {
    lib.KOALA_STATUS_NON_FINITE: NonFiniteError,
    lib.KOALA_STATUS_BREAKDOWN: BreakdownError,
    lib.KOALA_STATUS_UNKNOWN_BACKEND: BackendError,
    lib.KOALA_STATUS_ABSENT_BACKEND: BackendError,
    lib.KOALA_STATUS_ABSENT_DEVICE: DeviceError,
    lib.KOALA_STATUS_DRIVER: DeviceError,
    lib.KOALA_STATUS_MEMORY: OutOfMemoryError,
    lib.KOALA_STATUS_THREADS: LibraryError,
    lib.KOALA_STATUS_VERSION: LibraryError,
    lib.KOALA_STATUS_PANIC: LibraryError,
    lib.KOALA_STATUS_POISONED: LibraryError,
}


def check(status: int, name_of: Callable[[int], str] | None = None) -> None:
    """Raises what a status other than success stands for; `name_of` is what texts call a tensor of that number."""
    if status != lib.KOALA_STATUS_OK:
        text = ffi.new("char[]", 512)
        lib.koala_last_error(text, 512, ffi.NULL)
        error = _CLASSES.get(status, ArgumentError)(status, ffi.string(text).decode())
        raise error if name_of is None else renamed(error, name_of)


def renamed(error: KoalaError, name_of: Callable[[int], str]) -> KoalaError:
    """The same error, whose text calls tensors by other names than their numbers."""
    text = re.sub(r'tensor "(\d+)"', lambda match: name_of(int(match[1])), str(error))
    return type(error)(error.status, text)
