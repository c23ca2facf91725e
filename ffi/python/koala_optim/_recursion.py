"""The step of all tensors in the operations of JAX, for every platform, and for tensors divided over devices.

The equations are those of libkoala (arXiv 2506.04432, section 3), the decisions too; the bits are XLA's, which sums in
another order and fuses. Scalars are float64 where JAX has it, else float32:

    H  = g + wd·θ
    first step only:  h = H, v = σ·H, x = H·H, y = σ·x, s = y + Q·x + R
    a  = H·h      b = H·v      c = H·H
    λ  = (b + Q·a) / s
    α  = a / x    w  = b/x − a·y/x²     (0 in the vanilla variant)
    α  = b / y    w  = −γ·a/x           (in the definite variant)
    v' = (α − λ)·v + q·H + (w − Q·λ)·h        (q is Q, and Q + γ in the definite variant)
    y' = (α − λ)·b + q·c + (w − Q·λ)·a
    s' = y' + Q·c + R
    θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)
    then  v ← v',  h ← H,  x ← c,  y ← y',  s ← s'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._jax import Filters, Measurement, Options, converted, has_float64
from ._library import lib

# A tensor whose gradient is shorter keeps its parameters and its state.
_SKIP_GRADIENT_NORM = 1e-9


class _Numbers(NamedTuple):
    """`_jax.Numbers`, as arrays."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    initial_variance: jax.Array
    process_noise: jax.Array
    prior_variance: jax.Array
    noise_decay: jax.Array
    initial_noise: jax.Array


class _Dots(NamedTuple):
    """Of each tensor."""

    a: jax.Array
    b: jax.Array
    c: jax.Array
    t: jax.Array
    gradient_squared: jax.Array


class _Plan(NamedTuple):
    """What a step would do with each tensor; `gain`, which H is multiplied with in v', is the same for all."""

    keep: jax.Array
    gain: jax.Array
    mix: jax.Array
    rate: jax.Array
    h_v: jax.Array
    innovation_variance: jax.Array
    finite: jax.Array


def _scalar_type() -> np.dtype[Any]:
    return np.dtype(np.float64 if has_float64() else np.float32)


def _arithmetic(array: jax.Array) -> np.dtype[Any]:
    """What a tensor is computed in: float64 for float64, float32 for all others."""
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)


def initial(v: Sequence[jax.Array], h: Sequence[jax.Array]) -> Filters:
    """The filters before the first step: no noise yet, all scalars zero."""
    count, scalar = len(v), _scalar_type()
    return Filters(jnp.array(jnp.nan, scalar), jnp.zeros((count, 4), scalar), jnp.zeros(count, jnp.int32), v, h)


def step(
    options: Options,
    parameters: Sequence[jax.Array],
    gradients: Sequence[jax.Array],
    filters: Filters,
    measurement: Measurement,
) -> tuple[list[jax.Array], Filters]:
    """One step of n tensors.

    Returns:
        What is to be added to the parameters, in the type that they are computed in, and the new filters.
    """
    scalar = _scalar_type()
    filters = filters._replace(
        noise=converted(filters.noise, scalar, ()), scalars=converted(filters.scalars, scalar, (len(parameters), 4))
    )
    numbers = _Numbers(*(jnp.asarray(number, scalar) for number in options.numbers))
    loss, second_moment = (jnp.asarray(number, scalar) for number in measurement)
    before = numbers.initial_noise
    # A program that is compiled cannot raise: what is out of range keeps all tensors, as what is not finite does.
    finite = jnp.isfinite(loss) & _in_range(numbers)
    noise = before
    if options.averaged:
        before = jnp.where(jnp.isnan(filters.noise), numbers.initial_noise, filters.noise)
        finite &= jnp.isfinite(second_moment) & (second_moment >= 0)
        noise = jnp.where(finite, numbers.noise_decay * before + (1 - numbers.noise_decay) * second_moment, before)
    tensors = list(zip(parameters, gradients, filters.v, filters.h))
    if not tensors:
        return [], filters._replace(noise=noise)
    dots = jnp.stack([_dots(numbers.weight_decay, *tensor, scalar) for tensor in tensors])
    if options.axis_name is not None:
        dots = jax.lax.psum(dots, options.axis_name)  # type: ignore[no-untyped-call,unused-ignore]
    a, b, c, t, gradient_squared = _Dots(*dots.T)
    x, y, s, steps = filters.scalars.T

    sigma, q = numbers.initial_variance, numbers.process_noise
    usable = finite & jnp.isfinite(noise)
    usable &= jnp.isfinite(c) & jnp.isfinite(t) & jnp.isfinite(a) & jnp.isfinite(b)
    skipped = (c == 0) | (jnp.sqrt(gradient_squared) < _SKIP_GRADIENT_NORM)
    new = steps == 0

    # Of what is not used, a gradient is NaN where it divides by zero: there, all numbers are ones that can be used.
    counts = usable & ~skipped
    a, b, c, t = (jnp.where(counts, dot, 1) for dot in (a, b, c, t))
    x, y, s = (jnp.where(counts & ~new, number, 1) for number in (x, y, s))
    loss = jnp.where(finite, loss, 0)
    limits = jnp.array([np.finfo(_arithmetic(tensor)).max for tensor in parameters], scalar)

    def plan(begins: jax.Array) -> _Plan:
        """What a step does with each tensor, as for the first time where it begins."""
        first = (c, sigma * c, c, sigma * c, (sigma * c + q * c) + noise)
        numbers_of = [jnp.where(begins, one, other) for one, other in zip(first, (a, b, x, y, s))]
        dots = _Dots(numbers_of[0], numbers_of[1], c, t, gradient_squared)
        return _plan(numbers, options.variant, limits, loss, noise, dots, *numbers_of[2:])

    later = plan(new)
    restarted = ~new & later.finite & (later.innovation_variance <= 0) & (options.on_breakdown == "restart")
    begins = new | restarted
    chosen = plan(begins)

    # Later ones go before earlier ones.
    outcomes = jnp.full(len(tensors), lib.KOALA_OUTCOME_STEPPED, jnp.int32)
    outcomes = jnp.where(restarted, lib.KOALA_OUTCOME_RESTARTED, outcomes)
    outcomes = jnp.where(new, lib.KOALA_OUTCOME_FIRST_STEP, outcomes)
    outcomes = jnp.where(chosen.innovation_variance <= 0, lib.KOALA_OUTCOME_BREAKDOWN, outcomes)
    outcomes = jnp.where(~chosen.finite, lib.KOALA_OUTCOME_NON_FINITE, outcomes)
    outcomes = jnp.where(skipped, lib.KOALA_OUTCOME_SKIPPED, outcomes)
    outcomes = jnp.where(~usable, lib.KOALA_OUTCOME_NON_FINITE, outcomes)
    steps_now = outcomes <= lib.KOALA_OUTCOME_RESTARTED
    if options.on_non_finite == "keep_all":
        withheld = jnp.any(outcomes == lib.KOALA_OUTCOME_NON_FINITE)
        outcomes = jnp.where(withheld & steps_now, lib.KOALA_OUTCOME_WITHHELD, outcomes)
        steps_now &= ~withheld
        noise = jnp.where(withheld, before, noise)

    begins &= steps_now
    keep, mix, rate = (jnp.where(steps_now, number, 0) for number in (chosen.keep, chosen.mix, chosen.rate))
    scalars = jnp.stack([c, chosen.h_v, chosen.innovation_variance, steps + 1], axis=1)
    scalars = jnp.where(steps_now[:, None], scalars, filters.scalars)
    moved = [
        _update(numbers, begins[i], steps_now[i], keep[i], chosen.gain, mix[i], rate[i], *tensor)
        for i, tensor in enumerate(tensors)
    ]
    updates, v, h = (list(arrays) for arrays in zip(*moved))
    return updates, Filters(noise, scalars, outcomes, v, h)


def _in_range(numbers: _Numbers) -> jax.Array:
    """Whether the numbers are those that a step can be taken with, as koala.h says; a NaN is none of them."""
    within = (numbers.initial_variance > 0) & (numbers.noise_decay <= 1) & jnp.isfinite(numbers.prior_variance)
    for number in numbers._replace(initial_variance=jnp.zeros_like(numbers.initial_variance)):
        within &= number >= 0
    return within


def _dots(
    weight_decay: jax.Array, theta: jax.Array, g: jax.Array, v: jax.Array, h: jax.Array, scalar: np.dtype[Any]
) -> jax.Array:
    """a, b, c, t and g·g of a tensor, or of the part of one that this device has."""
    theta, g, v, h = (array.astype(_arithmetic(theta)) for array in (theta, g, v, h))
    row = g + weight_decay.astype(theta.dtype) * theta
    # Without weight decay θ is not looked at.
    squared = jnp.where(weight_decay == 0, 0, theta * theta)
    row = jnp.where(weight_decay == 0, g, row)
    products = (row * h, row * v, row * row, squared, g * g)
    return jnp.stack([jnp.sum(product, dtype=scalar) for product in products])


def _plan(
    numbers: _Numbers,
    variant: str,
    limits: jax.Array,
    loss: jax.Array,
    noise: jax.Array,
    dots: _Dots,
    x: jax.Array,
    y: jax.Array,
    s: jax.Array,
) -> _Plan:
    """The scalar recursion, for all tensors at once; `limits` are the largest numbers of their types."""
    a, b, c, t, _ = dots
    q = numbers.process_noise
    lambda_ = (b + q * a) / s
    alpha, w, gain = a / x, jnp.zeros_like(a), q
    if variant == "symmetric":
        # Not a·y/x²: x² is zero in float32 where x is below 10⁻¹⁹.
        w = b / x - alpha * (y / x)
    elif variant == "definite":
        gamma = jnp.where(numbers.prior_variance == 0, numbers.initial_variance, numbers.prior_variance)
        alpha, w, gain = b / y, -gamma * (a / x), q + gamma
    keep, mix = alpha - lambda_, w - q * lambda_
    h_v = (keep * b + gain * c) + mix * a
    innovation_variance = (h_v + q * c) + noise
    divisor = jnp.where(innovation_variance > 0, innovation_variance, jnp.inf)
    rate = numbers.learning_rate * (loss + (0.5 * numbers.weight_decay) * t) / divisor
    finite = jnp.isfinite(h_v) & jnp.isfinite(innovation_variance)
    for coefficient in (numbers.weight_decay, numbers.initial_variance, keep, gain, mix):
        finite &= jnp.abs(coefficient) <= limits
    # Where S is no divisor, that is what is wrong.
    finite &= jnp.abs(rate) <= limits
    return _Plan(keep, gain, mix, rate, h_v, innovation_variance, finite)


def _update(
    numbers: _Numbers,
    begins: jax.Array,
    steps: jax.Array,
    keep: jax.Array,
    gain: jax.Array,
    mix: jax.Array,
    rate: jax.Array,
    theta: jax.Array,
    g: jax.Array,
    v: jax.Array,
    h: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What is to be added to θ, and the new v and h; zero, and the old ones, where the tensor does not step."""
    kind = _arithmetic(theta)
    weight_decay, sigma, q = (
        number.astype(kind) for number in (numbers.weight_decay, numbers.initial_variance, numbers.process_noise)
    )
    row = jnp.where(weight_decay == 0, g.astype(kind), g.astype(kind) + weight_decay * theta.astype(kind))
    row = jnp.where(steps, row, 0)
    # What the state's type makes of them is what a first step begins with.
    old_h = jnp.where(begins, row.astype(h.dtype), h).astype(kind)
    old_v = jnp.where(begins, (sigma * row).astype(v.dtype), v).astype(kind)
    new_v = keep.astype(kind) * old_v + gain.astype(kind) * row + mix.astype(kind) * old_h
    update = jnp.where(steps, -rate.astype(kind) * (new_v + q * row), 0)
    return update, jnp.where(steps, new_v.astype(v.dtype), v), jnp.where(steps, row.astype(h.dtype), h)
