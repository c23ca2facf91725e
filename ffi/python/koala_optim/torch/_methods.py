"""`Koala`, the library's other optimizers for PyTorch, over `koala_optim.numpy`, which takes PyTorch's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Callable, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import numpy as kernel
from .._library import ArgumentError, KoalaError, lib, renamed
from .._methods import METHODS, KoalaM, KoalaV, Method
from .._settings import OUTCOMES, OnNonFinite, Settings
from ._loss import Number, given_loss, loss_error, measure, next_noise, noise_rule
from ._places import Place, check_gradient, check_whole, has_kernel, in_order_of, layout_of, lend_gradients, places_of
from ._ranks import ProcessGroupOrFalse, Ranks
from ._report import Report, report_of
from ._resumable import Resumable
from ._state import entries_of
from ._table import increment_version

# Those whose steps need the loss.
_MEASURES = (KoalaM, KoalaV)

_NUMBERS = {outcome: number for number, outcome in OUTCOMES.items()}


class Koala(Resumable):
    """KOALA-V, KOALA-M, AdamW or SGD on libkoala's kernel: the predecessors of `KoalaPlusPlus`, and its rivals.

        optimizer = Koala(model.parameters(), KoalaV(), lr=1.0)
        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    KOALA-M has to predict, which moves the parameters, before the gradients of each step are taken: `predict()`. AdamW
    and SGD need no loss. Parameters are dense, and on the CPU; a step has the same bits on every machine. Needs NumPy.

    `state[parameter]` has "h" and "v" where the method keeps them, in the parameter's type and shape, and "scalars". Of
    DTensors, "h" and "v" are DTensors which are divided in the same way, as torch.distributed.checkpoint needs them.
    What all parameters share is in each group: the method's numbers as "method", whether it has "predicted" since the
    last step, R as "measurement_noise", its "noise_decay", "gradient_factor" and "gradient_limit".

    With `torch.amp.GradScaler`, give the loss that is not scaled: `scaler.step(optimizer, loss=losses)`. The gradients
    stay as they are: they are divided by the scale as they are loaded.

    Args:
        params: Tensors, or pairs of name and tensor, or dicts with groups of either, which may have an `lr` and a
            `weight_decay` of their own.
        method: Which optimizer, with its numbers.
        lr: η ≥ 0. For AdamW and SGD far less than for the KOALA family, whose default is 1.
        weight_decay: wd ≥ 0; coupled, but for AdamW.
        noise, noise_decay, initial_noise: R, as in `KoalaPlusPlus`.
        gradient_factor, gradient_limit: What becomes of gradients as they are loaded, likewise.
        on_non_finite: What to do with a parameter whose gradient, loss or scalars are NaN or infinite, likewise; or
            "unchecked": as "keep_tensor", but AdamW and SGD do not look at the gradient, which saves reading it twice,
            and write what is not finite in it to its place.
        backend: See `koala_optim.backends`.
        process_group: The processes that L and m are averaged over, likewise. AdamW and SGD wait for no other process
            in a step without a loss. With one they do, so that they agree on whether it is finite.
        per_shard: What to do with parameters of which each process has a part, likewise. AdamW and SGD step parts as
            they step whole tensors, without it: DTensors, and what FullyShardedDataParallel and DeepSpeed make of
            parameters. The numbers that KOALA-V and KOALA-M share among tensors are each process's own then.

    Raises:
        TypeError, ValueError: An argument is not as said, or a parameter is not dense or not on the CPU.
    """

    _shared = ("method", "predicted", *Resumable._shared)
    _entries = ("lr", "weight_decay", *_shared)
    _configuration: dict[str, Any]
    # Of the last step: what was done with each parameter that had a gradient, and its name.
    _report: kernel.Report | None
    _names: list[str]

    def __init__(
        self,
        params: ParamsT,
        method: Method,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        *,
        noise: Literal["averaged"] | float = "averaged",
        noise_decay: float = 0.9,
        initial_noise: float = 1.0,
        gradient_factor: float = 1.0,
        gradient_limit: float = math.inf,
        on_non_finite: OnNonFinite = "keep_tensor",
        backend: str = "fastest",
        process_group: ProcessGroupOrFalse = None,
        per_shard: bool = False,
    ) -> None:
        self._ranks = Ranks(process_group, per_shard)
        if not isinstance(method, Method):
            expected = ", ".join(known.__name__ for known in METHODS.values())
            raise TypeError(f"method is {method!r}, expected one of {expected}")
        # What `kernel.step_many` is given in every step, and looks at.
        self._configuration = {"on_non_finite": on_non_finite, "backend": backend}
        kernel.step_many([], loss=0.0, noise=0.0, **self._configuration)
        self._reset()
        shared = {
            "method": _to_dict(method),
            "predicted": False,
            **noise_rule(noise, noise_decay, initial_noise),
            "gradient_factor": gradient_factor,
            "gradient_limit": gradient_limit,
        }
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **shared})

    @property
    def method(self) -> Method:
        """The method, with its shared numbers as they are after the last step."""
        return _from_dict(self.param_groups[0]["method"])

    @property
    def noise(self) -> float:
        """R of the last step, in squared units of the loss; before the first step, what it starts from."""
        return float(self.param_groups[0]["measurement_noise"])

    def predict(self) -> None:
        """The prediction of KOALA-M, which moves the parameters, before the gradients of a step are taken. With another
        method it does nothing: KOALA-V's moves no parameter, and is a part of its step.
        """
        method = self.method
        if not isinstance(method, KoalaM):
            return
        trained = [place for place in places_of(self.param_groups) if place.parameter.requires_grad]
        tensors = [self._lent(place, place.parameter) for place in trained]
        predicted = kernel.predict(tensors, method, backend=self._configuration["backend"])
        self._share(method=_to_dict(predicted), predicted=True)
        increment_version([place.parameter for place in trained])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Number] | None = None,
        *,
        loss: Number | None = None,
        second_moment: Number | None = None,
    ) -> Number | None:
        """One step of every parameter that has a gradient. The arguments are those of `KoalaPlusPlus.step`.

        Raises:
            TypeError: There is neither closure nor loss, though the method needs one; a gradient is of another type.
            ArgumentError: KOALA-M has not predicted since the last step.
            ValueError, NonFiniteError: As in `KoalaPlusPlus.step`. Nothing has been written.
        """
        loss = given_loss(closure, loss)
        returned = None if closure is None else loss
        method = self.method
        if loss is None and not isinstance(method, _MEASURES):
            (mean, moment), found_inf = measure(0.0, second_moment), self._scaler()[1]
        else:
            (mean, moment), found_inf = self._agree(lambda: self._measure(loss, second_moment))
        factor = self._factor(found_inf)
        if factor is None:
            return returned
        if not isinstance(method, KoalaM):
            method = method.predicted()
        noise = next_noise(self.param_groups[0]["noise_decay"], self.noise, (mean, moment))
        if noise is None and self._configuration["on_non_finite"] == "error":
            raise loss_error((mean, moment))
        # A loss that is not finite keeps every parameter.
        measured = (math.nan, self.noise) if noise is None else (mean, noise)

        places = lend_gradients(places_of(self.param_groups))
        stepped = [place for place in places if place.parameter.grad is not None]
        tensors = [self._lent(place, _gradient(place)) for place in stepped]
        try:
            report = kernel.step_many(
                tensors,
                loss=measured[0],
                noise=measured[1],
                method=method,
                gradient_factor=factor,
                gradient_limit=self.param_groups[0]["gradient_limit"],
                **self._configuration,
            )
        except KoalaError as error:
            raise renamed(error, lambda number: str(stepped[number])[:-1]) from None
        self._report, self._names = report, [place.name for place in stepped]
        self._share(predicted=False)
        if noise is not None and not (self._configuration["on_non_finite"] == "keep_all" and report.non_finite):
            self._share(method=_to_dict(method.corrected(report.gain)), measurement_noise=noise)
        increment_version([place.parameter for place in stepped])
        return returned

    def _measure(self, loss: Number | None, second_moment: Number | None) -> tuple[float, float]:
        """Looks at all that may be wrong in this process alone."""
        if loss is None:
            raise TypeError("step() needs the loss: a closure that returns it, or loss=...")
        if isinstance(self.method, KoalaM) and not self.param_groups[0]["predicted"]:
            text = "KOALA-M has to predict before each step, and before its gradients"
            raise ArgumentError(lib.KOALA_STATUS_NOT_PREDICTED, text)
        self._check_given()
        return measure(loss, second_moment)

    def report(self) -> Report:
        """What the last step did."""
        reports = self._report.tensors if self._report else []
        return report_of(self.noise, zip(self._names, (_NUMBERS[one.outcome] for one in reports)))

    def _check_group(self, group: dict[str, Any]) -> None:
        Settings(float(group["lr"]), group["weight_decay"])
        given, own = _from_dict(group["method"]), self.method
        if given.name != own.name or given.vectors != own.vectors:
            raise ValueError(f"the state dict is of {given}, and this optimizer of {own}")

    def _steps_parts(self) -> bool:
        return self._ranks.per_shard or not isinstance(self.method, _MEASURES)

    def _check_place(self, place: Place) -> None:
        check_whole(place, self._steps_parts())
        if not has_kernel(place):
            raise TypeError(f"{place} is on {place.parameter.device}, where libkoala has only KOALA++")
        if layout_of(place.parameter) != "dense":
            raise ValueError(f"{place} has elements that lie apart (strides {place.parameter.stride()})")

    def _vectors(self) -> Sequence[str]:
        return [name for name, kept in zip(("h", "v"), self.method.vectors) if kept]

    def _reset(self) -> None:
        self._report, self._names = None, []

    def _lent(self, place: Place, gradient: Tensor) -> kernel.Tensor:
        """A parameter and its state as the kernel takes them, flat in the order of memory."""
        # It may have been moved or given another layout.
        self._check_place(place)
        parameter, group = place.parameter, self.param_groups[place.group]
        entries = entries_of(place, self.state, None, self._vectors(), self._ranks.per_shard)
        v, h = (_flat(entries[name]) if name in entries else None for name in ("v", "h"))
        settings = Settings(float(group["lr"]), group["weight_decay"])
        return kernel.Tensor(_flat(parameter), _flat(gradient), v, h, entries["scalars"], settings=settings)


def _flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements, in the order in which they lie."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _gradient(place: Place) -> Tensor:
    gradient = place.parameter.grad
    assert gradient is not None
    check_gradient(place, gradient)
    return in_order_of(place.parameter, gradient.detach().resolve_neg())


def _to_dict(method: Method) -> dict[str, Any]:
    """Plain values, which every way to save can save."""
    return {"name": method.name, **asdict(method)}  # type: ignore[call-overload]


def _from_dict(given: dict[str, Any]) -> Method:
    kind = METHODS.get(given.get("name", ""))
    if kind is None:
        raise ValueError(f"the method is {given}, expected one of {', '.join(METHODS)}")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if {*given} != {"name", *names}:
        raise ValueError(f"the method is {given}, expected {', '.join(names)} of {kind.name}")
    return kind(**{name: given[name] for name in names})
