"""What could only be seen in wrong numbers, or in memory that is not there any more: entries in mappings that are no
dicts, tensors whose memory has the negated numbers, settings that are changed where they are."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")

from test_torch_cached import ALL, give_gradients, parameter, same, take_step  # noqa: E402

from koala_optim import KoalaM, KoalaV  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer  # noqa: E402


@ALL
@pytest.mark.parametrize("length", [5, 100_000])
def test_entries_in_a_mapping_that_is_no_dict(make: Any, length: int) -> None:
    ends = []
    for kind in (dict, UserDict):
        one = parameter(length)
        optimizer = make([one], lr=0.1)
        take_step(optimizer, [one], 0)
        optimizer.state[one] = kind(optimizer.state[one])
        take_step(optimizer, [one], 1)
        for name, entry in [*optimizer.state[one].items()]:
            optimizer.state[one][name] = torch.zeros_like(entry)
        # What the memory of the entries that were there is used for.
        fillers = [torch.full((length,), 7.0) for _ in range(4)]
        take_step(optimizer, [one], 2)
        assert all(bool((filler == 7).all()) for filler in fillers)
        ends.append([one, *optimizer.state[one].values()])
    assert same(*ends)


class Copies(UserDict[str, Any]):
    """Returns copies, which nobody else has."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).clone()


@ALL
def test_entries_in_a_mapping_that_returns_copies(make: Any) -> None:
    one = parameter(5)
    optimizer = make([one], lr=0.1)
    take_step(optimizer, [one], 0)
    optimizer.state[one] = Copies(optimizer.state[one])
    before = one.detach().clone()
    with pytest.raises(TypeError, match="has its state in a Copies"):
        take_step(optimizer, [one], 1)
    assert same([before], [one.detach()])


def negated(tensor: Any) -> Any:
    """The same numbers, in memory that has their opposites."""
    with torch.no_grad():
        found = (-tensor)._neg_view()
    assert found.is_neg() and torch.equal(found, tensor)
    return found


SHAPES = pytest.mark.parametrize("shape", [(), (5,), (3, 4)], ids=str)


@ALL
@SHAPES
@pytest.mark.parametrize("first", [0, 1])
def test_a_gradient_in_negated_memory(make: Any, shape: tuple[int, ...], first: int) -> None:
    ends = []
    for change in (torch.clone, negated):
        one, other = parameter(*shape), parameter(7, seed=1)
        optimizer = make([one, other], lr=0.1)
        for seed in range(4):
            optimizer.predict()
            give_gradients([one, other], seed)
            if seed >= first:
                one.grad = change(one.grad)
            optimizer.step(loss=0.5)
        ends.append([one, other, *optimizer.state[one].values()])
    assert same(*ends)


def test_a_gradient_that_autograd_leaves_in_negated_memory() -> None:
    ends = []
    for resolves in (True, False):
        one = torch.nn.Parameter(torch.tensor(0.5))
        optimizer = KoalaPlusPlus([one])
        for seed in range(4):
            optimizer.zero_grad()
            loss = torch.complex(torch.ones(()), one).conj().angle() if seed else one * one
            loss.backward()
            assert one.grad is not None
            if resolves:
                one.grad = one.grad.resolve_neg()
            optimizer.step(loss=loss)
        ends.append([one.detach()])
    assert same(*ends)


@ALL
@SHAPES
def test_a_parameter_in_negated_memory(make: Any, shape: tuple[int, ...]) -> None:
    ends = []
    for change in (torch.clone, negated):
        one, other = torch.nn.Parameter(change(parameter(*shape).detach())), parameter(7, seed=1)
        optimizer = make([one, other], lr=0.1)
        for seed in range(4):
            take_step(optimizer, [one, other], seed)
        ends.append([one, other, *optimizer.state[one].values()])
    assert same(*ends)


@ALL
@SHAPES
def test_a_state_in_negated_memory(make: Any, shape: tuple[int, ...]) -> None:
    ends = []
    for change in (torch.clone, negated):
        one, other = parameter(*shape), parameter(7, seed=1)
        optimizer = make([one, other], lr=0.1)
        for seed in range(4):
            take_step(optimizer, [one, other], seed)
            for name, entry in [*optimizer.state[one].items()]:
                optimizer.state[one][name] = change(entry)
        ends.append([one, other, *optimizer.state[one].values()])
    assert same(*ends)


def test_operations_of_pytorch_step_a_single_number() -> None:
    ends = []
    for shape in ((), (1,)):
        one = torch.nn.Parameter(torch.full(shape, 0.5))
        optimizer = KoalaPlusPlus([one], backend="torch")
        take_step(optimizer, [one], 0)
        assert float(one.detach()) != 0.5
        ends.append([one.detach().reshape(())])
    assert same(*ends)


NUMBERS = {
    "tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "array": lambda value: numpy.array(value),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize(
    "make, name",
    [
        *((KoalaPlusPlus, name) for name in ("lr", "weight_decay", "initial_variance", "process_noise")),
        *((KoalaPlusPlus, name) for name in ("gradient_limit", "gradient_factor", "measurement_noise", "noise_decay")),
        (lambda groups: KoalaPlusPlus(groups, backend="torch"), "weight_decay"),
        (lambda groups: KoalaPlusPlus(groups, backend="torch"), "process_noise"),
        (lambda groups: Optimizer(groups, KoalaV()), "process_noise"),
        (lambda groups: Optimizer(groups, KoalaM()), "velocity_decay"),
        (lambda groups: Optimizer(groups, KoalaM()), "weight_decay"),
    ],
)
def test_a_setting_that_is_changed_where_it_is(make: Any, name: str, kind: str) -> None:
    ends = []
    for is_number in (True, False):
        one = parameter(5)
        optimizer = make([one])
        group = optimizer.param_groups[0]
        if name not in group:
            pytest.skip("the method has no such number")
        setting = NUMBERS[kind](0.1)
        for seed, value in enumerate((0.1, 0.1, 0.5, 0.5)):
            setting[...] = value
            group[name] = value if is_number else setting
            if name == "initial_variance":
                optimizer.state.clear()
            take_step(optimizer, [one], seed)
        ends.append([one.detach(), *optimizer.state[one].values()])
    assert same(*ends)


@pytest.mark.parametrize("threads", [1.5, 1.0, "2", None])
def test_threads_are_a_whole_number(threads: Any) -> None:
    with pytest.raises(TypeError, match="threads is"):
        KoalaPlusPlus([parameter(3)], threads=threads)


@ALL
@pytest.mark.parametrize("steps", [0, 1])
def test_a_group_that_lacks_what_all_groups_share(make: Any, steps: int) -> None:
    one = parameter(3)
    optimizer = make([one])
    for seed in range(steps):
        take_step(optimizer, [one], seed)
    optimizer.predict()
    give_gradients([one], 5)
    optimizer.param_groups[0] = {"params": [one], "lr": 0.1}
    with pytest.raises(ValueError, match="group 0 has no .*gradient_factor"):
        optimizer.step(loss=0.5)


@ALL
@pytest.mark.parametrize("steps", [0, 1])
def test_no_group(make: Any, steps: int) -> None:
    one = parameter(3)
    optimizer = make([one])
    for seed in range(steps):
        take_step(optimizer, [one], seed)
    optimizer.param_groups.clear()
    with pytest.raises(ValueError, match="no group"):
        optimizer.step(loss=0.5)
