"""`Koala`, the library's other optimizers for PyTorch, over `koala_optim.numpy`, which takes PyTorch's memory."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Callable, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import numpy as kernel
from .._library import ArgumentError, lib
from .._methods import AdamW, KoalaM, KoalaV, Method, Sgd
from .._settings import OUTCOMES, OnNonFinite, Settings, backend_number
from ._loss import Number, given_loss, measure, next_noise
from ._places import Place, check_gradient, empty_like, has_kernel, in_order_of, layout_of, places_of
from ._report import Report, report_of
from ._table import increment_version

_METHODS: dict[str, type[Method]] = {method.__name__: method for method in (AdamW, KoalaM, KoalaV, Sgd)}

# Those whose steps need the loss.
_MEASURES = (KoalaM, KoalaV)

_NUMBERS = {outcome: number for number, outcome in OUTCOMES.items()}


class Koala(torch.optim.Optimizer):
    """KOALA-V, KOALA-M, AdamW or SGD on libkoala's kernel: the predecessors of `KoalaPlusPlus`, and its rivals.

        optimizer = Koala(model.parameters(), KoalaV(), lr=1.0)
        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    KOALA-M has to predict, which moves the parameters, before the gradients of each step are taken: `predict()`. AdamW
    and SGD need no loss. Parameters are dense, and on the CPU; a step has the same bits on every machine. Needs NumPy.

    `state[parameter]` has "h" and "v" where the method keeps them, in the parameter's type and shape, and "scalars".
    What all parameters share, the method's numbers and R, is in each group, as "method" and "measurement_noise".

    Args:
        params: Tensors, or pairs of name and tensor, or dicts with groups of either, which may have an `lr` and a
            `weight_decay` of their own.
        method: Which optimizer, with its numbers.
        lr: η ≥ 0. For AdamW and SGD far less than for the KOALA family, whose default is 1.
        weight_decay: wd ≥ 0; coupled, but for AdamW.
        noise, noise_decay, initial_noise: R, as in `KoalaPlusPlus`.
        on_non_finite: What to do with a parameter whose gradient, loss or scalars are NaN or infinite, likewise; or
            "unchecked": as "keep_tensor", but AdamW and SGD do not look at the gradient, which saves reading it twice,
            and write what is not finite in it to its place.
        backend: See `koala_optim.backends`.

    Raises:
        TypeError, ValueError: An argument is not as said, or a parameter is not dense or not on the CPU.
    """

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
        on_non_finite: OnNonFinite = "keep_tensor",
        backend: str = "fastest",
    ) -> None:
        if not isinstance(method, Method):
            raise TypeError(f"method is {method!r}, expected one of {', '.join(_METHODS)}")
        backend_number(backend)
        self._noise_decay = noise_decay if noise == "averaged" else None
        start = float(initial_noise if noise == "averaged" else noise)
        next_noise(noise_decay, start, (0.0, 0.0))
        self._on_non_finite, self._backend = on_non_finite, backend
        self._predicted = False
        self._report: kernel.Report | None = None
        self._names: list[str] = []
        shared = {"method": _to_dict(method), "measurement_noise": start}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **shared})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters.

        Raises:
            TypeError, ValueError: See the class.
        """
        super().add_param_group(param_group)
        try:
            for place in places_of(self.param_groups[-1:]):
                if not has_kernel(place):
                    raise TypeError(f"{place} is on {place.parameter.device}, where libkoala has only KOALA++")
                if layout_of(place.parameter) != "dense":
                    raise ValueError(f"{place} has elements that lie apart (strides {place.parameter.stride()})")
            group = self.param_groups[-1]
            Settings(float(group["lr"]), group["weight_decay"])
        except Exception:
            self.param_groups.pop()
            raise

    @property
    def method(self) -> Method:
        """The method, with its shared numbers as they are after the last step."""
        return _from_dict(self.param_groups[0]["method"])

    @property
    def noise(self) -> float:
        """R of the last step, in squared units of the loss; before the first step, what it starts from."""
        return float(self.param_groups[0]["measurement_noise"])

    def predict(self) -> None:
        """The prediction of KOALA-M and KOALA-V, before the gradients of a step are taken: KOALA-M moves the parameters
        by it. The other methods have none, and KOALA-V's is taken by `step` if it is not taken here.
        """
        trained = [place for place in self._places() if place.parameter.requires_grad]
        tensors = [self._lent(place, place.parameter) for place in trained]
        self._share(kernel.predict(tensors, self.method, backend=self._backend))
        self._predicted = True
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
        if loss is None and isinstance(method, _MEASURES):
            raise TypeError("step() needs the loss: a closure that returns it, or loss=...")
        if isinstance(method, KoalaM) and not self._predicted:
            raise ArgumentError(
                lib.KOALA_STATUS_NOT_PREDICTED, "KOALA-M has to predict before each step, and before its gradients"
            )
        mean, moment = measure(0.0 if loss is None else loss, second_moment)
        noise = next_noise(self._noise_decay, self.noise, (mean, moment))
        if not self._predicted:
            method = method.predicted()

        stepped = [place for place in self._places() if place.parameter.grad is not None]
        tensors = [self._lent(place, _gradient(place)) for place in stepped]
        options: dict[str, Any] = {"on_non_finite": self._on_non_finite, "backend": self._backend}
        # A loss that is not finite keeps every parameter.
        measured = (math.nan, self.noise) if noise is None else (mean, noise)
        report = kernel.step_many(tensors, loss=measured[0], noise=measured[1], method=method, **options)
        self._report, self._names = report, [place.name for place in stepped]
        self._predicted = False
        if noise is not None and not (self._on_non_finite == "keep_all" and report.non_finite):
            self._share(method.corrected(report.gain))
            for group in self.param_groups:
                group["measurement_noise"] = noise
        increment_version([place.parameter for place in stepped])
        return returned

    def report(self) -> Report:
        """What the last step did."""
        reports = self._report.tensors if self._report else []
        return report_of(self.noise, zip(self._names, (_NUMBERS[one.outcome] for one in reports)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over, as copies, the groups and the state of an optimizer of the same model and the same method.

        Raises:
            ValueError: They are of another one. Nothing has changed.
        """
        for group in state_dict["param_groups"]:
            given = _from_dict(group.get("method", {}))
            if type(given) is not type(self.method) or given.vectors != self.method.vectors:
                raise ValueError(f"the state dict is of {given}, and this optimizer of {self.method}")
        super().load_state_dict(state_dict)
        # That casts to the parameters' types, which scalars are not of.
        identifiers = [identifier for group in state_dict["param_groups"] for identifier in group["params"]]
        for identifier, place in zip(identifiers, self._places()):
            if identifier in state_dict["state"]:
                self.state[place.parameter]["scalars"] = state_dict["state"][identifier]["scalars"].clone()
        self._predicted = False

    def _places(self) -> list[Place]:
        return places_of(self.param_groups)

    def _lent(self, place: Place, gradient: Tensor) -> kernel.Tensor:
        """A parameter and its state as the kernel takes them, flat in the order of memory."""
        parameter, group = place.parameter, self.param_groups[place.group]
        state, method = self.state[parameter], self.method
        if not state:
            for name, kept in zip(("h", "v"), method.vectors):
                if kept:
                    state[name] = empty_like(parameter, parameter.dtype).zero_()
            state["scalars"] = torch.zeros(4, dtype=torch.float64)
        v, h = (_flat(state[name]) if name in state else None for name in ("v", "h"))
        settings = Settings(float(group["lr"]), group["weight_decay"])
        return kernel.Tensor(_flat(parameter), _flat(gradient), v, h, state["scalars"], settings=settings)

    def _share(self, method: Method) -> None:
        for group in self.param_groups:
            group["method"] = _to_dict(method)


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
    return {"name": type(method).__name__, **asdict(method)}  # type: ignore[call-overload]


def _from_dict(given: dict[str, Any]) -> Method:
    values = {key: value for key, value in given.items() if key != "name"}
    if given.get("name") not in _METHODS:
        raise ValueError(f"the method is {given}, expected one of {', '.join(_METHODS)}")
    return _METHODS[given["name"]](**values)
