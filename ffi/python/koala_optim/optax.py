"""KOALA++ for JAX, as a transformation of Optax.

```python
koala = koala_plus_plus(weight_decay=1e-4)
state = koala.init(params)

@partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, state, batch):
    value, grads = jax.value_and_grad(loss)(params, batch)
    params, state = koala.step(params, grads, state, value=value)
    return params, state, value
```

`koala.update` is the form that Optax knows, and that its combinators take; `koala.step` is the same step without the
detour over an update that is added afterwards. On the CPU both are done by libkoala, elsewhere by the same equations in
JAX's operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Literal, NamedTuple, Protocol, TypeVar, Union, cast

import jax
import jax.numpy as jnp
import optax

from . import _recursion, _xla
from ._jax import Filters, Measurement, Numbers, Options, is_static, scalar
from ._library import check, ffi, lib
from ._settings import ON_BREAKDOWN, ON_NON_FINITE, OnBreakdown, OnNonFinite, Settings, Variant, backend_number, number

__all__ = ["KoalaState", "Transformation", "koala_plus_plus"]

Parameters = TypeVar("Parameters")
Scalar = Union[float, jax.Array]
Implementation = Literal["auto", "ffi", "jnp"]

_TYPES = ("float32", "float64", "bfloat16", "float16")


class KoalaState(NamedTuple):
    """The filters of a pytree of n tensors. A pytree itself: to be saved, donated, divided as any other.

    Where JAX has no float64 (`jax_enable_x64` is off, as by default), libkoala's doubles are kept by their bits, in
    uint32: `numpy.asarray(state.scalars).view("float64")` shows them. Without libkoala they are float32 then. A step
    takes a state of either, and of either setting of JAX, and returns one of its own.

    Attributes:
        count: int32[], the calls of `update` and `step` so far, for a schedule of the learning rate.
        noise: R as the last step used it, in squared units of the loss: float64[], uint32[2] or float32[]. NaN before
            the first step.
        scalars: Of each tensor, in the order of `jax.tree.leaves(params)`: x = h·h, y = h·v, s, and the number of its
            steps. float64[n, 4], uint32[n, 8] or float32[n, 4]; all zero before the first step.
        outcomes: int32[n], what the last step did with each tensor: koala_outcome's numbers in koala.h. Up to 2 it
            stepped; 3: its gradient is zero; 5: something is NaN or infinite; 6: S would not have been positive; 7:
            another tensor was not finite.
        v: v = H·P of each tensor, shaped as the parameters.
        h: The measurement row of the step before, likewise.
    """

    count: jax.Array  # type: ignore[assignment]
    noise: jax.Array
    scalars: jax.Array
    outcomes: jax.Array
    v: Any
    h: Any


class _Step(Protocol):
    def __call__(
        self,
        params: Parameters,
        grads: Parameters,
        state: KoalaState,
        *,
        value: Scalar,
        second_moment: Scalar | None = None,
    ) -> tuple[Parameters, KoalaState]: ...


class Transformation(optax.GradientTransformationExtraArgs):  # type: ignore[misc,unused-ignore]
    """What `koala_plus_plus` returns: Optax's `init` and `update`, and `step`.

    Attributes:
        step: `step(params, grads, state, *, value, second_moment=None) -> (params, state)`, the whole step, with the
            arguments of `update`. On the CPU it gives the bits of libkoala, and under `jax.jit` with
            `donate_argnums` for `params` and `state` nothing is copied: both are written in place, and gone after an
            error, as donated arrays are.
    """

    step: _Step

    def __new__(cls, init: Any, update: Any, step: _Step) -> Transformation:
        self: Transformation = super().__new__(cls, init, update)
        self.step = step
        return self


def koala_plus_plus(
    learning_rate: Scalar | Callable[[jax.Array], Scalar] = 1.0,
    weight_decay: Scalar = 0.0,
    initial_variance: Scalar = 0.1,
    process_noise: Scalar = 0.1,
    variant: Variant = "symmetric",
    prior_variance: Scalar = 0.0,
    noise: Literal["averaged", "fixed"] = "averaged",
    noise_decay: Scalar = 0.9,
    initial_noise: Scalar = 1.0,
    state_dtype: Any = None,
    axis_name: Any = None,
    implementation: Implementation = "auto",
    on_non_finite: OnNonFinite = "keep_tensor",
    on_breakdown: OnBreakdown = "restart",
    backend: str = "fastest",
) -> Transformation:
    """The optimizer KOALA++ (arXiv 2506.04432): a Kalman filter per tensor, whose measurement is the minibatch's loss.

    With H = g + wd·θ and the state v, h, x = h·h, y = h·v, s of a tensor (before its first step h = H, v = σ·H,
    s = y + Q·x + R), a step is:

        α  = H·h/x      λ = (H·v + Q·H·h)/s      w = H·v/x − (H·h)·y/x²      (w = 0 in the vanilla variant)
        v' = (α − λ)·v + Q·H + (w − Q·λ)·h
        s' = H·v' + Q·H·H + R
        θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)

    then h = H. In the definite variant α = H·v/y, w = −γ·H·h/x, and v' has (Q + γ)·H in the place of Q·H.

    A tensor whose gradient's norm is below 1e-9 is kept as it is. The updates are θ' − θ, and are not to be scaled down
    by a learning rate of another optimizer's size: η = 1 is the whole Kalman step.

    `update(updates, state, params, *, value, second_moment=None)` needs the parameters, and:
        value: L, the minibatch's mean loss, a scalar. It has to be the loss of these gradients: under
            `optax.MultiSteps`, which hands over the last value only, the mean over the small batches is wanted.
        second_moment: m, the mean of the squared per-sample losses, for the averaged noise. Default: value², which is
            smaller by the variance of the per-sample losses; better give it, if you have them.
    Other keyword arguments are ignored.

    Gradients may be of another floating-point type than their parameters: they are rounded to the parameters' type. v
    and h of the state are rounded to the type that `state_dtype` says, if they are of another one.

    `params + updates` is what `step` gives, but for a rounding where a parameter becomes less than its half or more
    than its double. Where that counts, and where speed counts, call `step`.

    v and h are divided over devices as the parameters are: by `init` outside of `jax.jit`, and inside where the mesh's
    axes are explicit. Then `implementation="jnp"` leaves the communication to XLA. Libkoala is given each tensor as a
    whole, and under `jax.jit` its results stay whole unless the axes are explicit. With parameters that are replicated,
    each device takes the same step. Inside `shard_map` or `pmap`, where every tensor is divided over `axis_name`, the
    dots are summed over it; `value` has to be the mean over all devices.

    Args:
        learning_rate: η ≥ 0, the share of the Kalman step that is taken: a number, or a schedule, called with the
            int32[] number of calls before.
        weight_decay: wd ≥ 0, coupled: the loss of a tensor is L + ½·wd·θ·θ.
        initial_variance: σ > 0, the variance of a parameter before the first step, in squared units of the parameter.
        process_noise: Q ≥ 0, what that variance grows by in each step.
        variant: "symmetric", the paper's default; "vanilla"; or "definite", this library's own, which stays positive
            definite.
        prior_variance: γ ≥ 0, the variance in all directions that "definite" assumes, and no other variant reads; in
            squared units of the parameter. 0 stands for the initial variance.
        noise: How R, the variance of the measurement noise, in squared units of the loss, goes on. "averaged":
            R ← noise_decay·R + (1 − noise_decay)·m before each step; "fixed": always initial_noise.
        noise_decay: In [0, 1].
        initial_noise: R ≥ 0 before the first step.
        state_dtype: What v and h are stored in: None for the parameters' type, "float32" or "bfloat16".
        axis_name: The mesh axis, or axes, over which every tensor is divided inside `shard_map` or `pmap`.
        implementation: "ffi": libkoala, on the CPU only, on one thread. "jnp": JAX's operations, on every platform; its
            sums are in XLA's order, and in float32 where JAX has no float64; and it alone can be differentiated.
            "auto": "ffi" if JAX's default backend is the CPU and there is no axis_name, else "jnp".
        on_non_finite: What becomes of the step if a gradient, the loss or a scalar is NaN or infinite. "keep_tensor":
            that tensor is kept as it is. "keep_all": all are. "error", with "ffi" only: a JaxRuntimeError. Parameters
            and state are as they were then, but JAX has deleted those that were donated to the step: to go on after an
            error, do not donate them, or take "keep_all" and look at `outcomes`. "unchecked" is "keep_tensor" here:
            only in AdamW and SGD, which are not here, does looking cost anything.
        on_breakdown: What becomes of a tensor whose S would not be positive. "restart": it steps as for the first time.
            "skip": it is kept. "error", with "ffi" only, is an error as above.
        backend: Where libkoala runs: "fastest", or a name of its backends. No bit depends on it.

    All numbers may be arrays that change from step to step, as under `optax.inject_hyperparams`, which is to be told
    `static_args=("state_dtype", "axis_name")` if those are callable. Where such a number, or `second_moment`, is out of
    its range, "ffi" raises a JaxRuntimeError; "jnp" cannot, and keeps all tensors, which count as not finite.

    Raises:
        ValueError: A number is out of its range, a name unknown, or an option needs another implementation. `init`,
            `update` and `step` raise it for parameters, gradients, a state or a value that are missing or of another
            shape.
        TypeError: By `init`, `update` and `step`: a tensor is of a type that can't be stepped, a gradient of none of
            floating-point numbers, or the state is no `KoalaState`.
    """
    numbers = dict(
        weight_decay=weight_decay,
        initial_variance=initial_variance,
        process_noise=process_noise,
        prior_variance=prior_variance,
        noise_decay=noise_decay,
        initial_noise=initial_noise,
    )
    if not callable(learning_rate):
        numbers["learning_rate"] = learning_rate
    _check_numbers(numbers, variant)
    if noise not in ("averaged", "fixed"):
        raise ValueError(f"noise is {noise!r}, expected 'averaged' or 'fixed'")
    number("on_non_finite", on_non_finite, ON_NON_FINITE)
    number("on_breakdown", on_breakdown, ON_BREAKDOWN)
    if implementation not in ("auto", "ffi", "jnp"):
        raise ValueError(f"implementation is {implementation!r}, expected 'auto', 'ffi' or 'jnp'")
    if implementation == "ffi" and axis_name is not None:
        raise ValueError("tensors that are divided over axis_name need implementation='jnp' or 'auto'")
    state_type = None if state_dtype is None else jnp.dtype(state_dtype)
    if state_type not in (None, jnp.float32, jnp.bfloat16):
        raise ValueError(f"state_dtype is {state_type}, expected None, 'float32' or 'bfloat16'")
    backend_code = backend_number(backend)

    def uses_libkoala() -> bool:
        if implementation == "auto":
            found = axis_name is None and jax.default_backend() == "cpu"
        else:
            found = implementation == "ffi"
        if not found and "error" in (on_non_finite, on_breakdown):
            raise ValueError("on_non_finite='error' and on_breakdown='error' need implementation='ffi', on the CPU")
        return found

    def init(params: Any) -> KoalaState:
        leaves, tree = jax.tree.flatten(params)
        _check_types(params)
        v, h = ([jnp.zeros_like(leaf, state_type) for leaf in leaves] for _ in range(2))
        filters = (_xla if uses_libkoala() else _recursion).initial(v, h)
        return _packed(jnp.zeros((), jnp.int32), filters, tree)

    def filtered(
        params: Any, grads: Any, state: KoalaState, value: Any, second_moment: Any, as_update: bool
    ) -> tuple[Any, KoalaState]:
        """The step: new parameters, or what is to be added to them; and the new state."""
        _check_types(params)
        params = jax.tree.map(jnp.asarray, params)
        leaves, tree = jax.tree.flatten(params)
        gradients = _gradients(params, _leaves("gradients", tree, grads))
        before = _filters(params, tree, state, state_type)
        loss = scalar("value", value)
        squared = loss * loss if second_moment is None else scalar("second_moment", second_moment)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        options = Options(
            Numbers(**{name: scalar(name, given) for name, given in {**numbers, "learning_rate": rate}.items()}),
            variant=variant,
            averaged=noise == "averaged",
            on_non_finite=on_non_finite,
            on_breakdown=on_breakdown,
            backend=backend_code,
            axis_name=axis_name,
        )
        measurement = Measurement(loss, squared)
        moved: Sequence[jax.Array]
        if uses_libkoala():
            moved, filters = _xla.step(options, leaves, gradients, before, measurement)
            if as_update:
                moved = [new - old for new, old in zip(moved, leaves)]
        else:
            moved, filters = _recursion.step(options, leaves, gradients, before, measurement)
            if not as_update:
                moved = [old.astype(update.dtype) + update for old, update in zip(leaves, moved)]
            moved = [new.astype(old.dtype) for new, old in zip(moved, leaves)]
        return jax.tree.unflatten(tree, moved), _packed(optax.safe_increment(state.count), filters, tree)

    def update(
        updates: Any,
        state: KoalaState,
        params: Any = None,
        *,
        value: Scalar | None = None,
        second_moment: Scalar | None = None,
        **_: Any,
    ) -> tuple[Any, KoalaState]:
        if params is None:
            raise ValueError("koala_plus_plus needs the parameters: update(grads, state, params, value=loss)")
        return filtered(params, updates, state, _given(value), second_moment, as_update=True)

    def step(
        params: Parameters,
        grads: Parameters,
        state: KoalaState,
        *,
        value: Scalar | None = None,
        second_moment: Scalar | None = None,
    ) -> tuple[Parameters, KoalaState]:
        return cast(
            "tuple[Parameters, KoalaState]",
            filtered(params, grads, state, _given(value), second_moment, as_update=False),
        )

    return Transformation(init, update, step)


def _packed(count: jax.Array, filters: Filters, tree: Any) -> KoalaState:
    v, h = (jax.tree.unflatten(tree, leaves) for leaves in (filters.v, filters.h))
    return KoalaState(count, filters.noise, filters.scalars, filters.outcomes, v, h)


def _given(value: Scalar | None) -> Scalar:
    if value is None:
        raise ValueError("koala_plus_plus needs the minibatch's mean loss: value=loss")
    return value


def _check_numbers(numbers: dict[str, Any], variant: Variant) -> None:
    """Looks at those that are known now, as libkoala does."""
    static: dict[str, Any] = {name: float(given) for name, given in numbers.items() if is_static(given)}
    decay, start = static.pop("noise_decay", 0.0), static.pop("initial_noise", 0.0)
    Settings(**static, variant=variant)
    check(lib.koala_noise_update(decay, ffi.new("koala_loss *"), ffi.new("double *", start)))


def _check_types(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found = getattr(leaf, "dtype", None)
        if found not in _TYPES:
            what = type(leaf).__name__ if found is None else found
            raise TypeError(f"params{jax.tree_util.keystr(path)} is {what}, expected an array of {', '.join(_TYPES)}")


def _leaves(what: str, tree: Any, given: Any) -> list[Any]:
    leaves, found = jax.tree.flatten(given)
    if found != tree:
        raise ValueError(f"the tree of the {what} is not that of the parameters: {found}, expected {tree}")
    return leaves


def _gradients(params: Any, given: Sequence[Any]) -> list[jax.Array]:
    """The gradients in the parameters' types."""
    gradients = []
    for (path, leaf), gradient in zip(jax.tree_util.tree_leaves_with_path(params), given):
        name = f"the gradient of params{jax.tree_util.keystr(path)}"
        _check_shape(name, gradient, leaf)
        # In its own type, which may be one that JAX does not have.
        found = getattr(gradient, "dtype", None) or jnp.result_type(gradient)
        if not jnp.issubdtype(found, jnp.floating):
            raise TypeError(f"{name} is {found}, expected a type of floating-point numbers")
        gradients.append(jnp.asarray(gradient).astype(leaf.dtype))
    return gradients


def _filters(params: Any, tree: Any, state: Any, state_type: Any) -> Filters:
    """What a state holds, with v and h in the types that they are stored in."""
    if not isinstance(state, KoalaState):
        raise TypeError(f"the state is of type {type(state).__name__}, expected the KoalaState that init returns")
    vectors = []
    for what, given in (("v", state.v), ("h", state.h)):
        leaves = _leaves(f"state's {what}", tree, given)
        for (path, leaf), vector in zip(jax.tree_util.tree_leaves_with_path(params), leaves):
            _check_shape(f"the state's {what}{jax.tree_util.keystr(path)}", vector, leaf)
        kinds = [state_type or leaf.dtype for leaf in jax.tree.leaves(params)]
        vectors.append([jnp.asarray(vector).astype(kind) for vector, kind in zip(leaves, kinds)])
    _check_numbers_of("noise", state.noise, ())
    _check_numbers_of("scalars", state.scalars, (len(vectors[0]), 4))
    return Filters(state.noise, state.scalars, state.outcomes, *vectors)


def _check_numbers_of(what: str, array: Any, shape: tuple[int, ...]) -> None:
    """Looks at what `_jax.converted` takes."""
    found, bits = jnp.result_type(array), (*shape[:-1], 8 if shape else 2)
    if found not in ("float64", "float32", "uint32"):
        raise TypeError(f"the state's {what} is {found}, expected float64, float32 or uint32")
    expected = bits if found == jnp.uint32 else shape
    if jnp.shape(array) != expected:
        raise ValueError(f"the state's {what} has the shape {jnp.shape(array)} of {found}, expected {expected}")


def _check_shape(name: str, array: Any, like: Any) -> None:
    found, expected = jnp.shape(array), jnp.shape(like)
    if found != expected:
        raise ValueError(f"{name} has the shape {found}, expected {expected}")
