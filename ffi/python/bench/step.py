"""What a step costs: KOALA++ by libkoala, the same step in eager operations of PyTorch, and PyTorch's fused AdamW.

    python bench/step.py [--quick]

The three are timed in turn, round after round, so that their ratios hold on a machine that drifts. Then it prints, for
each method and tensors of one element, what the front end for Python adds to the call of the library: nothing else is
left of such a step. These are the least of many times, as what other programs take of a processor can only add to them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Callable

import torch

from koala_optim._library import lib
from koala_optim.torch import KoalaPlusPlus, new_optimizer
from koala_optim.torch._table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of one step each (default 15)")
    parser.add_argument("--quick", action="store_true", help="three rounds, of ResNet-50 only")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds

    print(f"PyTorch {torch.__version__}, float32, weight decay; medians of {rounds} rounds\n")
    print("| model | threads | KOALA++ | eager | AdamW, fused | eager : KOALA++ | KOALA++ : AdamW |")
    print("|---|---|---|---|---|---|---|")
    models = {"ResNet-50": resnet_50()}
    if not options.quick:
        models["GPT-2 small"] = gpt_2_small()
    for name, shapes in models.items():
        for threads in (1, 2):
            print(f"| {name}, {len(shapes)} tensors | {threads} | {compare(shapes, threads, rounds)} |", flush=True)
    print(f"\n161 tensors of one element; {frame() * 1e6:.1f} µs are PyTorch's own, around every optimizer's step:\n")
    print("| method | step() | the library's call | so Python adds |")
    print("|---|---|---|---|")
    for method in ("koala++", "koala-v", "koala-m", "adamw", "sgd"):
        whole, call = (time * 1e6 for time in overhead(method, 161, 200 if options.quick else 2000))
        print(f"| {method} | {whole:.1f} µs | {call:.1f} µs | {whole - call:.1f} µs |", flush=True)


def compare(shapes: list[tuple[int, ...]], threads: int, rounds: int) -> str:
    """A row of the table."""
    torch.set_num_threads(threads)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    koala = KoalaPlusPlus(parameters, 1e-6, 1e-4, threads=threads)
    eager = Eager(parameters, 1e-6, 1e-4)
    adam = torch.optim.AdamW(parameters, 1e-6, fused=True)
    steps: list[Callable[[], Any]] = [lambda: koala.step(loss=0.5), lambda: eager.step(0.5), adam.step]
    for step in steps:
        step()
    times = [[seconds(step) for step in steps] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*times)]
    cells = [f"{median * 1e3:.1f} ms" for median in medians]
    ratios = (statistics.median(row[a] / row[b] for row in times) for a, b in ((1, 0), (0, 2)))
    return " | ".join([*cells, *(f"{ratio:.2f} ×" for ratio in ratios)])


class Eager:
    """KOALA++ as one would write it in PyTorch: dot products, in-place operations, one wait for a tensor's scalars."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.weight_decay = parameters, lr, weight_decay
        self.noise = 1.0
        self.filters: list[tuple[torch.Tensor, torch.Tensor, list[float]]] = []

    @torch.no_grad()
    def step(self, loss: float, sigma: float = 0.1, q: float = 0.1) -> None:
        self.noise = 0.9 * self.noise + 0.1 * loss * loss
        if not self.filters:
            for parameter in self.parameters:
                assert parameter.grad is not None
                row = (parameter.grad + self.weight_decay * parameter).flatten()
                x = row.dot(row).item()
                self.filters.append((sigma * row, row, [x, sigma * x, (sigma + q) * x + self.noise]))
        for parameter, (v, h, scalars) in zip(self.parameters, self.filters):
            assert parameter.grad is not None
            theta = parameter.view(-1)
            row = torch.add(parameter.grad.view(-1), theta, alpha=self.weight_decay)
            a, b, c, t = torch.stack([row.dot(h), row.dot(v), row.dot(row), theta.dot(theta)]).tolist()
            x, y, s = scalars
            lambda_ = (b + q * a) / s
            keep, mix = a / x - lambda_, b / x - a * y / x**2 - q * lambda_
            y = keep * b + q * c + mix * a
            scalars[:] = c, y, y + q * c + self.noise
            v.mul_(keep).add_(row, alpha=q).add_(h, alpha=mix)
            rate = self.lr * (loss + 0.5 * self.weight_decay * t) / scalars[2]
            theta.add_(v, alpha=-rate).add_(row, alpha=-rate * q)
            h.copy_(row)


def overhead(method: str, count: int, rounds: int) -> tuple[float, float]:
    """The time of a step of small tensors, and of the library's part of it."""
    torch.set_num_threads(1)
    parameters = [torch.nn.Parameter(torch.randn(1)) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.randn(1)
    optimizer = new_optimizer(parameters, method, lr=1e-6)
    times = []
    for _ in range(rounds):
        optimizer.predict()
        whole = seconds(lambda: optimizer.step(loss=0.5))
        (table,) = optimizer._steppers
        assert isinstance(table, Table)
        (call,) = table._calls
        times.append((whole, seconds(lambda: lib.koala_step_tensors(table._step, *call))))  # noqa: B023
    whole, bare = (min(column) for column in zip(*times))
    return whole, bare


def frame() -> float:
    """What PyTorch does around the step of every optimizer."""

    class Nothing(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> Any:
            pass

    nothing = Nothing([torch.nn.Parameter(torch.zeros(1))], {})
    return min(seconds(nothing.step) for _ in range(1000))


def seconds(step: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def resnet_50() -> list[tuple[int, ...]]:
    """The shapes of its parameters, as torchvision has them."""
    shapes: list[tuple[int, ...]] = []

    def convolution(inputs: int, outputs: int, kernel: int) -> None:
        """With the batch normalization after it."""
        shapes.extend([(outputs, inputs, kernel, kernel), (outputs,), (outputs,)])

    convolution(3, 64, 7)
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for block in range(blocks):
            convolution(inputs, width, 1)
            convolution(width, width, 3)
            convolution(width, 4 * width, 1)
            if block == 0:
                convolution(inputs, 4 * width, 1)
            inputs = 4 * width
    return [*shapes, (1000, inputs), (1000,)]


def gpt_2_small() -> list[tuple[int, ...]]:
    """The shapes of its parameters; the output layer is the embedding again."""
    width = 768
    layer: list[tuple[int, ...]] = [(width,), (width,)]
    layer += [(width, 3 * width), (3 * width,), (width, width), (width,)]
    layer += [(width,), (width,)]
    layer += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *12 * layer, (width,), (width,)]


if __name__ == "__main__":
    main()
