"""What the step for JAX takes: tensors divided over devices, gradients and states of other types, derivatives."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

# JAX reads it when it is first used.
# ruff: noqa: E402
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3"

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from koala_optim._library import lib
from koala_optim.optax import KoalaState, koala_plus_plus

IMPLEMENTATIONS = ("ffi", "jnp")


def problem(seed: int = 0, types: Any = "float32") -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and gradients, one of them without elements."""
    rng, shapes = np.random.default_rng(seed), {"w": (6, 5), "b": (3,), "e": (0,), "s": ()}

    def draw(scale: float) -> dict[str, Any]:
        return {name: jnp.asarray(scale * rng.standard_normal(shape)).astype(types) for name, shape in shapes.items()}

    return draw(1.0), draw(0.1)


def two_of(tree: Any) -> Any:
    # Two tensors: it takes longer to compile than to step.
    return {"w": tree["w"], "s": tree["s"]}


def bits(tree: Any) -> list[tuple[str, bytes]]:
    return [(str(leaf.dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def doubles(array: Any) -> Any:
    array = np.asarray(array)
    return array.view(np.float64).ravel() if array.dtype == np.uint32 else array.astype(np.float64).ravel()


# Tensors divided over devices.

SPECS = {"w": PartitionSpec("x"), "b": PartitionSpec("x"), "e": PartitionSpec(), "s": PartitionSpec()}


def mesh_of(kind: Any) -> Any:
    return jax.make_mesh((3,), ("x",), axis_types=(kind,))


def put(tree: Any, mesh: Any) -> Any:
    return {name: jax.device_put(leaf, NamedSharding(mesh, SPECS[name])) for name, leaf in tree.items()}


def assert_placed_as(tree: Any, params: Any) -> None:
    for name, leaf in params.items():
        assert tree[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim), name


def assert_close(found: Any, expected: Any) -> None:
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), 2e-5, 1e-6)


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_new_state_is_placed_as_the_parameters(implementation: Any, kind: Any) -> None:
    params = put(problem()[0], mesh_of(kind))
    for state_type in (None, "bfloat16"):
        state = koala_plus_plus(implementation=implementation, state_dtype=state_type).init(params)
        assert_placed_as(state.v, params)
        assert_placed_as(state.h, params)


@pytest.mark.parametrize("form", ["step", "update"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_explicit_sharding(implementation: Any, form: str) -> None:
    mesh, koala = mesh_of(AxisType.Explicit), koala_plus_plus(weight_decay=0.01, implementation=implementation)

    @jax.jit
    def take(params: Any, grads: Any, state: Any) -> Any:
        if form == "step":
            return koala.step(params, grads, state, value=0.5)
        updates, state = koala.update(grads, state, params, value=0.5)
        return optax.apply_updates(params, updates), state

    params, _ = problem()
    expected, expected_state = params, koala.init(params)
    for seed in range(3):
        expected, expected_state = take(expected, problem(seed)[1], expected_state)
    with jax.set_mesh(mesh):
        found = put(params, mesh)
        state = jax.jit(koala.init)(found)
        for seed in range(3):
            found, state = take(found, put(problem(seed)[1], mesh), state)
            for tree in (found, state.v, state.h):
                assert_placed_as(tree, put(params, mesh))
    assert_close((found, state.v, state.h), (expected, expected_state.v, expected_state.h))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_explicit_sharding_is_kept_by_a_scan(implementation: Any) -> None:
    mesh, koala = mesh_of(AxisType.Explicit), koala_plus_plus(implementation=implementation)
    params, grads = problem()
    with jax.set_mesh(mesh):
        divided, divided_grads = put(params, mesh), put(grads, mesh)

        def body(carry: Any, value: Any) -> Any:
            return koala.step(carry[0], divided_grads, carry[1], value=value), None

        carry = (divided, koala.init(divided))
        found, _ = jax.jit(lambda carry: jax.lax.scan(body, carry, jnp.full(3, 0.5)))(carry)
        assert_placed_as(found[0], divided)
    expected = params, koala.init(params)
    for _ in range(3):
        expected = koala.step(expected[0], grads, expected[1], value=0.5)
    assert_close(found[0], expected[0])


def test_an_eager_step_leaves_tensors_where_they_were() -> None:
    koala = koala_plus_plus(implementation="ffi")
    params, grads = (put(tree, mesh_of(AxisType.Explicit)) for tree in problem())
    new, state = koala.step(params, grads, koala.init(params), value=0.5)
    for tree in (new, state.v, state.h):
        assert_placed_as(tree, params)


# Derivatives.


def sum_of_squares(tree: Any) -> Any:
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def derivatives(koala: Any, params: Any, grads: Any, state: Any) -> Any:
    def of(params: Any, grads: Any, value: Any, vectors: Any) -> Any:
        before = state._replace(v=vectors[0], h=vectors[1])
        new, after = koala.step(params, grads, before, value=value)
        return sum_of_squares((new, after.v, after.h, after.scalars))

    return jax.jit(jax.grad(of, (0, 1, 2, 3)))(params, grads, 0.5, (state.v, state.h))


@pytest.mark.parametrize("variant, weight_decay", [("symmetric", 0.1), ("vanilla", 0.0), ("definite", 0.1)])
def test_derivatives_of_the_first_steps_are_right(variant: Any, weight_decay: float) -> None:
    with jax.enable_x64(True):
        koala = koala_plus_plus(weight_decay=weight_decay, variant=variant, implementation="jnp")
        params, grads = map(two_of, problem(types="float64"))

        def steps(params: Any, grads: Any, value: Any, count: int) -> Any:
            state = koala.init(params)
            for _ in range(count):
                params, state = koala.step(params, grads, state, value=value)
            return sum_of_squares((params, state.v, state.h))

        for count in (1, 2):
            check_grads(jax.jit(partial(steps, count=count)), (params, grads, 0.5), order=1, modes=["rev"])


def test_derivatives_of_tensors_that_are_kept_are_finite() -> None:
    koala = koala_plus_plus(weight_decay=0.1, implementation="jnp")
    params, grads = problem()
    zeros = {**grads, "w": jnp.zeros((6, 5))}
    before = koala.init(params)
    for state in (before, koala.step(params, grads, before, value=0.5)[1]):
        found = derivatives(koala, params, zeros, state)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        # One tensor's NaN is in no other's derivative, and not in the loss's.
        for_w, for_loss = derivatives(koala, params, {**grads, "w": grads["w"].at[0, 0].set(jnp.nan)}, state)[:3:2]
        assert np.isfinite(for_loss) and all(np.isfinite(for_w[name]).all() for name in "bes")


def test_derivatives_of_a_restart_are_finite() -> None:
    koala = koala_plus_plus(1.0, 0.0, 1.0, 0.0, noise="fixed", initial_noise=1e-3, implementation="jnp")
    params, seen = {"w": jnp.zeros(2)}, []
    state = koala.init(params)
    for gradient in ([0.21, 0.1], [0.04, 0.52], [-6.04, 17.81], [0.5, 0.5]):
        grads = {"w": jnp.array(gradient)}
        found = derivatives(koala, params, grads, state)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        params, state = koala.step(params, grads, state, value=0.01)
        seen.append(int(state.outcomes[0]))
    assert 2 in seen


# Gradients of other types.


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("form", ["step", "update"])
@pytest.mark.parametrize(
    "types, given",
    [("float32", "bfloat16"), ("float32", "float16"), ("bfloat16", "float32"), ("float16", "float32")],
)
def test_gradients_of_another_type_are_taken(types: str, given: str, form: str, implementation: Any) -> None:
    koala = koala_plus_plus(weight_decay=0.01, state_dtype="float32", implementation=implementation)
    params, _ = problem(types=types)
    others = jax.tree.map(lambda leaf: leaf.astype(given), problem(types=given)[1])
    same = jax.tree.map(lambda leaf: leaf.astype(types), others)
    found = []
    for tree in (others, same):
        if form == "step":
            found.append(koala.step(params, tree, koala.init(params), value=0.5))
        else:
            found.append(koala.update(tree, koala.init(params), params, value=0.5))
    assert bits(found[0]) == bits(found[1])
    assert {leaf.dtype for leaf in jax.tree.leaves(found[0][1].h)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_float64_of_numpy_is_taken(implementation: Any) -> None:
    params, grads = problem()
    koala = koala_plus_plus(implementation=implementation)
    expected = koala.step(params, grads, koala.init(params), value=0.5)
    wide = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (params, grads)]
    assert bits(koala.step(wide[0], wide[1], koala.init(wide[0]), value=0.5)) == bits(expected)
    with jax.enable_x64(True):
        state = koala.step(params, grads, koala.init(params), value=0.5)[1]
        wide_grads = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), grads)
        assert bits(koala.step(params, wide_grads, koala.init(params), value=0.5)[1]) == bits(state)


def test_gradients_that_are_no_numbers() -> None:
    params, grads = problem()
    koala = koala_plus_plus()
    for bad in (np.zeros((3,), jax.dtypes.float0), jnp.zeros(3, jnp.complex64), jnp.zeros(3, bool)):
        with pytest.raises(TypeError, match=r"the gradient of params\['b'\] is .*, expected a type of floating-point"):
            koala.step(params, {**grads, "b": bad}, koala.init(params), value=0.5)


# States of others.


def three_steps(params: Any, koala: Any, state: Any = None, first: int = 0) -> Any:
    state = koala.init(params) if state is None else state
    take = jax.jit(koala.step)
    for seed in range(first, first + 3):
        params, state = take(params, two_of(problem(seed)[1]), state, value=0.5)
    return params, state


@pytest.mark.parametrize(
    ("maker", "taker", "x64"),
    [
        ("ffi", "jnp", (False, False)),
        ("jnp", "ffi", (False, False)),
        ("ffi", "jnp", (True, False)),
        ("jnp", "ffi", (False, True)),
        ("ffi", "ffi", (False, True)),
        ("ffi", "ffi", (True, False)),
        ("jnp", "jnp", (False, True)),
    ],
)
def test_a_state_may_be_taken_by_another_implementation(maker: Any, taker: Any, x64: tuple[bool, bool]) -> None:
    with jax.enable_x64(x64[0]):
        params, state = three_steps(two_of(problem()[0]), koala_plus_plus(implementation=maker))
        stays = three_steps(params, koala_plus_plus(implementation=maker), state, 3)
    # By way of a checkpoint.
    params, state = jax.tree.map(np.asarray, (params, state))
    with jax.enable_x64(x64[1]):
        koala = koala_plus_plus(implementation=taker)
        found = three_steps(params, koala, state, 3)
        assert [leaf.dtype for leaf in found[1][:4]] == [leaf.dtype for leaf in koala.init(params)[:4]]
    assert_close((found[0], found[1].v, found[1].h), (stays[0], stays[1].v, stays[1].h))
    for left, right in ((found[1].scalars, stays[1].scalars), (found[1].noise, stays[1].noise)):
        np.testing.assert_allclose(doubles(left), doubles(right), 1e-4)
    # Without float64, JAX rounds what it is given to float32.
    if maker == taker == "ffi" and x64 == (False, True):
        assert bits(found[0]) == bits(stays[0])
        assert doubles(found[1].scalars).tobytes() == doubles(stays[1].scalars).tobytes()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_state_of_another_type_is_cast(implementation: Any) -> None:
    halves = koala_plus_plus(implementation=implementation, state_dtype="bfloat16")
    params, state = three_steps(two_of(problem()[0]), halves)
    koala = koala_plus_plus(implementation=implementation)
    for types in ("float32", "bfloat16", "float16"):
        cast = jax.tree.map(lambda leaf, types=types: leaf.astype(types), params)
        grads = two_of(problem(types=types)[1])
        new, after = koala.step(cast, grads, state, value=0.5)
        assert {leaf.dtype for leaf in jax.tree.leaves((new, after.v, after.h))} == {jnp.dtype(types)}
        # A state of float16 goes with float32 too.
        back = jax.tree.map(lambda leaf: leaf.astype("float32"), new)
        assert int(koala.step(back, two_of(problem()[1]), after, value=0.5)[1].outcomes[0]) == 0


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_states_that_do_not_do(implementation: Any) -> None:
    koala = koala_plus_plus(implementation=implementation)
    params, grads = problem()
    state = koala.init(params)
    cases: list[tuple[Any, type[Exception], str]] = [
        (optax.adam(0.1).init(params), TypeError, "state is of type tuple, expected the KoalaState that init returns"),
        (None, TypeError, "state is of type NoneType"),
        (koala.init({"w": params["w"]}), ValueError, "tree of the state's v is not that of the parameters"),
        (koala.init({**params, "b": jnp.ones(4)}), ValueError, r"v\['b'\] has the shape \(4,\), expected \(3,\)"),
        (state._replace(scalars=state.scalars[:2]), ValueError, r"scalars has the shape \(2, .*, expected \(4,"),
        (state._replace(noise=jnp.ones(3)), ValueError, r"state's noise has the shape \(3,\)"),
        (state._replace(scalars=jnp.zeros((4, 4), jnp.int32)), TypeError, "state's scalars is int32, expected float64"),
    ]
    for bad, error, text in cases:
        with pytest.raises(error, match=text):
            koala.step(params, grads, bad, value=0.5)
        with pytest.raises(error, match=text):
            koala.update(grads, bad, params, value=0.5)


# What an error leaves.


def test_after_an_error_what_was_not_donated_is_as_it_was() -> None:
    koala = koala_plus_plus(implementation="ffi", on_non_finite="error")
    params, grads = problem()
    state = koala.init(params)
    before, bad = bits((params, state)), {**grads, "b": grads["b"].at[0].set(jnp.nan)}
    with pytest.raises(jax.errors.JaxRuntimeError, match='tensor "0"'):
        jax.block_until_ready(jax.jit(koala.step)(params, bad, state, value=0.5))
    assert bits((params, state)) == before
    # The documentation says so.
    with pytest.raises(jax.errors.JaxRuntimeError, match='tensor "0"'):
        jax.block_until_ready(jax.jit(koala.step, donate_argnums=(0, 2))(params, bad, state, value=0.5))
    assert params["w"].is_deleted() and state.v["w"].is_deleted()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_leaves_that_are_none_or_masked_stay(implementation: Any) -> None:
    koala = koala_plus_plus(implementation=implementation)
    params, grads = ({"w": tree["w"], "n": None, "m": optax.MaskedNode()} for tree in problem())
    new, state = koala.step(params, grads, koala.init(params), value=0.5)
    alone = {"w": params["w"]}
    expected, _ = koala.step(alone, {"w": grads["w"]}, koala.init(alone), value=0.5)
    assert new["n"] is None and new["m"] == optax.MaskedNode() and isinstance(state, KoalaState)
    assert bits(new["w"]) == bits(expected["w"])


# Numbers that only the program has.


@pytest.mark.parametrize(
    "numbers, measured",
    [
        ({}, {"second_moment": -100.0}),
        ({"learning_rate": lambda count: jnp.where(count > 0, -1.0, 1.0)}, {}),
        ({"weight_decay": jnp.float32(-0.1)}, {}),
        ({"process_noise": jnp.float32(jnp.nan)}, {}),
        ({"initial_variance": jnp.float32(0)}, {}),
        ({"noise_decay": jnp.float32(1.5)}, {}),
    ],
)
def test_what_is_out_of_range_keeps_all_tensors(numbers: dict[str, Any], measured: dict[str, Any]) -> None:
    parameters, gradients = (two_of(tree) for tree in problem())
    optimizer = koala_plus_plus(implementation="jnp", **numbers)
    state = optimizer.init(parameters)
    if callable(numbers.get("learning_rate")):
        parameters, state = optimizer.step(parameters, gradients, state, value=0.5)
    new, after = optimizer.step(parameters, gradients, state, value=0.5, **measured)
    assert bits(new) == bits(parameters)
    assert bits((after.v, after.h, after.scalars)) == bits((state.v, state.h, state.scalars))
    assert not np.any(doubles(after.noise) < 0)
    assert np.asarray(after.outcomes).tolist() == [lib.KOALA_OUTCOME_NON_FINITE] * 2
