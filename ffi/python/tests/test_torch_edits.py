"""Random edits between steps, of groups, of state and of where tensors lie in memory: an optimizer that has stepped
before does what a copy of it does, which remembers nothing, and parameters move as torch.optim.SGD has them."""

from __future__ import annotations

import copy
import pickle
import random
from collections import defaultdict
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")

from koala_optim.torch import KoalaPlusPlus  # noqa: E402

SHAPES = [(2, 3, 2, 2), (5,), (1,), (4, 3), (1, 7)]


class World:
    """An optimizer, and all parameters that it has ever had."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.parameters: list[Any] = []
        groups = [{"params": [self.new(index) for index in part], "lr": 0.3} for part in ([0, 1], [2, 3, 4])]
        self.optimizer = make(groups)

    def new(self, number: int) -> Any:
        """Another parameter."""
        generator = torch.Generator().manual_seed(number)
        shape = SHAPES[number % len(SHAPES)]
        self.parameters.append(torch.nn.Parameter(torch.randn(shape, generator=generator)))
        return self.parameters[-1]

    def trained(self) -> list[Any]:
        """The parameters that the optimizer has now."""
        return [one for group in self.optimizer.param_groups for one in group["params"]]

    def copied(self, how: Callable[[Any], Any]) -> World:
        """The same again: a deep copy, gradients and all."""
        gradients = [one.grad for one in self.parameters]
        other = how(self)
        for one, gradient in zip(other.parameters, gradients):
            one.grad = None if gradient is None else gradient.clone()
        return other


Edit = Callable[[World, random.Random], object]
EDITS: list[Edit] = []


def edit(function: Edit) -> Edit:
    EDITS.append(function)
    return function


def one_group(world: World, chance: random.Random) -> Any:
    return chance.choice(world.optimizer.param_groups)


def one_of(world: World, chance: random.Random) -> Any:
    """A parameter that the optimizer has."""
    return chance.choice(world.trained() or world.parameters)


@edit
def replace_a_parameter(world: World, chance: random.Random) -> None:
    params = one_group(world, chance)["params"]
    if params:
        params[chance.randrange(len(params))] = world.new(chance.randrange(100))


@edit
def replace_it_where_it_is(world: World, chance: random.Random) -> None:
    params = one_group(world, chance)["params"]
    if params:
        place = chance.randrange(len(params))
        params[place] = torch.nn.Parameter(params[place].detach())
        world.parameters.append(params[place])


@edit
def add_a_parameter(world: World, chance: random.Random) -> None:
    one_group(world, chance)["params"].append(world.new(chance.randrange(100)))


@edit
def remove_a_parameter(world: World, chance: random.Random) -> None:
    params = one_group(world, chance)["params"]
    if params:
        del params[chance.randrange(len(params))]


@edit
def move_a_parameter(world: World, chance: random.Random) -> None:
    params = one_group(world, chance)["params"]
    if params:
        one_group(world, chance)["params"].append(params.pop(chance.randrange(len(params))))


@edit
def reorder_parameters(world: World, chance: random.Random) -> None:
    chance.shuffle(one_group(world, chance)["params"])


@edit
def reorder_groups(world: World, chance: random.Random) -> None:
    chance.shuffle(world.optimizer.param_groups)


@edit
def new_groups(world: World, chance: random.Random) -> None:
    world.optimizer.param_groups = [{**group, "params": [*group["params"]]} for group in world.optimizer.param_groups]


@edit
def add_a_group(world: World, chance: random.Random) -> None:
    world.optimizer.add_param_group({"params": [world.new(chance.randrange(100))], "lr": 0.2})


@edit
def remove_a_group(world: World, chance: random.Random) -> None:
    if len(world.optimizer.param_groups) > 1:
        del world.optimizer.param_groups[chance.randrange(len(world.optimizer.param_groups))]


@edit
def another_rate(world: World, chance: random.Random) -> None:
    one_group(world, chance)["lr"] = chance.choice([0.0, 0.1, 0.4])


@edit
def another_weight_decay(world: World, chance: random.Random) -> None:
    one_group(world, chance)["weight_decay"] = chance.choice([0.0, 0.01])


@edit
def clear_the_state(world: World, chance: random.Random) -> None:
    world.optimizer.state.clear()


@edit
def another_state(world: World, chance: random.Random) -> None:
    world.optimizer.state = defaultdict(dict)


@edit
def pop_an_entry(world: World, chance: random.Random) -> None:
    world.optimizer.state.pop(one_of(world, chance), None)


@edit
def empty_an_entry(world: World, chance: random.Random) -> None:
    world.optimizer.state[one_of(world, chance)].clear()


@edit
def replace_an_entry(world: World, chance: random.Random) -> None:
    one = one_of(world, chance)
    world.optimizer.state[one] = copy.deepcopy(world.optimizer.state[one])


@edit
def replace_tensors(world: World, chance: random.Random) -> None:
    entries = world.optimizer.state[one_of(world, chance)]
    entries.update({name: tensor.clone() for name, tensor in entries.items()})


@edit
def rebuild_the_state(world: World, chance: random.Random) -> None:
    entries = list(world.optimizer.state.items())
    chance.shuffle(entries)
    world.optimizer.state = defaultdict(dict, entries)


@edit
def add_an_entry(world: World, chance: random.Random) -> None:
    one = one_of(world, chance)
    world.optimizer.state[one]["slow"] = torch.zeros(one.shape)


@edit
def share_the_state(world: World, chance: random.Random) -> None:
    for tensor in world.optimizer.state[one_of(world, chance)].values():
        tensor.share_memory_()


@edit
def move_the_state(world: World, chance: random.Random) -> None:
    for tensor in world.optimizer.state[one_of(world, chance)].values():
        tensor.data = tensor.data.clone()


@edit
def move_the_parameter(world: World, chance: random.Random) -> None:
    one = one_of(world, chance)
    one.data = one.data.clone()


@edit
def channels_last(world: World, chance: random.Random) -> None:
    for one in world.trained():
        if one.dim() == 4:
            one.data = one.data.to(memory_format=chance.choice([torch.channels_last, torch.contiguous_format]))


@edit
def load_its_own(world: World, chance: random.Random) -> None:
    trained = {id(one) for one in world.trained()}
    if all(id(one) in trained for one in world.optimizer.state):
        world.optimizer.load_state_dict(world.optimizer.state_dict())


def give_gradients(world: World, seed: int) -> None:
    """To most parameters, some of them where the last ones were, some in another order of memory."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    for one in world.parameters:
        gradient, way = torch.randn(one.shape, generator=generator), chance.randrange(6)
        if way == 0:
            one.grad = None
        elif way == 1 and one.grad is not None:
            one.grad.copy_(gradient)
        elif way == 2 and one.dim() == 2:
            one.grad = gradient.T.contiguous().T
        else:
            one.grad = gradient.to(memory_format=torch.preserve_format)


def step(world: World) -> list[bool]:
    """Which parameters it moves."""
    before = [one.detach().clone() for one in world.parameters]
    if isinstance(world.optimizer, KoalaPlusPlus):
        world.optimizer.step(loss=0.5)
    else:
        world.optimizer.step()
    return [not torch.equal(one, other) for one, other in zip(world.parameters, before)]


def everything(world: World) -> Any:
    """All that the optimizer has. (A parameter that it has no more may have had the memory of one that it has.)"""
    numbers = {id(one): number for number, one in enumerate(world.parameters)}
    groups = [
        {**group, "params": [numbers[id(one)] for one in group["params"]]} for group in world.optimizer.param_groups
    ]
    states = {
        numbers[id(one)]: {name: tensor.tolist() for name, tensor in entries.items()}
        for one, entries in world.optimizer.state.items()
    }
    return [one.tolist() for one in world.trained()], groups, states


def has_state(world: World, name: str) -> list[bool]:
    return [name in world.optimizer.state.get(one, {}) for one in world.parameters]


MAKERS: dict[str, Callable[[Any], Any]] = {
    "one thread": lambda groups: KoalaPlusPlus(groups, weight_decay=0.01),
    "threads": lambda groups: KoalaPlusPlus(groups, threads=2),
    "bfloat16": lambda groups: KoalaPlusPlus(groups, state_dtype=torch.bfloat16),
    "operations": lambda groups: KoalaPlusPlus(groups, backend="torch"),
}


def check_edits(seed: int, make: Callable[[Any], Any]) -> World:
    """Edits and steps that one seed chooses. Returns our world at the end."""
    chance = random.Random(seed)
    ours, theirs = World(make), World(lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.5))
    for number in range(25):
        for _ in range(chance.randrange(3)):
            change, decisions = chance.choice(EDITS), chance.randrange(1 << 30)
            for world in (ours, theirs):
                change(world, random.Random(decisions))
        if chance.randrange(8) == 0:
            how = chance.choice([copy.deepcopy, lambda world: pickle.loads(pickle.dumps(world))])
            ours, theirs = ours.copied(how), theirs.copied(how)
        for world in (ours, theirs):
            give_gradients(world, 1000 * seed + number)
        forgetful = ours.copied(copy.deepcopy)
        moved = step(ours)
        assert moved == step(theirs)
        step(forgetful)
        assert everything(ours) == everything(forgetful)
        assert has_state(ours, "scalars") == has_state(theirs, "momentum_buffer")
    return ours


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("seed", range(12))
def test_edits_between_steps(seed: int, make: Any) -> None:
    check_edits(seed, make)
