"""The optimizers beside KOALA++ that libkoala has on the same kernel, each with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Callable, ClassVar, TypeVar

from ._library import check, ffi, lib

# `typing.Self` is of Python 3.11.
_Own = TypeVar("_Own", bound="Method")


class Method:
    """Which optimizer steps, with those of its numbers that all tensors share. It never changes: those numbers of
    KOALA-V and KOALA-M that move with each step do so in copies.

    Attributes:
        name: By which the command and other languages know it, "adamw" for example.
    """

    name: ClassVar[str]
    _kind: ClassVar[int]
    _vectors: ClassVar[tuple[bool, bool]] = (True, True)

    def __post_init__(self) -> None:
        # The library knows the ranges: to learn from nothing changes nothing.
        check(lib.koala_method_correct(self.to_c(), 0.0))

    def to_c(self) -> Any:
        """A `koala_method *`, whose members have the names of the fields here."""
        method = ffi.new("koala_method *")
        check(lib.koala_method_init(method, ffi.sizeof("koala_method"), self._kind))
        for field in fields(self):  # type: ignore[arg-type]
            setattr(method, field.name, getattr(self, field.name))
        return method

    @property
    def vectors(self) -> tuple[bool, bool]:
        """Whether the state of a tensor has h, and v."""
        return self._vectors

    def predicted(self: _Own, distance_squared: float = 0.0, parameters: int = 0) -> _Own:
        """The method at the time of the next measurement: see `koala_optim.numpy.predict`, which calls this.

        Args:
            distance_squared: Σ‖m − θ‖² over the tensors, which KOALA-M alone reads.
            parameters: Over how many parameters.

        Raises:
            ValueError: That sum is negative or not finite.
        """
        return self._moved(lambda method: lib.koala_method_predict(method, distance_squared, parameters))

    def corrected(self: _Own, gain: float) -> _Own:
        """The method after a step, of which it has learned.

        Args:
            gain: The largest one among the tensors that stepped, 0 if none did: that of a `koala_optim.numpy.Report`.

        Raises:
            ValueError: It is negative or not finite.
        """
        return self._moved(lambda method: lib.koala_method_correct(method, gain))

    def _moved(self: _Own, move: Callable[[Any], int]) -> _Own:
        method = self.to_c()
        check(move(method))
        names = [field.name for field in fields(self) if field.type == "float"]  # type: ignore[arg-type]
        return replace(self, **{name: getattr(method, name) for name in names})  # type: ignore[type-var]


@dataclass(frozen=True)
class KoalaV(Method):
    """KOALA-V (Davtyan et al., AAAI 2022): one variance for all parameters. A tensor has neither v nor h.

    Args:
        variance: σ ≥ 0 of every parameter, in squared units of the parameters, as it is now.
        process_noise: Q ≥ 0, what the variance grows by in each step.

    Raises:
        ValueError: A number is out of its range.
    """

    variance: float = 0.1
    process_noise: float = 0.1

    name = "koala-v"
    _kind = lib.KOALA_METHOD_KIND_KOALA_V
    _vectors = (False, False)


@dataclass(frozen=True)
class KoalaM(Method):
    """KOALA-M (Davtyan et al., AAAI 2022): one covariance for all parameters and their velocities. A tensor's h is the
    velocity, its v the running average of the parameters. Before each step, and before its gradient is taken,
    `koala_optim.numpy.predict` moves the parameters.

    Args:
        variance: ≥ 0, of a parameter, as it is now.
        covariance: Of a parameter and its velocity, as it is now.
        velocity_variance: ≥ 0, of a velocity, as it is now.
        velocity_decay: In [0, 1], what a prediction leaves of a velocity.
        process_noise: ≥ 0, of a parameter, which adapts.
        velocity_noise: ≥ 0, the process noise of a velocity.

    Raises:
        ValueError: A number is out of its range.
    """

    variance: float = 0.1
    covariance: float = 0.0
    velocity_variance: float = 0.1
    velocity_decay: float = 0.9
    process_noise: float = 0.01
    velocity_noise: float = 0.01

    name = "koala-m"
    _kind = lib.KOALA_METHOD_KIND_KOALA_M


@dataclass(frozen=True)
class AdamW(Method):
    """AdamW (Loshchilov and Hutter, 2019). A tensor's h is the mean of the gradient, its v that of its square.

    Args:
        beta1: In [0, 1), what a step keeps of the mean.
        beta2: In [0, 1), what a step keeps of the mean of the square.
        epsilon: ≥ 1e-37, in units of the gradient.

    Raises:
        ValueError: A number is out of its range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    name = "adamw"
    _kind = lib.KOALA_METHOD_KIND_ADAMW


@dataclass(frozen=True)
class Sgd(Method):
    """Stochastic gradient descent. A tensor's h is the momentum, unless that is 0; there is no v.

    Args:
        momentum: In [0, 1), what a step keeps of it.
        nesterov: Whether a step follows the gradient and the new momentum, as Nesterov has it. It needs a momentum.

    Raises:
        ValueError: The momentum is out of its range, or 0 with Nesterov's.
    """

    momentum: float = 0.9
    nesterov: bool = False

    name = "sgd"
    _kind = lib.KOALA_METHOD_KIND_SGD

    @property
    def vectors(self) -> tuple[bool, bool]:
        return self.momentum != 0, False


METHODS: Mapping[str, type[Method]] = {method.name: method for method in (KoalaV, KoalaM, AdamW, Sgd)}
