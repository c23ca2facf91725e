"""The step of all tensors as one operation of XLA on the CPU, which libkoala does in place."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ._jax import Filters, Measurement, Options, converted, has_float64, is_static
from ._library import lib, path
from ._settings import ON_BREAKDOWN, ON_NON_FINITE, VARIANTS

_TARGET = "koala_xla_step"
# Places among the operands: of noise and scalars, and of the first tensor.
_NOISE, _SCALARS, _FIRST = 9, 10, 11


def _register() -> None:
    handler = getattr(ctypes.CDLL(path()), _TARGET)
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(handler), platform="cpu")  # type: ignore[no-untyped-call,unused-ignore]


_register()


def doubles(values: Any) -> np.ndarray[Any, Any]:
    """Float64 as such, or, where JAX has none, its bits.

    Args:
        values: Numbers of shape [..., k], or one number.

    Returns:
        float64[..., k], or uint32[..., 2·k]; of one number, float64[] or uint32[2].
    """
    exact = np.asarray(values, np.float64)
    return exact if has_float64() else np.atleast_1d(exact).view(np.uint32)


def initial(v: Sequence[jax.Array], h: Sequence[jax.Array]) -> Filters:
    """The filters before the first step: no noise yet, all scalars zero."""
    count = len(v)
    noise, scalars = jnp.array(doubles(np.nan)), jnp.array(doubles(np.zeros((count, 4))))
    return Filters(noise, scalars, jnp.zeros(count, jnp.int32), v, h)


def step(
    options: Options,
    parameters: Sequence[jax.Array],
    gradients: Sequence[jax.Array],
    filters: Filters,
    measurement: Measurement,
) -> tuple[list[jax.Array], Filters]:
    """One step of n tensors, as koala_optimizer_step takes it, with the same bits.

    Returns:
        The new parameters and filters: in the memory of the old ones, where those are donated or no longer needed.

    Raises:
        jax.errors.JaxRuntimeError: When the result is waited for: what libkoala says. Donated arrays are gone then.
    """
    count = len(parameters)
    kind = np.dtype(np.float64 if has_float64() else np.uint32)
    noise, scalars = converted(filters.noise, kind, ()), converted(filters.scalars, kind, (count, 4))
    filters = filters._replace(noise=noise, scalars=scalars)
    numbers = (*options.numbers, *measurement)
    operands: list[Any] = [doubles(number) if is_static(number) else number for number in numbers]
    operands += [filters.noise, filters.scalars, *parameters, *gradients, *filters.v, *filters.h]
    results = [filters.noise, filters.scalars, filters.outcomes, *parameters, *filters.v, *filters.h]
    # Gradients, the second of four kinds, have no result.
    kinds = ((0, 0), (2, 1), (3, 2))
    aliases = {_FIRST + kind * count + i: 3 + result * count + i for kind, result in kinds for i in range(count)}
    call = jax.ffi.ffi_call(
        _TARGET,
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],  # type: ignore[no-untyped-call,unused-ignore]
        input_output_aliases={_NOISE: 0, _SCALARS: 1, **aliases},
        vmap_method="sequential",
    )
    noise, scalars, outcomes, *found = call(
        *operands,
        variant=np.int32(VARIANTS[options.variant]),
        noise_rule=np.int32(lib.KOALA_NOISE_AVERAGED if options.averaged else lib.KOALA_NOISE_FIXED),
        backend=np.int32(options.backend),
        on_non_finite=np.int32(ON_NON_FINITE[options.on_non_finite]),
        on_breakdown=np.int32(ON_BREAKDOWN[options.on_breakdown]),
    )
    arrays = [_placed_as(old, array) for old, array in zip(results[3:], found)]
    new, v, h = (arrays[kind * count : (kind + 1) * count] for kind in range(3))
    return new, Filters(noise, scalars, outcomes, v, h)


def _placed_as(old: jax.Array, new: jax.Array) -> jax.Array:
    """Divided over devices as the old array is. Libkoala is given whole ones, so XLA has its results whole."""
    if not isinstance(old, jax.core.Tracer):
        return cast(jax.Array, jax.device_put(new, old.sharding))
    expected, found = (getattr(array.aval, "sharding", None) for array in (old, new))
    return new if found == expected else jax.sharding.reshard(new, expected)  # type: ignore[no-untyped-call,unused-ignore]
