"""Compares KOALA++ with AdamW: a small network learns the UCI digits of this repository, or MNIST.

    python examples/torch_digits.py                  # some seconds; --quick takes less
    python examples/torch_digits.py --data DIR       # the folder with MNIST's four IDX files, plain or gzipped

With tqdm there is a progress bar, with Matplotlib the curves are drawn into torch-digits.svg.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import math
import pathlib
import time
from typing import Any, Callable

import torch
from torch import Tensor

from koala_optim.torch import KoalaPlusPlus

DIGITS = pathlib.Path(__file__).resolve().parents[3] / "cli" / "data" / "digits.csv.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="a folder with MNIST's four IDX files")
    parser.add_argument("--epochs", type=int, help="how often each image is seen (default 30; 5 with --data)")
    parser.add_argument("--batch", type=int, default=64, help="images in a minibatch (default 64)")
    parser.add_argument("--lr", type=float, default=1.0, help="η of KOALA++ at the start (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a step (default 1)")
    parser.add_argument("--plot", default="torch-digits.svg", help="where to draw (default torch-digits.svg)")
    parser.add_argument("--quick", action="store_true", help="two epochs of a small network")
    options = parser.parse_args()

    training, test = mnist(options.data) if options.data else digits()
    epochs = options.epochs or (2 if options.quick else 5 if options.data else 30)
    hidden = 32 if options.quick else 256
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


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images of 64 pixels in [0, 1] with their labels: four of five for training, the others for the test."""
    with gzip.open(DIGITS, "rt") as file:
        rows = torch.tensor([[float(number) for number in line.split(",")] for line in file])
    images, labels = rows[:, :-1] / 16, rows[:, -1].long()
    is_test = torch.arange(len(labels)) % 5 == 4
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def mnist(folder: pathlib.Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images of 784 pixels in [0, 1] with their labels, for training and for the test."""
    pairs = []
    for prefix in ("train", "t10k"):
        images = idx(folder, f"{prefix}-images-idx3-ubyte").flatten(1) / 255
        pairs.append((images, idx(folder, f"{prefix}-labels-idx1-ubyte").long()))
    return pairs[0], pairs[1]


def idx(folder: pathlib.Path, name: str) -> Tensor:
    """A file of unsigned bytes in the format IDX: its header is a magic number of 4 bytes, then the extents."""
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of unsigned bytes")
    extents = [int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * data[3], 4)]
    return torch.frombuffer(bytearray(data[4 + 4 * data[3] :]), dtype=torch.uint8).reshape(extents)


def progress(epochs: range, name: str) -> Any:
    try:
        tqdm = importlib.import_module("tqdm").tqdm
    except ImportError:
        return epochs
    return tqdm(epochs, name, unit="epoch", leave=False)


def draw(curves: dict[str, list[float]], path: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, label=name)
    axes.set(xlabel="epoch", ylabel="test loss", yscale="log")
    axes.legend()
    figure.savefig(path)
    print(f"the curves are in {path}")


if __name__ == "__main__":
    main()
