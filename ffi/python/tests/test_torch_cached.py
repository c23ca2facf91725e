"""What an optimizer keeps from one step to the next is checked in the next: groups, parameters, state and where its
memory is may be edited between two steps, as in torch.optim.SGD."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections import defaultdict
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim import AdamW, KoalaM, KoalaV, Sgd  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer, _known  # noqa: E402

MAKERS: dict[str, Callable[..., Any]] = {
    "KOALA++": KoalaPlusPlus,
    "threads": lambda groups, **options: KoalaPlusPlus(groups, threads=2, **options),
    "operations": lambda groups, **options: KoalaPlusPlus(groups, backend="torch", **options),
    "KOALA-V": lambda groups, **options: Optimizer(groups, KoalaV(), **options),
    "KOALA-M": lambda groups, **options: Optimizer(groups, KoalaM(), **options),
    "AdamW": lambda groups, **options: Optimizer(groups, AdamW(), **options),
    "momentum": lambda groups, **options: Optimizer(groups, Sgd(), **options),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
HAS_HANDLES = _known._api is not None
WAYS = [
    pytest.param(True, id="handles", marks=pytest.mark.skipif(not HAS_HANDLES, reason="PyTorch lacks the functions")),
    pytest.param(False, id="passes"),
]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(_known, "_api", None)


def parameter(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))


def give_gradients(parameters: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for one in parameters:
        one.grad = torch.randn(one.shape, generator=generator).to(one)


def take_step(optimizer: Any, parameters: Any, seed: int) -> None:
    optimizer.predict()
    give_gradients(parameters, seed)
    optimizer.step(loss=0.5)


def bits(tensors: Any) -> list[Any]:
    return [tensor.detach().clone() for tensor in tensors]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other))


@ALL
def test_a_parameter_that_is_replaced(make: Any) -> None:
    old, kept = parameter(3), parameter(4, seed=1)
    optimizer = make([old, kept], lr=0.1)
    take_step(optimizer, [old, kept], 0)
    # Of the same shape and with the same numbers, and at the same place in memory too.
    for new in (torch.nn.Parameter(old.detach().clone()), torch.nn.Parameter(old.detach())):
        optimizer.param_groups[0]["params"][0] = new
        before = bits([old, new])
        old.grad = None
        take_step(optimizer, [new, kept], 1)
        assert not torch.equal(new, before[1])
        assert optimizer.state[new]["scalars"][3] == 1
        if new.data_ptr() != old.data_ptr():
            assert torch.equal(old, before[0])


EDITS: dict[str, Callable[[Any], object]] = {
    "reversed": lambda optimizer: optimizer.param_groups.reverse(),
    "other dicts": lambda optimizer: setattr(
        optimizer, "param_groups", [{**group, "lr": 1 - group["lr"]} for group in optimizer.param_groups]
    ),
    "moved": lambda optimizer: optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop()),
    "swapped": lambda optimizer: [
        group.update(params=params)
        for group, params in zip(optimizer.param_groups, [group["params"] for group in optimizer.param_groups[::-1]])
    ],
    "removed": lambda optimizer: optimizer.param_groups.pop(0),
    "removed from its group": lambda optimizer: optimizer.param_groups[0]["params"].clear(),
    "tuples": lambda optimizer: [group.update(params=tuple(group["params"])) for group in optimizer.param_groups],
    "in turn": lambda optimizer: optimizer.param_groups.insert(0, optimizer.param_groups.pop()),
    "appended": lambda optimizer: optimizer.param_groups.append(
        {**optimizer.param_groups[0], "params": [optimizer.param_groups[1]["params"].pop()]}
    ),
}


@ALL
@pytest.mark.parametrize("edit", EDITS)
def test_groups_that_are_edited(make: Any, edit: str) -> None:
    def run(made: Any, predict: bool = True) -> list[bool]:
        parameters = [parameter(3), parameter(3, seed=1)]
        optimizer = made([{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.0}])
        for seed in range(3):
            if seed == 1:
                EDITS[edit](optimizer)
            before = bits(parameters)
            give_gradients(parameters, seed)
            if predict:
                optimizer.step(loss=0.5)
            else:
                optimizer.step()
        return [not torch.equal(one, other) for one, other in zip(parameters, before)]

    if make is MAKERS["KOALA-M"]:
        pytest.skip("its prediction moves what a learning rate of 0 leaves")
    assert run(make) == run(lambda groups: torch.optim.SGD(groups, 0.5), predict=False)


def test_a_group_that_lacks_an_entry_is_an_error() -> None:
    one = parameter(3)
    optimizer = KoalaPlusPlus([one])
    take_step(optimizer, [one], 0)
    optimizer.param_groups.append({"params": [parameter(4)], "lr": 0.1})
    before = bits([one])
    with pytest.raises(ValueError, match="group 1 has no weight_decay, initial_variance"):
        take_step(optimizer, [one], 1)
    assert same(before, [one])


LOSSES: dict[str, Callable[[Any, Any], object]] = {
    "cleared": lambda optimizer, _: optimizer.state.clear(),
    "another mapping": lambda optimizer, _: setattr(optimizer, "state", defaultdict(dict)),
    "a dict": lambda optimizer, _: setattr(optimizer, "state", {}),
    "popped": lambda optimizer, one: optimizer.state.pop(one),
    "emptied": lambda optimizer, one: optimizer.state[one].clear(),
    "replaced by an empty one": lambda optimizer, one: optimizer.state.__setitem__(one, {}),
}


@ALL
@pytest.mark.parametrize("loss", LOSSES)
def test_state_that_is_removed_is_made_anew(make: Any, loss: str) -> None:
    one, other = parameter(3), parameter(4, seed=1)
    optimizer = make([one, other], lr=0.1)
    for seed in range(2):
        take_step(optimizer, [one, other], seed)
    LOSSES[loss](optimizer, one)
    take_step(optimizer, [one, other], 2)
    assert optimizer.state[one]["scalars"][3] == 1
    assert optimizer.report().outcomes["parameter 0 of group 0"] == "first_step" or make in (
        MAKERS["AdamW"],
        MAKERS["momentum"],
        MAKERS["KOALA-V"],
        MAKERS["KOALA-M"],
    )
    saved = optimizer.state_dict()["state"]
    assert sorted(saved) == [0, 1]
    assert all(torch.equal(tensor, optimizer.state[one][name]) for name, tensor in saved[0].items())


@pytest.mark.parametrize("make", [MAKERS[name] for name in ("KOALA++", "threads", "operations", "AdamW")])
def test_half_of_a_state_is_an_error(make: Any) -> None:
    one = parameter(3)
    optimizer = make([one])
    take_step(optimizer, [one], 0)
    before, kept = bits([one]), optimizer.state[one].pop("v")
    for _ in range(2):
        with pytest.raises(ValueError, match="has a state of h, scalars, expected"):
            take_step(optimizer, [one], 1)
    assert same([one], before)
    optimizer.state[one]["v"] = kept
    take_step(optimizer, [one], 1)
    assert optimizer.state[one]["scalars"][3] == 2


@ALL
def test_state_that_is_replaced_is_used(make: Any) -> None:
    pairs = [[parameter(3), parameter(4, seed=1)] for _ in range(2)]
    optimizers = [make(pair, lr=0.1) for pair in pairs]
    for optimizer, pair in zip(optimizers, pairs):
        take_step(optimizer, pair, 0)
    for number in range(1, 4):
        plain, edited = optimizers
        for one in pairs[1]:
            entries = edited.state[one]
            if number == 1:
                edited.state[one] = copy.deepcopy(entries)
            elif number == 2:
                entries.update({name: tensor.clone() for name, tensor in entries.items()})
            else:
                edited.state = defaultdict(dict, {key: copy.deepcopy(edited.state[key]) for key in pairs[1]})
        for optimizer, pair in zip(optimizers, pairs):
            take_step(optimizer, pair, number)
        assert same(*pairs)
        for left, right in zip(*pairs):
            assert all(torch.equal(plain.state[left][name], edited.state[right][name]) for name in plain.state[left])


def in_shared_memory(tensor: Any) -> None:
    tensor.share_memory_()


def elsewhere(tensor: Any) -> None:
    tensor.data = tensor.data.clone()


def elsewhere_twice(tensor: Any) -> None:
    for _ in range(2):
        tensor.data = tensor.data.clone()


def on_a_queue(tensor: Any) -> None:
    from torch.multiprocessing.reductions import reduce_storage

    reduce_storage(tensor.untyped_storage())


def set_elsewhere(tensor: Any) -> None:
    with torch.no_grad():
        tensor.set_(tensor.detach().clone())


MOVES = {move.__name__: move for move in (in_shared_memory, elsewhere, elsewhere_twice, on_a_queue, set_elsewhere)}


@ALL
@pytest.mark.parametrize("move", MOVES)
def test_state_whose_memory_moves(make: Any, move: str) -> None:
    ends = []
    for moving in (False, True):
        one = parameter(200_000, dtype=torch.float64)
        optimizer = make([one], lr=0.1)
        for seed in range(4):
            take_step(optimizer, [one], seed)
            if moving:
                for tensor in [*optimizer.state[one].values(), one]:
                    MOVES[move](tensor)
        ends.append([one, *optimizer.state[one].values()])
    assert same(*ends)


@ALL
def test_state_of_another_type_at_the_next_step(make: Any) -> None:
    one, other = parameter(30), parameter(30, dtype=torch.float64)
    for trained in (one, other):
        optimizer = make([trained], lr=0.1)
        take_step(optimizer, [trained], 0)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32):
            trained.data = trained.data.to(dtype)
            take_step(optimizer, [trained], 1)
            entries = optimizer.state[trained]
            assert all(entries[name].dtype == dtype for name in entries if name in ("v", "h"))
            assert entries["scalars"].dtype == torch.float64 and entries["scalars"][3] > 1


@ALL
@pytest.mark.parametrize("early", [False, True])
def test_entries_of_others_are_left_alone(make: Any, early: bool) -> None:
    pairs = []
    for extra in (False, True):
        one, other = parameter(3), parameter(4, seed=1)
        optimizer = make([one, other], lr=0.1)

        def add(optimizer: Any = optimizer, one: Any = one) -> None:
            optimizer.state[one].update(slow=one.detach().clone(), note="as it is", nested={"times": [1, 2]})

        if extra and early:
            add()
        take_step(optimizer, [one, other], 0)
        if extra and not early:
            add()
        slow = bits([optimizer.state[one]["slow"]]) if extra else []
        for seed in range(1, 3):
            take_step(optimizer, [one, other], seed)
        if extra:
            fresh = make([one, other])
            fresh.load_state_dict(optimizer.state_dict())
            copied = copy.deepcopy(optimizer)
            pickled = pickle.loads(pickle.dumps(optimizer))
            for found in (optimizer, fresh, copied, pickled):
                entries = found.state[found.param_groups[0]["params"][0]]
                assert same([entries["slow"]], slow)
                assert entries["note"] == "as it is" and entries["nested"] == {"times": [1, 2]}
            saved = optimizer.state[one]
            assert fresh.state[one]["slow"].data_ptr() != saved["slow"].data_ptr()
            assert fresh.state[one]["nested"] is not saved["nested"]
        pairs.append([one, other])
    assert same(*pairs)


@ALL
def test_a_parameter_in_memory_that_another_one_leaves(make: Any) -> None:
    # One step, and all of it is copied; the copy's state is its own.
    one = parameter(50)
    optimizer = make([one], lr=0.1)
    take_step(optimizer, [one], 0)
    other_one, other = copy.deepcopy((one, optimizer))
    for seed in range(1, 3):
        for trained, of in ((one, optimizer), (other_one, other)):
            take_step(of, [trained], seed)
            for tensor in of.state[trained].values():
                elsewhere(tensor)
    assert same([one], [other_one])


@pytest.mark.parametrize("make", [MAKERS[name] for name in ("KOALA++", "threads", "operations")])
def test_a_setting_of_the_state_that_is_edited(make: Any) -> None:
    one = parameter(30)
    optimizer = make([one])
    take_step(optimizer, [one], 0)
    optimizer.param_groups[0]["state_dtype"] = torch.bfloat16
    take_step(optimizer, [one], 1)
    assert optimizer.state[one]["v"].dtype == optimizer.state[one]["h"].dtype == torch.bfloat16
    assert optimizer.state[one]["scalars"][3] == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_no_gradient_at_all(threads: int) -> None:
    one = parameter(3)
    before = bits([one])
    optimizer = KoalaPlusPlus([one], threads=threads)
    for _ in range(2):
        optimizer.step(loss=0.5)
        assert optimizer.report().outcomes == {} and not optimizer.state
    assert same([one], before)
    take_step(optimizer, [one], 0)
    one.grad = None
    before = bits([one])
    optimizer.step(loss=0.5)
    assert same([one], before) and optimizer.report().outcomes == {}


def test_a_parameter_for_operations_of_pytorch_that_is_refused() -> None:
    near, far = parameter(3), torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer = KoalaPlusPlus([near, far])
    indices, values = torch.zeros((1, 0), dtype=torch.int64, device="meta"), torch.zeros(0, device="meta")
    near.grad, far.grad = torch.ones(3), torch.sparse_coo_tensor(indices, values, (3,))
    before = bits([near])
    with pytest.warns(UserWarning), pytest.raises(TypeError, match="parameter 1 of group 0.*layout"):
        optimizer.step(loss=0.5)
    assert same([near], before)


@pytest.mark.parametrize("make", [MAKERS[name] for name in ("KOALA++", "KOALA-V", "AdamW")])
@pytest.mark.parametrize(
    ("name", "value"),
    [("measurement_noise", 0.25), ("noise_decay", 0.5), ("gradient_factor", 0.5), ("gradient_limit", 0.5)],
)
def test_what_all_groups_share(make: Any, name: str, value: float) -> None:
    one, other = parameter(3), parameter(4)
    for groups in (
        [{"params": [one], name: value}, {"params": [other]}],
        [{"params": [one]}, {"params": [other], name: value}],
    ):
        with pytest.raises(ValueError, match=f"{name} is shared by all groups"):
            make(groups)
    optimizer = make([{"params": [one]}])
    with pytest.raises(ValueError, match=f"{name} is shared by all groups"):
        optimizer.add_param_group({"params": [other], name: value})
    assert len(optimizer.param_groups) == 1
    # The same value is no contradiction, and what is not ours stays in the group.
    shared = optimizer.param_groups[0][name]
    optimizer.add_param_group({"params": [other], name: shared, "lr_scale": 0.3})
    assert optimizer.param_groups[1]["lr_scale"] == 0.3
    take_step(optimizer, [one, other], 0)
    for group in optimizer.param_groups:
        kept, before = group[name], bits([one, other])
        group[name] = value
        with pytest.raises(ValueError, match=f"{name} is shared by all groups"):
            take_step(optimizer, [one, other], 1)
        assert same(before, [one, other])
        group[name] = kept
    for group in optimizer.param_groups:
        group[name] = value
    take_step(optimizer, [one, other], 1)
    assert not same(before, [one, other])
    assert math.isfinite(optimizer.noise)


def test_no_state_is_kept_alive() -> None:
    one = parameter(3)
    optimizer = KoalaPlusPlus([one])
    take_step(optimizer, [one], 0)
    replaced = [weakref.ref(tensor) for tensor in optimizer.state[one].values()]
    optimizer.state.clear()
    take_step(optimizer, [one], 1)
    assert [tensor() for tensor in replaced] == [None] * 3
    last = [weakref.ref(tensor) for tensor in optimizer.state[one].values()]
    del optimizer
    gc.collect()
    assert [tensor() for tensor in last] == [None] * 3
