"""`Koala`, the library's other optimizers for PyTorch, over `koala_optim.numpy`, which takes PyTorch's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Callable, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import numpy as kernel
from .._library import ArgumentError, lib
from .._methods import METHODS, AdamW, KoalaM, KoalaV, Method, Sgd
from .._settings import OUTCOMES, OnNonFinite, Outcome, Settings
from ._calls import Call, step_all
from ._divided import like_owner
from ._loss import Number, given_loss, loss_error, measure, next_noise, noise_rule
from ._places import (
    Place,
    check_apart,
    check_gradient,
    check_whole,
    empty_like,
    has_kernel,
    in_order_of,
    lend_gradients,
    places_of,
    take_back,
)
from ._ranks import ProcessGroupOrFalse, Ranks
from ._report import Report, report_of
from ._resumable import Resumable
from ._state import entries_of

# Those whose steps need the loss, and whose numbers all parameters share. The others take a group's own.
_MEASURES = (KoalaM, KoalaV)

# What all groups share with every method.
_SHARED = ("method", "predicted", *Resumable._shared)

# What a group of PyTorch's optimizers may ask for, and none of these does.
_UNKNOWN = ("dampening", "amsgrad")

_NUMBERS = {outcome: number for number, outcome in OUTCOMES.items()}


class _Prepared(NamedTuple):
    """What a step takes: the method of each group, all parameters, and those that have a gradient, in calls."""

    methods: list[Method]
    places: list[Place]
    calls: list[Call]


class Koala(Resumable):
    """KOALA-V, KOALA-M, AdamW or SGD on libkoala's kernel: the predecessors of `KoalaPlusPlus`, and its rivals.

        optimizer = Koala(model.parameters(), KoalaV(), lr=1.0)
        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    KOALA-M has to predict, which moves the parameters, before the gradients of each step are taken: `predict()`. AdamW
    and SGD need no loss. Parameters are on the CPU; a step has the same bits on every machine. One whose elements lie
    apart is copied there and back in each step, and a gradient in another order than its parameter is copied. A step
    uses one thread. Needs NumPy.

    `state[parameter]` has "h" and "v" where the method keeps them, in the parameter's type and shape, and "scalars". Of
    DTensors, "h" and "v" are DTensors which are divided in the same way, as torch.distributed.checkpoint needs them.
    The numbers of AdamW and SGD are in each group by PyTorch's names, may differ from group to group, and are read in
    each step, so that schedulers change them: "betas" and "eps"; "momentum" and "nesterov"; and "maximize". Where they
    do differ, gradients are read once more. What all parameters share is in each group too: the numbers of KOALA-V and
    KOALA-M, by theirs; the name of the "method"; whether it has "predicted" since the last step; R as
    "measurement_noise", its "noise_decay", "gradient_factor" and "gradient_limit".

    With `torch.amp.GradScaler`, give the loss that is not scaled: `scaler.step(optimizer, loss=losses)`. The gradients
    stay as they are: they are divided by the scale as they are loaded.

    Args:
        params: Tensors, or pairs of name and tensor, or dicts with groups of either, which may have an `lr` and a
            `weight_decay` of their own, and those numbers of AdamW and SGD.
        method: Which optimizer, with its numbers.
        lr: η ≥ 0. For AdamW and SGD far less than for the KOALA family, whose default is 1.
        weight_decay: wd ≥ 0; coupled, but for AdamW.
        noise, noise_decay, initial_noise: R, as in `KoalaPlusPlus`.
        gradient_factor, gradient_limit: What becomes of gradients as they are loaded, likewise.
        on_non_finite: What to do with a parameter whose gradient, loss or scalars are NaN or infinite, likewise; or
            "unchecked": as "keep_tensor", but AdamW and SGD do not look at the gradient, which saves reading it twice,
            and write what is not finite in it to its place.
        backend: See `koala_optim.backends`.
        maximize: Whether AdamW and SGD go up the gradient, which is copied for that. KOALA-V and KOALA-M, which take
            the loss towards zero, cannot.
        process_group: The processes that L and m are averaged over, likewise. AdamW and SGD wait for no other process
            in a step without a loss, and an error in one is none in the others. With one they do, so that they agree on
            whether it is finite, and on whether there is an error.
        per_shard: What to do with parameters of which each process has a part, likewise. AdamW and SGD step parts as
            they step whole tensors, without it: DTensors, and what FullyShardedDataParallel and DeepSpeed make of
            parameters. The numbers that KOALA-V and KOALA-M share among tensors are each process's own then.

    Raises:
        TypeError, ValueError: An argument is not as said; or a parameter is sparse, complex, not on the CPU, or has
            elements that share their memory.
    """

    _entries = ("lr", "weight_decay", "maximize", *_SHARED)
    _configuration: dict[str, Any]
    # Of the last step: the name of each parameter that had a gradient, and what was done with it.
    _outcomes: list[tuple[str, Outcome]]

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
        maximize: bool = False,
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
        own = {"lr": lr, "weight_decay": weight_decay, "maximize": maximize}
        shared = {
            "method": method.name,
            "predicted": False,
            **noise_rule(noise, noise_decay, initial_noise),
            "gradient_factor": gradient_factor,
            "gradient_limit": gradient_limit,
        }
        super().__init__(params, {**own, **_to_group(method), **shared})

    @property
    def method(self) -> Method:
        """The method of the first group, with its numbers as they are after the last step: of all groups, but for AdamW
        and SGD.
        """
        return self._methods()[0]

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
        self._check_shared()
        trained = [place for place in places_of(self.param_groups) if place.owner.requires_grad]
        # The gradients are not looked at. All groups share a method, so that there is one call, or no parameter.
        calls = self._calls(trained, self._methods(), lambda place: place.parameter.detach())
        predicted = calls[0].predict(method, self._configuration["backend"]) if calls else method.predicted()
        self._share(**_to_group(predicted), predicted=True)

    def update(self, loss: Number, second_moment: Number | None = None) -> None:
        """A step with the gradients that are there: `step(loss=loss, second_moment=second_moment)`."""
        self.step(loss=loss, second_moment=second_moment)

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
        if closure is None and loss is None and self._makes_state():
            return None
        prepared: list[_Prepared] = []
        if loss is None and self._kind not in _MEASURES:
            (mean, moment), found_inf = measure(0.0, second_moment), self._scaler()[1]
        else:
            (mean, moment), found_inf = self._agree(lambda: self._measure(loss, second_moment, prepared))
        factor = self._factor(found_inf)
        if factor is None:
            return returned
        noise = next_noise(self.param_groups[0]["noise_decay"], self.noise, (mean, moment))
        if noise is None and self._configuration["on_non_finite"] == "error":
            raise loss_error((mean, moment))

        methods, places, calls = prepared[0] if prepared else self._prepare()
        reports = step_all(
            calls,
            # A loss that is not finite keeps every parameter.
            loss=math.nan if noise is None else mean,
            noise=self.noise if noise is None else noise,
            gradient_factor=factor,
            gradient_limit=self.param_groups[0]["gradient_limit"],
            **self._configuration,
        )
        self._outcomes = [
            (place.name, one.outcome)
            for call, report in zip(calls, reports)
            for place, one in zip(call.places, report.tensors)
        ]
        take_back(places)
        self._share(predicted=False)
        withheld = self._configuration["on_non_finite"] == "keep_all" and any(report.non_finite for report in reports)
        if noise is not None and not withheld:
            self._share(measurement_noise=noise)
            if self._kind in _MEASURES:
                gain = max((report.gain for report in reports), default=0.0)
                self._share(**_to_group(methods[0].corrected(gain)))
        return returned

    def _measure(
        self, loss: Number | None, second_moment: Number | None, prepared: list[_Prepared]
    ) -> tuple[float, float]:
        """Looks at all that may be wrong in this process alone. If there are others, what is prepared for that has a
        place in the list.
        """
        if loss is None:
            raise TypeError("step() needs the loss: a closure that returns it, or loss=...")
        if isinstance(self.method, KoalaM) and not self.param_groups[0]["predicted"]:
            text = "KOALA-M has to predict before each step, and before its gradients"
            raise ArgumentError(lib.KOALA_STATUS_NOT_PREDICTED, text)
        self._check_given()
        if self._ranks.are_several():
            # The others may not take a step that this one refuses.
            self._check_numbers()
            prepared.append(self._prepare())
            first = self.param_groups[0]
            scaling = first["gradient_factor"], first["gradient_limit"]
            for call in prepared[0].calls:
                call.check(loss=0.0, noise=1.0, scaling=scaling, **self._configuration)
        return measure(loss, second_moment)

    def _prepare(self) -> _Prepared:
        """Looks at what a step of every parameter that has a gradient takes."""
        methods = self._methods()
        if isinstance(methods[0], KoalaV):
            methods = [methods[0].predicted()] * len(methods)
        places = lend_gradients(places_of(self.param_groups))
        stepped = [place for place in places if place.parameter.grad is not None]
        return _Prepared(methods, places, self._calls(stepped, methods, self._gradient))

    def report(self) -> Report:
        """What the last step did."""
        return report_of(self.noise, ((name, _NUMBERS[outcome]) for name, outcome in self._outcomes))

    def state_dict(self) -> dict[str, Any]:
        """See `KoalaPlusPlus.state_dict`."""
        self._begin_momentum()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `KoalaPlusPlus.load_state_dict`. Those of versions that had the method in one entry are taken too."""
        super().load_state_dict(_as_now(state_dict))

    @property
    def _kind(self) -> type[Method]:
        return METHODS[self.defaults["method"]]

    @property
    def _shared(self) -> tuple[str, ...]:  # type: ignore[override]
        numbers = _to_group(self._kind()) if self._kind in _MEASURES else ()
        return (*numbers, *_SHARED)

    def _methods(self) -> list[Method]:
        """That of each group, with its numbers as they are now.

        Raises:
            ValueError: A number is lacking or out of its range; or it is not the same in all groups, though they share
                it; or there is no group.
        """
        self._check_entries()
        methods = [_method_of(self._kind, group) for group in self.param_groups]
        for number, method in enumerate(methods):
            if self._kind in _MEASURES and method != methods[0]:
                raise ValueError(f"group {number} has {method}, group 0 {methods[0]}, but they share these numbers")
        return methods

    def _check_group(self, group: dict[str, Any]) -> None:
        Settings(float(group["lr"]), float(group["weight_decay"]))
        given = METHODS.get(group["method"])
        if given is not self._kind:
            name = group["method"] if given is None else given.__name__
            raise ValueError(f"the state dict is of {name}, and this optimizer of {self._kind.__name__}")
        _method_of(self._kind, group)

    def _steps_parts(self) -> bool:
        return self._ranks.per_shard or self._kind not in _MEASURES

    def _check_place(self, place: Place) -> None:
        check_whole(place, self._steps_parts())
        if not has_kernel(place):
            raise TypeError(f"{place} is on {place.parameter.device}, where libkoala has only KOALA++")

    def _vectors(self, group: dict[str, Any]) -> Sequence[str]:
        return _vectors_of(_method_of(self._kind, group))

    def _begin_momentum(self) -> None:
        """Where SGD has a momentum that was 0 when the state was made, it begins at zero, as it would have then."""
        for place in places_of(self.param_groups) if self._kind is Sgd else ():
            entries = self.state.get(place.owner, {})
            if "scalars" in entries and "h" not in entries and self.param_groups[place.group]["momentum"]:
                made = {"h": empty_like(place.parameter, place.parameter.dtype).zero_()}
                whole = place.owner is place.parameter
                entries.update(made if whole else like_owner(place.owner, made, self._ranks.per_shard))

    def _reset(self) -> None:
        self._outcomes = []

    def _gradient(self, place: Place) -> Tensor:
        gradient = place.parameter.grad
        assert gradient is not None
        check_gradient(place, gradient)
        gradient = gradient.detach()
        return gradient.neg() if self.param_groups[place.group]["maximize"] else gradient.resolve_neg()

    def _calls(
        self, places: Sequence[Place], methods: Sequence[Method], gradient_of: Callable[[Place], Tensor]
    ) -> list[Call]:
        """Parameters with their state and gradients, divided by the methods of their groups."""
        self._begin_momentum()
        check_apart(places)
        settings = [Settings(float(group["lr"]), float(group["weight_decay"])) for group in self.param_groups]
        calls: dict[Method, Call] = {}
        for place in places:
            method = methods[place.group]
            call = calls.setdefault(method, Call(method, [], []))
            call.places.append(place)
            call.tensors.append(self._lent(place, method, settings[place.group], gradient_of(place)))
        return [*calls.values()]

    def _lent(self, place: Place, method: Method, settings: Settings, gradient: Tensor) -> kernel.Tensor:
        """A parameter, its state and its gradient as the kernel takes them, flat in the order of memory."""
        # It may have been moved or given another layout.
        self._check_place(place)
        parameter, vectors = place.parameter, _vectors_of(method)
        entries = entries_of(place, self.state, None, vectors, self._ranks.per_shard)
        v, h = (_flat(entries[name]) if name in vectors else None for name in ("v", "h"))
        parameters, gradient = (in_order_of(parameter, tensor) for tensor in (parameter.detach(), gradient))
        return kernel.TensorOfOneCall(_flat(parameters), _flat(gradient), v, h, entries["scalars"], settings=settings)


def _flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements, in the order in which they lie."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _vectors_of(method: Method) -> list[str]:
    return [name for name, kept in zip(("h", "v"), method.vectors) if kept]


def _to_group(method: Method) -> dict[str, Any]:
    """The numbers of a method as the entries of a group, those of AdamW and SGD as PyTorch has them."""
    if isinstance(method, AdamW):
        return {"betas": (method.beta1, method.beta2), "eps": method.epsilon}
    numbers: dict[str, Any] = asdict(method)  # type: ignore[call-overload]
    return numbers


def _method_of(kind: type[Method], group: dict[str, Any]) -> Method:
    """The method with the numbers of a group.

    Raises:
        ValueError: A number is lacking or out of its range, or the group asks for what the method does not do.
    """
    lacking = [name for name in _to_group(kind()) if name not in group]
    if lacking:
        raise ValueError(f"a group has no {', '.join(lacking)}, which are numbers of {kind.__name__}")
    for name in _UNKNOWN:
        if group.get(name):
            raise ValueError(f"{name} is {group[name]}, which {kind.__name__} does not have here")
    if kind in _MEASURES:
        if group["maximize"]:
            raise ValueError(f"{kind.__name__} takes the loss towards zero: it cannot maximize")
        return kind(**{field.name: float(group[field.name]) for field in fields(kind)})
    if kind is Sgd:
        return Sgd(float(group["momentum"]), bool(group["nesterov"]))
    try:
        beta1, beta2 = group["betas"]
    except (TypeError, ValueError):
        raise ValueError(f"betas are {group['betas']}, expected two numbers") from None
    return AdamW(float(beta1), float(beta2), float(group["eps"]))


def _as_now(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict as it is now: also of one of a version that had the method in one entry."""
    if "param_groups" not in state_dict:
        return state_dict
    return {**state_dict, "param_groups": [_group_as_now(group) for group in state_dict["param_groups"]]}


def _group_as_now(group: dict[str, Any]) -> dict[str, Any]:
    given = group.get("method")
    if not isinstance(given, dict):
        # Some ways to save leave a list of a tuple.
        return {**group, "betas": tuple(group["betas"])} if isinstance(group.get("betas"), list) else group
    kind = METHODS.get(given.get("name", ""))
    if kind is None:
        raise ValueError(f"the method is {given}, expected one of {', '.join(METHODS)}")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if {*given} != {"name", *names}:
        raise ValueError(f"the method is {given}, expected {', '.join(names)} of {kind.name}")
    method = kind(**{name: given[name] for name in names})
    return {"maximize": False, **group, **_to_group(method), "method": kind.name}
