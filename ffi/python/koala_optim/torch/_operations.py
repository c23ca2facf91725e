"""The step in operations of PyTorch, on any device: for parameters that libkoala has no kernel for.

It follows src/methods/koala_plus_plus.rs and src/passes/update.rs line by line. Scalars are those of all tensors of a
device at once, and a step does not wait for the device unless a policy needs an answer. Sums have no fixed order, so
bits are not promised.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._library import BreakdownError, NonFiniteError, lib
from .._settings import Settings, check_scaling
from ._kinds import settings_of
from ._places import Place, check_apart, check_gradient
from ._state import State, state_of

_SKIP_GRADIENT_NORM = 1e-9


class _Tensor(NamedTuple):
    """What is stepped: tensors in the type that is calculated in are made when they are needed."""

    place: Place
    gradient: Tensor
    state: State
    arithmetic: torch.dtype
    group: dict[str, Any]
    factor: float

    @property
    def weight_decay(self) -> float:
        return float(self.group["weight_decay"])

    def scaled_gradient(self) -> Tensor:
        """g, multiplied and limited."""
        gradient = self.gradient.to(self.arithmetic)
        if self.factor != 1:
            gradient = gradient * self.factor
        limit = float(self.group["gradient_limit"])
        if limit != math.inf:
            # What is infinite stays that.
            gradient = torch.where(gradient.isfinite(), gradient.clamp(-limit, limit), gradient)
        return gradient

    def measurement(self) -> Tensor:
        """H = g + wd·θ"""
        gradient = self.scaled_gradient()
        return gradient + self.weight_decay * self.parameter() if self.weight_decay else gradient

    def parameter(self) -> Tensor:
        return self.place.parameter.to(self.arithmetic)


class _Scalars(NamedTuple):
    """Results of the recursion, a number for each tensor."""

    keep: Tensor
    mix: Tensor
    rate: Tensor
    h_v: Tensor
    innovation_variance: Tensor
    finite: Tensor

    @staticmethod
    def choose(condition: Tensor, one: _Scalars, other: _Scalars) -> _Scalars:
        return _Scalars(*(torch.where(condition, left, right) for left, right in zip(one, other)))


class _Plan(NamedTuple):
    """What will be done with the tensors of one device."""

    tensors: list[_Tensor]
    scalars: _Scalars
    square: Tensor
    # σ, Q and Q + γ of each tensor's group.
    settings: tuple[Tensor, Tensor, Tensor]
    # Whether h = H and v = σ·H first.
    fresh: Tensor
    outcomes: Tensor


class Operations:
    """The parameters of an optimizer that operations of PyTorch step. The arguments are those of `Table`."""

    def __init__(
        self, places: Sequence[Place], groups: list[dict[str, Any]], states: MutableMapping[Any, Any], step: Any
    ) -> None:
        self._places, self._groups, self._states, self._step = places, groups, states, step
        self._plans: list[_Plan] = []
        # Where the parameters were when they were last looked at.
        self._apart: list[tuple[Any, ...]] = []

    def take(self, groups: list[dict[str, Any]], states: MutableMapping[Any, Any]) -> None:
        """See `Table.take`."""
        self._groups, self._states = groups, states

    @torch.no_grad()
    def prepare_step(self, loss: float, noise: float, factor: float, alone: bool) -> Callable[[], bool]:
        """See `Table.prepare_step`."""
        settings, tensors = self._look(factor)
        plans = [self._plan(listed, settings, loss, noise) for listed in tensors]
        goes_on = self._follow_policies(plans)

        def finish() -> bool:
            with torch.no_grad():
                for plan in plans:
                    _carry_out(plan)
            self._plans = plans
            return goes_on

        return finish

    @torch.no_grad()
    def check(self) -> None:
        """See `Table.check`."""
        self._look(self._groups[0]["gradient_factor"])

    def outcomes(self) -> Iterator[tuple[str, int]]:
        """See `Table.outcomes`. Waits for the devices."""
        for plan in self._plans:
            for tensor, outcome in zip(plan.tensors, plan.outcomes.tolist()):
                yield tensor.place.name, outcome

    def _look(self, factor: float) -> tuple[list[Settings], list[list[_Tensor]]]:
        """The settings of each group, and what is stepped on each device, looked at."""
        check_scaling(factor, self._groups[0]["gradient_limit"])
        tensors = defaultdict(list)
        settings = [settings_of(group) for group in self._groups]
        for place in self._places:
            if place.parameter.grad is not None:
                tensors[place.parameter.device].append(self._tensor(place, place.parameter.grad, factor))
        self._check_apart([tensor.place for listed in tensors.values() for tensor in listed])
        return settings, [*tensors.values()]

    def _check_apart(self, places: Sequence[Place]) -> None:
        """Looks at whether parameters share memory, unless they are where they were."""
        where = [(place.parameter.data_ptr(), place.parameter.shape, place.parameter.stride()) for place in places]
        if where != self._apart:
            check_apart(places)
            self._apart = where

    def _tensor(self, place: Place, gradient: Tensor, factor: float) -> _Tensor:
        check_gradient(place, gradient)
        group = self._groups[place.group]
        state = state_of(place, self._states, group["state_dtype"])
        arithmetic = torch.float64 if place.parameter.dtype == torch.float64 else torch.float32
        return _Tensor(place, gradient, state, arithmetic, group, factor)

    def _plan(self, tensors: list[_Tensor], settings: list[Settings], loss: float, noise: float) -> _Plan:
        wide = tensors[0].state.scalars.dtype
        device = tensors[0].place.parameter.device
        a, b, c, t, squared = torch.stack([_dots(tensor, wide) for tensor in tensors], 1)
        x, y, s, steps = torch.stack([tensor.state.scalars for tensor in tensors], 1)
        columns = [
            (
                of_group.learning_rate,
                of_group.weight_decay,
                of_group.initial_variance,
                of_group.process_noise,
                _gamma(of_group),
                float(of_group.variant == "symmetric"),
                float(of_group.variant == "definite"),
                torch.finfo(tensor.arithmetic).max,
            )
            for tensor, of_group in ((tensor, settings[tensor.place.group]) for tensor in tensors)
        ]
        lr, wd, sigma, q, gamma, symmetric, definite, largest = torch.tensor(columns, dtype=wide, device=device).T
        gain = q + gamma

        def advance(a: Tensor, b: Tensor, x: Tensor, y: Tensor, s: Tensor) -> _Scalars:
            lambda_ = (b + q * a) / s
            alpha = torch.where(definite > 0, b / y, a / x)
            w = torch.where(symmetric > 0, b / x - (a * y) / (x * x), 0)
            w = torch.where(definite > 0, -((gamma * a) / x), w)
            keep = alpha - lambda_
            mix = w - q * lambda_
            h_v = (keep * b + gain * c) + mix * a
            variance = (h_v + q * c) + noise
            rate = (lr * (loss + (0.5 * wd) * t)) / variance
            finite = torch.stack([alpha, lambda_, w, h_v, variance]).isfinite().all(0)
            return _Scalars(keep, mix, rate, h_v, variance, finite)

        first = steps == 0
        # On a first step v and h are zero, and so are these.
        given = torch.stack([c, t, a, b]).isfinite().all(0) & math.isfinite(loss)
        later = advance(a, b, x, y, s)
        fresh = first
        if self._step.on_breakdown == lib.KOALA_ON_BREAKDOWN_RESTART:
            fresh = first | (later.finite & (later.innovation_variance <= 0))
        as_first = advance(c, sigma * c, c, sigma * c, (sigma * c + q * c) + noise)
        scalars = _Scalars.choose(fresh, as_first, later)

        coefficients = torch.stack([scalars.keep, scalars.mix, scalars.rate, gain])
        representable = (coefficients.abs() <= largest).all(0)

        # The last one that applies counts.
        outcomes = torch.full_like(c, lib.KOALA_OUTCOME_STEPPED, dtype=torch.int64)
        for condition, outcome in (
            (fresh, lib.KOALA_OUTCOME_RESTARTED),
            (first, lib.KOALA_OUTCOME_FIRST_STEP),
            (~representable, lib.KOALA_OUTCOME_NON_FINITE),
            (scalars.innovation_variance <= 0, lib.KOALA_OUTCOME_BREAKDOWN),
            (~scalars.finite, lib.KOALA_OUTCOME_NON_FINITE),
            ((c == 0) | (squared.sqrt() < _SKIP_GRADIENT_NORM), lib.KOALA_OUTCOME_SKIPPED),
            (~given, lib.KOALA_OUTCOME_NON_FINITE),
        ):
            outcomes = torch.where(condition, outcome, outcomes)
        return _Plan(tensors, scalars, c, (sigma, q, gain), fresh, outcomes)

    def _follow_policies(self, plans: list[_Plan]) -> bool:
        """Raises, or keeps every tensor, if the policies say so. Returns whether the noise goes on."""
        step = self._step
        for policy, wrong, error, status, text in (
            (
                step.on_non_finite == lib.KOALA_ON_NON_FINITE_ERROR,
                lib.KOALA_OUTCOME_NON_FINITE,
                NonFiniteError,
                lib.KOALA_STATUS_NON_FINITE,
                "the gradient, or a scalar of the step, is not finite",
            ),
            (
                step.on_breakdown == lib.KOALA_ON_BREAKDOWN_ERROR,
                lib.KOALA_OUTCOME_BREAKDOWN,
                BreakdownError,
                lib.KOALA_STATUS_BREAKDOWN,
                "the innovation variance S would not be positive",
            ),
        ):
            for plan in plans if policy else ():
                for tensor, outcome in zip(plan.tensors, plan.outcomes.tolist()):
                    if outcome == wrong:
                        raise error(status, f"{tensor.place} {text}".replace("),", "):", 1))
        if step.on_non_finite != lib.KOALA_ON_NON_FINITE_KEEP_ALL:
            return True
        if not any(bool((plan.outcomes == lib.KOALA_OUTCOME_NON_FINITE).any()) for plan in plans):
            return True
        for plan in plans:
            plan.outcomes[_steps(plan.outcomes)] = lib.KOALA_OUTCOME_WITHHELD
        return False


def _gamma(settings: Settings) -> float:
    """γ where the variant has one, and 0 elsewhere."""
    return settings.prior_variance or settings.initial_variance if settings.variant == "definite" else 0.0


def _dots(tensor: _Tensor, wide: torch.dtype) -> Tensor:
    """H·h, H·v, H·H, θ·θ, g·g"""
    measurement = tensor.measurement()
    gradient = tensor.scaled_gradient() if tensor.weight_decay else measurement
    products = [measurement * other.to(tensor.arithmetic) for other in (tensor.state.h, tensor.state.v)]
    products.append(measurement * measurement)
    products.append(tensor.parameter().square() if tensor.weight_decay else measurement.new_zeros(()))
    products.append(gradient * gradient)
    return torch.stack([product.sum(dtype=wide) for product in products])


def _steps(outcomes: Tensor) -> Tensor:
    """Which outcomes are steps."""
    last: int = lib.KOALA_OUTCOME_RESTARTED
    return outcomes <= last


def _carry_out(plan: _Plan) -> None:
    steps, scalars = _steps(plan.outcomes), plan.scalars
    sigma, q, gain = plan.settings
    for index, tensor in enumerate(plan.tensors):
        arithmetic, v, h = tensor.arithmetic, tensor.state.v, tensor.state.h
        fresh, keep, mix, rate, noise, gained, variance = (
            column[index].to(arithmetic)
            for column in (plan.fresh, scalars.keep, scalars.mix, scalars.rate, q, gain, sigma)
        )
        measurement = tensor.measurement()
        h_before = torch.where(fresh > 0, measurement.to(h.dtype), h).to(arithmetic)
        v_before = torch.where(fresh > 0, (variance * measurement).to(v.dtype), v).to(arithmetic)
        product = (keep * v_before + gained * measurement) + mix * h_before
        parameter = tensor.parameter() - rate * (product + noise * measurement)
        for target, value in ((tensor.place.parameter, parameter), (v, product), (h, measurement)):
            target.copy_(torch.where(steps[index], value.to(target.dtype), target))
        old = tensor.state.scalars
        new = torch.stack([plan.square[index], scalars.h_v[index], scalars.innovation_variance[index], old[3] + 1])
        old.copy_(torch.where(steps[index], new, old))
