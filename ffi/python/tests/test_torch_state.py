"""What optimizers keep between two steps: through changes of layout, copies and state dicts."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim import AdamW, KoalaM, KoalaV, Sgd  # noqa: E402
from koala_optim.torch import KoalaPlusPlus, Optimizer  # noqa: E402

Make = Callable[..., Any]
MAKERS: dict[str, Make] = {
    "KOALA++": KoalaPlusPlus,
    "KOALA-V": lambda parameters, **options: Optimizer(parameters, KoalaV(), **options),
    "KOALA-M": lambda parameters, **options: Optimizer(parameters, KoalaM(), **options),
    "AdamW": lambda parameters, **options: Optimizer(parameters, AdamW(), **options),
    "momentum": lambda parameters, **options: Optimizer(parameters, Sgd(), **options),
    "SGD": lambda parameters, **options: Optimizer(parameters, Sgd(momentum=0.0), **options),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
WITH_VECTORS = pytest.mark.parametrize(
    "make", [MAKERS[name] for name in ("KOALA++", "KOALA-M", "AdamW", "momentum")], ids=["++", "M", "AdamW", "momentum"]
)


def convolution(memory_format: Any = torch.contiguous_format) -> Any:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return torch.nn.Parameter(weight.to(memory_format=memory_format))


def take_step(optimizer: Any, parameter: Any, number: int, predict: bool = True) -> None:
    if predict:
        optimizer.predict()
    generator = torch.Generator().manual_seed(100 + number)
    parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    optimizer.step(loss=torch.tensor([0.5, 1.5 / (number + 1)]))


def close(one: Any, other: Any) -> bool:
    """Whether they are the same but for the order of the sums in dot products."""
    return bool(torch.allclose(one, other, rtol=1e-13, atol=1e-13))


def everything(optimizer: Any) -> Any:
    """All that an optimizer keeps, every bit of it."""
    saved = copy.deepcopy(optimizer.state_dict())
    states = {
        index: {name: (tensor.dtype, tensor.stride(), tensor.tolist()) for name, tensor in entries.items()}
        for index, entries in saved["state"].items()
    }
    return saved["param_groups"], states


@WITH_VECTORS
def test_a_change_of_memory_format_between_two_steps(make: Make) -> None:
    plain, changed = convolution(), convolution()
    for parameter in (plain, changed):
        optimizer = make([parameter], lr=0.1)
        take_step(optimizer, parameter, 0)
        if parameter is changed:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
        take_step(optimizer, parameter, 1)
        take_step(optimizer, parameter, 2)
    assert close(plain, changed)


@WITH_VECTORS
@pytest.mark.parametrize("formats", [(torch.contiguous_format, torch.channels_last), (torch.channels_last,) * 2])
def test_a_state_dict_fits_another_memory_format(make: Make, formats: Any) -> None:
    before, after = formats
    one = convolution(before)
    optimizer = make([one], lr=0.1)
    take_step(optimizer, one, 0)
    other = torch.nn.Parameter(one.detach().clone().to(memory_format=after))
    fitted = make([other], lr=0.1)
    fitted.load_state_dict(optimizer.state_dict())
    assert all(fitted.state[other][name].stride() == other.stride() for name in fitted.state[other] if name in "hv")
    for parameter, of in ((one, optimizer), (other, fitted)):
        take_step(of, parameter, 1)
    assert close(one, other)


@WITH_VECTORS
def test_a_state_of_another_shape_is_an_error(make: Make) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = make([("weight", parameter)])
    take_step(optimizer, parameter, 0)
    kept = parameter.detach().clone()
    # Of as many elements, and at the same place.
    parameter.data = parameter.data.view(4, 3)
    with pytest.raises(ValueError, match=r'"weight", of shape \(4, 3\), has a state of another shape: . is of \(3, 4'):
        take_step(optimizer, parameter, 1)
    assert torch.equal(parameter.view(3, 4), kept)
    saved = optimizer.state_dict()
    for shape in ((4, 3), (12,), (3, 5)):
        other = torch.nn.Parameter(torch.ones(shape))
        with pytest.raises(ValueError, match="has a state of another shape"):
            make([other]).load_state_dict(saved)


@ALL
def test_a_parameter_whose_elements_come_to_lie_apart(make: Make) -> None:
    apart, dense = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    for parameter in (apart, dense):
        optimizer = make([parameter], lr=0.1)
        take_step(optimizer, parameter, 0)
        if parameter is apart:
            wide = torch.full((4, 8), 7.0)
            wide[:, ::2] = parameter.detach()
            parameter.data = wide[:, ::2]
        take_step(optimizer, parameter, 1)
        take_step(optimizer, parameter, 2)
    assert torch.equal(apart, dense)
    assert (wide[:, 1::2] == 7).all()


@ALL
@pytest.mark.parametrize("predicted", [False, True])
def test_resuming_between_prediction_and_step(make: Make, predicted: bool) -> None:
    whole = convolution()
    optimizer = make([whole], lr=0.1, noise_decay=0.5)
    take_step(optimizer, whole, 0)
    if predicted:
        optimizer.predict()
    resumed = torch.nn.Parameter(whole.detach().clone())
    other = make([resumed], lr=0.7)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, of in ((whole, optimizer), (resumed, other)):
        take_step(of, parameter, 1, predict=not predicted)
    assert torch.equal(whole, resumed)
    assert everything(optimizer) == everything(other)


@ALL
def test_a_step_that_is_withheld_learns_nothing(make: Make) -> None:
    parameter = convolution()
    optimizer = make([parameter], on_non_finite="keep_all")
    take_step(optimizer, parameter, 0)
    optimizer.predict()
    method, noise, kept = getattr(optimizer, "method", None), optimizer.noise, parameter.detach().clone()
    parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step(loss=0.5)
    assert optimizer.report().non_finite == 1
    assert (getattr(optimizer, "method", None), optimizer.noise) == (method, noise)
    assert torch.equal(parameter, kept)


@pytest.mark.parametrize("method", [KoalaV(), AdamW(), Sgd()], ids=str)
def test_only_koala_m_predicts(method: Any) -> None:
    parameters = [convolution(), convolution()]
    predicting, plain = (Optimizer([parameter], method, on_non_finite="keep_all") for parameter in parameters)
    predicting.predict()
    predicting.predict()
    parameters[0].grad = torch.full_like(parameters[0], torch.nan)
    predicting.step(loss=0.5)
    assert predicting.report().non_finite == 1
    assert predicting.method == method
    take_step(predicting, parameters[0], 0)
    take_step(plain, parameters[1], 0, predict=False)
    assert torch.equal(*parameters) and everything(predicting) == everything(plain)


@ALL
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_like_the_original(make: Make, duplicate: Any) -> None:
    parameter = convolution()
    optimizer = make([parameter], lr=0.1, noise_decay=0.5, on_non_finite="keep_all", backend="scalar")
    take_step(optimizer, parameter, 0)
    optimizer.predict()
    other_parameter, other = duplicate((parameter, optimizer))
    assert other.report().outcomes == {}
    assert other._configuration == optimizer._configuration
    assert everything(other) == everything(optimizer)
    for one, of in ((parameter, optimizer), (other_parameter, other)):
        take_step(of, one, 1, predict=False)
        take_step(of, one, 2)
    assert torch.equal(parameter, other_parameter) and parameter is not other_parameter
    assert everything(other) == everything(optimizer)


@ALL
def test_a_state_dict_that_lacks_something_changes_nothing(make: Make) -> None:
    parameter = convolution()
    optimizer = make([parameter], lr=0.1)
    take_step(optimizer, parameter, 0)
    saved, before = copy.deepcopy(optimizer.state_dict()), everything(optimizer)
    take_step(optimizer, parameter, 1)
    after = everything(optimizer)
    assert before != after

    def refused(change: Callable[[Any], object], error: type[Exception], text: str) -> None:
        given = copy.deepcopy(saved)
        change(given)
        with pytest.raises(error, match=text):
            optimizer.load_state_dict(given)
        assert everything(optimizer) == after

    for name in saved:
        refused(lambda given, name=name: given.pop(name), ValueError, f"it has no {name}")
    # Older state dicts have no prior variance.
    for name in {*saved["param_groups"][0]} - {"prior_variance"}:
        if name in optimizer._entries or name == "params":
            refused(lambda given, name=name: given["param_groups"][0].pop(name), ValueError, f"has no {name}")
    for name in saved["state"][0]:
        # Nothing at all is the state of a parameter that has not stepped.
        if len(saved["state"][0]) > 1:
            refused(lambda given, name=name: given["state"][0].pop(name), ValueError, "has a state of .*expected")
        refused(lambda given, name=name: given["state"][0].update({name: 0.5}), TypeError, f"has {name} of type float")
    refused(lambda given: given["state"][0].update(scalars=torch.zeros(3)), ValueError, "scalars of shape")
    refused(lambda given: given["param_groups"][0].update(lr=-1.0), ValueError, "learning rate is -1")
    refused(lambda given: given["param_groups"][0].update(measurement_noise=-1.0), ValueError, "noise is -1")
    refused(lambda given: given["param_groups"][0].update(noise_decay=1.5), ValueError, "noise decay is 1.5")
    optimizer.load_state_dict(saved)
    assert everything(optimizer) == before


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("other", MAKERS)
def test_a_state_dict_of_another_method_changes_nothing(name: str, other: str) -> None:
    parameter, other_parameter = convolution(), convolution()
    optimizer, of_other = MAKERS[name]([parameter]), MAKERS[other]([other_parameter], lr=0.5)
    take_step(optimizer, parameter, 0)
    take_step(of_other, other_parameter, 1)
    before = everything(optimizer)
    # A momentum is a group's, as the learning rate is.
    if name == other or {name, other} == {"momentum", "SGD"}:
        optimizer.load_state_dict(of_other.state_dict())
        assert everything(optimizer) == everything(of_other)
    else:
        with pytest.raises(ValueError, match="the state dict is of"):
            optimizer.load_state_dict(of_other.state_dict())
        assert everything(optimizer) == before


def test_a_method_in_a_state_dict_that_is_none_changes_nothing() -> None:
    optimizer = Optimizer([convolution()], AdamW())
    before = everything(optimizer)
    for method, text in (
        ({}, "expected one of koala-v, koala-m, adamw, sgd"),
        ({"name": "adamw", "beta1": 0.9}, "expected beta1, beta2, epsilon of adamw"),
        ({"name": "adamw", "beta1": 0.9, "beta2": 2.0, "epsilon": 1e-8}, "beta2 is 2"),
    ):
        given = copy.deepcopy(optimizer.state_dict())
        given["param_groups"][0]["method"] = method
        with pytest.raises(ValueError, match=text):
            optimizer.load_state_dict(given)
        assert everything(optimizer) == before


@ALL
def test_groups_that_come_later_share_what_all_share(make: Make) -> None:
    first, second = convolution(), convolution()
    optimizer = make([first], lr=0.1)
    take_step(optimizer, first, 0)
    optimizer.predict()
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    assert all(groups[1][name] == groups[0][name] for name in optimizer._shared)
    given = copy.deepcopy(optimizer.state_dict())
    given["param_groups"][1]["measurement_noise"] = 0.25
    with pytest.raises(ValueError, match="groups have measurement_noise of"):
        optimizer.load_state_dict(given)
