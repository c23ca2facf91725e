"""The step on arrays: recorded trajectories, the same bits by every way in, what is said of arrays that do not do."""

from __future__ import annotations

import array
import copy
import ctypes
import functools
import gzip
import json
import math
import pathlib
import pickle
import threading
from typing import Any, Callable

import ml_dtypes
import numpy
import pytest
from common import BACKENDS, ELEMENT_TYPES, STATE_TYPES, bits, dtype_of, random_array

from koala_optim import ArgumentError, BreakdownError, NonFiniteError, Settings
from koala_optim.numpy import (
    Loss,
    Tensor,
    TensorReport,
    apply,
    apply_many,
    dots,
    dots_many,
    loss_from_samples,
    new_state,
    noise_update,
    step,
    step_many,
)

TRAJECTORIES = sorted((pathlib.Path(__file__).parents[3] / "trajectory" / "data").glob("koalapp-*.json.gz"))
# Around the library's lanes and blocks.
LENGTHS = [0, 1, 2, 15, 16, 17, 127, 129, 1000, 1023, 1025, 5000]


def new_tensors(
    element_type: str = "float32", state_type: str = "same", lengths: list[int] = LENGTHS, **rest: Any
) -> list[Tensor]:
    parameters = [random_array(i, length, element_type) for i, length in enumerate(lengths)]
    return [Tensor(p, random_array(99, p.size, element_type), *new_state(p, state_type), **rest) for p in parameters]  # type: ignore[arg-type]


def state_of(*tensors: Tensor) -> bytes:
    return b"".join(bits(tensor.parameters, tensor.v, tensor.h, tensor.scalars) for tensor in tensors)


def arguments(tensor: Tensor) -> tuple[Any, Any, Any, Any, Any]:
    return tensor.parameters, tensor.gradient, tensor.v, tensor.h, tensor.scalars


# Trajectories.


@functools.cache
def trajectory(path: pathlib.Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def relative(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest entry."""
    found, expected = (numpy.concatenate([numpy.asarray(a, float).ravel() for a in b]) for b in (found, expected))
    difference = numpy.abs(found - expected).max()
    return float(difference / numpy.abs(expected).max()) if difference else 0.0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.name.partition(".")[0])
def test_recorded_trajectories(path: pathlib.Path, dtype: str, tolerance: float) -> None:
    recorded = trajectory(path)
    config, rule = recorded["config"], recorded["noise"]
    settings = Settings(
        learning_rate=config["lr"],
        weight_decay=config["weight_decay"],
        initial_variance=config["sigma"],
        process_noise=config["q"],
        variant="symmetric" if config["symmetric"] else "vanilla",
    )
    parameters = [numpy.array(theta, dtype) for theta in recorded["theta0"]]
    tensors = [Tensor(p, p.copy(), *new_state(p), settings=settings) for p in parameters]
    noise = rule["fixed"] if "fixed" in rule else rule["ema"]["init"]
    errors = [0.0]
    for recorded_step in recorded["steps"]:
        for tensor, gradient in zip(tensors, recorded_step["grads"]):
            tensor.gradient = numpy.array(gradient, dtype)
        if "ema" in rule:
            noise = noise_update(noise, recorded_step["loss_second_moment"], rule["ema"]["alpha"])
        step_many(tensors, loss=recorded_step["loss"], noise=noise)
        expect = recorded_step.get("expect")
        if expect:
            errors.append(relative([t.parameters for t in tensors], expect["theta"]))
            errors.append(relative([t.v for t in tensors], expect["v"]))
            errors.append(relative([[numpy.asarray(t.scalars)[2] for t in tensors]], [expect["s"]]))
            errors.append(relative([[noise]], [[expect["r"]]]))
    assert len(errors) > 1
    assert max(errors) <= tolerance


def test_there_are_trajectories() -> None:
    assert len(TRAJECTORIES) >= 16


# The same bits by every way in.


@pytest.mark.parametrize("variant", ["symmetric", "definite"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("state_type", STATE_TYPES)
@pytest.mark.parametrize("element_type", ELEMENT_TYPES)
def test_all_ways_agree(element_type: str, state_type: str, weight_decay: float, variant: Any) -> None:
    settings = Settings(learning_rate=0.1, weight_decay=weight_decay, variant=variant, prior_variance=0.3)

    def new(**rest: Any) -> list[Tensor]:
        return new_tensors(element_type, state_type, settings=settings, **rest)

    alone, many, halves, halves_of_many, exchanging = new(), new(), new(), new(), new(exchange=True)
    by_backend = {backend: new() for backend in BACKENDS}
    for place in range(3):
        now: dict[str, Any] = {"loss": 0.7, "noise": 0.5 + place}
        gradients = [random_array(100 * place + i, length, element_type) for i, length in enumerate(LENGTHS)]
        for tensors in (alone, many, halves, halves_of_many, exchanging, *by_backend.values()):
            for tensor, gradient in zip(tensors, gradients):
                if tensor.exchange:
                    numpy.asarray(tensor.gradient)[...] = gradient
                else:
                    tensor.gradient = gradient
        reports = [step(*arguments(tensor), settings=settings, **now) for tensor in alone]
        # By their texts, since NaN is not equal to itself.
        assert repr(step_many(many, **now).tensors) == repr(reports)
        for tensor in halves:
            found = dots(*arguments(tensor), settings=settings, **now)
            apply(*arguments(tensor), found, settings=settings, **now)
        apply_many(halves_of_many, dots_many(halves_of_many, **now), **now)
        report = step_many(exchanging, **now)
        plain = weight_decay == 0 and state_type in ("same", element_type) and variant == "symmetric"
        assert [t.exchanged for t in report.tensors] == [plain and length > 0 for length in LENGTHS]
        for backend, tensors in by_backend.items():
            assert step_many(tensors, backend=backend, **now).backend == backend
        expected = state_of(*alone)
        for tensors in (many, halves, halves_of_many, exchanging, *by_backend.values()):
            assert state_of(*tensors) == expected
    assert {numpy.asarray(tensor.v).dtype for tensor in alone} == {
        dtype_of(element_type if state_type == "same" else state_type)
    }


def test_parts_of_a_tensor_by_their_sum() -> None:
    (whole,), (split,) = new_tensors(lengths=[5000]), new_tensors(lengths=[5000])
    scalars = [numpy.zeros(4), numpy.zeros(4)]
    for place in range(3):
        whole.gradient = split.gradient = random_array(place, 5000)
        theta, gradient, v, h, _ = arguments(split)
        parts = [
            (theta[part], gradient[part], v[part], h[part], own)
            for part, own in zip((slice(0, 1234), slice(1234, None)), scalars)
        ]
        step(*arguments(whole), loss=0.7, noise=0.5)
        found = [dots(*part, loss=0.7, noise=0.5) for part in parts]
        outcomes = {apply(*part, found[0] + found[1], loss=0.7, noise=0.5).outcome for part in parts}
        assert outcomes == {"first_step" if place == 0 else "stepped"}
    assert bits(scalars[0]) == bits(scalars[1])
    assert relative([split.parameters], [whole.parameters]) < 1e-6
    assert relative([split.v], [whole.v]) < 1e-6


def test_settings_of_many_groups() -> None:
    tensors = new_tensors(lengths=[100] * 40)
    for place, tensor in enumerate(tensors):
        tensor.settings = Settings(learning_rate=place / 40)
    alone = new_tensors(lengths=[100] * 40)
    report = step_many(tensors, loss=0.7, noise=0.5)
    assert (report.stepped, report.first_steps) == (40, 40)
    for place, tensor in enumerate(alone):
        step(*arguments(tensor), settings=Settings(learning_rate=place / 40), loss=0.7, noise=0.5)
    assert state_of(*tensors) == state_of(*alone)


def test_threads_step_different_tensors() -> None:
    tensors, alone = new_tensors(lengths=[100_000] * 8), new_tensors(lengths=[100_000] * 8)
    for tensor in alone:
        step(*arguments(tensor), loss=0.7, noise=0.5)
    threads = [threading.Thread(target=step, args=arguments(t), kwargs={"loss": 0.7, "noise": 0.5}) for t in tensors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state_of(*tensors) == state_of(*alone)


# Kinds of arrays.


def view_of_bytes(numbers: Any) -> Any:
    return memoryview(bytearray(numbers.tobytes())).cast("f" if numbers.itemsize == 4 else "d")


def array_of(numbers: Any) -> array.array[float]:
    return array.array({4: "f", 8: "d"}[numbers.itemsize], numbers.tolist())


def ctypes_of(numbers: Any) -> Any:
    return ({4: ctypes.c_float, 8: ctypes.c_double}[numbers.itemsize] * numbers.size)(*numbers.tolist())


class Exported:
    """An array of which nothing can be had but DLPack, of version 1 or before."""

    def __init__(self, numbers: Any, versioned: bool = False) -> None:
        self.numbers, self.versioned = numbers, versioned

    def __dlpack__(self, **wishes: Any) -> Any:
        if wishes and not self.versioned:
            raise TypeError("unexpected keyword argument")
        return self.numbers.__dlpack__(**wishes)

    def __dlpack_device__(self) -> tuple[Any, Any]:
        return self.numbers.__dlpack_device__()  # type: ignore[no-any-return]

    def tobytes(self) -> bytes:
        return self.numbers.tobytes()  # type: ignore[no-any-return]


class Evasive(Exported):
    """One that knows of version 1, but answers in the version before: one of JAX, for example."""

    def __dlpack__(self, **wishes: Any) -> Any:
        return self.numbers.__dlpack__()


class Elsewhere(Exported):
    def __dlpack_device__(self) -> tuple[Any, Any]:
        return 2, 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "kind",
    [
        view_of_bytes,
        array_of,
        ctypes_of,
        Exported,
        lambda numbers: Exported(numbers.reshape(3, 1, 4)),
        lambda numbers: Exported(numbers, versioned=True),
        lambda numbers: numbers.reshape(2, 6),
    ],
)
def test_every_kind_of_array_is_changed_in_place(kind: Callable[[Any], Any], dtype: str) -> None:
    (ours,), (theirs,) = new_tensors(dtype, lengths=[12]), new_tensors(dtype, lengths=[12])
    given: Any = [*map(kind, arguments(theirs)[:4]), array_of(numpy.zeros(4))]
    for _ in range(2):
        step(*arguments(ours), loss=0.7, noise=0.5)
        step(*given, loss=0.7, noise=0.5)
    for our, their in zip(arguments(ours), given):
        assert bits(our) == (their.tobytes() if hasattr(their, "tobytes") else bytes(their))


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_tensors_of_pytorch_are_changed_in_place(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    (ours,) = new_tensors(dtype, lengths=[100])
    given: Any = [torch.tensor(a.astype("float64")).to(getattr(torch, dtype)) for a in arguments(ours)[:4]]
    given.append(torch.zeros(4, dtype=torch.float64))
    for _ in range(2):
        step(*arguments(ours), loss=0.7, noise=0.5)
        step(*given, loss=0.7, noise=0.5)
    for our, their in zip(arguments(ours), given):
        assert bits(our.astype("float64")) == bits(their.to(torch.float64).numpy())
    given[0].requires_grad_()
    with pytest.raises(BufferError, match="requires? gradient"):
        step(*given, loss=0.7, noise=0.5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_of_jax_are_read_and_not_written(dtype: str) -> None:
    jax = pytest.importorskip("jax")
    (ours,), (theirs,) = new_tensors(dtype, lengths=[100]), new_tensors(dtype, lengths=[100])
    theirs.gradient = jax.numpy.asarray(theirs.gradient)
    step(*arguments(ours), loss=0.7, noise=0.5)
    step_many([theirs], loss=0.7, noise=0.5)
    assert state_of(ours) == state_of(theirs)
    theirs.parameters = jax.numpy.asarray(theirs.parameters)
    with pytest.raises(ValueError, match='tensor "0": parameters is not writable'):
        step_many([theirs], loss=0.7, noise=0.5)


def test_an_array_may_be_replaced_between_steps() -> None:
    (tensor,), (other,) = new_tensors(lengths=[100]), new_tensors(lengths=[100])
    for place in range(3):
        tensor.gradient = random_array(place, 100)
        numpy.asarray(other.gradient)[...] = random_array(place, 100)
        tensor.parameters = numpy.asarray(tensor.parameters).copy()
        step_many([tensor], loss=0.7, noise=0.5)
        step_many([other], loss=0.7, noise=0.5)
        assert state_of(tensor) == state_of(other)


def test_a_tensor_is_pickled_and_copied() -> None:
    (tensor,) = new_tensors(lengths=[100])
    step_many([tensor], loss=0.7, noise=0.5)
    others = [pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor)]
    step_many([tensor], loss=0.7, noise=0.5)
    for other in others:
        assert state_of(other) != state_of(tensor)
        step_many([other], loss=0.7, noise=0.5)
        assert state_of(other) == state_of(tensor)


def test_no_elements_and_no_tensors() -> None:
    (tensor,) = new_tensors(lengths=[0])
    assert step(*arguments(tensor), loss=0.7, noise=0.5).outcome == "skipped"
    report = step_many([], loss=0.7, noise=0.5)
    assert (report.stepped, report.tensors) == (0, [])
    assert dots_many([], loss=0.7, noise=0.5).shape == (0, 5)


# Errors.


def test_a_tensor_whose_sign_is_yet_to_be_changed() -> None:
    torch = pytest.importorskip("torch")
    weight, gradient = torch.ones(3), torch.full((3,), 0.5)._neg_view()
    state = new_state(weight)
    with pytest.raises(ValueError, match=r"gradient is a tensor whose sign .* resolve_neg\(\)"):
        step(weight, gradient, *state, loss=0.7, noise=0.5)
    assert torch.equal(weight, torch.ones(3)) and not any(part.any() for part in state)
    step(weight, gradient.resolve_neg(), *state, loss=0.7, noise=0.5)
    assert (weight > 1).all()


def test_errors_name_the_argument_and_nothing_is_written() -> None:
    float32, float64 = random_array(1, 3), random_array(1, 3, "float64")
    read_only = random_array(1, 3)
    read_only.flags.writeable = False
    cases: list[tuple[str, Any, type[Exception], str]] = [
        ("parameters", [1.0, 2.0, 3.0], TypeError, "parameters is of type list, expected an array"),
        ("parameters", None, TypeError, "parameters is of type NoneType, expected an array"),
        ("parameters", read_only, ValueError, "parameters is not writable"),
        ("parameters", memoryview(float32.tobytes()).cast("f"), ValueError, "parameters is not writable"),
        ("parameters", Evasive(float32), ValueError, "parameters is not writable"),
        ("parameters", Elsewhere(float32), ValueError, "parameters is on a device of type 2 .*, expected the CPU"),
        ("parameters", random_array(1, 6)[::2], ValueError, "parameters is not contiguous"),
        ("parameters", Exported(random_array(1, 6)[::2]), ValueError, "parameters is not contiguous"),
        ("parameters", memoryview(random_array(1, 6))[::2], ValueError, "parameters is not contiguous"),
        ("parameters", numpy.asfortranarray(random_array(1, 6).reshape(2, 3)), ValueError, "parameters is not contig"),
        ("parameters", numpy.arange(3), TypeError, "parameters has elements of int64, expected one of float32, float"),
        ("parameters", float32.astype(">f4"), TypeError, "parameters has elements of >f4, expected one of"),
        ("parameters", bytearray(12), TypeError, "parameters has elements of the struct format 'B', expected one of"),
        ("parameters", Exported(numpy.arange(3)), TypeError, "parameters has elements of 64 bits of DLPack's type 0"),
        ("gradient", float64, TypeError, "gradient is of float64, the parameters of float32"),
        ("gradient", random_array(1, 2), ValueError, "gradient has 2 elements, the parameters 3"),
        ("v", random_array(1, 4), ValueError, "v has 4 elements, the parameters 3"),
        ("v", float64, TypeError, "v is of float64, expected one of float32, bfloat16 for parameters of float32"),
        ("h", random_array(1, 3, "bfloat16"), TypeError, "h is of bfloat16, v of float32"),
        ("h", random_array(1, 0), ValueError, "h has 0 elements, the parameters 3"),
        ("scalars", random_array(1, 4), TypeError, "scalars is of float32, expected float64"),
        ("scalars", numpy.zeros(3), ValueError, "scalars has 3 elements, expected 4"),
        ("copy", random_array(1, 3), TypeError, "copy is of float32, expected one of bfloat16, float16"),
        ("copy", random_array(1, 2, "float16"), ValueError, "copy has 2 elements, the parameters 3"),
    ]
    for name, given, error, text in cases:
        (tensor,) = new_tensors(lengths=[3])
        before = state_of(tensor)
        given_arguments = {**dict(zip(("parameters", "gradient", "v", "h", "scalars"), arguments(tensor))), name: given}
        with pytest.raises(error, match=f"^{text}"):
            step(**given_arguments, loss=0.7, noise=0.5)
        (good,) = new_tensors(lengths=[3])
        with pytest.raises(error, match=f'^tensor "1": {text}'):
            step_many([good, Tensor(**given_arguments)], loss=0.7, noise=0.5)
        assert state_of(tensor) == state_of(good) == before


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ({"noise": -1.0}, "noise is -1"),
        ({"backend": "mmx"}, "backend is 'mmx', expected one of 'fastest'"),
        (
            {"on_non_finite": "skip"},
            "on_non_finite is 'skip', expected one of 'keep_tensor', 'keep_all', 'error', 'unchecked'$",
        ),
        ({"on_breakdown": "keep_all"}, "on_breakdown is 'keep_all', expected one of 'restart', 'skip', 'error'$"),
    ],
)
def test_numbers_and_names_that_do_not_do(rest: dict[str, Any], text: str) -> None:
    (tensor,) = new_tensors(lengths=[3])
    before = state_of(tensor)
    with pytest.raises(ValueError, match=text):
        step(*arguments(tensor), **{"loss": 0.7, "noise": 0.5, **rest})
    assert state_of(tensor) == before


def test_overlap_is_an_error() -> None:
    (tensor,) = new_tensors(lengths=[3])
    with pytest.raises(ArgumentError, match="overlap"):
        step(tensor.parameters, tensor.gradient, tensor.v, tensor.v, tensor.scalars, loss=0.7, noise=0.5)
    with pytest.raises(ArgumentError, match="overlap"):
        step(tensor.parameters, tensor.parameters, tensor.v, tensor.h, tensor.scalars, loss=0.7, noise=0.5)


def test_a_read_only_gradient_does_unless_it_is_to_be_exchanged() -> None:
    (tensor,) = new_tensors(lengths=[3])
    numpy.asarray(tensor.gradient).flags.writeable = False
    assert step(*arguments(tensor), loss=0.7, noise=0.5).outcome == "first_step"
    with pytest.raises(ValueError, match="gradient is not writable"):
        step(*arguments(tensor), loss=0.7, noise=0.5, exchange=True)


def test_dots_of_another_shape() -> None:
    (tensor,) = new_tensors(lengths=[3])
    with pytest.raises(ValueError, match="dots has 4 elements, expected 5"):
        apply(*arguments(tensor), numpy.zeros(4), loss=0.7, noise=0.5)
    with pytest.raises(TypeError, match="dots is of float32, expected float64"):
        apply_many([tensor], numpy.zeros((1, 5), "float32"), loss=0.7, noise=0.5)


# What a step does and reports.


def test_a_report_has_the_scalars_of_the_paper() -> None:
    (tensor,) = new_tensors("float64", lengths=[50])
    settings = Settings(weight_decay=0.1, learning_rate=0.3)
    q, wd, r = settings.process_noise, settings.weight_decay, 0.5
    step(*arguments(tensor), settings=settings, loss=0.7, noise=r)
    _, _, v, h, (x, y, s, _) = (numpy.copy(a) for a in arguments(tensor))
    theta = numpy.copy(tensor.parameters)  # type: ignore[arg-type]
    g = tensor.gradient = random_array(6, 50, "float64")
    report = step(*arguments(tensor), settings=settings, loss=0.7, noise=r, norms=True)

    row = g + wd * theta
    a, b, c = row @ h, row @ v, row @ row
    alpha, lambda_, w = a / x, (b + q * a) / s, b / x - a * y / x**2
    v_after = (alpha - lambda_) * v + q * row + (w - q * lambda_) * h
    variance = row @ v_after + q * c + r
    theta_after = theta - 0.3 * (0.7 + wd / 2 * theta @ theta) / variance * (v_after + q * row)
    assert report.outcome == "stepped" and not report.exchanged
    expected = (variance, alpha, lambda_, w, 0.0, *(math.sqrt(a @ a) for a in (g, row, theta)))
    assert report[1:9] == pytest.approx(expected, rel=1e-12)
    assert relative([tensor.parameters], [theta_after]) < 1e-14
    assert relative([tensor.v], [v_after]) < 1e-14
    assert numpy.asarray(tensor.h) == pytest.approx(row, rel=1e-15)
    assert numpy.asarray(tensor.scalars) == pytest.approx((c, row @ v_after, variance, 2), rel=1e-12)


def test_norms_only_when_asked_for() -> None:
    (tensor,) = new_tensors(lengths=[50])
    report = step(*arguments(tensor), loss=0.7, noise=0.5)
    assert math.isnan(report.gradient_norm + report.measurement_norm + report.parameters_norm)
    many = step_many([tensor], loss=0.7, noise=0.5, norms=True).tensors[0]
    norm = numpy.linalg.norm(numpy.asarray(tensor.gradient, "float64"))
    assert many.gradient_norm == many.measurement_norm == pytest.approx(float(norm), rel=1e-6)


def test_kept_tensors() -> None:
    zero, frozen = new_tensors(lengths=[50, 50])
    zero.gradient = numpy.zeros(50, "float32")
    frozen.settings = Settings(frozen=True)
    before = state_of(zero, frozen)
    report = step_many([zero, frozen], loss=0.7, noise=0.5)
    assert (report.stepped, report.skipped, report.frozen) == (0, 1, 1)
    assert [tensor.outcome for tensor in report.tensors] == ["skipped", "frozen"]
    assert state_of(zero, frozen) == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite(bad: float) -> None:
    tensors = new_tensors(lengths=[50, 60, 70])
    step_many(tensors, loss=0.7, noise=0.5)
    numpy.asarray(tensors[1].gradient)[7] = bad
    before = state_of(*tensors)

    with pytest.raises(NonFiniteError, match='tensor "1"'):
        step_many(tensors, loss=0.7, noise=0.5, on_non_finite="error")
    with pytest.raises(NonFiniteError):
        step(*arguments(tensors[1]), loss=0.7, noise=0.5, on_non_finite="error")
    with pytest.raises(NonFiniteError):
        apply_many(tensors, dots_many(tensors, loss=0.7, noise=0.5), loss=0.7, noise=0.5, on_non_finite="error")
    report = step_many(tensors, loss=0.7, noise=0.5, on_non_finite="keep_all")
    assert [tensor.outcome for tensor in report.tensors] == ["withheld", "non_finite", "withheld"]
    assert (report.stepped, report.non_finite, report.withheld) == (0, 1, 2)
    assert step_many(tensors, loss=bad, noise=0.5).non_finite == 3
    assert state_of(*tensors) == before

    kept = state_of(tensors[1])
    report = step_many(tensors, loss=0.7, noise=0.5, on_non_finite="keep_tensor")
    assert [tensor.outcome for tensor in report.tensors] == ["stepped", "non_finite", "stepped"]
    assert state_of(tensors[1]) == kept


def test_a_breakdown() -> None:
    def broken() -> Any:
        # λ is so large that S comes out below zero.
        one = numpy.ones(1, "float32")
        return one.copy(), one.copy(), one.copy(), one.copy(), numpy.array([1.0, 1.0, 1e-3, 5.0])

    given = broken()
    with pytest.raises(BreakdownError, match="innovation variance"):
        step(*given, loss=0.7, noise=0.5, on_breakdown="error")
    report = step(*given, loss=0.7, noise=0.5, on_breakdown="skip")
    assert report.outcome == "breakdown"
    assert bits(*given) == bits(*broken())
    assert step(*given, loss=0.7, noise=0.5).outcome == "restarted"
    fresh: Any = (*broken()[:4], numpy.zeros(4))
    step(*fresh, loss=0.7, noise=0.5)
    assert bits(*given[:4]) == bits(*fresh[:4])
    report_of_many = step_many([Tensor(*broken()), Tensor(*broken())], loss=0.7, noise=0.5)
    assert (report_of_many.stepped, report_of_many.restarts, report_of_many.breakdowns) == (2, 2, 0)


@pytest.mark.parametrize("copy_type", ["bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_a_copy_is_the_rounded_parameters(dtype: str, copy_type: str) -> None:
    ours, theirs, halves = (new_tensors(dtype, lengths=[1000])[0] for _ in range(3))
    copies = [numpy.zeros(1000, dtype_of(copy_type)) for _ in range(3)]
    step(*arguments(ours), loss=0.7, noise=0.5, copy=copies[0])
    theirs.copy = copies[1]
    step_many([theirs], loss=0.7, noise=0.5)
    found = dots(*arguments(halves), loss=0.7, noise=0.5)
    apply(*arguments(halves), found, loss=0.7, noise=0.5, copy=copies[2])
    # By way of float32, as the step's arithmetic for a type of half precision.
    widened = numpy.asarray(ours.parameters)
    if dtype != "float64":
        widened = widened.astype("float32")
    expected = widened.astype(dtype_of(copy_type))
    assert [bits(found) for found in copies] == [bits(expected)] * 3


def test_an_exchange_changes_two_roles() -> None:
    ours, theirs = (new_tensors(lengths=[100])[0] for _ in range(2))
    gradient, h = theirs.gradient, theirs.h
    step(*arguments(ours), loss=0.7, noise=0.5)
    report = step(*arguments(theirs), loss=0.7, noise=0.5, exchange=True)
    assert report.exchanged
    assert bits(gradient) == bits(ours.h)
    assert theirs.gradient is gradient

    theirs.exchange = True
    numpy.asarray(theirs.scalars)[:] = 0
    assert step_many([theirs], loss=0.7, noise=0.5).tensors[0].exchanged
    assert theirs.gradient is h and theirs.h is gradient
    decayed = new_tensors(lengths=[100], exchange=True, settings=Settings(weight_decay=0.1))
    assert not step_many(decayed, loss=0.7, noise=0.5).tensors[0].exchanged


# Losses, noise, states.


def test_losses() -> None:
    losses = numpy.abs(random_array(3, 100))
    loss = loss_from_samples(losses)
    wide = losses.astype("float64")
    assert loss == pytest.approx((wide.mean(), (wide**2).mean()), rel=1e-12)
    assert loss == Loss(loss.mean, loss.second_moment)
    assert loss_from_samples(array.array("d", [2.0])) == Loss(2.0, 4.0)
    assert loss_from_samples(numpy.array([0.5, 1.5], ml_dtypes.bfloat16)) == Loss(1.0, 1.25)
    with pytest.raises(ArgumentError):
        loss_from_samples(numpy.zeros(0))
    with pytest.raises(TypeError, match="losses has elements of int64"):
        loss_from_samples(numpy.zeros(3, "int64"))


def test_noise() -> None:
    assert noise_update(1.0, 3.0) == 0.9 * 1.0 + (1 - 0.9) * 3.0
    assert noise_update(2.0, 4.0, decay=0.5) == 3.0
    for wrong in ((-1.0, 1.0, 0.9), (1.0, -1.0, 0.9), (1.0, 1.0, 1.5), (1.0, math.nan, 0.9)):
        with pytest.raises(ValueError):
            noise_update(*wrong)


@pytest.mark.parametrize("state_type", STATE_TYPES)
@pytest.mark.parametrize("element_type", ELEMENT_TYPES)
def test_a_new_state(element_type: str, state_type: str) -> None:
    parameters = random_array(1, 6, element_type).reshape(2, 3)
    v, h, scalars = new_state(parameters, state_type)  # type: ignore[arg-type]
    expected = dtype_of(element_type if state_type == "same" else state_type)
    assert v.dtype == h.dtype == expected and v.shape == h.shape == (2, 3)
    assert scalars.dtype == "float64" and scalars.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="state_type is 'float64', expected one of 'same', 'float32', 'bfloat16'"):
        new_state(parameters, "float64")  # type: ignore[arg-type]


def test_a_report_reads_well() -> None:
    (tensor,) = new_tensors(lengths=[3])
    report = step(*arguments(tensor), loss=0.7, noise=0.5)
    assert isinstance(report, TensorReport)
    assert repr(report).startswith("TensorReport(outcome='first_step', innovation_variance=")
