"""Threads share the parameters, and change no bit; and a step does not look again at what has not changed."""

from __future__ import annotations

import functools
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from test_torch_cached import MAKERS, bits, elsewhere, give_gradients, parameter, same, take_step  # noqa: E402

from koala_optim import AdamW, KoalaM, KoalaV, Sgd  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer, _optimizer, _table  # noqa: E402


def overlapping_gradient(one: Any, _: Any) -> None:
    one.grad = one.detach()


def impossible_steps(one: Any, optimizer: Any) -> None:
    optimizer.state[one]["scalars"][3] = 0.5


def overlapping_state(one: Any, optimizer: Any) -> None:
    optimizer.state[one]["v"] = optimizer.state[one]["h"]


def overlapping_another(one: Any, optimizer: Any) -> None:
    one.data = optimizer.param_groups[0]["params"][3].detach()[:1]
    optimizer.state.pop(one)
    one.grad = torch.ones(1)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("spoil", [overlapping_gradient, impossible_steps, overlapping_state, overlapping_another])
@pytest.mark.parametrize("place", [0, 17, 29])
def test_what_one_thread_refuses_is_written_by_none(place: int, spoil: Any, threads: int) -> None:
    parameters = [parameter(1 + index, seed=index) for index in range(30)]
    optimizer = KoalaPlusPlus(parameters, threads=threads)
    take_step(optimizer, parameters, 0)
    give_gradients(parameters, 1)
    spoil(parameters[place], optimizer)
    before = bits(parameters)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"parameter {place} of group 0|parameter 3 of group 0"):
            optimizer.step(loss=0.5)
        assert same(parameters, before)


def test_what_does_not_change_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def counted(function: Any, *arguments: Any) -> Any:
        looks.append(function.__name__)
        return function(*arguments)

    for module, name in ((_optimizer, "has_kernel"), (_table, "entries_of"), (_table, "check_gradient")):
        monkeypatch.setattr(module, name, functools.partial(counted, getattr(module, name)))
    parameters = [parameter(2, seed=index) for index in range(40)]
    optimizer = KoalaPlusPlus([{"params": [one]} for one in parameters])
    # Each one once, however many groups there are.
    assert looks == ["has_kernel"] * 40
    take_step(optimizer, parameters, 0)
    looks.clear()
    # Other gradients, of other parameters.
    for seed in range(1, 4):
        give_gradients(parameters, seed)
        for one in parameters[seed :: seed + 1]:
            one.grad = None
        optimizer.step(loss=0.5)
    assert looks == [] and optimizer.report().stepped == 30
    elsewhere(optimizer.state[parameters[0]]["v"])
    take_step(optimizer, parameters, 5)
    assert looks == ["entries_of"] * 40


@pytest.mark.parametrize("make", [MAKERS[name] for name in MAKERS if name != "operations"])
def test_no_method_looks_again(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [parameter(2, seed=index) for index in range(5)]
    optimizer = make([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=0.1)
    take_step(optimizer, parameters, 0)

    def fail(*arguments: Any) -> Any:
        raise AssertionError("it looks again")

    for name in ("entries_of", "check_gradient"):
        monkeypatch.setattr(_table, name, fail)
    for seed in range(1, 4):
        # A schedule changes what the method is told, and not where anything is.
        optimizer.param_groups[1]["lr"] = 0.1 / seed
        take_step(optimizer, parameters, seed)
    assert optimizer.report().stepped == 5
    optimizer.state[parameters[3]]["scalars"] = optimizer.state[parameters[3]]["scalars"].clone()
    with pytest.raises(AssertionError, match="it looks again"):
        take_step(optimizer, parameters, 4)


@pytest.mark.parametrize("method", [KoalaV(), KoalaM(), AdamW(), Sgd(), Sgd(momentum=0.0)], ids=str)
@pytest.mark.parametrize("policy", ["keep_tensor", "keep_all"])
def test_threads_change_no_bit(method: Any, policy: Any) -> None:
    ends: list[Any] = []
    methods: list[Any] = []
    for threads in (1, 2, 7):
        parameters = [parameter(1 + 300 * index, seed=index) for index in range(6)]
        optimizer = Optimizer(parameters, method, lr=0.1, threads=threads, on_non_finite=policy)
        for seed in range(3):
            take_step(optimizer, parameters, seed)
        ends.append([*parameters, *(tensor for one in parameters for tensor in optimizer.state[one].values())])
        assert optimizer.report().stepped == 6
        methods.append(optimizer.method)
    assert same(ends[0], ends[1]) and same(ends[0], ends[2])
    assert methods[0] == methods[1] == methods[2]
    assert not same(parameters, [parameter(1 + 300 * index, seed=index) for index in range(6)])
