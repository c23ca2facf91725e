"""Gradients that PyTorch's optimizers multiply and limit as they are loaded, and `GradScaler`, which asks for that."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim import Sgd  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer, new_optimizer  # noqa: E402

METHODS = ["koala++", "koala-v", "koala-m", "adamw", "sgd"]
SHAPES = [(40, 7), (5,)]


def parameters(dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def gradients(number: int, dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]


def run(optimizer: Any, trained: list[Any], change: Any = lambda gradient: gradient, steps: int = 3) -> list[Any]:
    for number in range(steps):
        optimizer.predict()
        for one, gradient in zip(trained, gradients(number, trained[0].dtype)):
            one.grad = change(gradient)
        optimizer.step(loss=0.5)
    return [one.detach() for one in trained]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("method", METHODS)
def test_as_if_they_had_been_scaled_before(method: str, weight_decay: float) -> None:
    def stepped(change: Any, **scaling: float) -> list[Any]:
        trained = parameters()
        return run(new_optimizer(trained, method, lr=0.1, weight_decay=weight_decay, **scaling), trained, change)

    before = stepped(lambda gradient: (gradient * 0.3).clamp(-0.2, 0.2))
    assert same(before, stepped(lambda gradient: gradient, gradient_factor=0.3, gradient_limit=0.2))
    assert not same(before, stepped(lambda gradient: gradient))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_operations_of_torch_do_the_same(weight_decay: float) -> None:
    found = []
    for backend in ("fastest", "torch"):
        trained = parameters(torch.float64)
        options: Any = {"backend": backend, "weight_decay": weight_decay}
        optimizer = KoalaPlusPlus(trained, 0.1, gradient_factor=0.3, gradient_limit=0.2, **options)
        found.append(run(optimizer, trained))
    for one, other in zip(*found):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["fastest", "torch"])
def test_what_is_not_finite_stays_that(backend: str) -> None:
    trained = parameters()
    optimizer = KoalaPlusPlus(trained, gradient_limit=0.5, backend=backend)
    for value in (math.inf, -math.inf, math.nan):
        for one, gradient in zip(trained, gradients(0)):
            one.grad = gradient
        trained[1].grad[2] = value
        optimizer.step(loss=0.5)
        assert optimizer.report().outcomes["parameter 1 of group 0"] == "non_finite"


@pytest.mark.parametrize("method", METHODS)
def test_saved_with_the_groups(method: str) -> None:
    whole = parameters()
    optimizer = new_optimizer(whole, method, lr=0.1, gradient_factor=0.3, gradient_limit=0.2)
    run(optimizer, whole, steps=1)
    resumed = copy.deepcopy(whole)
    other = new_optimizer(resumed, method, lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert same(run(optimizer, whole), run(other, resumed))
    given = optimizer.state_dict()
    for wrong in ({"gradient_factor": 0.0}, {"gradient_limit": -1.0}, {"gradient_factor": math.inf}):
        with pytest.raises(ValueError, match="gradient's"):
            new_optimizer(parameters(), method, **wrong)
        group = {**given["param_groups"][0], **wrong}
        with pytest.raises(ValueError, match="gradient's"):
            other.load_state_dict({**given, "param_groups": [group]})
        assert other.param_groups[0]["gradient_factor"] == 0.3


@pytest.mark.parametrize("unscaled_before", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_scaler(method: str, unscaled_before: bool) -> None:
    scaled, plain = parameters(), parameters()
    optimizer, other = new_optimizer(scaled, method, lr=0.1), new_optimizer(plain, method, lr=0.1)
    # A power of two changes no bit.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for number in range(4):
        optimizer.predict()
        optimizer.zero_grad()
        products: Any = (one * gradient for one, gradient in zip(scaled, gradients(number)))
        scaler.scale(sum(product.sum() for product in products)).backward()
        if unscaled_before:
            scaler.unscale_(optimizer)
        before = [one.grad.clone() for one in scaled]
        scaler.step(optimizer, loss=0.5)
        scaler.update()
        # No pass over memory has unscaled them.
        assert same(before, [one.grad for one in scaled])
    assert scaler.get_scale() == 2.0**12
    assert same([one.detach() for one in scaled], run(other, plain, steps=4))

    optimizer.predict()
    kept = [one.detach().clone() for one in scaled]
    scaled[0].grad[0, 0] = torch.inf
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer, loss=0.5)
    scaler.update()
    assert same(kept, [one.detach() for one in scaled])
    assert scaler.get_scale() == 2.0**11


@pytest.mark.parametrize("backend", ["fastest", "torch"])
def test_koala_plus_plus_takes_a_scale_as_a_factor(backend: str) -> None:
    found = []
    for scale, factor in ((None, 0.25 / 8), (torch.tensor(8.0), 0.25)):
        trained = parameters()
        optimizer = KoalaPlusPlus(trained, 0.1, gradient_factor=factor, backend=backend)
        optimizer.grad_scale = scale
        found.append(run(optimizer, trained))
    assert same(*found)


def test_a_scaled_gradient_of_half_precision_is_not_rounded() -> None:
    # 2⁻²⁰ in float16 is 2⁻³⁰, scaled: no number of float16.
    one = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    optimizer = Optimizer([one], Sgd(momentum=0.0), lr=2.0**10, gradient_factor=2.0**-10)
    one.grad = torch.full_like(one, 2.0**-20)
    optimizer.step()
    assert one.tolist() == [-(2.0**-20)] * 2


def raise_in_a_hook(optimizer: Any, trained: list[Any]) -> Any:
    def hook(*_: Any) -> None:
        raise RuntimeError("a hook")

    return optimizer.register_step_pre_hook(hook).remove


def lose_the_loss(optimizer: Any, trained: list[Any]) -> Any:
    options = {"loss": torch.ones(1, 1)}
    handle = optimizer.register_step_pre_hook(lambda optimizer, args, _: (args, options))
    return handle.remove


def misshape(optimizer: Any, trained: list[Any]) -> Any:
    kept = trained[0].data
    trained[0].data = torch.zeros(3)
    return lambda: setattr(trained[0], "data", kept)


@pytest.mark.parametrize("unscaled_before", [False, True])
@pytest.mark.parametrize("fail", [raise_in_a_hook, lose_the_loss, misshape])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_raises_leaves_no_scale_behind(method: str, fail: Any, unscaled_before: bool) -> None:
    scaled, plain = parameters(), parameters()
    optimizer, other = new_optimizer(scaled, method, lr=0.1), new_optimizer(plain, method, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for number in range(3):
        optimizer.predict()
        for one, gradient in zip(scaled, gradients(number)):
            one.grad = gradient * scaler.get_scale()
        scaler.scale(torch.zeros(()))
        if unscaled_before:
            scaler.unscale_(optimizer)
        mend = fail(optimizer, scaled)
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            scaler.step(optimizer, loss=0.5)
        mend()
        assert not hasattr(optimizer, "grad_scale") and not hasattr(optimizer, "found_inf")
        scaler.step(optimizer, loss=0.5)
        scaler.update()
    assert same([one.detach() for one in scaled], run(other, plain, steps=3))


def test_a_scale_of_the_callers_own_outlasts_a_step_that_raises() -> None:
    trained = parameters()
    optimizer = KoalaPlusPlus(trained)
    optimizer.grad_scale = torch.tensor(8.0)
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
    assert optimizer.grad_scale == 8
