"""Trains a small network in JAX with KOALA++ and with AdamW, on this repository's UCI digits or on MNIST.

    python examples/jax_digits.py                  # some seconds; --quick takes less
    python examples/jax_digits.py --data DIR       # the folder with MNIST's four IDX files, plain or gzipped

With tqdm there is a progress bar, with Matplotlib the curves are drawn into jax-digits.svg.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
from functools import partial
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from koala_optim.optax import koala_plus_plus

DIGITS = pathlib.Path(__file__).resolve().parents[3] / "cli" / "data" / "digits.csv.gz"

Data = tuple[Any, Any]
Step = Callable[..., tuple[Any, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="a folder with MNIST's four IDX files")
    parser.add_argument("--epochs", type=int, help="how often each image is seen (default 30; 5 with --data)")
    parser.add_argument("--batch", type=int, default=64, help="images in a minibatch (default 64)")
    parser.add_argument("--plot", default="jax-digits.svg", help="where to draw (default jax-digits.svg)")
    parser.add_argument("--quick", action="store_true", help="two epochs of a small network")
    options = parser.parse_args()

    training, test = mnist(options.data) if options.data else digits()
    epochs = options.epochs or (2 if options.quick else 5 if options.data else 30)
    hidden = 32 if options.quick else 256
    steps = epochs * (len(training[1]) // options.batch)

    koala = koala_plus_plus(optax.cosine_decay_schedule(1.0, steps), weight_decay=1e-4)
    adamw = optax.adamw(optax.cosine_decay_schedule(1e-3, steps))

    def adamw_step(params: Any, grads: Any, state: Any, **_: Any) -> tuple[Any, Any]:
        updates, state = adamw.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    print(f"{len(training[1])} images for training, {len(test[1])} for the test, {epochs} epochs")
    print(f"{'':8}  test accuracy  test loss")
    curves = {}
    for name, init, step in (("KOALA++", koala.init, koala.step), ("AdamW", adamw.init, adamw_step)):
        params = network(jax.random.key(0), training[0].shape[1], hidden)
        params, curves[name] = train(name, params, init(params), step, training, test, epochs, options.batch)
        loss, accuracy = evaluate(params, test)
        print(f"{name:8}  {float(accuracy):12.2%}  {float(loss):10.4f}")
    draw(curves, options.plot)


def network(key: jax.Array, inputs: int, hidden: int) -> dict[str, jax.Array]:
    """Two layers, before the training."""
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (inputs, hidden)) * (2 / inputs) ** 0.5,
        "first_bias": jnp.zeros(hidden),
        "second": jax.random.normal(second, (hidden, 10)) * (1 / hidden) ** 0.5,
        "second_bias": jnp.zeros(10),
    }


def outputs(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(images @ params["first"] + params["first_bias"])
    return hidden @ params["second"] + params["second_bias"]


def mean_loss(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of the samples' losses, and that of their squares: KOALA++ measures how they scatter."""
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs(params, images), labels)
    return losses.mean(), (losses**2).mean()


def train(
    name: str, params: Any, state: Any, step: Step, training: Data, test: Data, epochs: int, batch: int
) -> tuple[Any, list[float]]:
    """Returns the parameters, and the test loss after each epoch."""
    images, labels = (jnp.asarray(array) for array in training)

    def train_step(carry: Any, rows: jax.Array) -> Any:
        params, state = carry
        gradient = jax.value_and_grad(mean_loss, has_aux=True)
        (value, second_moment), grads = gradient(params, images[rows], labels[rows])
        return step(params, grads, state, value=value, second_moment=second_moment), None

    # Donated, so that the steps are taken in place.
    @partial(jax.jit, donate_argnums=0)
    def train_epoch(carry: Any, order: jax.Array) -> Any:
        return jax.lax.scan(train_step, carry, order)[0]

    random, curve = np.random.default_rng(0), []
    for _ in progress(range(epochs), name):
        order = random.permutation(len(labels))[: len(labels) // batch * batch].reshape(-1, batch)
        params, state = train_epoch((params, state), order)
        curve.append(float(evaluate(params, test)[0]))
    return params, curve


@jax.jit
def evaluate(params: Any, test: Data) -> tuple[jax.Array, jax.Array]:
    """The mean loss, and the share of images that are recognized."""
    images, labels = test
    return mean_loss(params, images, labels)[0], (outputs(params, images).argmax(1) == labels).mean()


def digits() -> tuple[Data, Data]:
    """Images of 64 pixels in [0, 1] with their labels: four of five for training, the others for the test."""
    with gzip.open(DIGITS, "rt") as file:
        rows = np.loadtxt(file, np.float32, delimiter=",")
    images, labels = rows[:, :-1] / 16, rows[:, -1].astype(np.int32)
    is_test = np.arange(len(labels)) % 5 == 4
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def mnist(folder: pathlib.Path) -> tuple[Data, Data]:
    """Images of 784 pixels in [0, 1] with their labels, for training and for the test."""
    pairs = []
    for prefix in ("train", "t10k"):
        images = idx(folder, f"{prefix}-images-idx3-ubyte")
        labels = idx(folder, f"{prefix}-labels-idx1-ubyte").astype(np.int32)
        pairs.append((images.reshape(len(images), -1).astype(np.float32) / 255, labels))
    return pairs[0], pairs[1]


def idx(folder: pathlib.Path, name: str) -> Any:
    """A file of unsigned bytes in the format IDX: its header is a magic number of 4 bytes, then the extents."""
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of unsigned bytes")
    extents = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(extents)


def progress(epochs: range, name: str) -> Any:
    try:
        from tqdm import tqdm
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
