"""The other methods on PyTorch's models: the kernel's bits, PyTorch's own optimizers, and resuming."""

from __future__ import annotations

import copy
import pathlib
import subprocess
import sys
from typing import Any

import numpy
import pytest

torch = pytest.importorskip("torch")

from koala_optim import AdamW, KoalaM, KoalaV, Method, NonFiniteError, Settings, Sgd  # noqa: E402
from koala_optim.numpy import Tensor, new_state, noise_update, predict, step_many  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer, new_optimizer  # noqa: E402

METHODS: list[Method] = [KoalaV(), KoalaM(), AdamW(), Sgd(), Sgd(momentum=0.0)]
SHAPES = [(3, 5), (1,), (40, 7), (0,)]


def model(dtype: Any = torch.float32) -> list[Any]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def gradients(number: int, dtype: Any = torch.float32) -> list[Any]:
    torch.manual_seed(100 + number)
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in SHAPES]


def run(optimizer: Any, parameters: list[Any], numbers: range) -> None:
    for number in numbers:
        optimizer.predict()
        for parameter, gradient in zip(parameters, gradients(number, parameters[0].dtype)):
            parameter.grad = gradient
        optimizer.step(loss=torch.tensor([0.5, 1.5 / (number + 1)]))


def bits(parameters: list[Any]) -> list[bytes]:
    return [bytes(p.detach().flatten().view(torch.uint8).tolist()) for p in parameters]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_kernels_bits(method: Method) -> None:
    parameters = model()
    optimizer = Optimizer(parameters, method, lr=0.1, weight_decay=0.01)
    run(optimizer, parameters, range(4))

    arrays = [p.detach().numpy().reshape(-1) for p in model()]
    settings = Settings(learning_rate=0.1, weight_decay=0.01)
    tensors = [Tensor(a, a.copy(), *new_state(a, method=method), settings=settings) for a in arrays]
    noise = 1.0
    for number in range(4):
        method = predict(tensors, method)
        for tensor, gradient in zip(tensors, gradients(number)):
            tensor.gradient = gradient.numpy().reshape(-1)
        losses = numpy.float32([0.5, 1.5 / (number + 1)]).astype(float)
        noise = noise_update(noise, (losses**2).mean(), 0.9)
        method = method.corrected(step_many(tensors, loss=losses.mean(), noise=noise, method=method).gain)
    assert bits(parameters) == [array.tobytes() for array in arrays]
    assert (optimizer.method, optimizer.noise) == (method, noise)
    # To the KOALA family, no elements are a gradient of zero.
    empty = isinstance(method, (KoalaV, KoalaM))
    assert (optimizer.report().stepped, optimizer.report().skipped) == ((3, 1) if empty else (4, 0))


@pytest.mark.parametrize(
    ("method", "make"),
    [
        (AdamW(0.85, 0.99, 1e-6), lambda p: torch.optim.AdamW(p, 0.01, (0.85, 0.99), 1e-6, weight_decay=0.1)),
        (Sgd(0.8), lambda p: torch.optim.SGD(p, 0.01, momentum=0.8, weight_decay=0.1)),
        (Sgd(0.8, nesterov=True), lambda p: torch.optim.SGD(p, 0.01, 0.8, nesterov=True, weight_decay=0.1)),
    ],
    ids=["AdamW", "momentum", "Nesterov"],
)
def test_as_pytorch_has_it(method: Method, make: Any) -> None:
    ours, theirs = model(torch.float64), model(torch.float64)
    koala, other = Optimizer(ours, method, lr=0.01, weight_decay=0.1), make(theirs)
    for number in range(100):
        for one, two, gradient in zip(ours, theirs, gradients(number, torch.float64)):
            one.grad, two.grad = gradient.clone(), gradient.clone()
        koala.step()
        other.step()
    for one, two in zip(ours, theirs):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_resuming_gives_the_same_bits(method: Method, dtype: Any) -> None:
    whole = model(dtype)
    optimizer = Optimizer(whole, method, lr=0.1, noise_decay=0.5)
    run(optimizer, whole, range(3))
    saved, parameters = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in whole]
    run(optimizer, whole, range(3, 6))

    resumed = [torch.nn.Parameter(p) for p in parameters]
    # Another learning rate and another rule of R, which those that were saved replace.
    other = Optimizer(resumed, method, lr=0.7, noise=0.3)
    other.load_state_dict(saved)
    run(other, resumed, range(3, 6))
    assert bits(resumed) == bits(whole)
    assert other.method == optimizer.method and other.noise == optimizer.noise


def test_orders_of_memory() -> None:
    torch.manual_seed(3)
    weight, gradient = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    last = torch.channels_last
    ours = [torch.nn.Parameter(weight.clone(memory_format=last)), torch.nn.Parameter(weight.clone())]
    for parameter in ours:
        optimizer = Optimizer([parameter], AdamW(), lr=0.1)
        # In the other's order.
        parameter.grad = (
            gradient.clone() if parameter.is_contiguous(memory_format=last) else gradient.to(memory_format=last)
        )
        optimizer.step()
    assert torch.equal(*ours)


@pytest.mark.parametrize("method", [Settings(), *METHODS], ids=str)
def test_unchecked(method: Method | Settings) -> None:
    spoilt, well = model(), model()
    for parameters in (spoilt, well):
        optimizer = new_optimizer(parameters, method, lr=0.1, on_non_finite="unchecked")
        optimizer.predict()
        for parameter, gradient in zip(parameters, gradients(0)):
            parameter.grad = gradient
        if parameters is spoilt:
            before = bits(spoilt)
            spoilt[0].grad[1, 2] = torch.nan
        optimizer.step(loss=0.5)
        if parameters is spoilt and isinstance(method, (AdamW, Sgd)):
            assert optimizer.report().stepped == 4
            assert spoilt[0].isnan().nonzero().tolist() == [[1, 2]]
        elif parameters is spoilt:
            assert optimizer.report().outcomes["parameter 0 of group 0"] == "non_finite"
            assert bits(spoilt)[0] == before[0]
    assert bits(spoilt)[1:] == bits(well)[1:]


def named(method: Any) -> Any:
    return method if isinstance(method, str) else type(method).__name__


@pytest.mark.parametrize(
    ("choice", "make"),
    [
        ("koala++", lambda p, **options: KoalaPlusPlus(p, **options)),
        ("koala-v", lambda p, **options: Optimizer(p, KoalaV(), **options)),
        ("koala-m", lambda p, **options: Optimizer(p, KoalaM(), **options)),
        ("adamw", lambda p, **options: Optimizer(p, AdamW(), **options)),
        ("sgd", lambda p, **options: Optimizer(p, Sgd(), **options)),
        (
            Settings(weight_decay=0.5, initial_variance=0.2, process_noise=0.3, variant="vanilla"),
            lambda p, **options: KoalaPlusPlus(p, 0.1, 0.5, 0.2, 0.3, "vanilla", noise_decay=0.5),
        ),
        (
            Settings(variant="definite", prior_variance=0.4),
            lambda p, **options: KoalaPlusPlus(p, variant="definite", prior_variance=0.4, **options),
        ),
        (KoalaV(0.2), lambda p, **options: Optimizer(p, KoalaV(0.2), **options)),
        (Sgd(0.5, nesterov=True), lambda p, **options: Optimizer(p, Sgd(0.5, nesterov=True), **options)),
    ],
    ids=named,
)
def test_one_way_to_choose(choice: Any, make: Any) -> None:
    one, other = model(), model()
    chosen = new_optimizer(one, choice, lr=0.1, noise_decay=0.5)
    direct = make(other, lr=0.1, noise_decay=0.5)
    assert type(chosen) is type(direct)
    run(chosen, one, range(3))
    run(direct, other, range(3))
    assert bits(one) == bits(other)
    for entries in (chosen.param_groups[0], direct.param_groups[0]):
        del entries["params"]
    assert chosen.param_groups == direct.param_groups


def test_choices_that_there_are_not() -> None:
    parameters = model()
    assert isinstance(new_optimizer(parameters), KoalaPlusPlus)
    with pytest.raises(ValueError, match=r"method is 'adam', expected one of koala\+\+, koala-v, koala-m, adamw, sgd$"):
        new_optimizer(parameters, "adam")
    with pytest.raises(ValueError, match="frozen"):
        new_optimizer(parameters, Settings(frozen=True))
    with pytest.raises(TypeError, match="method is 5"):
        new_optimizer(parameters, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state_dtype"):
        new_optimizer(parameters, "adamw", state_dtype=None)


def test_what_is_wrong_is_said() -> None:
    parameters = model()
    with pytest.raises(TypeError, match="method is 'adamw'"):
        Optimizer(parameters, "adamw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learning rate is -1"):
        Optimizer(parameters, AdamW(), lr=-1.0)
    with pytest.raises(ValueError, match="share their memory"):
        Optimizer([torch.nn.Parameter(torch.zeros(4).expand(3, 4))], AdamW())
    with pytest.raises(TypeError, match="on meta"):
        Optimizer([torch.nn.Parameter(torch.zeros(4, device="meta"))], AdamW())
    for parameter, gradient in zip(parameters, gradients(0)):
        parameter.grad = gradient
    with pytest.raises(TypeError, match="needs the loss"):
        Optimizer(parameters, KoalaV()).step()
    before = bits(parameters)
    with pytest.raises(ValueError, match="has to predict"):
        Optimizer(parameters, KoalaM()).step(loss=0.5)
    optimizer = Optimizer(parameters, AdamW(), on_non_finite="keep_all")
    parameters[0].grad[0, 0] = float("nan")
    optimizer.step()
    assert optimizer.report().non_finite == 1 and bits(parameters) == before
    with pytest.raises(ValueError, match="is of AdamW"):
        Optimizer(parameters, Sgd()).load_state_dict(optimizer.state_dict())


def test_what_is_not_finite_is_said_where_it_is_an_error() -> None:
    parameters = model()
    before = bits(parameters)
    names = ["first", "second", "third", "fourth"]
    optimizer = Optimizer(list(zip(names, parameters)), KoalaV(), on_non_finite="error")
    with pytest.raises(NonFiniteError, match="the loss is not finite: mean nan"):
        optimizer.step(loss=torch.nan)
    for parameter, gradient in zip(parameters[1:], gradients(0)[1:]):
        parameter.grad = gradient
    parameters[2].grad[3, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r'^parameter "third", of shape \(40, 7\)'):
        optimizer.step(loss=0.5)
    assert bits(parameters) == before
    assert optimizer.method == KoalaV() and optimizer.noise == 1


def test_a_prediction_without_a_parameter_to_train() -> None:
    parameters = model()
    for one in parameters:
        one.requires_grad_(False)
    optimizer = Optimizer(parameters, KoalaM())
    before = bits(parameters)
    optimizer.predict()
    assert bits(parameters) == before and optimizer.method == KoalaM().predicted() != KoalaM()


def test_pytorch_needs_no_numpy(tmp_path: pathlib.Path) -> None:
    program = """
import sys
sys.modules["numpy"] = None
import torch
from koala_optim.torch import new_optimizer
parameter = torch.nn.Parameter(torch.ones(3))
for method in ("koala++", "koala-v", "koala-m", "adamw", "sgd"):
    optimizer = new_optimizer([parameter], method)
    optimizer.predict()
    parameter.grad = torch.ones(3)
    optimizer.step(loss=0.5)
    print(optimizer.report().stepped)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    # From elsewhere, so that it is the installed package that is imported.
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "1\n" * 5
