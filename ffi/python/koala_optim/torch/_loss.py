"""The measurement of a step: the mean of a minibatch's losses, and the mean of their squares."""

from __future__ import annotations

import math
from typing import Callable, Literal, Union

import torch
from torch import Tensor

from .._library import NonFiniteError, check, ffi, lib
from ._places import TYPES

Number = Union[float, Tensor]

# L and m: numbers, or two float64 on a device.
Measurement = Union[tuple[float, float], Tensor]


def given_loss(closure: Callable[[], Number] | None, loss: Number | None) -> Number | None:
    """The loss that step() is given, by a closure, which computes the gradients too, or as it is.

    Raises:
        TypeError: It is given by both.
    """
    if closure is None:
        return loss
    if loss is not None:
        raise TypeError("step() takes a closure or a loss, not both")
    with torch.enable_grad():
        return closure()


def noise_rule(noise: Literal["averaged"] | float, decay: float, initial: float) -> dict[str, float | None]:
    """R and how it goes on, as the entries of a group: without a decay, R stays as it is.

    Raises:
        ValueError: A name is unknown. `check_noise` looks at the numbers.
    """
    if not isinstance(noise, str):
        return {"measurement_noise": float(noise), "noise_decay": None}
    if noise != "averaged":
        raise ValueError(f"noise is {noise!r}, expected 'averaged' or a number")
    return {"measurement_noise": float(initial), "noise_decay": decay}


def check_noise(decay: float | None, noise: float) -> None:
    """Looks at both entries.

    Raises:
        ValueError: A number is out of its range.
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"the noise is {noise}, expected a finite number, at least 0")
    next_noise(decay, noise, (0.0, 0.0))


def next_noise(decay: float | None, noise: float, measurement: tuple[float, float]) -> float | None:
    """R of a step: the same as before without a decay; None if the measurement is not finite.

    Raises:
        ValueError: A number is out of its range.
    """
    mean, moment = measurement
    if not (math.isfinite(mean) and (decay is None or math.isfinite(moment))):
        return None
    if decay is None:
        return noise
    updated = ffi.new("double *", noise)
    check(lib.koala_noise_update(decay, ffi.new("koala_loss *", (0.0, moment)), updated))
    return float(updated[0])


def loss_error(measurement: tuple[float, float]) -> NonFiniteError:
    """What to raise where `next_noise` has none, and that is an error."""
    text = "the loss is not finite: mean {}, second moment {}".format(*measurement)
    return NonFiniteError(lib.KOALA_STATUS_NON_FINITE, text)


def measure(loss: Number, second_moment: Number | None) -> tuple[float, float]:
    """The mean loss L and the second moment m.

    Args:
        loss: L itself: a number, or a tensor of one; or a tensor of one dimension, the losses of the samples.
        second_moment: m, if it is known; else it is taken from the samples, or, if there is only the mean, its square,
            which is the least that it can be.

    Raises:
        ValueError: The loss has more dimensions, or no samples.
        TypeError: It is no real number.
    """
    if isinstance(loss, Tensor) and loss.dim() > 0:
        if loss.dim() > 1:
            raise ValueError(f"the loss is of shape {tuple(loss.shape)}, expected a scalar or one loss for each sample")
        mean, moment = _of_samples(loss.detach())
    else:
        mean = _number(loss)
        moment = mean * mean
    return mean, moment if second_moment is None else _number(second_moment)


def measure_there(loss: Tensor, second_moment: Number | None) -> Tensor:
    """The same of a loss on another device, as two float64 there, which nothing waits for.

    Raises:
        ValueError, TypeError: As `measure`.
    """
    losses = loss.detach()
    if losses.dim() > 1:
        raise ValueError(f"the loss is of shape {tuple(losses.shape)}, expected a scalar or one loss for each sample")
    _check_samples(losses)
    losses = losses.double()
    moment = losses.square().mean()
    if isinstance(second_moment, Tensor):
        moment = second_moment.detach().to(moment)
    elif second_moment is not None:
        moment = torch.full_like(moment, second_moment)
    return torch.stack([losses.mean(), moment.reshape(())])


def _number(given: Number) -> float:
    return float(given.item() if isinstance(given, Tensor) else given)


def _check_samples(losses: Tensor) -> None:
    if losses.numel() == 0:
        raise ValueError("the loss has no samples")
    if losses.dtype not in TYPES:
        raise TypeError(f"the losses are of {losses.dtype}, expected one of {', '.join(map(str, TYPES))}")


def _of_samples(losses: Tensor) -> tuple[float, float]:
    _check_samples(losses)
    if losses.device.type != "cpu":
        # One transfer instead of one for each number.
        losses = losses.cpu()
    losses = losses.resolve_neg().contiguous()
    pointer = ffi.cast("void *", losses.data_ptr())
    result = ffi.new("koala_loss *")
    check(lib.koala_loss_from_samples(TYPES[losses.dtype], pointer, losses.numel(), result))
    return result.mean, result.second_moment
