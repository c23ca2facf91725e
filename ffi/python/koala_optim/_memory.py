"""Where an array's elements lie, without a copy: by the buffer protocol or by DLPack; and whether they still do."""

from __future__ import annotations

import array as arrays_of_python
import ctypes
import itertools
import math
import sys
import weakref
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

import numpy

from ._library import capsule_pointer, ffi
from ._native import exchange_api, get_item, library
from ._settings import ELEMENT_TYPES

if TYPE_CHECKING:
    from typing_extensions import Buffer


class SupportsDLPack(Protocol):
    """What `numpy.from_dlpack` takes: a tensor of PyTorch, for example."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


Array = Union["Buffer", SupportsDLPack]


class Memory(NamedTuple):
    """Elements in memory. Its owner may move them to other memory all the same: see `Watch`.

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
        ValueError: It is not contiguous, not writable, deleted, shorter in its storage than by its shape, or on another
            device.
    """
    if isinstance(array, numpy.ndarray):
        return _of_ndarray(name, array, writable)
    try:
        view = memoryview(array)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        if not hasattr(array, "__dlpack__"):
            text = f"{name} is of type {type(array).__name__}, expected an array: by the buffer protocol or DLPack"
            raise TypeError(text) from None
        if hasattr(array, "is_deleted") and array.is_deleted():
            raise ValueError(f"{name} is an array of JAX that has been deleted or donated") from None
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
    if _is_of_torch(array) and (array.is_neg() or array.is_conj()):
        # DLPack does not say that what lies in memory is not what the tensor stands for.
        raise ValueError(f"{name} is a tensor whose sign PyTorch has yet to change: give its resolve_neg()")
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
    _check_storage(name, array, math.prod(shape), tensor.bits // 8)
    pointer = ffi.cast("void *", (tensor.data or 0) + tensor.byte_offset)
    return Memory(pointer, dtype, shape, capsule)


def _check_storage(name: str, array: Any, length: int, width: int) -> None:
    """PyTorch lets a tensor stay as long as it is when its storage becomes shorter."""
    if not _is_of_torch(array):
        return
    size = array.untyped_storage().nbytes()
    if length and size < (array.storage_offset() + length) * width:
        raise ValueError(f"{name} has {length} elements, and its storage {size} bytes")


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


class Watch:
    """Tells whether arrays are where they were, and lie as they did, when this was made.

    An `array.array` and a `memoryview` keep memory that is lent out where it is. Arrays of NumPy and tensors of PyTorch
    may do with theirs what they like, and are asked, all of them at once. Of others nothing is known: they are to be
    looked up again in every step.

    Attributes:
        lasts: Whether there are none of those others.
    """

    def __init__(self, arrays: Iterable[Array] = ()) -> None:
        self.lasts = True
        self._headers: list[Any] = []
        self._tensors: list[Any] = []
        # NumPy resizes no array that is referred to weakly, not even with refcheck=False: headers would not tell.
        self._arrays: list[Any] = []
        for array in arrays:
            if isinstance(array, numpy.ndarray) and _HAS_HEADERS:
                self._arrays.append((array, weakref.ref(array)))
                self._headers.append(ffi.buffer(ffi.cast("char *", _header_address(array)), _HEADER_SIZE))
            elif _is_of_torch(array):
                self._tensors.append(array)
            elif not isinstance(array, (memoryview, arrays_of_python.array)):
                self.lasts = False
        self._seen_headers, self._seen_tensors = b"".join(self._headers), _look(self._tensors)
        self._number = next(_numbers)
        self._together: _Together | None = None

    @staticmethod
    def all_hold(watches: list[Watch]) -> bool:
        """Asks all arrays of many watches at once."""
        if not watches:
            return True
        numbers = [watch._number for watch in watches]
        together = watches[0]._together
        if together is None or together.numbers != numbers:
            together = watches[0]._together = _Together(
                numbers,
                [header for watch in watches for header in watch._headers],
                b"".join([watch._seen_headers for watch in watches]),
                _joined([watch._seen_tensors for watch in watches]),
            )
        tensors = [tensor for watch in watches for tensor in watch._tensors]
        return b"".join(together.headers) == together.seen_headers and _look(tensors) == together.seen_tensors


class _Together(NamedTuple):
    """What many watches have seen, kept with the first of them for as long as it is asked together with the same ones.

    It does not keep their arrays, which may be gone if there are other ones.
    """

    numbers: list[int]
    headers: list[Any]
    seen_headers: bytes
    seen_tensors: tuple[bytes, bytes]


def _joined(seen: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    addresses, layouts = zip(*seen)
    return b"".join(addresses), b"".join(layouts)


_numbers = itertools.count()


class _ArrayHeader(ctypes.Structure):
    """What an array of NumPy knows of itself, by `PyArrayObject` of its interface for C, up to the flags."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dimensions", ctypes.c_int),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("dtype", ctypes.c_void_p),
        ("flags", ctypes.c_int),
    ]


_HEADER_SIZE = _ArrayHeader.flags.offset + _ArrayHeader.flags.size


def _header_address(array: numpy.ndarray[Any, Any]) -> int:
    """It is behind what every object of CPython begins with."""
    return id(array) + object.__basicsize__


def _has_headers() -> bool:
    if sys.implementation.name != "cpython":
        return False
    array = numpy.zeros((1, 2))
    header = _ArrayHeader.from_address(_header_address(array))
    return (header.data, header.dimensions, header.flags & 1) == (array.ctypes.data, 2, 1)


_HAS_HEADERS = _has_headers()


def _is_of_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _look(tensors: list[Any]) -> tuple[bytes, bytes]:
    """Where tensors of PyTorch are, and how they lie; of each the same number of bytes, one behind the other."""
    if not tensors:
        return b"", b""
    count = len(tensors)
    addresses = (ctypes.c_uint64 * count)()
    exchange = exchange_api(type(tensors[0]))
    if exchange is not None:
        layouts = ctypes.create_string_buffer(count * library.koala_layout_size())
        if library.koala_record_layouts(exchange, get_item, tensors, count, None, layouts, addresses) == count:
            return bytes(addresses), layouts.raw
    import torch

    addresses[:] = list(map(torch.Tensor.data_ptr, tensors))
    sizes = (ctypes.c_uint64 * count)(*map(attrgetter("nbytes"), tensors))
    return bytes(addresses), bytes(sizes)
