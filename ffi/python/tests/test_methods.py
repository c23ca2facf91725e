"""The other methods on arrays: recorded trajectories, PyTorch's own optimizers, and scaled gradients."""

from __future__ import annotations

import math
import pathlib
import pickle
from typing import Any

import numpy
import pytest
from common import bits, random_array
from test_numpy import relative, trajectory

from koala_optim import AdamW, KoalaM, KoalaV, Method, Settings, Sgd
from koala_optim.numpy import Tensor, new_state, noise_update, predict, step, step_many

FOLDER = pathlib.Path(__file__).parents[3] / "trajectory" / "data"
TRAJECTORIES = sorted([*FOLDER.glob("koalav-*.json.gz"), *FOLDER.glob("koalam-*.json.gz")])
METHODS: list[Method] = [KoalaV(), KoalaM(), AdamW(), Sgd(), Sgd(momentum=0.0)]


def recorded_method(config: dict[str, float]) -> Method:
    if "sigma" in config:
        return KoalaV(config["sigma"], config["q"])
    return KoalaM(*(config[name] for name in ("sw", "sc", "sv", "a", "qw", "qv")))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.name.partition(".")[0])
def test_recorded_trajectories(path: pathlib.Path, dtype: str, tolerance: float) -> None:
    recorded = trajectory(path)
    config, rule = recorded["config"], recorded["noise"]
    settings = Settings(learning_rate=config["lr"], weight_decay=config["weight_decay"])
    method = recorded_method(config)
    parameters = [numpy.array(theta, dtype) for theta in recorded["theta0"]]
    tensors = [Tensor(p, p.copy(), *new_state(p, method=method), settings=settings) for p in parameters]
    noise = rule["fixed"] if "fixed" in rule else rule["ema"]["init"]
    errors = []
    for recorded_step in recorded["steps"]:
        method = predict(tensors, method)
        for tensor, gradient in zip(tensors, recorded_step["grads"]):
            tensor.gradient = numpy.array(gradient, dtype)
        if "ema" in rule:
            noise = noise_update(noise, recorded_step["loss_second_moment"], rule["ema"]["alpha"])
        method = method.corrected(step_many(tensors, loss=recorded_step["loss"], noise=noise, method=method).gain)
        if recorded_step.get("expect"):
            errors.append(relative([t.parameters for t in tensors], recorded_step["expect"]["theta"]))
    assert errors and max(errors) <= tolerance


def test_there_are_trajectories() -> None:
    assert len(TRAJECTORIES) >= 7


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        (AdamW(0.85, 0.99, 1e-6), "AdamW", {"betas": (0.85, 0.99), "eps": 1e-6}),
        (Sgd(0.8), "SGD", {"momentum": 0.8}),
        (Sgd(0.8, nesterov=True), "SGD", {"momentum": 0.8, "nesterov": True}),
        (Sgd(0.0), "SGD", {}),
    ],
    ids=["AdamW", "momentum", "Nesterov", "SGD"],
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_as_pytorch_has_it(method: Method, name: str, options: dict[str, Any], weight_decay: float) -> None:
    torch = pytest.importorskip("torch")
    weight = random_array(1, 101, "float64")
    other = torch.tensor(weight.copy(), requires_grad=True)
    optimizer = getattr(torch.optim, name)([other], lr=0.05, weight_decay=weight_decay, **options)
    state = new_state(weight, method=method)
    settings = Settings(learning_rate=0.05, weight_decay=weight_decay)
    for seed in range(100):
        gradient = random_array(seed, 101, "float64")
        step(weight, gradient, *state, loss=1.0, noise=1.0, settings=settings, method=method)
        other.grad = torch.tensor(gradient)
        optimizer.step()
    assert relative([weight], [other.detach().numpy()]) <= 1e-12


@pytest.mark.parametrize("method", [None, *METHODS], ids=str)
def test_scaled_gradients_are_those_scaled_before(method: Method | None) -> None:
    def stepped(gradient: Any, **scaling: float) -> bytes:
        weight = random_array(1, 1000)
        state = new_state(weight, method=method)
        arrays = (weight, gradient, *state)
        report = step(*arrays, loss=1.0, noise=1.0, method=method, **scaling)
        assert report.outcome == "first_step"
        return bits(weight, *(array for array in state if array is not None))

    gradient = random_array(2, 1000)
    scaled = numpy.clip(gradient * numpy.float32(0.25), -0.5, 0.5)
    assert stepped(gradient, gradient_factor=0.25, gradient_limit=0.5) == stepped(scaled)
    assert stepped(gradient) != stepped(scaled)


@pytest.mark.parametrize("method", [None, *METHODS], ids=str)
def test_unchecked(method: Method | None) -> None:
    def stepped(**options: Any) -> tuple[str, Any]:
        weight, gradient = random_array(1, 100), random_array(2, 100)
        if options:
            gradient[3] = numpy.nan
        state = new_state(weight, method=method)
        report = step(weight, gradient, *state, loss=1.0, noise=1.0, method=method, **options)
        return report.outcome, weight

    assert stepped(on_non_finite="keep_tensor")[0] == "non_finite"
    (_, well), (outcome, weight) = stepped(), stepped(on_non_finite="unchecked")
    if isinstance(method, (AdamW, Sgd)):
        # It is written to its place, and the others are stepped.
        assert outcome == "first_step"
        assert numpy.flatnonzero(numpy.isnan(weight)).tolist() == [3]
        assert bits(numpy.delete(weight, 3)) == bits(numpy.delete(well, 3))
    else:
        assert outcome == "non_finite"
        assert bits(weight) == bits(random_array(1, 100))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_vectors_that_a_method_has(method: Method) -> None:
    weight, gradient = random_array(1, 10), random_array(2, 10)
    state = new_state(weight, method=method)
    assert (state.h is not None, state.v is not None) == method.vectors
    if any(method.vectors):
        with pytest.raises(ValueError, match="h is NULL"):
            step(weight, gradient, state.v, None, state.scalars, loss=1.0, noise=1.0, method=method)
    if state.v is None:
        with pytest.raises(ValueError, match="is NULL"):
            step(weight, gradient, *state, loss=1.0, noise=1.0)
    assert bits(weight) == bits(random_array(1, 10))


def test_numbers_that_do_not_do() -> None:
    for wrong, text in (
        (lambda: KoalaV(variance=-1.0), "variance is -1"),
        (lambda: KoalaM(velocity_decay=1.5), "velocity decay is 1.5"),
        (lambda: AdamW(beta1=1.0), "beta1 is 1"),
        (lambda: Sgd(momentum=math.nan), "momentum is NaN"),
        (lambda: KoalaV().corrected(-1.0), "gain is -1"),
        (lambda: KoalaM().predicted(math.inf, 1), "squared distance is inf"),
    ):
        with pytest.raises(ValueError, match=text):
            wrong()
    weight = random_array(1, 10)
    state = new_state(weight)
    for scaling in ({"gradient_factor": 0.0}, {"gradient_limit": -1.0}):
        with pytest.raises(ValueError, match="gradient's"):
            step(weight, weight.copy(), *state, loss=1.0, noise=1.0, **scaling)


def test_shared_numbers_move_in_copies() -> None:
    method = KoalaV(variance=0.5, process_noise=0.25)
    assert method.predicted() == KoalaV(0.75, 0.25)
    assert method.corrected(1.0) == KoalaV(0.25, 0.25)
    assert method == KoalaV(0.5, 0.25)
    assert predict([], method) == method.predicted()
    for other in METHODS:
        assert pickle.loads(pickle.dumps(other)) == other == eval(repr(other))
    for other in METHODS[2:]:
        assert other.predicted() == other == other.corrected(0.5)


def test_a_prediction_moves_the_parameters() -> None:
    weight, velocity, average = numpy.array([1.0, 2.0]), numpy.array([0.25, 0.5]), numpy.array([0.5, 2.0])
    tensor = Tensor(weight, weight.copy(), average, velocity, numpy.zeros(4))
    method = KoalaM(velocity_decay=0.5)
    assert predict([tensor], method) == method.predicted(0.25, 2) != method
    assert weight.tolist() == [1.25, 2.5] and velocity.tolist() == [0.125, 0.25]
