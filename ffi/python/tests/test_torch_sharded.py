"""Parameters that are divided over processes: what cannot be right is refused, and what can be is stepped.

With PyTorch's own fully_shard (FSDP2), FullyShardedDataParallel (FSDP1) and DTensor, on two real processes.
"""

from __future__ import annotations

import copy
import functools
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")
if not torch.distributed.is_available():
    pytest.skip("PyTorch is built without processes", allow_module_level=True)
pytest.importorskip("torch.distributed.tensor")
fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("PyTorch has no fully_shard yet", allow_module_level=True)

from test_torch_ranks import FAMILY, METHODS, half, optimizer_of, same, train  # noqa: E402
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh  # noqa: E402
from torch_models import perceptron  # noqa: E402
from torch_processes import Processes  # noqa: E402

from koala_optim.torch import new_optimizer  # noqa: E402
from koala_optim.torch._divided import piece_of  # noqa: E402

ELEMENTWISE = ["adamw", "sgd"]


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2) as processes:
        yield processes


@functools.lru_cache
def mesh() -> Any:
    return init_device_mesh("cpu", (2,))


def model_of(how: str) -> Any:
    """The digits' network, divided over the processes, or whole."""
    model = perceptron()
    if how == "fsdp2":
        fsdp.fully_shard(model, mesh=mesh())
    elif how in ("fsdp1", "fsdp1, original"):
        options = {"device_id": torch.device("cpu"), "use_orig_params": how == "fsdp1, original"}
        model = fsdp.FullyShardedDataParallel(model, **options)
    elif how == "replicated":
        for module in model:
            for name, parameter in list(module.named_parameters()):
                whole = distribute_tensor(parameter.detach(), mesh(), [Replicate()])
                module.register_parameter(name, torch.nn.Parameter(whole))
    return model


def whole_parameters(model: Any) -> list[Any]:
    if isinstance(model, fsdp.FullyShardedDataParallel):
        with fsdp.FullyShardedDataParallel.summon_full_params(model):
            return [parameter.detach().flatten().clone() for parameter in model.parameters()]
    found = [parameter.detach() for parameter in model.parameters()]
    return [one.full_tensor() if isinstance(one, DTensor) else one for one in found]


def refused(rank: int, how: str, method: str) -> list[str]:
    """What is said when an optimizer is made, and when it gets such parameters before its first step."""
    found = []
    with pytest.raises(TypeError) as error:
        optimizer_of(model_of(how), method)
    found.append(str(error.value))
    optimizer = optimizer_of(perceptron(), method)
    model = model_of(how)
    optimizer.param_groups[0]["params"] = list(model.parameters())
    optimizer.param_groups[0].pop("param_names", None)
    model(torch.ones(2, 64)).sum().backward()
    with pytest.raises(TypeError) as error:
        optimizer.predict()
        optimizer.step(loss=0.5)
    return [*found, str(error.value)]


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize(
    ("how", "name"),
    [("fsdp2", "DTensor"), ("fsdp1", "FullyShardedDataParallel"), ("fsdp1, original", "FullyShardedDataParallel")],
)
def test_parts_are_refused(two: Processes, how: str, name: str, method: str) -> None:
    for found in two.run(refused, how, method):
        for text in found:
            assert name in text and "AdamW or SGD" in text and "per_shard=True" in text


def trained(rank: int, how: str, method: str) -> tuple[list[Any], list[str]]:
    model = model_of(how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer_of(model, method), half(rank))
    return whole_parameters(model), [str(warning.message) for warning in caught if "ranks" in str(warning.message)]


@pytest.mark.parametrize("how", ["fsdp2", "fsdp1", "fsdp1, original"])
@pytest.mark.parametrize("method", ELEMENTWISE)
def test_methods_without_dot_products_step_parts(two: Processes, how: str, method: str) -> None:
    (first, warned), (second, _) = two.run(trained, how, method)
    assert same(first, second) and warned == []
    model = perceptron()
    train(model, optimizer_of(model, method), slice(None))
    one, other = (torch.cat([one.detach().flatten() for one in parts]) for parts in (first, model.parameters()))
    assert torch.allclose(one[: len(other)], other, rtol=1e-6, atol=1e-6)


def replicated(rank: int, method: str) -> list[list[Any]]:
    """The same steps of plain parameters and of DTensors which are whole in each process."""
    found = []
    for how in ("whole", "replicated"):
        model = model_of(how)
        optimizer = optimizer_of(model, method)
        for number in range(4):
            optimizer.predict()
            for index, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * number + index)
                gradient = torch.randn(parameter.shape, generator=generator)
                if how == "replicated" and number % 2:
                    # Gradients that are yet to be added up over the processes, as they come from sequence parallelism.
                    gradient = DTensor.from_local(gradient / 2, mesh(), [torch.distributed.tensor.Partial()])
                elif how == "replicated":
                    gradient = distribute_tensor(gradient, mesh(), [Replicate()])
                parameter.grad = gradient
            optimizer.step(loss=torch.tensor([0.5, 1.5]))
        if how == "replicated":
            assert all(piece_of(parameter).grad is None for parameter in model.parameters())
            state = next(iter(optimizer.state.values()))
            assert all(entry.placements == (Replicate(),) for name, entry in state.items() if name != "scalars")
        found.append(whole_parameters(model))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_replicated_dtensor_is_whole(two: Processes, method: str) -> None:
    (plain, one), (_, other) = two.run(replicated, method)
    assert same(plain, one) and same(plain, other)


def then_plain(rank: int) -> bool:
    """Whether plain parameters that take the place of DTensors are stepped, by the optimizer that had these."""
    model = model_of("replicated")
    optimizer = optimizer_of(model, "koala++")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(loss=0.5)
    plain = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer.param_groups[0]["params"] = plain
    optimizer.param_groups[0].pop("param_names")
    for parameter in plain:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(loss=0.5)
    return all(float(parameter[0]) < 1 for parameter in plain) and all(
        parameter in optimizer.state for parameter in plain
    )


def test_plain_parameters_in_the_place_of_dtensors(two: Processes) -> None:
    assert two.run(then_plain) == [True, True]


def each_its_shard(rank: int, method: str) -> bool:
    """Whether per_shard steps a shard as the tensor that it is."""
    model = model_of("fsdp2")
    optimizer = optimizer_of(model, method, per_shard=True)
    shards = [torch.nn.Parameter(one.to_local().detach().clone()) for one in model.parameters()]
    other = new_optimizer(shards, method, lr=0.3, weight_decay=0.01)
    other._ranks._compared = True  # They are not the same in both processes, and are not to be.
    for number in range(4):
        optimizer.predict(), other.predict()
        optimizer.zero_grad()
        model(torch.randn(4, 64, generator=torch.Generator().manual_seed(number))).square().sum().backward()
        for shard, parameter in zip(shards, model.parameters()):
            shard.grad = parameter.grad.to_local().clone()
        for one in (optimizer, other):
            one.step(loss=torch.tensor([0.5, 1.5 + rank]))
    assert optimizer.noise == other.noise
    for parameter in model.parameters():
        entries = optimizer.state[parameter]
        assert entries["v"].placements == (Shard(0),) and entries["scalars"].shape == (8,)
    return same([one.to_local() for one in model.parameters()], shards)


@pytest.mark.parametrize("method", ["koala++", "koala-m"])
def test_per_shard_each_part_is_a_tensor(two: Processes, method: str) -> None:
    assert two.run(each_its_shard, method) == [True, True]


def resumed(rank: int, method: str, how: str) -> list[list[Any]]:
    """Six steps; and three, saved, and three more of another optimizer."""
    found = []
    for resumes in (False, True):
        model = model_of(how)
        options = {"per_shard": True} if method in FAMILY and how == "fsdp2" else {}
        optimizer = optimizer_of(model, method, **options)
        train(model, optimizer, half(rank), steps=3)
        if resumes:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = optimizer_of(model, method, **options)
            optimizer.load_state_dict(saved)
        train(model, optimizer, half(rank), steps=3)
        found.append([parameter.clone() for parameter in whole_parameters(model)])
    return found


@pytest.mark.parametrize(
    ("method", "how"), [("koala++", "fsdp2"), ("adamw", "fsdp2"), ("adamw", "fsdp1"), ("adamw", "fsdp1, original")]
)
def test_resuming_gives_the_same_bits(two: Processes, method: str, how: str) -> None:
    for straight, again in two.run(resumed, method, how):
        assert same(straight, again)


def flat_pieces(optimizer: Any, count: int = 1) -> None:
    """Puts flat pieces into the groups, as DeepSpeed's ZeRO does when it takes an optimizer over."""
    for group in optimizer.param_groups:
        flat = torch.cat([parameter.detach().flatten() for parameter in group["params"]])
        group["params"] = [torch.nn.Parameter(piece.clone()) for piece in flat[: len(flat) // 2].chunk(count)]
        group.pop("param_names", None)
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)


@pytest.mark.parametrize("method", METHODS)
def test_flat_pieces_in_the_place_of_parameters(method: str) -> None:
    model = perceptron()
    optimizer = optimizer_of(model, method)
    flat_pieces(optimizer)
    before = optimizer.param_groups[0]["params"][0].detach().clone()
    optimizer.predict()
    if method in FAMILY:
        for _ in range(2):
            with pytest.raises(TypeError, match=r"flat pieces.*DeepSpeed.*AdamW or SGD.*per_shard=True"):
                optimizer.step(loss=0.5)
        assert torch.equal(optimizer.param_groups[0]["params"][0], before)
    else:
        optimizer.step()
        assert not torch.equal(optimizer.param_groups[0]["params"][0], before)
    optimizer = optimizer_of(model, method, per_shard=True)
    flat_pieces(optimizer)
    optimizer.predict()
    optimizer.step(loss=0.5)
    assert optimizer.report().stepped == 1


@pytest.mark.parametrize("method", METHODS)
def test_other_parameters_of_the_shapes_that_were_given_are_no_pieces(method: str) -> None:
    torch.manual_seed(0)
    for shapes in ([(3,)], [(3,), (4, 2)], [(3,), (4,)]):
        given = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        optimizer = new_optimizer(given, method)
        # All of them, and then one alone.
        for others in ([torch.nn.Parameter(one.detach().clone()) for one in given], given[:1]):
            optimizer.param_groups[0]["params"] = others
            optimizer.predict()
            for parameter in others:
                parameter.grad = torch.ones_like(parameter)
            optimizer.step(loss=0.5)
            assert optimizer.report().stepped == len(others)


def local_piece(rank: int) -> str:
    """What is said of a plain tensor whose gradient is a DTensor."""
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = new_optimizer([parameter], "koala++")
    gradient = distribute_tensor(torch.ones(4), mesh(), [Shard(0)])
    try:
        parameter.grad = gradient
        optimizer.step(loss=0.5)
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return ""


def test_a_piece_with_the_gradient_of_the_whole(two: Processes) -> None:
    assert all(found for found in two.run(local_piece))


def checkpointed(rank: int, method: str, folder: str) -> bool:
    """Whether a checkpoint by torch.distributed.checkpoint goes on as the run that wrote it."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    found = []
    options = {"per_shard": True} if method in FAMILY else {}
    for resumes in (False, True):
        model = model_of("fsdp2")
        optimizer = optimizer_of(model, method, **options)
        train(model, optimizer, half(rank), steps=1 if resumes else 3)
        states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer)))
        if resumes:
            checkpoint.load(states, checkpoint_id=folder)
            set_state_dict(model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
        else:
            checkpoint.save(states, checkpoint_id=folder)
        train(model, optimizer, half(rank), steps=3)
        found.append(whole_parameters(model))
    return same(*found)


@pytest.mark.parametrize("method", ["koala++", "adamw", "sgd"])
def test_checkpoints_of_divided_models(two: Processes, method: str, tmp_path: pathlib.Path) -> None:
    assert two.run(checkpointed, method, str(tmp_path)) == [True, True]
