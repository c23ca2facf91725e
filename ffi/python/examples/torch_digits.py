"""Compares KOALA++ with AdamW: a small network learns the UCI digits of this repository, or MNIST.

    python examples/torch_digits.py                  # some seconds; --quick takes less
    python examples/torch_digits.py --data DIR       # the folder with MNIST's four IDX files, plain or gzipped

With tqdm there is a progress bar, with Matplotlib the curves are drawn into torch-digits.svg.
"""

from __future__ import annotations

import math
import time
from typing import Any, Callable

import torch
from _digits import arguments, draw, load, progress, sizes
from torch import Tensor

from koala_optim.torch import KoalaPlusPlus


def main() -> None:
    parser = arguments(__doc__, "torch-digits.svg")
    parser.add_argument("--lr", type=float, default=1.0, help="η of KOALA++ at the start (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a step (default 1)")
    options = parser.parse_args()

    training, test = (tuple(map(torch.tensor, data)) for data in load(options.data))
    epochs, hidden = sizes(options)
    optimizers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "KOALA++": lambda model: KoalaPlusPlus(
            model.named_parameters(), options.lr, weight_decay=1e-4, threads=options.threads
        ),
        "AdamW": lambda model: torch.optim.AdamW(model.parameters(), 1e-3),
    }
    print(f"{len(training[1])} images for training, {len(test[1])} for the test, {epochs} epochs")
    print(f"{'':8}  test accuracy  test loss  time of a step")
    curves = {}
    for name, make in optimizers.items():
        torch.manual_seed(0)
        inputs = training[0].shape[1]
        model = torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
        curves[name], seconds = train(name, model, make(model), training, test, epochs, options.batch)
        loss, accuracy = evaluate(model, test)
        print(f"{name:8}  {accuracy:12.2%}  {loss:10.4f}  {seconds * 1e6:11.0f} µs")
    draw(curves, options.plot)


def train(
    name: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    training: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    epochs: int,
    batch: int,
) -> tuple[list[float], float]:
    """Returns the test loss after each epoch, and the median time of a step of the optimizer, in seconds."""
    images, labels = training
    order: Any
    steps = epochs * math.ceil(len(labels) / batch)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve, times = [], []
    for _ in progress(range(epochs), name):
        order = torch.randperm(len(labels))
        for rows in order.split(batch):
            optimizer.zero_grad()
            # KOALA++ measures how the losses of the samples scatter, so they are not averaged at once.
            losses: Any = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows], reduction="none")
            losses.mean().backward()
            begin = time.perf_counter()
            if isinstance(optimizer, KoalaPlusPlus):
                optimizer.step(loss=losses)
            else:
                optimizer.step()
            times.append(time.perf_counter() - begin)
            scheduler.step()
        curve.append(evaluate(model, test)[0])
    return curve, sorted(times)[len(times) // 2]


@torch.no_grad()
def evaluate(model: torch.nn.Module, test: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The mean loss, and the share of images that are recognized."""
    outputs = model(test[0])
    accuracy = (outputs.argmax(1) == test[1]).double().mean().item()
    return torch.nn.functional.cross_entropy(outputs, test[1]).item(), accuracy


if __name__ == "__main__":
    main()
