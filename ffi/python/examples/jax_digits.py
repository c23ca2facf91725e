"""Trains a small network in JAX with KOALA++ and with AdamW, on this repository's UCI digits or on MNIST.

    python examples/jax_digits.py                  # some seconds; --quick takes less
    python examples/jax_digits.py --data DIR       # the folder with MNIST's four IDX files, plain or gzipped

With tqdm there is a progress bar, with Matplotlib the curves are drawn into jax-digits.svg.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _digits import Data, arguments, draw, load, progress, sizes

from koala_optim.optax import koala_plus_plus

Step = Callable[..., tuple[Any, Any]]


def main() -> None:
    options = arguments(__doc__, "jax-digits.svg").parse_args()
    training, test = load(options.data)
    epochs, hidden = sizes(options)
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


if __name__ == "__main__":
    main()
