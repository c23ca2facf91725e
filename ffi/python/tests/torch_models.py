"""What the tests of the front end for PyTorch share: the digits, a small network, the step as the equations have it."""

from __future__ import annotations

import functools
import gzip
import pathlib
from typing import Any

import torch
from torch import Tensor

# More than one wait for one another in networks as small as these.
torch.set_num_threads(1)

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@functools.lru_cache
def digits() -> tuple[Tensor, Tensor]:
    """Images, of shape (1797, 64) in [0, 1], and labels."""
    with gzip.open(REPOSITORY / "cli" / "data" / "digits.csv.gz", "rt") as file:
        rows = torch.tensor([[float(number) for number in line.split(",")] for line in file])
    return rows[:, :-1] / 16, rows[:, -1].long()


def perceptron(dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.nn.Sequential:
    """64 inputs, 32 hidden units, 10 outputs."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    return model.to(dtype)


def batch_losses(model: torch.nn.Module, images: Tensor, labels: Tensor, step: int, size: int = 32) -> Tensor:
    """The losses of the samples of one step's minibatch, which depends on nothing but the step."""
    rows = torch.randint(len(images), (size,), generator=torch.Generator().manual_seed(step))
    dtype = next(model.parameters()).dtype
    return torch.nn.functional.cross_entropy(model(images[rows].to(dtype)), labels[rows], reduction="none")


def train(model: torch.nn.Module, optimizer: Any, steps: range) -> float:
    """Trains on the digits. Returns the last loss."""
    images, labels = digits()
    mean: Any = torch.tensor(0.0)
    for step in steps:
        optimizer.zero_grad()
        losses = batch_losses(model, images, labels, step)
        mean = losses.mean()
        mean.backward()
        optimizer.step(loss=losses)
    return float(mean.detach())


class Reference:
    """KOALA++ as the equations have it, one tensor after another."""

    def __init__(
        self, parameters: list[Tensor], lr: float, wd: float, sigma: float, q: float, variant: str, gamma: float
    ) -> None:
        self.parameters, self.variant = parameters, variant
        self.lr, self.wd, self.sigma, self.q = lr, wd, sigma, q
        # γ is 0 where the variant has none.
        self.gamma = (gamma or sigma) if variant == "definite" else 0.0
        self.noise = 1.0
        self.filters: dict[int, list[Tensor]] = {}

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """`loss`: those of the samples."""
        self.noise = 0.9 * self.noise + 0.1 * loss.double().square().mean().item()
        mean, q, noise = loss.double().mean(), self.q, self.noise
        for index, theta in enumerate(self.parameters):
            assert theta.grad is not None
            row = theta.grad + self.wd * theta
            square = (row * row).sum()
            first = [row, self.sigma * row, self.sigma * square + q * square + noise]
            h, v, s = self.filters.get(index, first)
            x, y = (h * h).sum(), (h * v).sum()
            a, b = (row * h).sum(), (row * v).sum()
            lambda_ = (b + q * a) / s
            alpha, w = {
                "symmetric": (a / x, b / x - a * y / x**2),
                "vanilla": (a / x, 0.0),
                "definite": (b / y, -self.gamma * a / x),
            }[self.variant]
            v = (alpha - lambda_) * v + (q + self.gamma) * row + (w - q * lambda_) * h
            s = (row * v).sum() + q * square + noise
            theta -= self.lr * (mean + 0.5 * self.wd * (theta * theta).sum()) / s * (v + q * row)
            self.filters[index] = [row, v, s]
