"""How tensors lie, asked of all of them at once: in both ways, the one for older versions of PyTorch too."""

from __future__ import annotations

from typing import Callable

import pytest

torch = pytest.importorskip("torch")

from torch_models import perceptron, train  # noqa: E402

from koala_optim.torch import KoalaPlusPlus, _layouts  # noqa: E402

HAS_EXCHANGE = _layouts._exchange is not None
WAYS = [
    pytest.param(True, id="exchange", marks=pytest.mark.skipif(not HAS_EXCHANGE, reason="PyTorch is older than 2.10")),
    pytest.param(False, id="passes"),
]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(_layouts, "_exchange", None)
    return bool(request.param)


def some() -> list[torch.Tensor]:
    grid = torch.zeros(4, 5, 6)
    return [
        torch.zeros(3),
        torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16)),
        torch.zeros(()),
        torch.zeros(0, 7),
        grid[1:, ::2],
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ]


def test_they_are_where_they_are(way: bool) -> None:
    tensors = some()
    layouts = _layouts.layouts_of(tensors)
    assert isinstance(layouts, _layouts.Exchanged if way else _layouts.Listed)
    for others in (tensors, some(), tensors):
        found = layouts.addresses(others)
        assert found is not None
        assert list(found) == [tensor.data_ptr() for tensor in others]
    assert list(_layouts.layouts_of([]).addresses([]) or ()) == []


CHANGES: dict[str, Callable[[list[torch.Tensor]], object]] = {
    "longer": lambda tensors: tensors.__setitem__(0, torch.zeros(4)),
    "resized in place": lambda tensors: tensors[0].resize_(2),
    "of another type": lambda tensors: tensors.__setitem__(0, torch.zeros(3, dtype=torch.float64)),
    "of another type of that size": lambda tensors: setattr(tensors[1], "data", torch.zeros(2, 3, dtype=torch.float16)),
    "with other strides": lambda tensors: tensors.__setitem__(5, torch.zeros(2, 3, 4, 5)),
    "data of another shape": lambda tensors: setattr(tensors[1], "data", torch.zeros(1, 3, dtype=torch.bfloat16)),
    "elsewhere": lambda tensors: tensors.__setitem__(0, torch.zeros(3, device="meta")),
    "sparse": lambda tensors: tensors.__setitem__(0, torch.zeros(3).to_sparse()),
    "none": lambda tensors: tensors.__setitem__(2, None),  # type: ignore[call-overload]
    "one less": lambda tensors: tensors.pop(),
    "one more": lambda tensors: tensors.append(torch.zeros(1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_seen(change: str, way: bool) -> None:
    if change == "elsewhere" and not way:
        pytest.skip(
            "a pass over the devices would cost more than it is worth: PyTorch has gradients where their parameters are"
        )
    layouts = _layouts.layouts_of(some())
    changed = some()
    CHANGES[change](changed)
    assert layouts.addresses(changed) is None
    assert layouts.addresses(some()) is not None


def test_those_of_some_tensors(way: bool) -> None:
    tensors, selected = some(), [True, False, True, True, False, True]
    part = _layouts.layouts_of(tensors).part(selected)
    chosen = [tensor for tensor, is_in in zip(tensors, selected) if is_in]
    assert list(part.addresses(chosen) or ()) == [tensor.data_ptr() for tensor in chosen]
    assert part.addresses(tensors) is None and part.addresses([*chosen[:3], tensors[4]]) is None
    assert list(_layouts.layouts_of(tensors).part([False] * len(tensors)).addresses([]) or ()) == []


def test_more_dimensions_than_can_be_described() -> None:
    tensors = [torch.zeros(3), torch.zeros([1] * 9)]
    layouts = _layouts.layouts_of(tensors)
    assert isinstance(layouts, _layouts.Listed)
    assert list(layouts.addresses(tensors) or ()) == [tensor.data_ptr() for tensor in tensors]


def test_no_gradient_is_kept_alive() -> None:
    model = perceptron()
    optimizer = KoalaPlusPlus(model.parameters())
    train(model, optimizer, range(2))
    gradients = [torch.utils.weak.WeakTensorKeyDictionary({parameter.grad: 0}) for parameter in model.parameters()]
    optimizer.zero_grad()
    assert [len(gradient) for gradient in gradients] == [0] * len(gradients)


def test_a_training_has_the_same_bits(way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for exchange in (_layouts._exchange, None):
        monkeypatch.setattr(_layouts, "_exchange", exchange)
        model = perceptron()
        train(model, KoalaPlusPlus(model.parameters(), 0.7, 1e-4), range(5))
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends))
