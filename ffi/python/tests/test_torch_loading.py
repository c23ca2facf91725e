"""State dicts that PyTorch's optimizers load: by name, cast to the parameter's type, all or nothing; and what
torch.distributed.checkpoint asks of an optimizer."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from torch.distributed.checkpoint import state_dict as checkpoint  # noqa: E402

from koala_optim import AdamW, KoalaM, KoalaV, Sgd  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer  # noqa: E402

MAKERS: dict[str, Callable[..., Any]] = {
    "KOALA++": KoalaPlusPlus,
    "KOALA-V": lambda groups, **options: Optimizer(groups, KoalaV(), **options),
    "KOALA-M": lambda groups, **options: Optimizer(groups, KoalaM(), **options),
    "AdamW": lambda groups, **options: Optimizer(groups, AdamW(), **options),
    "momentum": lambda groups, **options: Optimizer(groups, Sgd(), **options),
    "SGD": lambda groups, **options: Optimizer(groups, Sgd(momentum=0.0), **options),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
NAMES = ("a", "b", "c")


def parameters(dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 2, generator=generator).to(dtype)) for _ in NAMES]


def take_step(optimizer: Any, seed: int) -> None:
    """A step whose gradients depend on the parameters' values and not on their order."""
    optimizer.predict()
    for group in optimizer.param_groups:
        for one in group["params"]:
            one.grad = (one.detach() * (seed + 1)).sin()
    optimizer.step(loss=0.5)


def everything(optimizer: Any) -> Any:
    """All that an optimizer keeps, every bit of it."""
    saved = copy.deepcopy(optimizer.state_dict())
    states = {
        index: {name: (tensor.dtype, tensor.stride(), tensor.tolist()) for name, tensor in entries.items()}
        for index, entries in saved["state"].items()
    }
    return saved["param_groups"], states


def refused(optimizer: Any, given: Any, error: type[Exception], text: str) -> None:
    before = everything(optimizer)
    with pytest.raises(error, match=text):
        optimizer.load_state_dict(given)
    assert everything(optimizer) == before


WRONG: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "sparse scalars": (
        lambda given: given["state"][1].update(scalars=torch.zeros(4).to_sparse()),
        TypeError,
        "parameter 1 of group 0.*scalars of torch.float32 and torch.sparse_coo",
    ),
    "complex scalars": (
        lambda given: given["state"][1].update(scalars=torch.zeros(4, dtype=torch.complex64)),
        TypeError,
        "scalars of torch.complex64",
    ),
    "scalars without numbers": (
        lambda given: given["state"][1].update(scalars=torch.zeros(4, device="meta")),
        TypeError,
        "scalars on meta",
    ),
    "names of another length": (
        lambda given: given["param_groups"][0].update(param_names=["a", "b"]),
        ValueError,
        "group 0 has 2 names and 3 parameters",
    ),
    "a list": (lambda given: given["state"].update({1: [1, 2]}), TypeError, "a state of type list"),
}
for name, scalars in {
    "steps below zero": [1.0, 1.0, 1.0, -1.0],
    "half a step": [1.0, 1.0, 1.0, 0.5],
    "steps that are NaN": [1.0, 1.0, 1.0, torch.nan],
    "more steps than are counted": [1.0, 1.0, 1.0, 2.0**54],
    "infinite": [1.0, torch.inf, 1.0, 1.0],
    "S below zero": [1.0, 1.0, -1.0, 1.0],
    "a square below zero": [-1.0, 1.0, 1.0, 1.0],
}.items():
    WRONG[name] = (
        lambda given, scalars=scalars: given["state"][1].update(scalars=torch.tensor(scalars, dtype=torch.float64)),
        ValueError,
        "parameter 1 of group 0.*has scalars of",
    )


@ALL
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused_changes_nothing(make: Any, wrong: str) -> None:
    optimizer = make(parameters(), lr=0.1)
    take_step(optimizer, 0)
    given = copy.deepcopy(optimizer.state_dict())
    take_step(optimizer, 1)
    change, error, text = WRONG[wrong]
    change(given)
    refused(optimizer, given, error, text)
    take_step(optimizer, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.int32),
        lambda tensor: tensor.to(torch.complex64),
    ],
    ids=["sparse", "meta", "int", "complex"],
)
@pytest.mark.parametrize("name", ["v", "h"])
def test_vectors_that_are_refused_change_nothing(name: str, change: Any) -> None:
    optimizer = KoalaPlusPlus(parameters())
    take_step(optimizer, 0)
    given = copy.deepcopy(optimizer.state_dict())
    given["state"][2][name] = change(given["state"][2][name])
    refused(optimizer, given, TypeError, f"parameter 2 of group 0.*has {name}")


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@ALL
@pytest.mark.parametrize("after", DTYPES)
@pytest.mark.parametrize("before", DTYPES)
def test_state_is_cast_to_the_parameters_type(make: Any, before: Any, after: Any) -> None:
    one, other = parameters(before), parameters(after)
    optimizer, fitted = make(one, lr=0.1), make(other)
    for seed in range(2):
        take_step(optimizer, seed)
    fitted.load_state_dict(optimizer.state_dict())
    for left, right in zip(one, other):
        for name, tensor in optimizer.state[left].items():
            found = fitted.state[right][name]
            assert torch.equal(found, tensor if name == "scalars" else tensor.to(after))
            assert found.dtype == (torch.float64 if name == "scalars" else after)
    take_step(fitted, 2)
    assert all(
        fitted.state[right]["scalars"][3] == optimizer.state[left]["scalars"][3] + 1 for left, right in zip(one, other)
    )


def test_a_state_type_that_is_asked_for_is_kept() -> None:
    optimizer = KoalaPlusPlus(parameters(torch.float16), state_dtype=torch.float32)
    take_step(optimizer, 0)
    other = parameters(torch.float64)
    fitted = KoalaPlusPlus(other)
    fitted.load_state_dict(optimizer.state_dict())
    assert fitted.state[other[0]]["v"].dtype == torch.float32


@ALL
def test_names_say_which_parameter_is_meant(make: Any) -> None:
    one, other = parameters(), parameters()
    groups = [{"params": [("a", one[0])], "lr": 0.1}, {"params": [("b", one[1]), ("c", one[2])], "lr": 0.2}]
    turned = [{"params": [("c", other[2]), ("b", other[1])]}, {"params": [("a", other[0])]}]
    optimizer, fitted = make(groups), make(turned)
    take_step(optimizer, 0)
    with torch.no_grad():
        for left, right in zip(one, other):
            right.copy_(left)
    given = copy.deepcopy(optimizer.state_dict())
    fitted.load_state_dict(given)
    assert [group["param_names"] for group in fitted.param_groups] == [["c", "b"], ["a"]]
    assert [group["lr"] for group in fitted.param_groups] == [0.2, 0.1]
    for seed in range(1, 3):
        for of in (optimizer, fitted):
            take_step(of, seed)
    for left, right in zip(one, other):
        assert torch.equal(left, right)
        assert all(torch.equal(tensor, fitted.state[right][name]) for name, tensor in optimizer.state[left].items())


def test_names_that_differ_are_listed() -> None:
    one, other = parameters(), parameters()
    optimizer = KoalaPlusPlus(list(zip(NAMES, one)))
    take_step(optimizer, 0)
    given = optimizer.state_dict()
    fitted = KoalaPlusPlus(list(zip(("a", "c", "d"), other)))
    refused(fitted, given, ValueError, "another model: it lacks d; unknown are b$")
    refused(KoalaPlusPlus(list(zip(("a", "b"), other))), given, ValueError, "it lacks none; unknown are c$")
    divided = KoalaPlusPlus([{"params": [("a", other[0]), ("b", other[1])]}, {"params": [("c", other[2])]}])
    refused(divided, given, ValueError, "no group of a, b: these are divided into other groups")
    for groups in ([{"params": other[:1]}, {"params": other[1:]}], [{"params": other[1:]}, {"params": other[:1]}]):
        refused(KoalaPlusPlus(groups), given, ValueError, r"its groups have \[3\] parameters, not \[")
    # Without names on one side, it is the order that counts, as in PyTorch.
    for plain, named in ((KoalaPlusPlus(other), given), (fitted, KoalaPlusPlus(one).state_dict())):
        plain.load_state_dict(named)
    assert fitted.param_groups[0]["param_names"] == ["a", "c", "d"]


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))


def train(model: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        optimizer.predict()
        losses = model(torch.full((4, 3), 0.1 * step + 0.1)).square().sum(1)
        losses.mean().backward()
        optimizer.step(loss=losses)


@ALL
@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_checkpoints_of_pytorch_make_the_state_and_nothing_else(make: Any, as_tensor: bool) -> None:
    if as_tensor and make is not KoalaPlusPlus:
        pytest.skip("the learning rate is a number")
    model = network()
    rate = torch.tensor(0.3) if as_tensor else 0.3
    optimizer = make(model.named_parameters(), lr=rate)
    groups = [{**group} for group in optimizer.param_groups]
    weights = copy.deepcopy(model.state_dict())
    found = checkpoint.get_optimizer_state_dict(model, optimizer)
    assert optimizer.param_groups == groups and optimizer.param_groups[0]["lr"] is rate
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    assert {*found["state"]} == {*weights}
    for one in model.parameters():
        assert one.grad is None
        assert all(not tensor.any() for tensor in optimizer.state[one].values())
    # What follows is what would have been without it.
    other = network()
    plain = make(other.named_parameters(), lr=rate)
    train(model, optimizer, range(3))
    train(other, plain, range(3))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters()))
    assert everything(optimizer) == everything(plain)


@ALL
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("options", [{}, {"full_state_dict": True}, {"flatten_optimizer_state_dict": True}], ids=str)
def test_the_checkpoints_of_pytorch_go_on_to_the_bit(make: Any, options: dict[str, bool], named: bool) -> None:
    model, other = network(), network()
    optimizer = make(model.named_parameters() if named else model.parameters(), lr=0.1)
    train(model, optimizer, range(3))
    wanted = checkpoint.StateDictOptions(**options)
    weights, state = checkpoint.get_state_dict(model, optimizer, options=wanted)
    fitted = make(other.named_parameters() if named else other.parameters(), lr=0.7)
    weights, state = copy.deepcopy((weights, state))
    checkpoint.set_state_dict(other, fitted, model_state_dict=weights, optim_state_dict=state, options=wanted)
    assert everything(optimizer) == everything(fitted)
    for of, trained in ((optimizer, model), (fitted, other)):
        train(trained, of, range(3, 5))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters()))


@pytest.mark.parametrize("make", [MAKERS["KOALA++"], MAKERS["KOALA-V"]], ids=["++", "V"])
def test_a_step_without_a_loss_is_still_an_error(make: Any) -> None:
    one = torch.nn.Parameter(torch.ones(3))
    optimizer = make([one], lr=0.0)
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
    one.grad = torch.ones(3)
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
    one.grad = torch.zeros(3)
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
    assert not optimizer.state
    one.grad = torch.ones(3)
    optimizer.step(loss=0.5)
    optimizer.param_groups[0]["lr"] = 0.0
    one.grad = torch.zeros(3)
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
