"""Processes that step together: their replicas stay equal to the bit, and are what one process has on the whole batch.

Two real processes, each with its own half of every batch and its own loss, as under DistributedDataParallel.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")
if not torch.distributed.is_available():
    pytest.skip("PyTorch is built without processes", allow_module_level=True)

from torch_models import digits, perceptron  # noqa: E402
from torch_processes import Processes  # noqa: E402

from koala_optim import NonFiniteError  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, new_optimizer  # noqa: E402
from koala_optim.torch._ranks import Ranks, _device_of, _mean, fingerprint  # noqa: E402

FAMILY = ["koala++", "koala-v", "koala-m"]
METHODS = [*FAMILY, "adamw", "sgd"]
RATES = {"adamw": 1e-3, "sgd": 0.1}
SIZE = 32


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2) as processes:
        yield processes


def batch(step: int, rows: slice) -> tuple[Any, Any]:
    images, labels = digits()
    chosen = torch.randint(len(images), (SIZE,), generator=torch.Generator().manual_seed(step))[rows]
    return images[chosen], labels[chosen]


def train(model: Any, optimizer: Any, rows: slice, given: str = "samples", steps: int = 8) -> list[Any]:
    """Trains on those rows of each batch, and returns the parameters, all named."""
    for step in range(steps):
        optimizer.predict()
        optimizer.zero_grad()
        images, labels = batch(step, rows)

        def losses(images: Any = images, labels: Any = labels) -> Any:
            found = torch.nn.functional.cross_entropy(model(images), labels, reduction="none")
            found.mean().backward()
            return found

        if given == "samples":
            optimizer.step(loss=losses())
        elif given == "mean":
            optimizer.step(loss=losses().mean())
        elif given == "closure":
            optimizer.step(losses)
        elif given == "numbers":
            found = losses().detach().double()
            optimizer.step(loss=found.mean().item(), second_moment=found.square().mean().item())
        else:
            losses()
            optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def half(rank: int) -> slice:
    return slice(rank * SIZE // 2, (rank + 1) * SIZE // 2)


def optimizer_of(model: Any, method: str, **options: Any) -> Any:
    return new_optimizer(model.named_parameters(), method, lr=RATES.get(method, 0.3), weight_decay=0.01, **options)


def replica(rank: int, method: str, given: str, options: dict[str, Any]) -> tuple[list[Any], float]:
    """What one of the processes has in the end."""
    model = torch.nn.parallel.DistributedDataParallel(perceptron())
    optimizer = optimizer_of(model, method, **options)
    return train(model, optimizer, half(rank), given), optimizer.noise


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other))


@pytest.mark.parametrize(
    ("given", "options"),
    [("samples", {}), ("samples", {"noise": 0.5}), ("numbers", {"noise_decay": 0.3}), ("closure", {})],
    ids=["samples", "fixed noise", "numbers", "closure"],
)
@pytest.mark.parametrize("method", METHODS)
def test_replicas_are_equal_and_as_one_process(
    two: Processes, method: str, given: str, options: dict[str, Any]
) -> None:
    (first, noise), (second, other_noise) = two.run(replica, method, given, options)
    assert same(first, second) and noise == other_noise
    model = perceptron()
    optimizer = optimizer_of(model, method, **options)
    whole = train(model, optimizer, slice(None), given)
    for one, other in zip(first, whole):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)
    assert math.isclose(noise, optimizer.noise, rel_tol=1e-6)


def test_one_loss_for_the_whole_batch(two: Processes) -> None:
    # Where each rank's m is the square of its own mean, m is not that of the whole batch. The replicas are equal.
    for method in FAMILY:
        (first, _), (second, _) = two.run(replica, method, "mean", {})
        assert same(first, second)


@pytest.mark.parametrize("method", METHODS)
def test_without_averaging_they_drift(two: Processes, method: str) -> None:
    (first, _), (second, _) = two.run(replica, method, "samples", {"process_group": False})
    assert same(first, second) == (method not in FAMILY)


def in_groups(rank: int) -> list[list[Any]]:
    whole = torch.distributed.new_group([0, 1])
    alone = [torch.distributed.new_group([number]) for number in range(2)][rank]
    found = []
    for group in (whole, alone):
        model = torch.nn.parallel.DistributedDataParallel(perceptron())
        # A copy has the group too.
        found.append(train(model, copy_of(model, optimizer_of(model, "koala++", process_group=group)), half(rank)))
    return found


def copy_of(model: Any, optimizer: Any) -> Any:
    """A copy of the optimizer which steps the same model."""
    memo = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(optimizer, memo)


def test_process_groups(two: Processes) -> None:
    (first, alone), (second, other) = two.run(in_groups)
    assert same(first, second) and not same(alone, other)
    assert same(first, two.run(replica, "koala++", "samples", {})[0][0])


def copied_on_one(rank: int) -> Any:
    """Steps that rank 0 goes on with by a copy, which has compared nothing yet."""
    model = torch.nn.parallel.DistributedDataParallel(perceptron())
    optimizer = optimizer_of(model, "koala++")
    train(model, optimizer, half(rank), steps=2)
    return train(model, copy_of(model, optimizer) if rank == 0 else optimizer, half(rank), steps=2)


def test_a_copy_on_one_rank(two: Processes) -> None:
    first, second = two.run(copied_on_one)
    assert same(first, second)


def tensors_divided(rank: int) -> tuple[list[Any], list[str]]:
    """PyTorch's own optimizer of optimizers, each of which has some of the tensors."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = torch.nn.parallel.DistributedDataParallel(perceptron())
    optimizer: Any = ZeroRedundancyOptimizer(model.parameters(), KoalaPlusPlus, lr=0.3, weight_decay=0.01)
    optimizer.predict = lambda: None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = train(model, optimizer, half(rank))
    return found, [str(warning.message) for warning in caught]


def test_each_rank_steps_some_of_the_tensors(two: Processes) -> None:
    (first, warned), (second, _) = two.run(tensors_divided)
    assert any("different numbers of parameters (1, 3)" in text for text in warned)
    assert same(first, second) and same(first, two.run(replica, "koala++", "samples", {})[0][0])


def unusual(rank: int, method: str, what: str) -> Any:
    """A step that goes wrong on rank 1 alone; then one that does not. Returns what was raised, and the parameters."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5))
    optimizer = optimizer_of(torch.nn.ParameterList([parameter]), method, on_non_finite="error")
    before, raised = parameter.detach().clone(), ""
    here: dict[str, Any] = {"loss": torch.tensor([0.5, 1.5])}
    wrong: dict[str, dict[str, Any]] = {
        "nan": {"loss": math.nan},
        "infinite": {"loss": torch.tensor([1.0, math.inf])},
        "shape": {"loss": torch.ones(2, 2)},
        "no samples": {"loss": torch.ones(0)},
        "none": {},
        "found_inf": here,
    }
    optimizer.predict()
    parameter.grad = torch.linspace(-1, 1, 5)
    if what == "found_inf":
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(float(rank))
    try:
        optimizer.step(**(wrong[what] if rank == 1 else here))
    except (NonFiniteError, RuntimeError, TypeError, ValueError) as error:
        raised = f"{type(error).__name__}: {error}"
    assert torch.equal(parameter, before) and optimizer.noise == 1
    if what == "found_inf":
        del optimizer.grad_scale, optimizer.found_inf
    optimizer.step(loss=torch.tensor([0.5, 1.5]))
    assert not torch.equal(parameter, before)
    return raised, parameter.detach(), optimizer.noise


@pytest.mark.parametrize("what", ["nan", "infinite"])
@pytest.mark.parametrize("method", METHODS)
def test_not_finite_on_one_is_not_finite_on_all(two: Processes, method: str, what: str) -> None:
    (first, one, noise), (second, other, other_noise) = two.run(unusual, method, what)
    assert first == second and first.startswith("NonFiniteError: the loss is not finite")
    assert torch.equal(one, other) and noise == other_noise


def with_a_nan(rank: int, method: str, policy: str) -> tuple[list[Any], list[int], float]:
    """Three steps, in the second of which the loss of rank 1 alone is NaN."""
    model = torch.nn.parallel.DistributedDataParallel(perceptron())
    optimizer = optimizer_of(model, method, on_non_finite=policy)
    non_finite = []
    for step in range(3):
        optimizer.predict()
        optimizer.zero_grad()
        images, labels = batch(step, half(rank))
        losses = torch.nn.functional.cross_entropy(model(images), labels, reduction="none")
        losses.mean().backward()
        optimizer.step(loss=losses * math.nan if rank == step == 1 else losses)
        non_finite.append(optimizer.report().non_finite)
    return [parameter.detach().clone() for parameter in model.parameters()], non_finite, optimizer.noise


@pytest.mark.parametrize("policy", ["keep_tensor", "keep_all"])
@pytest.mark.parametrize("method", METHODS)
def test_a_nan_on_one_rank(two: Processes, method: str, policy: str) -> None:
    (first, non_finite, noise), (second, other, other_noise) = two.run(with_a_nan, method, policy)
    assert same(first, second) and noise == other_noise
    assert non_finite == other == [0, 4, 0]


@pytest.mark.parametrize("what", ["shape", "no samples", "none"])
@pytest.mark.parametrize("method", FAMILY)
def test_an_error_on_one_is_one_on_all(two: Processes, method: str, what: str) -> None:
    (first, one, noise), (second, other, other_noise) = two.run(unusual, method, what)
    assert first.startswith("RuntimeError: rank 1 could not take this step")
    assert second.startswith("TypeError" if what == "none" else "ValueError")
    assert torch.equal(one, other) and noise == other_noise


def spoil(optimizer: Any, parameter: Any, what: str) -> None:
    """Has an optimizer that has taken a step refuse the next one, for another reason than the loss."""
    group, state = optimizer.param_groups[0], optimizer.state[parameter]
    if what == "sparse":
        parameter.grad = torch.ones(5).to_sparse()
    elif what == "type":
        parameter.grad = None
        parameter.data = parameter.data.double()
        parameter.grad = torch.ones(5, dtype=torch.float64)
        parameter.data = parameter.data.float()
    elif what == "memory":
        parameter.grad = parameter.detach()
    elif what == "state":
        state["h" if "h" in state else "scalars"] = torch.ones(7)
    elif what == "scalars":
        state["scalars"][3] = 0.5
    else:
        group[what] = -1.0


def refused_on_one(rank: int, method: str, options: dict[str, Any], what: str) -> tuple[str, bool, Any]:
    """A step, and one that rank 1 alone refuses; then two that all take again."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5)) for _ in range(2)]
    optimizer = optimizer_of(torch.nn.ParameterList(parameters), method, **options)
    raised, kept = "", False
    for step in range(4):
        optimizer.predict()
        for parameter in parameters:
            parameter.grad = torch.linspace(-1, 1 + step, 5)
        before = [parameter.detach().clone() for parameter in parameters]
        noise, saved = optimizer.noise, copy.deepcopy(optimizer.state_dict())
        if step == 1 and rank == 1:
            spoil(optimizer, parameters[1], what)
        try:
            optimizer.step(loss=torch.tensor([0.5, 1.5]))
        except (RuntimeError, TypeError, ValueError) as error:
            raised = f"step {step}: {type(error).__name__}: {error}"
            kept = same(before, parameters) and optimizer.noise in (noise, -1)
            optimizer.load_state_dict(saved)
    return raised, kept, [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize(
    "what",
    [
        *("sparse", "type", "memory", "state", "scalars", "lr", "weight_decay"),
        *("measurement_noise", "noise_decay", "gradient_factor", "gradient_limit"),
    ],
)
@pytest.mark.parametrize(
    ("method", "options"),
    [*((method, {}) for method in METHODS), ("koala++", {"backend": "torch"}), ("koala++", {"threads": 2})],
)
def test_what_one_refuses_none_steps(two: Processes, method: str, options: dict[str, Any], what: str) -> None:
    if what in ("memory", "scalars") and "backend" in options:
        pytest.skip("only libkoala looks at that")
    (first, kept, one), (second, other_kept, other) = two.run(refused_on_one, method, options, what)
    assert first.startswith("step 1: RuntimeError: rank 1 could not take this step")
    assert second.startswith(("step 1: TypeError", "step 1: ValueError", "step 1: ArgumentError"))
    assert kept and other_kept and same(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_scaler_found_on_one_holds_for_all(two: Processes, method: str) -> None:
    (first, one, noise), (second, other, other_noise) = two.run(unusual, method, "found_inf")
    assert (first, second) == ("", "")
    assert torch.equal(one, other) and noise == other_noise


def step_on_one(rank: int, method: str) -> float:
    """Without a loss, no rank waits for another."""
    model = torch.nn.Linear(3, 2)
    optimizer = optimizer_of(model, method)
    if rank == 0:
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    return float(optimizer.report().stepped)


@pytest.mark.parametrize("method", ["adamw", "sgd"])
def test_no_loss_is_no_wait(two: Processes, method: str) -> None:
    assert two.run(step_on_one, method) == [2, 0]


def compared(rank: int, what: str) -> list[str]:
    """What is warned of in two steps, in which rank 1 has another model."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    with torch.no_grad():
        if rank == 1 and what == "bit":
            model[0].bias.view(torch.int32)[3] ^= 1
        elif rank == 1 and what == "sign of zero":
            model[1].bias[2] = -0.0
        elif rank == 1 and what == "shape":
            model[1].bias = torch.nn.Parameter(torch.zeros(5))
            model[1].running_mean, model[1].running_var, model[1].affine = torch.zeros(4), torch.ones(4), False
        elif rank == 1 and what == "memory":
            model[0].weight.data = model[0].weight.data.t().contiguous().t()
    names = [pair for pair in model.named_parameters() if rank == 0 or what != "count" or pair[0] != "0.bias"]
    optimizer = new_optimizer(names, "koala++")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step(loss=0.5)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("what", "beginning"),
    [
        ("nothing", None),
        ("memory", None),
        ("bit", 'parameter "0.bias", of shape (4,), has other numbers on rank 1 than on rank 0'),
        ("sign of zero", 'parameter "1.bias"'),
        ("shape", 'parameter "1.bias"'),
        ("count", "the ranks have different numbers of parameters (6, 5)"),
    ],
)
def test_parameters_are_compared_once(two: Processes, what: str, beginning: str | None) -> None:
    found = two.run(compared, what)
    assert [len(warned) for warned in found] == ([0, 0] if beginning is None else [1, 1])
    for warned in found if beginning else ():
        assert warned[0].startswith(beginning)


def test_one_process_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.distributed, "all_gather", fail)
    model = torch.nn.Linear(3, 2)
    optimizer = new_optimizer(model.parameters(), "koala++")
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step(loss=0.5)
    assert Ranks(None).agree(lambda: (0.5, 0.25), [], None) == ((0.5, 0.25), None)


def of_a_tensor(rank: int) -> list[Any]:
    """Averages measurements that are tensors, as those on a GPU are, of which the last one fails."""

    def measured() -> Any:
        return torch.tensor([1.0 + rank, 3.0 - rank], dtype=torch.float64)

    def fails() -> Any:
        if rank == 1:
            raise ValueError
        return measured()

    ranks = Ranks(None)
    found_inf = torch.tensor(float(rank))
    agreed = ranks.agree(measured, [], found_inf)
    with pytest.raises((ValueError, RuntimeError)):
        ranks.agree(fails, [], None)
    return [*agreed, found_inf]


def test_a_measurement_that_is_a_tensor(two: Processes) -> None:
    for rank, (measurement, found_inf, own) in enumerate(two.run(of_a_tensor)):
        assert (measurement.tolist(), found_inf, own) == ([1.5, 2.5], 1, rank)


@pytest.mark.parametrize(
    ("backends", "model", "expected"),
    [
        ("cpu:gloo,cuda:gloo", "cpu", "cpu"),
        ("cpu:gloo,meta:gloo", "meta", "cpu"),
        ("cpu:gloo,meta:other", "meta", "meta"),
        ("cpu:gloo,meta:other", "cpu", "cpu"),
        ("meta:other", "meta", "meta"),
    ],
)
def test_where_ranks_exchange(monkeypatch: pytest.MonkeyPatch, backends: str, model: str, expected: str) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda group: backends)
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [torch.ones(2, device=model)]}]
    assert _device_of(None, groups).type == expected


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_the_mean_is_one_in_every_process(count: int) -> None:
    torch.manual_seed(count)
    rows = torch.randn(count, 2, dtype=torch.float64) * torch.logspace(-8, 8, count, dtype=torch.float64)[:, None]
    assert torch.allclose(_mean(rows), rows.mean(0), rtol=1e-14)
    rows[count // 2, 0] = math.nan
    assert _mean(rows).isnan().tolist() == [True, False]


def test_what_is_no_process_group_is_refused() -> None:
    for wrong in (True, "gloo", 0.5):
        with pytest.raises(TypeError, match="process_group is"):
            new_optimizer([torch.nn.Parameter(torch.ones(2))], "koala++", process_group=wrong)
    optimizer = new_optimizer([torch.nn.Parameter(torch.ones(2))], "koala++", process_group=False)
    assert pickle.loads(pickle.dumps(optimizer))._ranks._group is False


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_fingerprints(dtype: Any) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(300, 400).to(dtype)
    found = fingerprint(tensor)
    assert found == fingerprint(tensor.t().contiguous().t())
    assert found != fingerprint(tensor.reshape(400, 300))
    others = [tensor.clone() for _ in range(3)]
    others[0][299, 399] += 1
    others[1][0, 0], others[1][299, 1] = tensor[299, 1], tensor[0, 0]
    others[2][17] *= -1
    assert all(found != fingerprint(other) for other in others)
    few = torch.tensor([1, -3, -5, 7]).to(dtype)
    assert fingerprint(few) != fingerprint(-few)
