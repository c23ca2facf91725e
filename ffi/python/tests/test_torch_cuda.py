"""Steps on CUDA devices: on a driver that runs the kernels on this processor, with PyTorch's CPU tensors for those of a
GPU; and on a GPU, where there is one.
"""

from __future__ import annotations

import ctypes
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from test_torch_edits import check_edits  # noqa: E402
from torch_models import perceptron  # noqa: E402

from koala_optim._library import check, ffi, lib  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, _cuda, _optimizer, _steppers  # noqa: E402

SHIM = Path(__file__).resolve().parents[3] / "backends" / "cuda" / "shim"
HAS_GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU of CUDA")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A driver of our own, which libkoala finds because it is loaded."""
    if HAS_GPU:
        pytest.skip("the driver of the GPU would be found")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-shared", "-fPIC", f"-I{SHIM}"]
    sources = [str(SHIM / name) for name in ("shim.cpp", "libcuda.cpp", "libcuda_streams.cpp")]
    try:
        subprocess.run(["g++", *options, "-Wl,-soname,libcuda.so", "-o", str(library), *sources], check=True)
    except FileNotFoundError:
        pytest.skip("there is no g++")
    stub = ctypes.CDLL(str(library))
    stub.stub_set(2, 12000, 8, ctypes.c_size_t(1 << 26))
    stub.stub_take_host_memory()
    return stub


class Fake:
    """Whether what is on the CPU passes for what is on a GPU."""

    on = True


@pytest.fixture
def fake(driver: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake()
    monkeypatch.setattr(_cuda, "is_cuda", lambda device: fake.on)
    for module in (_optimizer, _steppers):
        monkeypatch.setattr(module, "has_kernel", lambda place: not fake.on)
    monkeypatch.setattr(_cuda, "stream_of", lambda device: 0)
    yield fake
    assert driver.stub_mistakes() == 0


def gradients(model: Any, step: int) -> None:
    """Gives every parameter a gradient, every third time another one's memory."""
    generator = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(model.parameters()):
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.grad is None or (index + step) % 3 == 0:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


def losses(step: int, device: Any = "cpu") -> Any:
    # Few bits each, so that the order in which they are averaged does not matter.
    return torch.tensor([0.5, 0.25, 1.0 / (1 + step % 4), 0.75], dtype=torch.float64, device=device)


def train(model: Any, optimizer: Any, steps: Any) -> None:
    device = next(model.parameters()).device
    for step in steps:
        gradients(model, step)
        optimizer.param_groups[0]["lr"] = 1.0 / (1 + step // 3)
        optimizer.step(loss=losses(step, device))


def assert_same(one: Any, other: Any, optimizers: Any) -> None:
    for left, right in zip(one.parameters(), other.parameters()):
        assert torch.equal(left.cpu(), right.cpu())
        for name in ("v", "h", "scalars"):
            assert torch.equal(optimizers[0].state[left][name].cpu(), optimizers[1].state[right][name].cpu()), name
    assert optimizers[0].noise == optimizers[1].noise
    assert optimizers[0].report() == optimizers[1].report()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"state_dtype": torch.bfloat16, "on_non_finite": "keep_all", "variant": "vanilla"},
    {"noise": 0.5, "on_breakdown": "skip"},
    {"variant": "definite", "prior_variance": 0.3},
]


def optimizer_of(model: Any, **options: Any) -> Any:
    return KoalaPlusPlus(model.named_parameters(), weight_decay=0.01, **options)


def is_on_cuda(optimizer: Any) -> bool:
    return all(isinstance(stepper, _cuda.CudaTable) for stepper in optimizer._steppers)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_cpus_bits(dtype: Any, options: Any, fake: Fake) -> None:
    model, other = perceptron(dtype), perceptron(dtype)
    far, near = optimizer_of(model, **options), optimizer_of(other, **options)
    train(model, far, range(8))
    fake.on = False
    train(other, near, range(8))
    assert is_on_cuda(far) and not is_on_cuda(near)
    assert_same(model, other, (far, near))


def test_a_step_waits_for_nothing(fake: Fake, driver: Any) -> None:
    model = perceptron()
    optimizer = optimizer_of(model)
    train(model, optimizer, range(2))
    waits = driver.stub_synchronizations()
    train(model, optimizer, range(2, 8))
    assert driver.stub_synchronizations() == waits
    optimizer.report()
    # For R, and for what each parameter came to.
    assert driver.stub_synchronizations() == waits + 2


def test_settings_are_written_ahead(fake: Fake) -> None:
    model, other = perceptron(), perceptron()
    far, near = optimizer_of(model), optimizer_of(other)
    train(model, far, range(1))
    # In other dicts than those of the last step.
    far.param_groups = [{**group, "lr": 0.25} for group in far.param_groups]
    before = launches(far)
    far.write_changes()
    far.write_changes()
    assert launches(far) == before + 1
    far.step(loss=losses(0))
    # A step of all parameters in some groups, and nothing else.
    assert (launches(far) - before - 1) % 3 == 0
    fake.on = False
    train(other, near, range(1))
    near.param_groups[0]["lr"] = 0.25
    near.step(loss=losses(0))
    assert_same(model, other, (far, near))


def launches(optimizer: Any) -> int:
    counts = ffi.new("koala_cuda_counts *", {"size": ffi.sizeof("koala_cuda_counts")})
    check(lib.koala_cuda_count(optimizer._steppers[0]._optimizer, counts))
    return int(counts.launches)


def test_all_ways_to_give_the_loss(fake: Fake) -> None:
    # Of 0.5 and 0.25: mean 0.375, second moment 0.15625.
    samples = torch.tensor([0.5, 0.25])
    ways: list[Any] = [
        {"loss": samples},
        {"loss": samples.bfloat16()},
        {"loss": samples.mean(), "second_moment": samples.square().mean()},
        {"loss": samples.mean(), "second_moment": 0.15625},
        {"loss": 0.375, "second_moment": torch.tensor(0.15625)},
        {"loss": 0.375, "second_moment": 0.15625},
    ]
    found = []
    for way in ways:
        model = perceptron()
        optimizer = optimizer_of(model)
        gradients(model, 0)
        optimizer.step(**way)
        found.append((optimizer.noise, [parameter.tolist() for parameter in model.parameters()]))
    assert all(one == found[0] for one in found) and found[0][0] == 0.9 + 0.1 * 0.15625
    with pytest.raises(ValueError, match="scalar or one loss"):
        optimizer.step(loss=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="no samples"):
        optimizer.step(loss=torch.zeros(0))
    with pytest.raises(ValueError, match="second moment"):
        optimizer.step(loss=0.5, second_moment=-1.0)


def test_what_is_not_finite(fake: Fake) -> None:
    model = perceptron()
    optimizer = optimizer_of(model)
    train(model, optimizer, range(2))
    noise, before = optimizer.noise, [parameter.clone() for parameter in model.parameters()]
    for loss in (torch.tensor([0.5, torch.nan]), float("nan")):
        gradients(model, 2)
        optimizer.step(loss=loss)
        assert optimizer.report().non_finite == 4 and optimizer.noise == noise
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))


@pytest.mark.parametrize("options", [{}, {"gradient_factor": 0.5}, {"gradient_limit": 0.2, "gradient_factor": 3.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scaled_gradients(dtype: Any, options: Any, fake: Fake, driver: Any) -> None:
    model, other = perceptron(dtype), perceptron(dtype)
    far, near = optimizer_of(model, **options), optimizer_of(other, **options)
    waits = None
    # As torch.amp.GradScaler sets it. What is given as float64 is not rounded.
    for step, scale in enumerate([8.0, 3.0, torch.tensor(1.1, dtype=torch.float64), 4.0]):
        for optimizer, network in ((far, model), (near, other)):
            gradients(network, step)
            kept = [parameter.grad.clone() for parameter in network.parameters()]
            optimizer.grad_scale, optimizer.found_inf = torch.as_tensor(scale), torch.tensor(0.0)
            fake.on = optimizer is far
            optimizer.step(loss=losses(step))
            # They are scaled as they are loaded, and nowhere else.
            assert all(torch.equal(parameter.grad, one) for parameter, one in zip(network.parameters(), kept))
        waits = waits or driver.stub_synchronizations()
    assert is_on_cuda(far) and driver.stub_synchronizations() == waits
    assert_same(model, other, (far, near))

    far.found_inf = torch.tensor(1.0)
    noise, before = far.noise, [parameter.clone() for parameter in model.parameters()]
    far.step(loss=losses(1))
    assert far.report().non_finite == 4 and far.noise == noise
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))
    for optimizer in (far, near):
        del optimizer.found_inf, optimizer.grad_scale
    train(model, far, range(5, 7))
    fake.on = False
    train(other, near, range(5, 7))
    assert_same(model, other, (far, near))


def test_scaling_that_is_refused(fake: Fake) -> None:
    model = perceptron()
    optimizer = optimizer_of(model)
    train(model, optimizer, range(1))
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.param_groups[0]["gradient_factor"] = 0.0
    for _ in range(2):
        with pytest.raises(ValueError, match="gradient's factor"):
            optimizer.step(loss=0.5)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learning_rate_on_the_device(dtype: Any, fake: Fake, driver: Any) -> None:
    model, other = perceptron(), perceptron()
    far, near = optimizer_of(model), optimizer_of(other)
    rate = torch.tensor(1.0, dtype=dtype)
    far.param_groups[0]["lr"] = rate
    waits = None
    for step in range(4):
        # A schedule writes it there, and nobody needs to be told.
        rate.fill_(1.0 / (1 + step))
        near.param_groups[0]["lr"] = float(rate)
        for optimizer, network in ((far, model), (near, other)):
            fake.on = optimizer is far
            gradients(network, step)
            optimizer.step(loss=losses(step))
        if waits is None:
            waits, before = driver.stub_synchronizations(), launches(far)
            # Which is all that a step of one group, with its gradients where they were, has to tell.
            fake.on = True
            far.write_changes()
            assert launches(far) == before
    assert is_on_cuda(far) and driver.stub_synchronizations() == waits
    assert_same(model, other, (far, near))
    # Another tensor, then a number.
    for rates in ((torch.tensor(0.125), 0.125), (0.0625, 0.0625)):
        for optimizer, network, lr in ((far, model, rates[0]), (near, other, rates[1])):
            fake.on = optimizer is far
            optimizer.param_groups[0]["lr"] = lr
            gradients(network, 5)
            optimizer.step(loss=losses(5))
    assert_same(model, other, (far, near))
    # Out of range: nothing is written.
    far.param_groups[0]["lr"] = torch.tensor(-1.0)
    before = [parameter.clone() for parameter in model.parameters()]
    fake.on = True
    far.step(loss=losses(5))
    assert far.report().non_finite == 4
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))


def test_a_schedule_of_pytorch_writes_into_a_learning_rate(fake: Fake) -> None:
    model, other = perceptron(), perceptron()
    far, near = optimizer_of(model, lr=torch.tensor(1.0)), optimizer_of(other, lr=torch.tensor(1.0))
    schedules = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5) for optimizer in (far, near)]
    rate = far.param_groups[0]["lr"]
    for step in range(4):
        for optimizer, network, schedule in zip((far, near), (model, other), schedules):
            fake.on = optimizer is far
            gradients(network, step)
            optimizer.step(loss=losses(step))
            schedule.step()
    assert is_on_cuda(far) and far.param_groups[0]["lr"] is rate and float(rate) == 0.0625
    assert_same(model, other, (far, near))


def test_a_state_dict_goes_on_to_the_bit(fake: Fake) -> None:
    model, other = perceptron(), perceptron(seed=1)
    optimizer, whole = optimizer_of(model), perceptron()
    straight = optimizer_of(whole)
    train(whole, straight, range(8))
    train(model, optimizer, range(4))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, saved = torch.load(file, weights_only=True)
    other.load_state_dict(weights)
    resumed = optimizer_of(other)
    train(other, resumed, range(1))  # Which has no part in what follows.
    other.load_state_dict(weights)
    resumed.load_state_dict(saved)
    assert resumed.noise == optimizer.noise
    train(other, resumed, range(4, 8))
    assert_same(other, whole, (resumed, straight))
    # On the CPU, too.
    fake.on = False
    near = optimizer_of(other)
    other.load_state_dict(weights)
    near.load_state_dict(saved)
    train(other, near, range(4, 8))
    assert not is_on_cuda(near)
    fake.on = True
    assert_same(other, whole, (near, straight))


def test_a_group_that_is_added_goes_on_with_the_noise(fake: Fake) -> None:
    model, more = perceptron(), torch.nn.Linear(3, 2)
    optimizer = KoalaPlusPlus(model.parameters())
    train(model, optimizer, range(2))
    noise = optimizer.noise
    optimizer.add_param_group({"params": list(more.parameters())})
    assert optimizer.noise == noise != 1.0
    gradients(more, 0)
    gradients(model, 2)
    optimizer.step(loss=losses(2))
    assert optimizer.report().stepped == 6 and optimizer.report().first_steps == 2


@pytest.mark.parametrize("seed", range(6))
def test_edits_between_steps(seed: int, fake: Fake) -> None:
    assert is_on_cuda(check_edits(seed, KoalaPlusPlus).optimizer)


def test_a_noise_that_is_edited_is_used(fake: Fake) -> None:
    model, other = perceptron(), perceptron()
    far, near = optimizer_of(model), optimizer_of(other)
    rules = [{"measurement_noise": 0.25}, {"noise_decay": 0.5}, {"noise_decay": None, "measurement_noise": 0.125}, {}]
    for step, rule in enumerate(rules):
        for optimizer, network in ((far, model), (near, other)):
            fake.on = optimizer is far
            train(network, optimizer, range(2 * step, 2 * step + 2))
            # Which has the groups of both know R before it is edited.
            optimizer.state_dict()
            optimizer.param_groups[0].update(rule)
            assert optimizer.noise == optimizer.param_groups[0]["measurement_noise"]
    assert is_on_cuda(far)
    assert_same(model, other, (far, near))


def test_parameters_whose_elements_lie_apart_and_some_without_gradient(fake: Fake) -> None:
    found = []
    for on in (True, False):
        fake.on = on
        base = torch.arange(24.0).reshape(4, 6)
        apart, turned = base[:, ::2].requires_grad_(), torch.ones(3, 4).T.requires_grad_()
        bare = torch.ones(2).requires_grad_()
        optimizer = KoalaPlusPlus([apart, turned, bare])
        for step in range(3):
            for parameter in (apart, turned):
                generator = torch.Generator().manual_seed(step)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step(loss=losses(step))
        assert is_on_cuda(optimizer) == on
        found.append([apart.tolist(), turned.tolist(), bare.tolist(), base.tolist(), list(optimizer.report())[1:]])
    assert found[0] == found[1]


def test_a_setting_that_is_refused(fake: Fake) -> None:
    model = perceptron()
    optimizer = optimizer_of(model)
    train(model, optimizer, range(1))
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.param_groups[0]["lr"] = -1.0
    for _ in range(2):
        with pytest.raises(ValueError, match="learning rate"):
            optimizer.step(loss=0.5)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))


def test_what_one_device_refuses_is_written_on_none(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_tables(places: Any, groups: Any, states: Any, configuration: Any, noise: float) -> Any:
        def table(part: Any) -> Any:
            step = configuration.step()
            step.noise = noise
            return _cuda.CudaTable(part, groups, states, step, groups[0]["noise_decay"])

        return [table(places[:2]), table(places[2:])], ""

    model, other = perceptron(), perceptron()
    monkeypatch.setattr(_steppers, "new_tables", two_tables)
    far, near = optimizer_of(model), optimizer_of(other)
    train(model, far, range(2))
    gradients(model, 2)
    last = list(model.parameters())[-1]
    good, last.grad = last.grad, last.grad.to_sparse()
    with pytest.raises(TypeError, match="sparse"):
        far.step(loss=losses(2))
    # What only libkoala refuses: a gradient within the parameter.
    last.grad = last.detach().view_as(last)
    with pytest.raises(ValueError, match="overlap"):
        far.step(loss=losses(2))
    last.grad = good
    far.step(loss=losses(2))
    fake.on = False
    train(other, near, range(3))
    assert len(far._steppers) == 2 and is_on_cuda(far)
    for left, right in zip(model.parameters(), other.parameters()):
        assert torch.equal(left, right)


def test_parameters_that_overlap_are_refused(fake: Fake) -> None:
    base = torch.ones(6)
    one, two = base[:4].requires_grad_(), base[2:].requires_grad_()
    optimizer = KoalaPlusPlus([one, two])
    one.grad, two.grad = torch.ones(4), torch.ones(4)
    with pytest.raises(ValueError, match="overlap"):
        optimizer.step(loss=0.5)
    assert base.tolist() == [1.0] * 6


def test_policies_that_raise_are_for_operations_of_pytorch(fake: Fake) -> None:
    model = perceptron()
    optimizer = KoalaPlusPlus(model.parameters(), on_non_finite="error")
    gradients(model, 0)
    with pytest.warns(UserWarning, match='if a policy is "error": 4 parameters are stepped by operations'):
        optimizer.step(loss=0.5)
    optimizer = KoalaPlusPlus(model.parameters(), on_breakdown="error", fallback="error")
    with pytest.raises(TypeError, match='no kernel if a policy is "error"'):
        optimizer.step(loss=0.5)


def test_without_a_device_it_says_what_is_missing(fake: Fake, driver: Any) -> None:
    model = perceptron()
    gradients(model, 0)
    driver.stub_set(2, 11080, 8, ctypes.c_size_t(1 << 26))
    try:
        with pytest.warns(UserWarning, match=r"\(the driver is for CUDA 11.8, expected 12.0 at least\): 4 parameters"):
            KoalaPlusPlus(model.parameters()).step(loss=0.5)
    finally:
        driver.stub_set(2, 12000, 8, ctypes.c_size_t(1 << 26))


@on_gpu
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_cpus_bits_on_a_gpu(dtype: Any, options: Any) -> None:
    model, other = perceptron(dtype).cuda(), perceptron(dtype)
    far, near = optimizer_of(model, **options), optimizer_of(other, **options)
    train(model, far, range(8))
    train(other, near, range(8))
    assert is_on_cuda(far) and not is_on_cuda(near)
    assert_same(model, other, (far, near))


@on_gpu
def test_a_scaler_and_a_learning_rate_of_a_gpu() -> None:
    model, other = perceptron().cuda(), perceptron()
    rate = torch.tensor(1.0, device="cuda")
    far, near = optimizer_of(model, lr=rate), optimizer_of(other)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=2)
    for step in range(9):
        gradients(other, step)
        scale = scaler.get_scale()
        infinite = step == 4
        for one, two in zip(model.parameters(), other.parameters()):
            one.grad = (two.grad * scale).cuda()
            if infinite:
                one.grad.fill_(torch.inf)
        scaler.scale(torch.zeros((), device="cuda"))
        loss = losses(step, "cuda")
        # Once the parameters are known, PyTorch raises an error where it has to wait.
        torch.cuda.set_sync_debug_mode("default" if step == 0 else "error")
        try:
            scaler.step(far, loss=loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        scaler.update()
        if infinite:
            assert far.report().non_finite == 4
        else:
            near.step(loss=losses(step))
        rate.mul_(0.5)
        near.param_groups[0]["lr"] *= 0.5
    for left, right in zip(model.parameters(), other.parameters()):
        assert torch.equal(left.cpu(), right)
    assert is_on_cuda(far)


@on_gpu
def test_a_step_in_a_graph() -> None:
    model, other = perceptron().cuda(), perceptron()
    far, near = optimizer_of(model), optimizer_of(other)
    loss = losses(0, "cuda")
    gradients(model, 0)
    gradients(other, 0)
    far.step(loss=loss)
    near.step(loss=losses(0))
    graph = torch.cuda.CUDAGraph()
    before = [parameter.clone() for parameter in model.parameters()]
    far.write_changes()
    with torch.cuda.graph(graph):
        far.step(loss=loss)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before))
    static = [one.grad for one in model.parameters()]
    for step in range(1, 9):
        replayed = step % 3 != 0
        generator = torch.Generator().manual_seed(step)
        for one, two, place in zip(model.parameters(), other.parameters(), static):
            two.grad = torch.randn(one.shape, generator=generator)
            # What is not replayed has its gradients elsewhere, and the graph's are of no use to it.
            one.grad = place.copy_(two.grad) if replayed else two.grad.cuda()
            if not replayed:
                place.fill_(torch.nan)
        loss.copy_(losses(step))
        for optimizer in (far, near):
            optimizer.param_groups[0]["lr"] = 1.0 / step
        if replayed:
            far.write_changes()
            graph.replay()
        else:
            far.step(loss=loss)
        near.step(loss=losses(step))
    assert_same(model, other, (far, near))
