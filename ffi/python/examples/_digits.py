"""What the examples with digits share: the UCI digits of this repository, or MNIST, a progress bar and a plot."""

from __future__ import annotations

import argparse
import gzip
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

DIGITS = pathlib.Path(__file__).resolve().parents[3] / "cli" / "data" / "digits.csv.gz"

# Images of shape [samples, pixels], float32 in [0, 1], and their labels, of shape [samples].
Data = tuple[Any, Any]


def arguments(description: str | None, plot: str) -> argparse.ArgumentParser:
    """The options that the examples have in common."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="a folder with MNIST's four IDX files")
    parser.add_argument("--epochs", type=int, help="how often each image is seen (default 30; 5 with --data)")
    parser.add_argument("--batch", type=int, default=64, help="images in a minibatch (default 64)")
    parser.add_argument("--plot", default=plot, help=f"where to draw (default {plot})")
    parser.add_argument("--quick", action="store_true", help="two epochs of a small network")
    return parser


def sizes(options: argparse.Namespace) -> tuple[int, int]:
    """How many epochs, and how many hidden units."""
    epochs = options.epochs or (2 if options.quick else 5 if options.data else 30)
    return epochs, 32 if options.quick else 256


def load(folder: pathlib.Path | None) -> tuple[Data, Data]:
    """For training and for the test: MNIST from a folder; or, without one, the digits, of which four of five are for
    training.
    """
    if folder is not None:
        return mnist(folder, "train"), mnist(folder, "t10k")
    with gzip.open(DIGITS, "rt") as file:
        rows = np.loadtxt(file, np.float32, delimiter=",")
    images, labels = rows[:, :-1] / 16, rows[:, -1].astype(np.int64)
    is_test = np.arange(len(labels)) % 5 == 4
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def mnist(folder: pathlib.Path, prefix: str) -> Data:
    images = idx(folder, f"{prefix}-images-idx3-ubyte")
    labels = idx(folder, f"{prefix}-labels-idx1-ubyte")
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


def idx(folder: pathlib.Path, name: str) -> Any:
    """A file of unsigned bytes in the format IDX: its header is a magic number of 4 bytes, then the extents."""
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of unsigned bytes")
    extents = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(extents)


def progress(epochs: range, name: str) -> Iterable[int]:
    """The epochs, with a bar if there is tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return epochs
    bar: Iterable[int] = tqdm(epochs, name, unit="epoch", leave=False)
    return bar


def draw(curves: dict[str, list[float]], path: str) -> None:
    """The test loss after each epoch, if there is Matplotlib."""
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
