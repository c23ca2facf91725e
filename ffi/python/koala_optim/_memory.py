"""Where an array's elements lie, without a copy: by the buffer protocol or by DLPack."""

from __future__ import annotations

import ctypes
import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

import numpy

from ._library import capsule_pointer, ffi
from ._settings import ELEMENT_TYPES

if TYPE_CHECKING:
    from typing_extensions import Buffer


class SupportsDLPack(Protocol):
    """What `numpy.from_dlpack` takes: a tensor of PyTorch, for example."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


Array = Union["Buffer", SupportsDLPack]


class Memory(NamedTuple):
    """Elements in memory. They stay where they are for as long as this is kept.

    Attributes:
        pointer: A cdata of cffi, to the first element.
        dtype: One of `ELEMENT_TYPES`.
        shape: Of the array, in elements.
        owner: What keeps the memory alive.
    """

    pointer: Any
    dtype: str
    shape: tuple[int, ...]
    owner: Any

    @property
    def length(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)


def memory_of(name: str, array: Array, *, writable: bool) -> Memory:
    """Looks up where an array lies.

    Args:
        name: The argument that it was given as, for the text of an error.
        array: Contiguous, in the order of C, in the memory of the CPU.
        writable: Whether it will be written.

    Raises:
        TypeError: It is no array, or one of other elements than `ELEMENT_TYPES`.
        ValueError: It is not contiguous, not writable, or on another device.
    """
    if isinstance(array, numpy.ndarray):
        return _of_ndarray(name, array, writable)
    try:
        view = memoryview(array)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        if not hasattr(array, "__dlpack__"):
            text = f"{name} is of type {type(array).__name__}, expected an array: by the buffer protocol or DLPack"
            raise TypeError(text) from None
        return _of_dlpack(name, array, writable)
    return _of_view(name, view, writable)


# An array's type is looked up by itself, or by its name for those that NumPy does not have of its own.
_DTYPES = {numpy.dtype(name): name for name in ("float32", "float64", "float16")}
# As the struct module names them. One that names the byte order is native too, if it is this machine's.
_FORMATS = {
    order + letter: dtype
    for order in ("", "@", "=", "<" if sys.byteorder == "little" else ">")
    for letter, dtype in (("f", "float32"), ("d", "float64"), ("e", "float16"))
}


def _of_ndarray(name: str, array: numpy.ndarray[Any, Any], writable: bool) -> Memory:
    dtype = _DTYPES.get(array.dtype)
    bits: Any = array
    if dtype is None and array.dtype.name == "bfloat16":
        dtype = "bfloat16"
    elif dtype is None:
        raise _wrong_dtype(name, str(array.dtype))
    _check_flags(name, array.flags.c_contiguous, array.flags.writeable or not writable)
    if dtype == "bfloat16":
        # Such an array does not support the buffer protocol; its bits do.
        bits = array.view(numpy.uint16)
    owner = ffi.from_buffer(bits, require_writable=writable)
    return Memory(owner, dtype, array.shape, owner)


def _of_view(name: str, view: memoryview, writable: bool) -> Memory:
    dtype = _FORMATS.get(view.format)
    if dtype is None:
        raise _wrong_dtype(name, f"the struct format {view.format!r}")
    _check_flags(name, view.c_contiguous, not (view.readonly and writable))
    owner = ffi.from_buffer(view, require_writable=writable)
    return Memory(owner, dtype, view.shape or (), owner)


class _DLTensor(ctypes.Structure):
    """`DLTensor` of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _DLManagedTensorVersioned(ctypes.Structure):
    """`DLManagedTensorVersioned` of dlpack.h."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    ]


_DLPACK_HOSTS = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost
_DLPACK_READ_ONLY = 1
_DLPACK_COPIED = 2
_DLPACK_TYPES = {(2, 32, 1): "float32", (2, 64, 1): "float64", (2, 16, 1): "float16", (4, 16, 1): "bfloat16"}

_capsule_is = ctypes.pythonapi.PyCapsule_IsValid
_capsule_is.argtypes, _capsule_is.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int


def _of_dlpack(name: str, array: Any, writable: bool) -> Memory:
    device = int(array.__dlpack_device__()[0])
    if device not in _DLPACK_HOSTS:
        raise ValueError(f"{name} is on a device of type {device} (of DLPack), expected the CPU")
    try:
        capsule = array.__dlpack__(max_version=(1, 0))
        # Who knows of version 1, where memory can be read-only, and answers in version 0, does not say that it is not.
        flags = _DLPACK_READ_ONLY
    except TypeError:
        capsule = array.__dlpack__()
        flags = 0
    # A capsule that nobody takes over gives its memory back when it goes.
    if _capsule_is(capsule, b"dltensor_versioned"):
        managed = _DLManagedTensorVersioned.from_address(capsule_pointer(capsule, b"dltensor_versioned"))
        if managed.major != 1:
            raise ValueError(f"{name} is of DLPack {managed.major}.{managed.minor}, expected version 1")
        tensor, flags = managed.tensor, managed.flags
    else:
        tensor = _DLTensor.from_address(capsule_pointer(capsule, b"dltensor"))
    dtype = _DLPACK_TYPES.get((tensor.code, tensor.bits, tensor.lanes))
    if dtype is None:
        raise _wrong_dtype(name, f"{tensor.bits} bits of DLPack's type {tensor.code}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    _check_flags(name, _is_contiguous(shape, strides), not (writable and flags & (_DLPACK_READ_ONLY | _DLPACK_COPIED)))
    pointer = ffi.cast("void *", (tensor.data or 0) + tensor.byte_offset)
    return Memory(pointer, dtype, shape, capsule)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    if strides is None or 0 in shape:
        return True
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


def _check_flags(name: str, contiguous: bool, writable: bool) -> None:
    if not contiguous:
        raise ValueError(f"{name} is not contiguous")
    if not writable:
        raise ValueError(f"{name} is not writable")


def _wrong_dtype(name: str, found: str) -> TypeError:
    return TypeError(f"{name} has elements of {found}, expected one of {', '.join(ELEMENT_TYPES)}")
