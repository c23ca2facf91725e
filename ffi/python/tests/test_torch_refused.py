"""Groups: edits before the first step, which are ordinary; entries without effect and memory that parameters share,
which are refused; and losses whose sign is a bit."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim.torch import new_optimizer  # noqa: E402
from koala_optim.torch._loss import measure, measure_there  # noqa: E402

ALL = ["koala++", "koala-v", "koala-m", "adamw", "sgd"]
OPTIONS: list[dict[str, Any]] = [
    *({"method": method} for method in ALL),
    {"method": "koala++", "backend": "torch"},
]


def ones(*shapes: Any) -> list[Any]:
    return [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]


def steps_all_of(optimizer: Any) -> bool:
    """Whether a step takes every parameter that the optimizer has."""
    optimizer.predict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(loss=0.5)
    return bool(optimizer.report().stepped == len(parameters))


@pytest.mark.parametrize("method", ALL)
def test_groups_are_edited_before_the_first_step(method: str) -> None:
    def made(*shapes: Any) -> Any:
        return new_optimizer([{"params": ones(shape)} for shape in shapes], method)

    optimizer = made(5, 3)
    optimizer.param_groups.reverse()
    assert steps_all_of(optimizer)
    optimizer = made(5, 3)
    del optimizer.param_groups[0]
    assert steps_all_of(optimizer)
    for others in (5, 12, 20):
        optimizer = made((3, 4))
        optimizer.param_groups[0]["params"] = ones(others)
        assert steps_all_of(optimizer)
    optimizer = made((3, 4), 7)
    optimizer.param_groups[0]["params"] = ones(5)
    assert steps_all_of(optimizer)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("name", ["beta1", "epsilon", "noise", "initial_noise", "learning_rate", "threads", "backend"])
def test_an_argument_that_no_group_has(method: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"has {name}, without effect"):
        new_optimizer([{"params": ones(3), name: 0.5}], method)
    optimizer = new_optimizer(ones(3), method)
    with pytest.raises(ValueError, match=f"has {name}, without effect"):
        optimizer.add_param_group({"params": ones(4), name: 0.5})
    optimizer.add_param_group({"params": ones(4), "anything": 0.5, "initial_lr": 1.0})
    assert steps_all_of(optimizer)


@pytest.mark.parametrize("method", ["adamw", "sgd", "koala-v"])
def test_an_argument_of_another_method(method: str) -> None:
    with pytest.raises(ValueError, match="has variant, without effect"):
        new_optimizer([{"params": ones(3), "variant": "vanilla"}], method)


@pytest.mark.parametrize("method", ALL[:3])
def test_maximize_is_refused_whenever_it_is_set(method: str) -> None:
    optimizer = new_optimizer(ones(3), method)
    assert steps_all_of(optimizer)
    optimizer.param_groups[0]["maximize"] = True
    before = [parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]]
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot maximize"):
            optimizer.step(loss=0.5)
    assert torch.equal(before[0], optimizer.param_groups[0]["params"][0])
    optimizer.param_groups[0]["maximize"] = False
    assert steps_all_of(optimizer)


def test_a_loss_whose_sign_is_a_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        losses = torch.tensor([0.5, -1.5, 2.0], dtype=dtype)
        complex_ones = torch.complex(torch.ones(3, dtype=dtype), losses)
        for negated in (losses._neg_view(), complex_ones.conj().imag, losses.repeat(2)[::2]._neg_view()):
            assert negated.is_neg()
            for some in (negated, negated[:1], negated[1]):
                plain = some.resolve_neg()
                assert measure(some, None) == measure(plain, None)
                assert torch.equal(measure_there(some, some.flatten()[0]), measure_there(plain, plain.flatten()[0]))
                assert measure(0.5, some.flatten()[:1]) == measure(0.5, plain.flatten()[:1])


def overlapping(how: str) -> list[Any]:
    """Groups of one parameter each, of which some memory is another's too."""
    base, line = torch.ones(4, 4), torch.ones(10)
    views = {
        "slices": (line[:6], line[4:]),
        "columns and a row": (base[:, ::2], base[0]),
        "columns": (base[:, :3], base[:, 2:]),
        "a part of a row": (base[:, 1:], base[2, 3:]),
        "another type": (base, base.view(torch.float64)[3:, 1:]),
        "far apart in the groups": (base[1:3], torch.ones(3), base[2:, 1::2]),
    }[how]
    return [torch.nn.Parameter(view) for view in views]


MEMORY = ["slices", "columns and a row", "columns", "a part of a row", "another type", "far apart in the groups"]


@pytest.mark.parametrize("how", MEMORY)
@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_that_share_memory(options: dict[str, Any], how: str) -> None:
    parameters = overlapping(how)
    optimizer = new_optimizer([{"params": [parameter]} for parameter in parameters], **options)
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    last = len(parameters) - 1
    for _ in range(2):
        with pytest.raises(ValueError, match=f"parameter 0 of group 0, .* and parameter 0 of group {last}, .* overlap"):
            optimizer.predict()
            optimizer.step(loss=0.5)
        assert all(torch.equal(one, other) for one, other in zip(before, parameters))
    # One of them alone is well.
    parameters[last].grad = None
    if options["method"] != "koala-m":
        optimizer.step(loss=0.5)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_parameter_in_two_groups(options: dict[str, Any]) -> None:
    one, other = ones(3, 4)
    optimizer = new_optimizer([{"params": [one]}, {"params": [other]}], **options)
    assert steps_all_of(optimizer)
    optimizer.param_groups[1]["params"] = [one]
    before = one.detach().clone()
    with pytest.raises(ValueError, match="overlap"):
        steps_all_of(optimizer)
    assert torch.equal(before, one)


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_between_one_another(options: dict[str, Any]) -> None:
    base = torch.ones(6, 6)
    views = (base[:4, ::2], base[:4, 1::2], base[4, :3], base[4, 3:], base[5:])
    optimizer = new_optimizer([torch.nn.Parameter(view) for view in views], **options)
    assert steps_all_of(optimizer) and steps_all_of(optimizer)
    assert bool((base < 1).all())
