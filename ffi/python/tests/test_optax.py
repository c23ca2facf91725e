"""The step for JAX: against recorded trajectories, libkoala's own bits, and what JAX and Optax do with it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

# JAX reads it when it is loaded, so the imports come after it.
# ruff: noqa: E402
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3"

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from koala_optim._library import check, ffi, lib
from koala_optim._settings import VARIANTS
from koala_optim.optax import KoalaState, koala_plus_plus

TRAJECTORIES = sorted((Path(__file__).parents[3] / "trajectory" / "data").glob("koalapp-*.json.gz"))
TYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
OUTCOMES = ("stepped", "first_step", "restarted", "skipped", "frozen", "non_finite", "breakdown", "withheld")
IMPLEMENTATIONS = ("ffi", "jnp")


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Without and with float64 in JAX."""
    with jax.enable_x64(request.param):
        yield request.param


def doubles(array: jax.Array) -> np.ndarray:
    """Noise or scalars in float64, whatever they are kept in."""
    array = np.asarray(array)
    return array.view(np.float64) if array.dtype == np.uint32 else array.astype(np.float64)


def outcomes(state: KoalaState) -> list[str]:
    return [OUTCOMES[outcome] for outcome in np.asarray(state.outcomes)]


def random_problem(types: Any, seed: int = 0) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Parameters and gradients of several shapes, one of them without elements."""
    shapes = {"a": (3, 5), "b": (), "c": (0,), "d": (1030,), "e": (2, 3, 7)}
    rng = np.random.default_rng(seed)

    def draw(scale: float) -> dict[str, jax.Array]:
        return {name: jnp.asarray(scale * rng.standard_normal(shape)).astype(types) for name, shape in shapes.items()}

    return draw(1.0), draw(0.1)


class Reference:
    """libkoala, called as C calls it, on copies."""

    def __init__(self, params: Any, state_type: Any = None, noise: float = 1.0, **settings: float) -> None:
        self.params = {name: np.array(leaf) for name, leaf in params.items()}
        self.v = {name: np.zeros(leaf.shape, state_type or leaf.dtype) for name, leaf in self.params.items()}
        self.h = {name: np.zeros(leaf.shape, state_type or leaf.dtype) for name, leaf in self.params.items()}
        self.scalars = np.zeros((len(params), 4))
        self.noise = np.array(noise)
        self.settings = settings
        self.state_type = 0 if state_type is None else {"float32": 1, "bfloat16": 2}[str(np.dtype(state_type))]

    def step(self, grads: Any, mean: float, second_moment: float) -> list[str]:
        loss = ffi.new("koala_loss *", {"mean": mean, "second_moment": second_moment})
        check(lib.koala_noise_update(0.9, loss, ffi.cast("double *", self.noise.ctypes.data)))
        settings = ffi.new("koala_settings *")
        check(lib.koala_settings_init(settings, ffi.sizeof("koala_settings")))
        for name, value in self.settings.items():
            setattr(settings, name, value)
        step = ffi.new("koala_step *")
        check(lib.koala_step_init(step, ffi.sizeof("koala_step")))
        step.groups, step.group_count, step.loss, step.noise = settings, 1, mean, float(self.noise)
        found = []
        for place, name in enumerate(self.params):
            gradient = np.array(grads[name])
            tensor = ffi.new("koala_tensor *", {"size": ffi.sizeof("koala_tensor"), "length": gradient.size})
            tensor.type, tensor.state_type = TYPES[str(gradient.dtype)], self.state_type
            arrays = {"parameters": self.params[name], "gradient": gradient, "v": self.v[name], "h": self.h[name]}
            for member, array in arrays.items():
                setattr(tensor, member, ffi.cast("void *", array.ctypes.data))
            tensor.scalars = ffi.cast("koala_scalars *", self.scalars[place].ctypes.data)
            report = ffi.new("koala_tensor_report *")
            check(lib.koala_step_tensor(step, tensor, report))
            found.append(OUTCOMES[report.outcome])
        return found

    def assert_is(self, params: Any, state: KoalaState) -> None:
        for name in self.params:
            assert np.asarray(params[name]).tobytes() == self.params[name].tobytes(), name
            assert np.asarray(state.v[name]).tobytes() == self.v[name].tobytes(), name
            assert np.asarray(state.h[name]).tobytes() == self.h[name].tobytes(), name
        assert doubles(state.scalars).tobytes() == self.scalars.tobytes()
        assert doubles(state.noise).tobytes() == self.noise.tobytes()


# Trajectories


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.name.split(".")[0])
def test_recorded_trajectories(path: Path, implementation: Any) -> None:
    # In the two forms by turns: to compile takes longer than to run.
    form = ("step", "update")[TRAJECTORIES.index(path) % 2]
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    config, noise = recorded["config"], recorded["noise"]
    rule: dict[str, Any] = {"noise": "fixed", "initial_noise": noise.get("fixed")}
    if "ema" in noise:
        rule = {"noise_decay": noise["ema"]["alpha"], "initial_noise": noise["ema"]["init"]}
    with jax.enable_x64(True):
        koala = koala_plus_plus(
            config["lr"],
            config["weight_decay"],
            config["sigma"],
            config["q"],
            "symmetric" if config["symmetric"] else "vanilla",
            implementation=implementation,
            **rule,
        )

        @jax.jit
        def take(params: Any, grads: Any, state: Any, value: Any, second_moment: Any) -> Any:
            if form == "step":
                return koala.step(params, grads, state, value=value, second_moment=second_moment)
            updates, state = koala.update(grads, state, params, value=value, second_moment=second_moment)
            return optax.apply_updates(params, updates), state

        params = [jnp.array(theta) for theta in recorded["theta0"]]
        state = koala.init(params)
        looked = 0
        for step in recorded["steps"]:
            grads = [jnp.array(gradient) for gradient in step["grads"]]
            params, state = take(params, grads, state, step["loss"], step["loss_second_moment"])
            if expected := step.get("expect"):
                looked += 1
                pairs = [*zip(params, expected["theta"]), *zip(state.v, expected["v"])]
                pairs += [(state.scalars[:, 2], expected["s"]), (state.noise, expected["r"])]
                groups = [pairs[: len(params)], pairs[len(params) : 2 * len(params)], *([pair] for pair in pairs[-2:])]
                for group in groups:
                    found = np.concatenate([np.ravel(pair[0]) for pair in group])
                    wanted = np.concatenate([np.ravel(pair[1]) for pair in group])
                    assert np.abs(found - wanted).max() <= 1e-12 * np.abs(wanted).max()
        assert looked > 0


# The bits of libkoala


@pytest.mark.parametrize("weight_decay, variant", [(0.0, "symmetric"), (0.01, "symmetric"), (0.01, "definite")])
@pytest.mark.parametrize("state_type", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("types", ["float32", "float64", "bfloat16", "float16"])
def test_the_operation_has_the_bits_of_the_kernel(
    types: str, state_type: Any, weight_decay: float, variant: Any, x64: bool
) -> None:
    if types == "float64" and not x64:
        pytest.skip("JAX has no float64 then")
    params, _ = random_problem(types)
    koala = koala_plus_plus(
        0.8, weight_decay, variant=variant, prior_variance=0.3, state_dtype=state_type, implementation="ffi"
    )
    reference = Reference(
        params,
        None if state_type == types else state_type and jnp.dtype(state_type),
        learning_rate=0.8,
        weight_decay=weight_decay,
        variant=VARIANTS[variant],
        prior_variance=0.3,
    )
    state = koala.init(params)
    take = jax.jit(koala.step, donate_argnums=(0, 2))
    for seed in range(5):
        _, grads = random_problem(types, seed)
        # A gradient that is left out, and losses that float32 has.
        if seed == 2:
            grads["d"] = jnp.zeros_like(grads["d"])
        expected = reference.step(grads, 0.75 - 0.0625 * seed, 0.625)
        params, state = take(params, grads, state, value=0.75 - 0.0625 * seed, second_moment=0.625)
        assert outcomes(state) == expected
        reference.assert_is(params, state)


def test_denormals_are_kept(x64: bool) -> None:
    params = {"w": jnp.full(64, 1e-38, jnp.float32)}
    grads = {"w": jnp.full(64, 1e-39, jnp.float32).at[0].set(0.5)}
    reference, koala = Reference(params), koala_plus_plus(implementation="ffi")
    state = koala.init(params)
    for _ in range(3):
        reference.step(grads, 0.5, 0.25)
        params, state = jax.jit(koala.step)(params, grads, state, value=0.5)
    assert 0 < np.asarray(state.h["w"])[1] < 1e-38
    reference.assert_is(params, state)


@pytest.mark.parametrize("backend", ["scalar", "portable"])
def test_no_bit_depends_on_the_backend(backend: str) -> None:
    params, grads = random_problem("float32")
    steps = [koala_plus_plus(implementation="ffi", backend=name) for name in (backend, "fastest")]
    found = [koala.step(params, grads, koala.init(params), value=0.5) for koala in steps]
    assert jax.tree.all(jax.tree.map(np.array_equal, *found))


@pytest.mark.parametrize("variant", [("symmetric", 0.3), ("vanilla", 0.3), ("definite", 0.3), ("definite", 0.0)])
@pytest.mark.parametrize("types", ["float32", "bfloat16"])
def test_both_implementations_agree(types: str, variant: Any, x64: bool) -> None:
    options = dict(zip(("variant", "prior_variance"), variant))
    found = []
    for implementation in IMPLEMENTATIONS:
        params, _ = random_problem(types)
        koala = koala_plus_plus(weight_decay=0.01, state_dtype="float32", implementation=implementation, **options)
        state = koala.init(params)
        for seed in range(6):
            _, grads = random_problem(types, seed)
            params, state = jax.jit(koala.step)(params, grads, state, value=0.7, second_moment=0.6)
        found.append((params, state))
    (left, left_state), (right, right_state) = found
    assert outcomes(left_state) == outcomes(right_state)
    tolerance = 1e-5 if types == "float32" else 1e-2
    for name in left:
        np.testing.assert_allclose(*(np.asarray(p[name], np.float64) for p in (left, right)), tolerance, tolerance)
    np.testing.assert_allclose(doubles(left_state.scalars), doubles(right_state.scalars), 1e-4)


def test_updates_added_are_the_step(x64: bool) -> None:
    for implementation in IMPLEMENTATIONS:
        params, grads = random_problem("float32")
        koala = koala_plus_plus(weight_decay=0.01, implementation=implementation)
        state = koala.init(params)
        updates, after_update = koala.update(grads, state, params, value=0.7)
        new, after_step = koala.step(params, grads, state, value=0.7)
        assert jax.tree.all(jax.tree.map(partial(np.array_equal, equal_nan=True), after_update, after_step))
        added = optax.apply_updates(params, updates)
        for name in params:
            largest = np.maximum(np.abs(params[name]), np.abs(new[name]))
            assert np.all(np.abs(added[name] - new[name]) <= np.spacing(largest))


# What JAX does with it


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_donated_arrays_are_written_in_place(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    del params["c"], grads["c"]
    koala = koala_plus_plus(implementation=implementation)
    state = koala.init(params)
    take = jax.jit(koala.step, donate_argnums=(0, 2))

    def places(params: Any, state: KoalaState) -> list[int]:
        # All but the outcomes, which are not read.
        arrays = jax.tree.leaves((params, state.noise, state.scalars, state.v, state.h))
        return [array.unsafe_buffer_pointer() for array in arrays]

    before = places(params, state)
    old = params["d"]
    params, state = take(params, grads, state, value=0.5)
    assert places(params, state) == before and old.is_deleted()


def test_nothing_is_copied_inside_a_donated_step() -> None:
    params, grads = random_problem("float32")
    del params["c"], grads["c"]
    koala = koala_plus_plus(implementation="ffi")
    take = jax.jit(koala.step, donate_argnums=(0, 2))
    text = take.lower(params, grads, koala.init(params), value=jnp.float32(0.5)).compile().as_text()
    assert "koala_xla_step" in text and " copy(" not in text


def test_arrays_that_are_not_donated_stay() -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation="ffi")
    state = koala.init(params)
    before = [np.array(leaf) for leaf in jax.tree.leaves((params, grads, state))]
    for step in (koala.step, jax.jit(koala.step)):
        new, _ = step(params, grads, state, value=0.5)
        assert not np.array_equal(new["d"], params["d"])
        after = jax.tree.leaves((params, grads, state))
        assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(before, after))


def test_a_gradient_may_be_the_parameters() -> None:
    params, _ = random_problem("float32")
    reference, koala = Reference(params), koala_plus_plus(implementation="ffi")
    state = koala.init(params)
    reference.step(params, 0.5, 0.25)
    reference.assert_is(*jax.jit(lambda params, state: koala.step(params, params, state, value=0.5))(params, state))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_scan_is_the_loop(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(lambda count: 1.0 / (1.0 + count), implementation=implementation)

    def body(carry: Any, value: Any) -> Any:
        params, state = carry
        return koala.step(params, grads, state, value=value), value

    losses = jnp.array([0.5, 0.25, 0.125], jnp.float32)
    scanned, _ = jax.jit(lambda carry: jax.lax.scan(body, carry, losses))((params, koala.init(params)))
    carry = (params, koala.init(params))
    take = jax.jit(koala.step)
    for loss in losses:
        carry = take(carry[0], grads, carry[1], value=loss)
    assert int(scanned[1].count) == 3
    for left, right in zip(jax.tree.leaves(scanned), jax.tree.leaves(carry)):
        if implementation == "ffi":
            assert np.array_equal(left, right)
        else:
            np.testing.assert_allclose(left, right, 1e-5, 1e-6)


def test_vmap_takes_each_alone() -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation="ffi")

    def two(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), tree)

    states = jax.vmap(koala.init)(two(params))
    new, _ = jax.vmap(lambda p, g, s: koala.step(p, g, s, value=0.5))(two(params), two(grads), states)
    for place, factor in enumerate((1, 2)):
        alone = jax.tree.map(lambda leaf, factor=factor: factor * leaf, (params, grads))
        expected, _ = koala.step(*alone, koala.init(params), value=0.5)
        assert np.array_equal(new["d"][place], expected["d"])


# What Optax does with it


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_multi_steps(implementation: Any, x64: bool) -> None:
    params, _ = random_problem("float32")
    koala = koala_plus_plus(implementation=implementation)
    several = optax.MultiSteps(koala, 2)
    state = several.init(params)
    gradients = [random_problem("float32", seed)[1] for seed in (1, 2)]
    updates, state = jax.jit(several.update)(gradients[0], state, params, value=0.5)
    assert all(not np.any(update) for update in jax.tree.leaves(updates))
    updates, state = jax.jit(several.update)(gradients[1], state, params, value=0.25)
    mean = jax.tree.map(lambda left, right: (left + right) / 2, *gradients)
    expected, _ = koala.update(mean, koala.init(params), params, value=0.25)
    for name in params:
        np.testing.assert_allclose(updates[name], expected[name], 1e-4, 1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_chain_and_masked(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation=implementation)
    chained = optax.chain(
        optax.clip_by_global_norm(1e-2),
        optax.masked(koala, {**dict.fromkeys("abce", False), "d": True}),
        optax.scale(0.5),
    )
    updates, _ = jax.jit(chained.update)(grads, chained.init(params), params, value=0.5)
    clipped, _ = optax.clip_by_global_norm(1e-2).update(grads, optax.EmptyState())
    only = {"d": params["d"]}
    expected, _ = koala.update({"d": clipped["d"]}, koala.init(only), only, value=0.5)
    np.testing.assert_allclose(updates["d"], 0.5 * expected["d"], 1e-4, 1e-7)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_injected_hyperparameters(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    injected = optax.inject_hyperparams(koala_plus_plus)(
        learning_rate=optax.linear_schedule(1.0, 0.5, 4), weight_decay=0.25, implementation=implementation
    )
    update, state = jax.jit(injected.update), jax.jit(injected.init)(params)
    # In float32, as Optax gives them.

    def plain(rate: float) -> Any:
        tenth, decay = float(np.float32(0.1)), float(np.float32(0.9))
        return koala_plus_plus(rate, 0.25, tenth, tenth, noise_decay=decay, implementation=implementation)

    expected_state = plain(1.0).init(params)
    for rate in (1.0, 0.875, 0.75):
        updates, state = update(grads, state, params, value=0.5)
        expected, expected_state = jax.jit(plain(rate).update)(grads, expected_state, params, value=0.5)
        for name in params:
            np.testing.assert_allclose(updates[name], expected[name], 1e-6, 1e-8)
    assert update._cache_size() == 1


def test_a_schedule_compiles_once() -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(optax.cosine_decay_schedule(1.0, 10), implementation="ffi")
    take, state = jax.jit(koala.step), koala.init(params)
    for _ in range(3):
        params, state = take(params, grads, state, value=0.5)
    assert take._cache_size() == 1


# Tensors divided over devices


def divided_problem() -> tuple[Any, list[Any]]:
    rng, shapes = np.random.default_rng(3), {"w": (12, 5), "b": (6,)}

    def draw() -> dict[str, jax.Array]:
        return {name: jnp.array(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}

    return draw(), [draw() for _ in range(4)]


def one_device(koala: Any, params: Any, gradients: Any) -> Any:
    state = koala.init(params)
    for grads in gradients:
        params, state = jax.jit(koala.step)(params, grads, state, value=0.5)
    return params, state


def assert_close(found: Any, expected: Any) -> None:
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), 2e-5, 1e-6)


@pytest.mark.parametrize("devices", [2, 3])
def test_shard_map_sums_the_dots(devices: int, x64: bool) -> None:
    params, gradients = divided_problem()
    expected = one_device(koala_plus_plus(weight_decay=0.01, implementation="jnp"), params, gradients)
    koala = koala_plus_plus(weight_decay=0.01, axis_name="parts")
    mesh = Mesh(np.array(jax.devices()[:devices]), ("parts",))
    whole, parts = PartitionSpec(), PartitionSpec("parts")
    layout = KoalaState(whole, whole, whole, whole, parts, parts)
    take = jax.jit(
        jax.shard_map(
            lambda params, grads, state: koala.step(params, grads, state, value=0.5),
            mesh=mesh,
            in_specs=(parts, parts, layout),
            out_specs=(parts, layout),
        )
    )
    state = koala.init(params)
    for grads in gradients:
        params, state = take(params, grads, state)
    assert_close((params, state), expected)


@pytest.mark.parametrize("devices", [2, 3])
def test_pmap_sums_the_dots(devices: int, x64: bool) -> None:
    params, gradients = divided_problem()
    expected, _ = one_device(koala_plus_plus(implementation="jnp"), params, gradients)
    koala = koala_plus_plus(axis_name="parts")

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), tree)

    take = jax.pmap(lambda p, g, s: koala.step(p, g, s, value=0.5), axis_name="parts", devices=jax.devices()[:devices])
    pieces = split(params)
    state = jax.pmap(koala.init, axis_name="parts", devices=jax.devices()[:devices])(pieces)
    for grads in gradients:
        pieces, state = take(pieces, split(grads), state)
    assert_close(jax.tree.map(lambda leaf, like: leaf.reshape(like.shape), pieces, params), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("devices", [2, 3])
def test_sharded_arrays(devices: int, implementation: Any, x64: bool) -> None:
    params, gradients = divided_problem()
    koala = koala_plus_plus(implementation=implementation)
    expected = one_device(koala, params, gradients)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("parts",))

    def put(tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("parts")))

    found = one_device(koala, put(params), [put(grads) for grads in gradients])
    assert_close(found, expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_replicated_in_shard_map(implementation: Any) -> None:
    # Data parallelism: each device has its samples' gradient and all of the parameters.
    params, gradients = divided_problem()
    koala = koala_plus_plus(implementation=implementation)
    mean = jax.tree.map(lambda left, right: (left + right) / 2, *gradients[:2])
    expected, _ = jax.jit(koala.step)(params, mean, koala.init(params), value=0.75)
    mesh = Mesh(np.array(jax.devices()[:2]), ("samples",))
    whole, parts = PartitionSpec(), PartitionSpec("samples")

    def take(params: Any, grads: Any, state: Any, value: Any) -> Any:
        grads = jax.tree.map(lambda leaf: jax.lax.pmean(leaf[0], "samples"), grads)
        return koala.step(params, grads, state, value=jax.lax.pmean(value[0], "samples"))[0]

    grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients[:2])
    call = jax.shard_map(take, mesh=mesh, in_specs=(whole, parts, whole, parts), out_specs=whole)
    found = jax.jit(call)(params, grads, koala.init(params), jnp.array([0.5, 1.0], jnp.float32))
    assert_close(found, expected)


# What is out of the ordinary


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_gradient_of_nan_keeps_its_tensor(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation=implementation)
    take = jax.jit(koala.step)
    params, state = take(params, grads, koala.init(params), value=0.5)
    bad = {**grads, "d": grads["d"].at[7].set(jnp.nan)}
    new, after = take(params, bad, state, value=0.5)
    assert outcomes(after) == ["stepped", "stepped", "skipped", "non_finite", "stepped"]
    assert np.array_equal(new["d"], params["d"]) and np.array_equal(after.v["d"], state.v["d"])
    assert np.array_equal(after.scalars[3], state.scalars[3])
    assert not np.array_equal(new["a"], params["a"])
    updates, _ = koala.update(bad, state, params, value=0.5)
    assert not np.any(updates["d"]) and np.any(updates["a"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_keep_all(implementation: Any, x64: bool) -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation=implementation, on_non_finite="keep_all")
    take = jax.jit(koala.step)
    params, state = take(params, grads, koala.init(params), value=0.5)
    new, after = take(params, {**grads, "d": grads["d"].at[7].set(jnp.inf)}, state, value=0.5)
    assert outcomes(after) == ["withheld", "withheld", "skipped", "non_finite", "withheld"]
    before = state._replace(count=after.count, outcomes=after.outcomes)
    assert jax.tree.all(jax.tree.map(np.array_equal, (new, after), (params, before)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mean, second_moment", [(np.nan, 0.5), (0.5, np.inf)])
def test_a_loss_of_nan_keeps_all(implementation: Any, mean: float, second_moment: float, x64: bool) -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus(implementation=implementation)
    new, state = koala.step(params, grads, koala.init(params), value=mean, second_moment=second_moment)
    assert outcomes(state) == ["non_finite"] * 5 and doubles(state.noise) == 1.0
    assert jax.tree.all(jax.tree.map(np.array_equal, new, params))
    fixed = koala_plus_plus(implementation=implementation, noise="fixed", initial_noise=0.5)
    _, state = fixed.step(params, grads, fixed.init(params), value=0.5, second_moment=second_moment)
    assert outcomes(state)[0] == "first_step" and doubles(state.noise) == 0.5


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_of_nearly_zero_are_skipped(implementation: Any, x64: bool) -> None:
    params = {name: jnp.ones(4, jnp.float32) for name in "abc"}
    # Norms of 0.8e-9, 1.2e-9 and 0; with weight decay it is the gradient's that counts.
    grads = {"a": jnp.full(4, 4e-10, jnp.float32), "b": jnp.full(4, 6e-10, jnp.float32), "c": jnp.zeros(4, jnp.float32)}
    koala = koala_plus_plus(weight_decay=0.5, implementation=implementation)
    new, state = jax.jit(koala.step)(params, grads, koala.init(params), value=0.5)
    assert outcomes(state) == ["skipped", "first_step", "skipped"]
    assert np.array_equal(new["a"], params["a"]) and not np.array_equal(new["b"], params["b"])


def breaking() -> tuple[Any, list[Any]]:
    """Gradients under which S comes out negative, with σ = 1, Q = 0, R = 0.001."""
    return {"w": jnp.zeros(2, jnp.float32)}, [{"w": jnp.array(g, jnp.float32)} for g in BREAKING]


BREAKING = ([0.21, 0.1], [0.04, 0.52], [-6.04, 17.81], [0.5, 0.5])


@pytest.mark.parametrize("on_breakdown", ["restart", "skip"])
def test_a_breakdown(on_breakdown: Any, x64: bool) -> None:
    found = []
    for implementation in IMPLEMENTATIONS:
        params, gradients = breaking()
        koala = koala_plus_plus(
            1.0,
            0.0,
            1.0,
            0.0,
            noise="fixed",
            initial_noise=1e-3,
            on_breakdown=on_breakdown,
            implementation=implementation,
        )
        state, seen = koala.init(params), []
        for grads in gradients:
            params, state = jax.jit(koala.step)(params, grads, state, value=0.01)
            seen += outcomes(state)
        found.append((params, seen))
    expected = {"restart": "restarted", "skip": "breakdown"}[on_breakdown]
    assert found[0][1] == found[1][1] and expected in found[0][1], found
    np.testing.assert_allclose(found[0][0]["w"], found[1][0]["w"], 1e-4)


def test_errors_of_libkoala_have_its_text(x64: bool) -> None:
    params, grads = random_problem("float32")
    bad = {**grads, "d": grads["d"].at[7].set(jnp.nan)}
    koala = koala_plus_plus(implementation="ffi", on_non_finite="error")
    # The second if XLA runs it before it returns.
    errors = (jax.errors.JaxRuntimeError, ValueError)
    with pytest.raises(jax.errors.JaxRuntimeError, match='FAILED_PRECONDITION: tensor "3"'):
        jax.block_until_ready(koala.step(params, bad, koala.init(params), value=0.5))
    koala = koala_plus_plus(jnp.float32(-1), implementation="ffi")
    with pytest.raises(errors, match="INVALID_ARGUMENT: .*learning rate is -1"):
        jax.block_until_ready(koala.step(params, grads, koala.init(params), value=0.5))
    with pytest.raises(errors, match="second moment is -1"):
        koala = koala_plus_plus(implementation="ffi")
        jax.block_until_ready(koala.step(params, grads, koala.init(params), value=0.5, second_moment=-1.0))


def test_errors_before_the_step() -> None:
    params, grads = random_problem("float32")
    koala = koala_plus_plus()
    state = koala.init(params)
    with pytest.raises(ValueError, match="needs the parameters"):
        koala.update(grads, state, value=0.5)
    with pytest.raises(ValueError, match="mean loss: value="):
        koala.update(grads, state, params)
    with pytest.raises(ValueError, match="mean loss: value="):
        koala.step(params, grads, state)
    with pytest.raises(ValueError, match=r"value has the shape \(2,\), expected a scalar"):
        koala.update(grads, state, params, value=jnp.ones(2))
    with pytest.raises(TypeError, match="value is complex64"):
        koala.update(grads, state, params, value=jnp.complex64(1))
    with pytest.raises(ValueError, match="the tree of the gradients is not that of the parameters"):
        koala.update({"a": grads["a"]}, state, params, value=0.5)
    with pytest.raises(TypeError, match=r"gradient of params\['a'\] is int32, expected a type of floating-point"):
        koala.update({**grads, "a": grads["a"].astype(jnp.int32)}, state, params, value=0.5)
    with pytest.raises(ValueError, match=r"gradient of params\['a'\] has the shape \(5, 3\), expected \(3, 5\)"):
        koala.update({**grads, "a": grads["a"].T}, state, params, value=0.5)
    with pytest.raises(TypeError, match=r"params\['n'\] is int32, expected an array of float32"):
        koala.init({"n": jnp.arange(3)})
    with pytest.raises(TypeError, match=r"params\['n'\] is float, expected an array"):
        koala.init({"n": 1.5})


@pytest.mark.parametrize(
    "options, text",
    [
        ({"learning_rate": -1.0}, "learning rate is -1"),
        ({"initial_variance": 0.0}, "initial variance is 0"),
        ({"noise_decay": 1.5}, "noise decay is 1.5"),
        ({"initial_noise": -1.0}, "noise is -1"),
        ({"noise": "none"}, "expected 'averaged' or 'fixed'"),
        ({"prior_variance": -1.0}, "prior variance is -1"),
        ({"variant": "other"}, "variant is 'other', expected one of 'symmetric', 'vanilla', 'definite'"),
        ({"on_non_finite": "stop"}, "on_non_finite is 'stop'"),
        ({"on_breakdown": "stop"}, "on_breakdown is 'stop'"),
        ({"implementation": "cuda"}, "implementation is 'cuda'"),
        ({"implementation": "ffi", "axis_name": "x"}, "axis_name need"),
        ({"state_dtype": "float16"}, "state_dtype is float16"),
        ({"backend": "avx1024"}, "backend is 'avx1024'"),
    ],
)
def test_errors_in_options(options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        koala_plus_plus(**options)


def test_policies_that_the_operations_of_jax_lack() -> None:
    koala = koala_plus_plus(on_breakdown="error", implementation="jnp")
    with pytest.raises(ValueError, match="need implementation='ffi'"):
        koala.init({"w": jnp.ones(3)})


def test_no_tensors(x64: bool) -> None:
    for implementation in IMPLEMENTATIONS:
        koala = koala_plus_plus(implementation=implementation)
        params, state = jax.jit(koala.step)({}, {}, koala.init({}), value=0.5, second_moment=2.0)
        assert params == {} and np.isclose(doubles(state.noise), 1.1) and int(state.count) == 1
