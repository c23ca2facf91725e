"""PyTorch's optimizers under torch.compile, which leaves their steps as they are, and compiles what is around them."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

from koala_optim.torch import new_optimizer  # noqa: E402

METHODS = ["koala++", "koala-v", "koala-m", "adamw", "sgd"]


class Counting:
    """A backend that runs graphs as they are, and counts those that it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        self.graphs += 1
        return graph.forward


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def batch(number: int) -> Any:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_step_of_training(method: str, scheduled: bool) -> None:
    found, graphs, backend = [], [], Counting()
    for compiled in (lambda train: torch.compile(train, backend=backend), lambda train: train):
        torch.compiler.reset()
        model = network()
        optimizer = new_optimizer(model.parameters(), method, lr=0.05)
        # A scheduler puts a wrapper around the step.
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9) if scheduled else None

        def train(data: Any, model: Any = model, optimizer: Any = optimizer) -> None:
            optimizer.predict()
            optimizer.zero_grad()
            losses = model(data).square().sum(1)
            losses.mean().backward()
            optimizer.step(loss=losses.detach())

        train = compiled(train)
        for number in range(5):
            train(batch(number))
            graphs.append(backend.graphs)
            if schedule is not None:
                schedule.step()
        assert optimizer.report().stepped == 4
        found.append([one.detach() for one in model.parameters()])
    for one, other in zip(*found):
        assert torch.equal(one, other)
    # The first step alone compiles.
    assert graphs[0] > 0 and len(set(graphs)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_step_alone(method: str) -> None:
    def trained(compiled: Any) -> list[Any]:
        torch.compiler.reset()
        model = network()
        optimizer = new_optimizer(model.parameters(), method, lr=0.05)
        predict, step, inside = (
            compiled(optimizer.predict),
            compiled(optimizer.step),
            compiled(lambda losses: optimizer.step(loss=losses)),
        )
        for number in range(4):
            predict()
            losses = model(batch(number)).square().sum(1)
            optimizer.zero_grad()
            losses.mean().backward()
            inside(losses.detach()) if number < 2 else step(loss=losses.detach())
        return [one.detach() for one in model.parameters()]

    found = trained(lambda function: torch.compile(function, backend="eager"))
    for one, other in zip(found, trained(lambda function: function)):
        assert torch.equal(one, other)


def test_a_compiled_model_in_a_closure_stays_compiled() -> None:
    torch.compiler.reset()
    model, backend = network(), Counting()
    compiled = torch.compile(model, backend=backend)
    optimizer = new_optimizer(model.parameters(), "koala++")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = compiled(batch(0)).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert backend.graphs == 1


def test_the_compiler_is_not_imported_before_there_is_an_optimizer(tmp_path: pathlib.Path) -> None:
    # Which takes seconds.
    program = "import sys, koala_optim.torch; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
