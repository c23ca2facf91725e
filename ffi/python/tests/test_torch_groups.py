"""The numbers of a method in groups: PyTorch's own optimizers with the same groups and schedules; what groups share;
steps that take several calls, of which all are taken or none; loops that others wrote; orders of memory."""

from __future__ import annotations

import copy
import math
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim import AdamW, KoalaM, KoalaV, NonFiniteError, Sgd  # noqa: E402
from koala_optim.torch import Optimizer, new_optimizer  # noqa: E402

SHAPES = [(3, 5), (1,), (40, 7), (4,)]


def model(dtype: Any = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def give_gradients(parameters: list[Any], number: int) -> None:
    generator = torch.Generator().manual_seed(100 + number)
    for one in parameters:
        one.grad = torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype)


def groups(parameters: list[Any], *settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters, two to a group."""
    pairs = [parameters[start : start + 2] for start in range(0, len(parameters), 2)]
    return [{"params": pair, **own} for pair, own in zip(pairs, settings)]


def copied(parameters: list[Any]) -> list[Any]:
    return [one.detach().clone() for one in parameters]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other))


def adamw(ours: Any, theirs: Any, **options: Any) -> tuple[Any, Any]:
    options = {"lr": 0.01, "weight_decay": 0.1, **options}
    return Optimizer(ours, AdamW(), **options), torch.optim.AdamW(theirs, **options)


def sgd(ours: Any, theirs: Any, nesterov: bool = False, **options: Any) -> tuple[Any, Any]:
    options = {"lr": 0.01, "weight_decay": 0.1, **options}
    other = torch.optim.SGD(theirs, momentum=0.9, nesterov=nesterov, **options)
    return Optimizer(ours, Sgd(nesterov=nesterov), **options), other


def nesterov(ours: Any, theirs: Any, **options: Any) -> tuple[Any, Any]:
    return sgd(ours, theirs, True, **options)


ADAMW_GROUPS: tuple[dict[str, Any], ...] = (
    {"betas": (0.8, 0.99), "eps": 1e-6},
    {"lr": 0.02, "weight_decay": 0.0, "maximize": True},
)
SGD_GROUPS: tuple[dict[str, Any], ...] = ({"momentum": 0.5, "maximize": True}, {"lr": 0.02, "weight_decay": 0.0})


def one_cycle(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=30)


def cyclic(optimizer: Any) -> Any:
    options: dict[str, Any] = {"step_size_up": 5, "base_momentum": 0.6, "max_momentum": 0.95}
    return torch.optim.lr_scheduler.CyclicLR(optimizer, 0.001, 0.1, **options)


def as_it_is(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 1.0)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("schedule", [one_cycle, cyclic, as_it_is])
@pytest.mark.parametrize(
    ("make", "own"),
    [(adamw, ({}, {})), (adamw, ADAMW_GROUPS), (sgd, ({}, {})), (sgd, SGD_GROUPS), (nesterov, SGD_GROUPS)],
    ids=["AdamW", "AdamW, groups", "SGD", "SGD, groups", "Nesterov, groups"],
)
def test_as_pytorch_has_it(
    make: Callable[..., tuple[Any, Any]], own: tuple[dict[str, Any], ...], schedule: Any, maximize: bool
) -> None:
    ours, theirs = model(), model()
    optimizers = make(groups(ours, *own), groups(theirs, *own), maximize=maximize)
    schedules = [schedule(optimizer) for optimizer in optimizers]
    for number in range(30):
        for parameters, optimizer, each in zip((ours, theirs), optimizers, schedules):
            give_gradients(parameters, number)
            optimizer.step()
            if number < 29:
                each.step()
        for one, other in zip(*(optimizer.param_groups for optimizer in optimizers)):
            for name in ("lr", "betas", "eps", "momentum", "nesterov", "maximize", "weight_decay"):
                assert (name in one) == (name in other) and one.get(name) == other.get(name)
    for left, right in zip(ours, theirs):
        assert torch.allclose(left, right, rtol=1e-12, atol=1e-12)
    assert not same(ours, model())


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_momentum_that_comes_and_goes(nesterov: bool) -> None:
    ours, theirs = model(), model()
    koala, other = sgd(groups(ours, {}, {}), groups(theirs, {}, {}))
    for number in range(12):
        for optimizer in (koala, other):
            group = optimizer.param_groups[1]
            group["momentum"] = (0.0, 0.9, 0.5, 0.0)[number // 3]
            group["nesterov"] = nesterov and group["momentum"] > 0
        for parameters in (ours, theirs):
            give_gradients(parameters, number)
        if number % 3 == 0:
            # A copy that begins where the momentum has just changed.
            resumed = [torch.nn.Parameter(one) for one in copied(ours)]
            follows = Optimizer(groups(resumed, {}, {}), Sgd())
            follows.load_state_dict(koala.state_dict())
        give_gradients(resumed, number)
        for optimizer in (koala, other, follows):
            optimizer.step()
        assert same(ours, resumed)
    for one, two in zip(ours, theirs):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [adamw, sgd])
def test_state_dicts_have_the_numbers_of_each_group(make: Callable[..., tuple[Any, Any]]) -> None:
    own = ADAMW_GROUPS if make is adamw else SGD_GROUPS
    whole = model()
    optimizer, _ = make(groups(whole, *own), model())
    schedule = one_cycle(optimizer)
    for number in range(3):
        give_gradients(whole, number)
        optimizer.step()
        schedule.step()
    resumed = [torch.nn.Parameter(one) for one in copied(whole)]
    other, _ = make(groups(resumed, {}, {}), model())
    saved = copy.deepcopy(optimizer.state_dict())
    if make is adamw:
        # As JSON and torch.distributed.checkpoint have it.
        saved["param_groups"][0]["betas"] = list(saved["param_groups"][0]["betas"])
    other.load_state_dict(saved)
    for one, two in zip(optimizer.param_groups, other.param_groups):
        assert {**one, "params": 0} == {**two, "params": 0}
    for parameters, each in ((whole, optimizer), (resumed, other)):
        give_gradients(parameters, 3)
        each.step()
    assert same(whole, resumed)


@pytest.mark.parametrize(
    ("method", "was"),
    [
        (AdamW(0.8, 0.99, 1e-6), {"name": "adamw", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}),
        (Sgd(0.5, nesterov=True), {"name": "sgd", "momentum": 0.5, "nesterov": True}),
        (KoalaV(0.3, 0.2), {"name": "koala-v", "variance": 0.3, "process_noise": 0.2}),
    ],
    ids=["AdamW", "SGD", "KOALA-V"],
)
def test_state_dicts_as_they_were(method: Any, was: dict[str, Any]) -> None:
    """Those that had the method in one entry."""
    first, second = model(), model()
    optimizer, other = Optimizer(first, method, lr=0.1), new_optimizer(second, method.name, lr=0.7)
    given = optimizer.state_dict()
    group = given["param_groups"][0]
    entries = ("measurement_noise", "noise_decay", "gradient_factor", "gradient_limit", "lr", "weight_decay", "params")
    given["param_groups"][0] = {"method": was, "predicted": False, **{name: group[name] for name in entries}}
    other.load_state_dict(given)
    assert other.method == method
    for parameters, each in ((first, optimizer), (second, other)):
        give_gradients(parameters, 0)
        each.step(loss=0.5)
    assert same(first, second)


def make_groups(parameters: list[Any], kind: str, policy: str) -> Any:
    own: dict[str, Any] = {"eps": 1e-6} if kind == "adamw" else {"momentum": 0.5}
    return new_optimizer(groups(parameters, {}, own), kind, lr=0.1, on_non_finite=policy)


@pytest.mark.parametrize("spoilt", [0, 2])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_all_calls_or_none(kind: str, spoilt: int) -> None:
    for policy in ("keep_all", "error"):
        parameters = model()
        optimizer = make_groups(parameters, kind, policy)
        give_gradients(parameters, 0)
        optimizer.step(loss=0.5)
        before, saved = copied(parameters), copy.deepcopy(optimizer.state_dict())
        give_gradients(parameters, 1)
        parameters[spoilt].grad[1, 2] = math.inf
        if policy == "error":
            with pytest.raises(NonFiniteError, match=f"^parameter 0 of group {spoilt // 2}, of shape"):
                optimizer.step(loss=0.5)
        else:
            optimizer.step(loss=0.5)
            report = optimizer.report()
            assert (report.non_finite, report.withheld, report.stepped) == (1, 3, 0)
            assert report.outcomes[f"parameter 0 of group {spoilt // 2}"] == "non_finite"
        assert same(parameters, before)
        now = optimizer.state_dict()
        assert now["param_groups"] == saved["param_groups"]
        for index, entries in saved["state"].items():
            assert same([*entries.values()], [*now["state"][index].values()])
        # It goes on as if nothing had been.
        parameters[spoilt].grad[1, 2] = 0.5
        optimizer.step(loss=0.5)
        other = [torch.nn.Parameter(one) for one in before]
        follows = make_groups(other, kind, policy)
        follows.load_state_dict(saved)
        give_gradients(other, 1)
        other[spoilt].grad[1, 2] = 0.5
        follows.step(loss=0.5)
        assert same(parameters, other) and optimizer.report().stepped == 4


@pytest.mark.parametrize("policy", ["keep_tensor", "keep_all", "error", "unchecked"])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_the_kernel_refuses_keeps_all(kind: str, policy: str) -> None:
    parameters = model()
    optimizer = make_groups(parameters, kind, policy)
    before = copied(parameters)
    give_gradients(parameters, 0)
    # It would be read while it is written.
    parameters[3].grad = parameters[3].detach()
    with pytest.raises(ValueError, match=r"^parameter 1 of group 1, of shape \(4,\).*overlap"):
        optimizer.step(loss=0.5)
    assert same(parameters, before)


@pytest.mark.parametrize("policy", ["keep_tensor", "keep_all", "unchecked"])
def test_several_calls_have_the_bits_of_optimizers_of_their_own(policy: str) -> None:
    together, alone = model(torch.float32), model(torch.float32)
    optimizer = make_groups(together, "adamw", policy)
    others = [new_optimizer([group], "adamw", lr=0.1) for group in groups(alone, {}, {"eps": 1e-6})]
    for number in range(3):
        give_gradients(together, number)
        give_gradients(alone, number)
        optimizer.step(loss=0.5)
        for other in others:
            other.step(loss=0.5)
    assert same(together, alone)
    assert len(optimizer.report().outcomes) == 4


@pytest.mark.parametrize("method", [KoalaV(), KoalaM()], ids=["V", "M"])
def test_numbers_that_groups_share(method: Any) -> None:
    parameters = model()
    optimizer = Optimizer(groups(parameters, {}, {}), method)
    optimizer.predict()
    give_gradients(parameters, 0)
    before = copied(parameters)
    optimizer.param_groups[1]["process_noise"] = 0.7
    with pytest.raises(ValueError, match="share"):
        optimizer.step(loss=0.5)
    with pytest.raises(ValueError, match="share"):
        optimizer.predict()
    assert same(parameters, before)
    optimizer.param_groups[0]["process_noise"] = 0.7
    optimizer.step(loss=0.5)
    assert not same(parameters, before)


def test_numbers_that_do_not_do() -> None:
    parameters = model()
    for kind, own, text in (
        ("sgd", {"momentum": 1.0}, "momentum is 1"),
        ("sgd", {"momentum": 0.0, "nesterov": True}, "momentum is 0, expected a number above 0 beside Nesterov"),
        ("sgd", {"dampening": 0.5}, "dampening is 0.5"),
        ("adamw", {"betas": (0.9, 1.0)}, "beta2 is 1"),
        ("adamw", {"betas": 0.9}, "betas are 0.9"),
        ("adamw", {"eps": 0.0}, "epsilon is 0"),
        ("adamw", {"amsgrad": True}, "amsgrad is True"),
        ("koala-v", {"maximize": True}, "cannot maximize"),
        ("koala-m", {"maximize": True}, "cannot maximize"),
        ("koala++", {"maximize": True}, "cannot maximize"),
    ):
        with pytest.raises(ValueError, match=text):
            new_optimizer([{"params": parameters, **own}], kind)
    with pytest.raises(ValueError, match="momentum is 0, expected a number above 0 beside Nesterov"):
        Sgd(momentum=0.0, nesterov=True)
    with pytest.raises(ValueError, match="cannot maximize"):
        Optimizer(parameters, KoalaV(), maximize=True)
    # What a schedule does in between is looked at too.
    optimizer = new_optimizer(parameters, "adamw")
    give_gradients(parameters, 0)
    before = copied(parameters)
    optimizer.param_groups[0]["betas"] = (1.5, 0.9)
    with pytest.raises(ValueError, match="beta1 is 1.5"):
        optimizer.step()
    assert same(parameters, before)


@pytest.mark.parametrize("method", ["koala++", "koala-v", "koala-m", "adamw", "sgd"])
def test_the_authors_loop(method: str) -> None:
    """Predict, gradients, update: unchanged with every method."""
    torch.manual_seed(0)
    data = torch.randn(8, 3)
    found = []
    for authors in (True, False):
        torch.manual_seed(1)
        network = torch.nn.Linear(3, 2)
        optimizer = new_optimizer(network.parameters(), method, lr=0.1)
        for _ in range(4):
            optimizer.predict()
            losses = network(data).square().sum(1)
            optimizer.zero_grad()
            losses.mean().backward()
            if authors:
                optimizer.update(losses.mean().item(), (losses**2).mean().item())
            else:
                optimizer.step(loss=losses.mean().item(), second_moment=(losses**2).mean().item())
        found.append(copied(list(network.parameters())))
    assert same(*found)
    optimizer.update(torch.tensor(0.5)) if method != "koala-m" else None


def apart(tensor: Any) -> Any:
    """The same numbers, with gaps between them."""
    wide = torch.full((*tensor.shape, 2), 7.0, dtype=tensor.dtype)
    wide[..., 0] = tensor
    return wide[..., 0]


def expanded(gradient: Any) -> Any:
    return gradient[:1].expand(gradient.shape)


ORDERS: dict[str, Any] = {
    "apart": (apart, lambda gradient: gradient),
    "both apart": (apart, apart),
    "gradient apart": (lambda tensor: tensor, apart),
    "transposed": (lambda tensor: tensor.t().contiguous().t(), lambda gradient: gradient),
    "transposed, apart": (lambda tensor: apart(tensor.t()).t(), lambda gradient: gradient.t().contiguous().t()),
    "slice": (lambda tensor: torch.nn.functional.pad(tensor, (2, 3))[:, 2:-3], lambda gradient: gradient),
    "expanded": (lambda tensor: tensor, expanded),
    "apart, expanded": (apart, expanded),
    "negative": (lambda tensor: tensor, lambda gradient: torch.complex(gradient, gradient).conj().imag),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("method", "options"),
    [(method, {}) for method in ("koala++", "koala-v", "koala-m", "adamw", "sgd")]
    + [(method, {"maximize": True}) for method in ("adamw", "sgd")],
    ids=str,
)
def test_orders_of_memory(method: str, options: dict[str, Any], order: str) -> None:
    of_parameter, of_gradient = ORDERS[order]
    start, found = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), []
    for laid_out in (True, False):
        one = torch.nn.Parameter(of_parameter(start.clone()) if laid_out else start.clone())
        optimizer = new_optimizer([one], method, lr=0.1, weight_decay=0.1, **options)
        for number in range(3):
            optimizer.predict()
            gradient = torch.randn(4, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            gradient = of_gradient(gradient)
            one.grad = gradient if laid_out else gradient.resolve_neg().contiguous()
            optimizer.step(loss=0.5)
        found.append(one.detach())
    if "transposed" in order and method.startswith("koala"):
        # The order of sums is that of the memory.
        assert torch.allclose(*found, rtol=1e-13, atol=1e-13)
    else:
        assert torch.equal(*found)
    assert not torch.equal(found[0], start)
    if order in ("apart", "both apart"):
        gaps = found[0].as_strided((4, 6), found[0].stride(), 1)
        assert (gaps == 7).all()


@pytest.mark.parametrize("method", ["koala-v", "koala-m", "adamw", "sgd"])
def test_elements_that_share_memory(method: str) -> None:
    one = torch.nn.Parameter(torch.zeros(6))
    optimizer = new_optimizer([one], method)
    one.data = torch.zeros(4).as_strided((2, 3), (1, 1))
    one.grad = torch.ones(2, 3)
    with pytest.raises(ValueError, match="share their memory"):
        optimizer.predict()
        optimizer.step(loss=0.5)
    assert not one.any()
