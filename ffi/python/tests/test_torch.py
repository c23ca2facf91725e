"""`KoalaPlusPlus` of PyTorch: the recorded trajectories, the equations, the bits of libkoala, and all that an optimizer
of PyTorch is expected to do."""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
import warnings
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")

from torch_models import REPOSITORY, Reference, batch_losses, digits, perceptron, train  # noqa: E402

from koala_optim import BreakdownError, NonFiniteError, Settings  # noqa: E402
from koala_optim.torch import KoalaPlusPlus  # noqa: E402

TRAJECTORIES = sorted((REPOSITORY / "trajectory" / "data").glob("koalapp-*.json.gz"))
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def parameter(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    """A parameter with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
    made.grad = torch.randn(shape, generator=generator).to(dtype)
    return made


def renew(parameters: Any, seed: int) -> None:
    """Other gradients."""
    generator = torch.Generator().manual_seed(seed)
    for one in parameters:
        one.grad = torch.randn(one.shape, generator=generator).to(one.dtype)


def same(one: Any, other: Any) -> bool:
    """Whether the numbers of two lists of tensors are the same to the bit."""
    return all(left.dtype == right.dtype and torch.equal(left, right) for left, right in zip(one, other))


@pytest.mark.parametrize("backend", ["fastest", "scalar", "torch"])
@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.name.split(".")[0])
def test_recorded_trajectories(path: Any, backend: str) -> None:
    with gzip.open(path, "rt") as file:
        trajectory = json.load(file)
    settings, noise = trajectory["config"], trajectory["noise"]
    fixed = noise.get("fixed")
    rule = noise.get("ema", {"alpha": 0.9, "init": 1.0})
    parameters = [torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64)) for theta in trajectory["theta0"]]
    optimizer = KoalaPlusPlus(
        parameters,
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        initial_variance=settings["sigma"],
        process_noise=settings["q"],
        variant="symmetric" if settings["symmetric"] else "vanilla",
        noise="averaged" if fixed is None else fixed,
        noise_decay=rule["alpha"],
        initial_noise=rule["init"],
        backend=backend,
    )
    for step in trajectory["steps"]:
        for one, gradient in zip(parameters, step["grads"]):
            one.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step(loss=step["loss"], second_moment=step["loss_second_moment"])
        expected = step.get("expect")
        if expected is None:
            continue
        assert optimizer.noise == pytest.approx(expected["r"], rel=1e-12)
        for one, theta, v, s in zip(parameters, expected["theta"], expected["v"], expected["s"]):
            state = optimizer.state[one]
            for found, wanted in ((one.detach(), theta), (state["v"], v), (state["scalars"][2], s)):
                wanted = torch.tensor(wanted, dtype=torch.float64)
                largest = wanted.abs().max() if wanted.numel() else 0
                assert ((found - wanted).abs() <= 1e-12 * largest).all()


@pytest.mark.parametrize("backend", ["fastest", "torch"])
@pytest.mark.parametrize("variant", [("symmetric", 0.3), ("vanilla", 0.3), ("definite", 0.3), ("definite", 0.0)])
def test_training_follows_the_equations(variant: Any, backend: str) -> None:
    model, other = perceptron(torch.float64), perceptron(torch.float64)
    optimizer = KoalaPlusPlus(model.parameters(), 0.5, 1e-3, 0.2, 0.1, *variant, backend=backend)
    reference = Reference(list(other.parameters()), 0.5, 1e-3, 0.2, 0.1, *variant)
    loss = train(model, optimizer, range(200))
    assert loss < 1
    assert loss == pytest.approx(train(other, reference, range(200)), rel=1e-9)
    for one, wanted in zip(model.parameters(), other.parameters()):
        assert (one - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    assert optimizer.report().stepped == 4


@pytest.mark.parametrize("variant", [{}, {"variant": "definite"}, {"variant": "definite", "prior_variance": 0.3}])
@pytest.mark.parametrize("state_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_those_of_the_library(dtype: Any, state_dtype: Any, variant: Any) -> None:
    numpy = pytest.importorskip("koala_optim.numpy")
    parameters = [
        parameter(*shape, seed=index, dtype=dtype) for index, shape in enumerate([(3, 5), (1000,), (7, 11, 13)])
    ]
    optimizer = KoalaPlusPlus(parameters, 0.7, 0.01, state_dtype=state_dtype, **variant)
    others = [one.detach().clone() for one in parameters]
    stored = state_dtype or dtype
    states = [(*torch.zeros(2, *one.shape, dtype=stored), torch.zeros(4).double()) for one in others]
    settings = Settings(0.7, 0.01, **variant)
    noise = 1.0
    for step in range(5):
        renew(parameters, step)
        losses = torch.rand(9, generator=torch.Generator().manual_seed(step))
        loss = numpy.loss_from_samples(losses)
        noise = numpy.noise_update(noise, loss.second_moment)
        optimizer.step(loss=losses)
        tensors = [numpy.Tensor(one, of.grad, *state, settings) for one, of, state in zip(others, parameters, states)]
        numpy.step_many(tensors, loss=loss.mean, noise=noise)
    assert optimizer.noise == noise
    assert same(parameters, others)
    for one, state in zip(parameters, states):
        assert same(optimizer.state[one].values(), state)


def test_all_ways_to_give_the_loss() -> None:
    images, labels = digits()

    def run(step: Callable[[Any, Any], None]) -> list[Any]:
        model = perceptron()
        optimizer = KoalaPlusPlus(model.parameters())
        for number in range(3):
            optimizer.zero_grad()
            optimizer.predict()
            step(optimizer, lambda number=number: batch_losses(model, images, labels, number))
        return [*model.parameters(), torch.tensor(optimizer.noise)]

    def by_closure(optimizer: Any, losses: Any) -> None:
        def closure() -> Any:
            found = losses()
            found.mean().backward()
            return found

        with torch.no_grad():
            assert optimizer.step(closure).shape == (32,)

    def by_loss(optimizer: Any, losses: Any) -> None:
        found = losses()
        found.mean().backward()
        optimizer.step(loss=found)

    def by_update(optimizer: Any, losses: Any) -> None:
        found = losses().double()
        found.mean().backward()
        optimizer.update(found.mean(), found.square().mean())

    def by_mean(optimizer: Any, losses: Any) -> None:
        mean = losses().mean()
        mean.backward()
        optimizer.step(loss=mean)

    first = run(by_closure)
    assert same(first, run(by_loss))
    assert all(torch.allclose(one, other, rtol=1e-5) for one, other in zip(first, run(by_update)))
    # The square of the mean is less than the mean of the squares.
    assert run(by_mean)[-1] < first[-1]


@pytest.mark.parametrize("threads", [-1, 513, 2**32 - 1])
def test_a_number_of_threads_that_cannot_be(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}, expected 0, for all processors"):
        KoalaPlusPlus([parameter(1)], threads=threads)


@pytest.mark.parametrize("threads", [0, 2, 3, 7])
def test_threads_change_no_bit(threads: int) -> None:
    def run(threads: int) -> list[Any]:
        parameters = [parameter(length, seed=length) for length in (1, 70000, 300, 5, 20000, 0, 16)]
        optimizer = KoalaPlusPlus(parameters, threads=threads)
        for step in range(3):
            renew(parameters, step)
            parameters[step].grad = None
            optimizer.step(loss=0.5)
        assert optimizer.report().stepped == 5
        return parameters

    assert same(run(1), run(threads))


def test_every_backend_gives_the_same_bits() -> None:
    from koala_optim import backends

    found = []
    for backend in [backend.name for backend in backends() if backend.present]:
        one = parameter(5000)
        optimizer = KoalaPlusPlus([one], weight_decay=0.1, backend=backend)
        for step in range(3):
            renew([one], step)
            optimizer.step(loss=0.5)
        found.append(one)
    assert len(found) >= 2
    assert same(found, found[:1] * len(found))


@pytest.mark.parametrize("policy", ["keep_tensor", "keep_all"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_of_torch_do_the_same(dtype: Any, policy: Any) -> None:
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}[dtype]
    pairs = []
    for backend in ("fastest", "torch"):
        parameters = [parameter(*shape, seed=9, dtype=dtype) for shape in [(1000,), (7, 11), (5,), (3,)]]
        groups = [
            {"params": parameters[:2], "variant": "vanilla", "lr": 0.3},
            {"params": parameters[2:], "weight_decay": 0.1},
        ]
        optimizer = KoalaPlusPlus(groups, backend=backend, on_non_finite=policy)
        reports = []
        for step in range(6):
            renew(parameters, step)
            if step == 2:
                parameters[0].grad[1] = torch.nan
                parameters[2].grad.zero_()
            if step == 3:
                parameters[1].grad = None
            optimizer.step(loss=torch.nan if step == 4 else 0.5)
            reports.append(optimizer.report())
        pairs.append((parameters, reports))
    (kernel, kernel_reports), (operations, operations_reports) = pairs
    for one, other in zip(kernel_reports, operations_reports):
        assert one.outcomes == other.outcomes
        assert one.noise == other.noise
    assert kernel_reports[2].non_finite == 1
    assert kernel_reports[2].withheld == (2 if policy == "keep_all" else 0)
    for one, other in zip(kernel, operations):
        assert (one.double() - other.double()).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("backend", ["fastest", "torch"])
def test_breakdowns(backend: str) -> None:
    def broken(policy: Any) -> Any:
        one = parameter(2, dtype=torch.float64)
        optimizer = KoalaPlusPlus([("it", one)], noise=0.01, process_noise=0.0, on_breakdown=policy, backend=backend)
        optimizer.step(loss=0.5)
        # A state that no covariance has.
        optimizer.state[one]["v"].mul_(-1)
        return one, optimizer

    one, optimizer = broken("restart")
    optimizer.step(loss=0.5)
    assert optimizer.report().restarts == 1
    one, optimizer = broken("skip")
    before = one.detach().clone()
    optimizer.step(loss=0.5)
    assert optimizer.report().breakdowns == 1
    assert same([one], [before])
    one, optimizer = broken("error")
    with pytest.raises(BreakdownError, match='parameter "it"'):
        optimizer.step(loss=0.5)


@pytest.mark.parametrize("backend", ["fastest", "torch"])
def test_what_is_not_finite(backend: str) -> None:
    one, other = parameter(4), parameter(5)
    before = [one.detach().clone(), other.detach().clone()]
    optimizer = KoalaPlusPlus([("one", one), ("other", other)], on_non_finite="error", backend=backend)
    with pytest.raises(NonFiniteError, match="loss"):
        optimizer.step(loss=torch.tensor(float("nan")))
    other.grad[3] = torch.inf
    with pytest.raises(NonFiniteError, match=r'parameter "other", of shape \(5,\)'):
        optimizer.step(loss=0.5)
    assert same([one, other], before)
    assert optimizer.noise == 1
    # The default leaves only what is not finite.
    optimizer = KoalaPlusPlus([one, other], backend=backend)
    optimizer.step(loss=0.5)
    report = optimizer.report()
    assert (report.stepped, report.non_finite) == (1, 1)
    assert report.outcomes == {"parameter 0 of group 0": "first_step", "parameter 1 of group 0": "non_finite"}
    noise = optimizer.noise
    optimizer.step(loss=float("inf"))
    assert optimizer.report().non_finite == 2
    assert optimizer.noise == noise


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5),
    "LambdaLR": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "CosineAnnealingLR": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
    "OneCycleLR": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 20, cycle_momentum=False),
    "SequentialLR": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),
            torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        ],
        [4],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("is_tensor", [False, True])
def test_schedulers(name: str, is_tensor: bool) -> None:
    def run(scheduled: bool) -> tuple[Any, list[float]]:
        one = parameter(100)
        rates: list[float] = []
        optimizer = KoalaPlusPlus([one], torch.tensor(0.8) if is_tensor else 0.8)
        scheduler = SCHEDULERS[name](optimizer) if scheduled else None
        for step in range(8):
            if not scheduled:
                optimizer.param_groups[0]["lr"] = known[step]
            rates.append(float(optimizer.param_groups[0]["lr"]))
            renew([one], step)
            optimizer.step(loss=0.5)
            if scheduler is not None:
                scheduler.step()
        return one, rates

    known: list[float] = []
    one, known = run(True)
    assert len(set(known)) > 2 or name == "StepLR"
    assert same([one], [run(False)[0]])


def test_scheduler_on_plateau() -> None:
    optimizer = KoalaPlusPlus([parameter(3)])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(3):
        optimizer.step(loss=0.5)
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("unscaled_before", [False, True])
def test_gradient_scaler(unscaled_before: bool) -> None:
    model: Any = perceptron()
    other = perceptron()
    optimizer, plain = KoalaPlusPlus(model.parameters()), KoalaPlusPlus(other.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    images, labels = digits()
    for number in range(5):
        optimizer.zero_grad()
        losses = batch_losses(model, images, labels, number)
        scaler.scale(losses.mean()).backward()
        if unscaled_before:
            scaler.unscale_(optimizer)
        scaler.step(optimizer, loss=losses)
        scaler.update()
    train(other, plain, range(5))
    # A power of two changes no bit.
    assert same(model.parameters(), other.parameters())
    assert not hasattr(optimizer, "grad_scale")

    before = [one.detach().clone() for one in model.parameters()]
    optimizer.zero_grad()
    losses = batch_losses(model, images, labels, 5)
    scaler.scale(losses.mean()).backward()
    model[0].weight.grad[0, 0] = torch.inf
    noise = optimizer.noise
    scaler.step(optimizer, loss=losses)
    scaler.update()
    assert same(model.parameters(), before)
    assert optimizer.noise == noise
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("state_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_trains(dtype: Any, state_dtype: Any) -> None:
    model = perceptron(dtype)
    optimizer = KoalaPlusPlus(model.parameters(), state_dtype=state_dtype)
    assert train(model, optimizer, range(100)) < 1.2
    for one in model.parameters():
        state = optimizer.state[one]
        assert state["v"].dtype == state["h"].dtype == (state_dtype or dtype)
        assert state["v"].shape == one.shape
        assert state["scalars"].dtype == torch.float64
        assert state["scalars"][3] == 100


def test_memory_formats() -> None:
    def run(fit: Callable[[Any], Any], fit_gradient: Callable[[Any], Any], mutate: bool = True) -> tuple[Any, Any]:
        one = torch.nn.Parameter(fit(parameter(4, 3, 5, 5, dtype=torch.float64).detach()))
        optimizer = KoalaPlusPlus([one], weight_decay=0.01)
        address = one.data_ptr()
        for step in range(4):
            renew([one], step)
            one.grad = fit_gradient(one.grad)
            optimizer.step(loss=0.5)
            optimizer.zero_grad()
        assert one.data_ptr() == address
        return one, optimizer

    def channels_last(tensor: Any) -> Any:
        return tensor.to(memory_format=torch.channels_last)

    def apart(tensor: Any) -> Any:
        return torch.empty(8, 3, 5, 10, dtype=tensor.dtype)[::2, :, :, ::2].copy_(tensor)

    def transposed(tensor: Any) -> Any:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    plain, _ = run(lambda tensor: tensor, lambda tensor: tensor)
    formats = [lambda tensor: tensor, channels_last, apart, transposed]
    for fit in formats:
        for fit_gradient in formats:
            one, optimizer = run(fit, fit_gradient)
            assert torch.allclose(one, plain, rtol=1e-13, atol=1e-13)
            if fit is not apart:
                # The state lies as the parameter does, which is stepped where it is.
                assert optimizer.state[one]["v"].stride() == one.stride()


def test_channels_last_convolutions_keep_the_fast_way() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    model = model.to(memory_format=torch.channels_last)
    optimizer = KoalaPlusPlus(model.parameters(), 0.1)
    arranged = []
    for _step in range(4):
        optimizer.zero_grad()
        inputs = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
        losses: Any = model(inputs).square().mean((1, 2, 3))
        losses.mean().backward()
        optimizer.step(loss=losses)
        table: Any = optimizer._steppers[0]
        arranged.append(table._table)
    assert arranged[1] is arranged[3]


def test_copies_of_an_optimizer() -> None:
    model = perceptron()
    optimizer = KoalaPlusPlus(model.parameters(), threads=2, noise_decay=0.5, on_breakdown="skip", backend="scalar")
    train(model, optimizer, range(5))
    duplicates: list[Any] = [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]
    for duplicate in duplicates:
        other_model, other = duplicate((model, optimizer))
        assert other.noise == optimizer.noise
        assert other._configuration == optimizer._configuration
        ahead_model, ahead = copy.deepcopy((model, optimizer))
        train(other_model, other, range(5, 10))
        train(ahead_model, ahead, range(5, 10))
        assert same(other_model.parameters(), ahead_model.parameters())
        assert not same(other_model.parameters(), model.parameters())


def test_groups() -> None:
    one, two, three = parameter(10), parameter(11), parameter(12)
    optimizer = KoalaPlusPlus([{"params": [one], "lr": 0.0}, {"params": [two], "state_dtype": torch.bfloat16}])
    before = one.detach().clone()
    optimizer.step(loss=0.5)
    optimizer.step(loss=0.5)
    assert same([one], [before])
    assert optimizer.state[two]["v"].dtype == torch.bfloat16
    noise = optimizer.noise
    optimizer.add_param_group({"params": [three], "initial_variance": 0.5, "variant": "vanilla"})
    assert optimizer.param_groups[2]["measurement_noise"] == noise
    optimizer.step(loss=0.5)
    assert optimizer.report().first_steps == 1
    assert [optimizer.state[each]["scalars"][3] for each in (one, two, three)] == [3, 3, 1]
    # A group that is refused is not there.
    with pytest.raises(ValueError, match="initial variance"):
        optimizer.add_param_group({"params": [parameter(2)], "initial_variance": -1.0})
    assert len(optimizer.param_groups) == 3
    optimizer.step(loss=0.5)


def test_parameters_without_gradient_are_left() -> None:
    frozen, used = torch.nn.Parameter(torch.ones(3), requires_grad=False), parameter(4)
    optimizer = KoalaPlusPlus([frozen, used])
    optimizer.step(loss=0.5)
    assert optimizer.report().outcomes == {"parameter 1 of group 0": "first_step"}
    assert frozen not in optimizer.state
    assert same([frozen], [torch.ones(3)])
    used.grad = None
    optimizer.step(loss=0.5)
    assert optimizer.report().outcomes == {}
    frozen.requires_grad_()
    renew([frozen, used], 1)
    optimizer.step(loss=0.5)
    assert optimizer.report().stepped == 2


def test_parameters_that_move() -> None:
    one, other = parameter(100), parameter(100)
    moving, staying = KoalaPlusPlus([one]), KoalaPlusPlus([other])
    kept = []
    for step in range(4):
        renew([one], step)
        renew([other], step)
        moving.step(loss=0.5)
        staying.step(loss=0.5)
        kept.append(one.data)
        one.data = one.data.clone()
    assert same([one], [other])


def test_a_gradient_that_is_to_be_negated() -> None:
    one, other = parameter(3), parameter(3)
    lazy, plain = KoalaPlusPlus([one]), KoalaPlusPlus([other])
    for step in range(3):
        renew([one], step)
        other.grad = -one.grad
        one.grad = torch._neg_view(one.grad)
        lazy.step(loss=0.5)
        plain.step(loss=0.5)
    assert same([one], [other])


def test_autograd_sees_the_step() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = KoalaPlusPlus([weight])
    loss: Any = weight.square().sum()
    loss.backward(retain_graph=True)
    optimizer.step(loss=loss)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_and_zero_grad() -> None:
    one = parameter(3)
    optimizer = KoalaPlusPlus([one])
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.step(loss=0.5)
    assert called == ["before", "after"]
    optimizer.zero_grad()
    assert one.grad is None


@pytest.mark.parametrize("backend", ["fastest", "torch"])
def test_errors_name_the_parameter(backend: str) -> None:
    one, two = parameter(4, 3), parameter(5)
    before = one.detach().clone()
    optimizer = KoalaPlusPlus([("first", one), ("second", two)], backend=backend)
    two.grad = two.grad.to_sparse()
    with pytest.raises(TypeError, match=r'parameter "second", of shape \(5,\), has a gradient of layout torch.sparse'):
        optimizer.step(loss=0.5)
    assert same([one], [before])
    renew([one, two], 1)
    optimizer.step(loss=0.5)
    # With the same address.
    one.data = one.data[:2]
    one.grad = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r'"first", of shape \(2, 3\), has a state of another shape: v is of \(4, 3\)'):
        optimizer.step(loss=0.5)
    optimizer.param_groups[0]["lr"] = -1.0
    one.grad = None
    with pytest.raises(ValueError, match="learning rate"):
        optimizer.step(loss=0.5)
    with pytest.raises(TypeError, match="needs the loss"):
        optimizer.step()
    with pytest.raises(ValueError, match="no samples"):
        optimizer.step(loss=torch.tensor([]))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        optimizer.step(loss=torch.ones(2, 2))
    with pytest.raises(ValueError, match="second moment"):
        optimizer.step(loss=0.5, second_moment=-1.0)


def test_what_cannot_be_stepped() -> None:
    with pytest.raises(TypeError, match="parameter 0 of group 0.*complex64"):
        KoalaPlusPlus([torch.zeros(2, dtype=torch.complex64, requires_grad=True)])
    with pytest.raises(TypeError, match='parameter "table".*sparse'):
        KoalaPlusPlus([("table", torch.eye(2).to_sparse().requires_grad_())])
    with pytest.raises(ValueError, match="share their memory"):
        KoalaPlusPlus([torch.zeros(1).expand(4).requires_grad_()])
    with pytest.raises(ValueError, match="variant"):
        KoalaPlusPlus([parameter(2)], variant="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend"):
        KoalaPlusPlus([parameter(2)], backend="other")
    with pytest.raises(ValueError, match="noise decay"):
        KoalaPlusPlus([parameter(2)], noise_decay=2.0)
    with pytest.raises(ValueError, match="state_dtype"):
        KoalaPlusPlus([parameter(2)], state_dtype=torch.int8)


def test_other_devices() -> None:
    # The meta device has no numbers, but it is a device.
    one = torch.nn.Parameter(torch.zeros(3, device="meta"))
    one.grad = torch.zeros(3, device="meta")
    optimizer = KoalaPlusPlus([("far", one)], fallback="error")
    with pytest.raises(TypeError, match='parameter "far".*is on meta'):
        optimizer.step(loss=0.5)
    optimizer = KoalaPlusPlus([("far", one), ("near", parameter(3))])
    # A scheduler puts a wrapper around the step: the warning is of the line here nevertheless.
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match="no kernel for meta: 1 parameters") as caught:
        optimizer.step(loss=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(loss=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")
def test_cuda() -> None:
    model, other = perceptron(torch.float64), perceptron(torch.float64).cuda()
    optimizer, far = KoalaPlusPlus(model.parameters()), KoalaPlusPlus(other.parameters())
    images, labels = digits()
    for step in range(20):
        for each, of, device in ((model, optimizer, "cpu"), (other, far, "cuda")):
            of.zero_grad()
            losses: Any = batch_losses(each, images.to(device), labels.to(device), step)
            losses.mean().backward()
            of.step(loss=losses)
    for one, wanted in zip(other.parameters(), model.parameters()):
        assert torch.allclose(one.cpu(), wanted, rtol=1e-9, atol=1e-9)


def test_state_dicts() -> None:
    model = perceptron(torch.float16)
    optimizer = KoalaPlusPlus(model.parameters(), 0.5, state_dtype=torch.bfloat16, noise_decay=0.8)
    train(model, optimizer, range(10))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, saved = torch.load(file, weights_only=True)
    other_model = perceptron(torch.float16, seed=1)
    other_model.load_state_dict(weights)
    # With another rule of R, which the one that was saved replaces.
    other = KoalaPlusPlus(other_model.parameters())
    other.load_state_dict(saved)
    assert other.noise == optimizer.noise
    for one, two in zip(model.parameters(), other_model.parameters()):
        assert same(optimizer.state[one].values(), other.state[two].values())
    train(model, optimizer, range(10, 20))
    train(other_model, other, range(10, 20))
    assert same(model.parameters(), other_model.parameters())


def test_state_dicts_are_copied_in() -> None:
    one = parameter(3)
    optimizer = KoalaPlusPlus([one])
    optimizer.step(loss=0.5)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.step(loss=0.5)
    after = one.detach().clone()
    for _ in range(2):
        optimizer.load_state_dict(saved)
        assert optimizer.state[one]["scalars"][3] == 1
        optimizer.step(loss=0.5)
    assert not same([one], [after])
    assert optimizer.state[one]["scalars"][3] == 2


def test_an_older_state_dict_has_no_prior_variance() -> None:
    one, other = parameter(3, 2), parameter(3, 2)
    optimizer, loaded = KoalaPlusPlus([one]), KoalaPlusPlus([other], prior_variance=0.5)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["prior_variance"]
    loaded.load_state_dict(saved)
    assert loaded.state_dict() == optimizer.state_dict()
    loaded.step(loss=0.5)


def test_state_dicts_of_others_are_refused() -> None:
    one = parameter(3, 2)
    optimizer = KoalaPlusPlus([("weight", one)])
    optimizer.step(loss=0.5)
    before = copy.deepcopy(optimizer.state_dict())
    adam = torch.optim.Adam([one])
    adam.step()
    with pytest.raises(ValueError, match="another optimizer.*initial_variance"):
        optimizer.load_state_dict(adam.state_dict())
    other = KoalaPlusPlus([parameter(2, 2)])
    other.step(loss=0.5)
    with pytest.raises(ValueError, match=r'parameter "weight", of shape \(3, 2\), has a state of another shape'):
        optimizer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="another model: it has 2 parameters, not 1"):
        optimizer.load_state_dict(KoalaPlusPlus([parameter(3, 2), parameter(1)]).state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert same(after["state"][0].values(), before["state"][0].values())


def test_a_state_dict_fits_another_memory_format() -> None:
    one = parameter(4, 3, 5, 5, dtype=torch.float64)
    optimizer = KoalaPlusPlus([one])
    optimizer.step(loss=0.5)
    other = torch.nn.Parameter(one.detach().clone().to(memory_format=torch.channels_last))
    fitted = KoalaPlusPlus([other])
    fitted.load_state_dict(optimizer.state_dict())
    assert fitted.state[other]["v"].stride() == other.stride()
    renew([one], 3)
    other.grad = one.grad.clone()
    optimizer.step(loss=0.5)
    fitted.step(loss=0.5)
    assert torch.allclose(one, other, rtol=1e-13, atol=1e-13)
