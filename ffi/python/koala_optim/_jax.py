"""What both implementations of the step for JAX share: what a step is told, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Union

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import lax

# Older ones have it among what is experimental.
_enable_x64: Any = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64

Number = Union[float, jax.Array]


class Numbers(NamedTuple):
    """The settings that are numbers: Python's, or scalars of JAX, which may change from step to step.

    Attributes:
        learning_rate: η.
        weight_decay: wd.
        initial_variance: σ.
        process_noise: Q.
        prior_variance: γ of the definite variant; 0 stands for σ.
        noise_decay: The decay of the averaged noise.
        initial_noise: R before the first step; in every step, if it is not averaged.
    """

    learning_rate: Number
    weight_decay: Number
    initial_variance: Number
    process_noise: Number
    prior_variance: Number
    noise_decay: Number
    initial_noise: Number


class Options(NamedTuple):
    """How tensors are stepped.

    Attributes:
        numbers: The settings that are numbers.
        variant: A name of `_settings.VARIANTS`.
        averaged: Whether R is averaged, and not fixed.
        on_non_finite: A name of `_settings.ON_NON_FINITE`.
        on_breakdown: A name of `_settings.ON_BREAKDOWN`.
        backend: The number of libkoala's backend.
        axis_name: The mesh axes that the tensors are divided over, or None.
    """

    numbers: Numbers
    variant: str
    averaged: bool
    on_non_finite: str
    on_breakdown: str
    backend: int
    axis_name: Any


class Filters(NamedTuple):
    """The state of n tensors.

    Attributes:
        noise: R of the last step, NaN before the first.
        scalars: x, y, s and the number of steps of each tensor.
        outcomes: int32[n], what the last step did with each, by koala_outcome's numbers.
        v: Of each tensor, shaped as its parameters.
        h: Likewise.
    """

    noise: jax.Array
    scalars: jax.Array
    outcomes: jax.Array
    v: Sequence[jax.Array]
    h: Sequence[jax.Array]


class Measurement(NamedTuple):
    """The mean loss L of a minibatch, and m, the mean of its squared per-sample losses."""

    loss: Number
    second_moment: Number


def has_float64() -> bool:
    """Whether JAX has float64: `jax_enable_x64`."""
    return bool(jnp.zeros(0, float).dtype == jnp.float64)


def is_static(value: Any) -> bool:
    """Whether a number is known when a program is traced, so that it can be taken as the float64 that it is."""
    return isinstance(value, (int, float, np.floating, np.integer))


def scalar(name: str, value: Any) -> Number:
    """A number as such, or an array of JAX as one of f32 or f64.

    Raises:
        TypeError: It is no real number.
        ValueError: It is an array with dimensions; the text has them.
    """
    if is_static(value):
        return float(value)
    array = jnp.asarray(value)
    if array.shape != ():
        raise ValueError(f"{name} has the shape {array.shape}, expected a scalar")
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} is {array.dtype}, expected a real number")
    return array if array.dtype in (jnp.float32, jnp.float64) else array.astype(jnp.float32)


def converted(values: jax.Array, kind: np.dtype[Any], shape: tuple[int, ...]) -> jax.Array:
    """Noise or scalars as another implementation of the step keeps them, or another process, with or without float64.

    Args:
        values: Numbers of float64, of float32, or of float64 by their bits: two uint32 each.
        kind: Which of the three they are to be.
        shape: Of the numbers.

    Returns:
        An array of that shape; with bits, one whose last dimension is twice as long, or is 2.
    """
    with _enable_x64(True):
        if values.dtype != kind and values.dtype == np.uint32:
            values = lax.bitcast_convert_type(jnp.reshape(values, (*shape, 2)), np.float64)
        if values.dtype != kind and kind == np.uint32:
            values = lax.bitcast_convert_type(lax.convert_element_type(values, np.float64), np.uint32)
        if kind == np.uint32:
            return jnp.reshape(values, (*shape[:-1], 2 * (shape or (1,))[-1]))
        return lax.convert_element_type(values, kind)
