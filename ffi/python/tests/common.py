"""What several test files share: every type by name, and arrays of them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy

from koala_optim import backends

ELEMENT_TYPES = ["float64", "float32", "bfloat16", "float16"]
STATE_TYPES = ["same", "float32", "bfloat16"]
BACKENDS = [backend.name for backend in backends() if backend.present]


def dtype_of(name: str) -> Any:
    """The NumPy type of that name."""
    return numpy.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def random_array(seed: int, length: int, dtype: str = "float32") -> Any:
    """Normally distributed numbers, rounded."""
    return numpy.random.default_rng(seed).standard_normal(length).astype(dtype_of(dtype))


def bits(*arrays: Any) -> bytes:
    """The bytes of arrays, which are equal where every bit is, NaN included."""
    return b"".join(numpy.asarray(array).tobytes() for array in arrays)
