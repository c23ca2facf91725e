"""`Optimizer`, for any of the library's methods: its step, its measurement noise, and what its groups share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable, Literal

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .._library import ArgumentError, lib
from .._methods import METHODS, Method
from .._settings import OnNonFinite, Settings
from ._cuda import CudaTable, measure_on_cuda
from ._kinds import Numbers, as_now, settings_of, to_group
from ._known import KnownLists
from ._loss import Measurement, Number, given_loss, loss_error, measure, next_noise, noise_rule
from ._places import Place, check_whole, has_kernel, lend_gradients, places_of, take_back
from ._prediction import Prediction
from ._ranks import ProcessGroupOrFalse, Ranks
from ._report import Report, report_of
from ._resumable import Resumable
from ._steppers import Configuration, Stepper, new_steppers
from ._table import Table


class Optimizer(Resumable):
    """Any of the library's methods on PyTorch's parameters: KOALA++ by way of `KoalaPlusPlus`, and its predecessors and
    rivals, which are KOALA-V, KOALA-M, AdamW and SGD, directly.

        optimizer = Optimizer(model.parameters(), KoalaV(), lr=1.0)
        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    KOALA-M has to predict, which moves the parameters, before the gradients of each step are taken: `predict()`. AdamW
    and SGD need no loss. Parameters are on the CPU, and a step has the same bits on every machine. A parameter whose
    elements lie apart is copied there and back in each step, and a gradient in another order than its parameter is
    copied.

    `state[parameter]` has "h" and "v" where the method keeps them, in the parameter's type and shape, and "scalars". Of
    DTensors, "h" and "v" are DTensors which are divided in the same way, as torch.distributed.checkpoint needs them.
    The numbers of AdamW and SGD are in each group by PyTorch's names, may differ from group to group, and are read in
    each step, so that schedulers change them: "betas" and "eps"; "momentum" and "nesterov"; and "maximize". Groups with
    different numbers take a call of the library each. What all parameters share is in each group too: the numbers of
    KOALA-V and KOALA-M, by theirs; the name of the "method"; whether it has "predicted" since the last step; R as
    "measurement_noise", its "noise_decay", "gradient_factor" and "gradient_limit".

    With `torch.amp.GradScaler`, give the loss that is not scaled: `scaler.step(optimizer, loss=losses)`. The gradients
    stay as they are: they are divided by the scale as they are loaded.

    Args:
        params: Tensors, or pairs of name and tensor, or dicts with groups of either, which may have an `lr` and a
            `weight_decay` of their own, and those numbers of AdamW and SGD.
        method: Which optimizer, with its numbers.
        lr: η ≥ 0. For AdamW and SGD far less than for the KOALA family, whose default is 1.
        weight_decay: wd ≥ 0; coupled, but for AdamW.
        noise, noise_decay, initial_noise, gradient_factor, gradient_limit, backend: See `KoalaPlusPlus`.
        on_non_finite: See `KoalaPlusPlus`. By "unchecked", AdamW and SGD do not look at the gradient, which saves
            reading it twice, and write what is not finite in it to its place; to the others it is "keep_tensor".
        threads: See `KoalaPlusPlus`.
        maximize: Whether AdamW and SGD go up the gradient, which is copied for that. KOALA-V and KOALA-M, which take
            the loss towards zero, cannot.
        process_group: See `KoalaPlusPlus`. AdamW and SGD wait for no other process in a step without a loss, and an
            error in one is none in the others. With a loss they do wait, so that all processes agree on whether it is
            finite, and on whether there is an error.
        per_shard: See `KoalaPlusPlus`. AdamW and SGD step parts as they step whole tensors, without it: DTensors, and
            what FullyShardedDataParallel and DeepSpeed make of parameters. The numbers that KOALA-V and KOALA-M share
            among tensors are each process's own then.

    Raises:
        TypeError, ValueError: An argument is not as said; or a parameter is sparse, complex, not on the CPU, or has
            elements that share their memory.
    """

    _told: tuple[Any, Any] | None

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
        threads: int = 1,
        maximize: bool = False,
        process_group: ProcessGroupOrFalse = None,
        per_shard: bool = False,
    ) -> None:
        if not isinstance(method, Method):
            expected = ", ".join(known.__name__ for known in METHODS.values())
            raise TypeError(f"method is {method!r}, expected one of {expected}")
        self._begin(
            params,
            Configuration(method.name, on_non_finite, backend=backend, threads=threads),
            Ranks(process_group, per_shard),
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "maximize": maximize,
                **to_group(method),
                "method": method.name,
                "predicted": False,
                **noise_rule(noise, noise_decay, initial_noise),
                "gradient_factor": gradient_factor,
                "gradient_limit": gradient_limit,
            },
        )

    def _begin(self, params: ParamsT, configuration: Configuration, ranks: Ranks, defaults: dict[str, Any]) -> None:
        """What every constructor does at its end."""
        self._configuration, self._ranks = configuration, ranks
        self._reset()
        super().__init__(params, defaults)

    @property
    def method(self) -> Method | Settings:
        """The method of the first group, with its numbers as they are after the last step: a `Settings` for KOALA++.
        Other groups have the same numbers, but for those that a group may have of its own.
        """
        self._check_entries()
        group = self.param_groups[0]
        return self._kind.method_of(self._kind.numbers_of(group)) or settings_of(group)

    @property
    def noise(self) -> float:
        """R of the last step, in squared units of the loss; before the first step, what it starts from. Waits for a GPU
        that the step ran on.
        """
        for table in self._on_cuda:
            if self._told == self._noise_rule():
                return table.noise()
        return float(self.param_groups[0]["measurement_noise"])

    def predict(self) -> None:
        """The prediction, before the gradients of a step are taken. That of KOALA-M moves the parameters, and has to
        precede each step. With another method there is nothing to do: the prediction is a part of the step.
        """
        if self._kind.learns:
            self._check_entries()
            self._check_shared()
        if not self._kind.predicts:
            return
        self._current_steppers()
        moved = 0.0, 0
        if self._prediction is not None:
            self._lend_pieces(lambda place: place.parameter.requires_grad)
            self._prediction.take(self.param_groups, self._lent_state if self._lent else self.state)
            moved = self._prediction.predict()
            take_back(self._lent)
        self._share(**self._numbers[0].predict(*moved), predicted=True)

    def update(self, loss: Number, second_moment: Number | None = None) -> None:
        """A step with the gradients that are there: `step(loss=loss, second_moment=second_moment)`."""
        self.step(loss=loss, second_moment=second_moment)

    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Number] | None = None,
        *,
        loss: Number | None = None,
        second_moment: Number | None = None,
    ) -> Number | None:
        """One step of every parameter that has a gradient.

        Args:
            closure: Computes the gradients of the mean loss, and returns what `loss` may be.
            loss: The mean loss L, as a number or a tensor of one; or a tensor of one dimension with the losses of the
                samples. The gradients must be of that mean: where they are accumulated over several minibatches, it is
                the mean over all of these, or the losses of all of their samples. What a framework hands over is not
                always that. With Lightning's `accumulate_grad_batches=n`, the closure returns one nth of the loss of
                the last minibatch: optimize manually there. What `training_step` of Hugging Face's `Trainer` returns is
                a minibatch's share of the mean, divided already: the sum of what it returned for each of them is L.
            second_moment: m, the mean of the squared losses of the samples, in squared units of the loss. Without it, m
                is taken from the losses, or is L² if only L is known.

        Returns:
            What the closure returned.

        Raises:
            TypeError: There is neither closure nor loss, and the method needs one; a gradient is sparse, or of another
                type than its parameter.
                (Without a loss, torch.distributed.checkpoint has an optimizer make its state, by gradients and learning
                rates of zero: that is what such a first step does.)
            ArgumentError: KOALA-M has not predicted since the last step.
            ValueError: A shape has changed since the first step; a number is out of its range; groups differ in what
                all of them share; two parameters overlap in memory.
            NonFiniteError, BreakdownError: As the policies say. Whatever is raised, no parameter has been written.
            RuntimeError: Another process could not take this step.
            DeviceError: A GPU or its driver does not do as it should: a part of the step may have run. Or the step
                cannot be captured in a CUDA graph, and nothing has been written.
        """
        loss = given_loss(closure, loss)
        returned = None if closure is None else loss
        if loss is None and closure is None and self._makes_state():
            return None
        measurement: Measurement
        if loss is None and not self._kind.needs_loss:
            self._look()
            measurement, found_inf = measure(0.0, second_moment), self._scaler()[1]
        else:
            measurement, found_inf = self._agree(lambda: self._measure(loss, second_moment))
        if self._on_cuda:
            self._put(measurement, found_inf)
            return returned
        factor = self._factor(found_inf)
        if factor is None:
            return returned
        mean, moment = measurement
        before = self.noise
        noise = next_noise(self.param_groups[0]["noise_decay"], before, (mean, moment))
        if noise is None and self._configuration.on_non_finite == "error":
            raise loss_error((mean, moment))
        # A loss that is not finite keeps every parameter.
        goes_on = self._step_all(*((math.nan, before) if noise is None else (mean, noise)), factor)
        take_back(self._lent)
        if self._kind.predicts:
            self._share(predicted=False)
        if noise is not None and goes_on:
            self._share(measurement_noise=noise)
            if self._kind.learns:
                gain = max((stepper.gain for stepper in self._steppers if isinstance(stepper, Table)), default=0.0)
                self._share(**self._numbers[0].learn(gain))
        return returned

    def _step_all(self, loss: float, noise: float, factor: float) -> bool:
        """Steps all parameters, or none. Returns whether noise and numbers go on."""
        # All that one of the steppers refuses is refused before any parameter is written.
        steppers, alone = self._steppers, len(self._steppers) == 1
        finishes = [stepper.prepare_step(loss, noise, factor, alone) for stepper in steppers]
        if not alone and self._configuration.is_atomic:
            troubles = [isinstance(stepper, Table) and stepper.finds_trouble() for stepper in steppers]
            if any(troubles) and not self._configuration.raises:
                return False
            # The one with trouble says by an error which parameter it is, before another one is written.
            finishes = [finish for _, finish in sorted(zip(troubles, finishes), key=lambda pair: not pair[0])]
        # A list, so that each one steps.
        return all([finish() for finish in finishes])

    def _put(self, measurement: Measurement, found_inf: Tensor | None) -> None:
        """Puts a step on the streams of its devices."""
        self._check_shared()
        tables = self._on_cuda
        # What one of them refuses is refused before any parameter is written.
        _kept = [table.look() for table in tables]
        if len(tables) > 1:
            for table in tables:
                table.prepare()
        for table in tables:
            table.put(measurement, self._scaler()[0], found_inf)
        take_back(self._lent)

    def _measure(self, loss: Number | None, second_moment: Number | None) -> Measurement:
        """Looks at all that may be wrong in this process alone."""
        if loss is None:
            raise TypeError("step() needs the loss: a closure that returns it, or loss=...")
        self._look()
        if self._ranks.are_several():
            # The others may not take a step that this one refuses.
            self._check_numbers()
            for stepper in self._steppers:
                stepper.check()
        return (measure_on_cuda if self._on_cuda else measure)(loss, second_moment)

    def _look(self) -> None:
        """Has steppers that fit the groups as they are now."""
        self._check_entries()
        self._check_given()
        self._current_steppers()
        if self._kind.predicts and not self.param_groups[0]["predicted"]:
            text = "KOALA-M has to predict before each step, and before its gradients"
            raise ArgumentError(lib.KOALA_STATUS_NOT_PREDICTED, text)
        self._lend_pieces(lambda place: place.parameter.grad is not None)

    def write_changes(self) -> None:
        """Puts settings that have changed on the current stream, before a step is captured in a CUDA graph, and before
        it is replayed. A step that is not captured does this itself; on other devices there is nothing to do. A number
        that is written into an `lr` on the GPU is no change: it is read there.
        """
        if self._steppers:
            self._check_entries()
            self._current_steppers()
        for table in self._on_cuda:
            table.write_changes()

    def report(self) -> Report:
        """What the last step did. Waits for the devices that it ran on."""
        return report_of(self.noise, (found for stepper in self._steppers for found in stepper.outcomes()))

    def state_dict(self) -> dict[str, Any]:
        """See `Resumable.state_dict`."""
        for place in places_of(self.param_groups) if self._kind.may_begin_late else ():
            entries, vectors = self.state.get(place.owner, {}), self._kind.vectors_of(self.param_groups[place.group])
            if "scalars" in entries and not all(name in entries for name in vectors):
                self._entries_of(place)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `Resumable.load_state_dict`. Those of versions that had the method in one entry are taken too."""
        super().load_state_dict(as_now(state_dict))

    def _check_place(self, place: Place) -> None:
        check_whole(place, self._steps_parts())
        if not has_kernel(place) and not self._kind.has_operations:
            raise TypeError(f"{place} is on {place.parameter.device}, where libkoala has only KOALA++")

    def _read_noise(self) -> None:
        # What a step on a GPU does not tell, unless somebody has written another R into the groups since.
        if self._on_cuda and self._told == self._noise_rule():
            self._share(measurement_noise=self.noise)
            self._told = self._noise_rule()

    def _reset(self) -> None:
        # The next step looks at the parameters anew.
        self._steppers: Sequence[Stepper] = []
        # Those of them on CUDA; if there are some, there are no others.
        self._on_cuda: list[CudaTable] = []
        self._prediction: Prediction | None = None
        # The numbers of the method that there are, by the first group that has them.
        self._numbers: dict[int, Numbers] = {}
        # If there are DTensors: all parameters, and the state of those that are stepped, of DTensors' what is here.
        self._lent: list[Place] = []
        self._lent_state: dict[Tensor, Any] = {}
        # Of what the steppers were made: the parameters, and what else groups say that steppers are made for.
        self._stepped = KnownLists([])
        self._shape: list[tuple[Any, ...]] = []
        # R and its rule, as the groups had them when a GPU was told, or last told R.
        self._told = None

    def _noise_rule(self) -> tuple[Any, Any]:
        group = self.param_groups[0]
        decay = group["noise_decay"]
        return float(group["measurement_noise"]), None if decay is None else float(decay)

    def _current_steppers(self) -> Sequence[Stepper]:
        groups, kind = self.param_groups, self._kind
        given = [_as_list(group["params"]) for group in groups]
        numbers = [kind.numbers_of(group) for group in groups]
        if kind.learns and any(own != numbers[0] for own in numbers):
            self._check_shared()
        shape = [
            (group.get("state_dtype"), kind.direction_of(group), kind.vectors_of(group), numbers.index(own))
            for group, own in zip(groups, numbers)
        ]
        is_as_before = shape == self._shape and self._stepped.is_in(given)
        if not is_as_before or (self._on_cuda and self._told != self._noise_rule()):
            self._read_noise()
            self._shape = []
            self._numbers = {of[-1]: Numbers(kind) for of in shape}
            self._steppers = self._new_steppers([of[-1] for of in shape])
            self._on_cuda = [stepper for stepper in self._steppers if isinstance(stepper, CudaTable)]
            self._stepped, self._shape, self._told = KnownLists(given), shape, self._noise_rule()
        for index, own in self._numbers.items():
            own.take(numbers[index])
        for stepper in self._steppers:
            stepper.take(groups, self._lent_state if self._lent else self.state)
        return self._steppers

    def _new_steppers(self, numbers_of_groups: Sequence[int]) -> Sequence[Stepper]:
        groups, configuration = self.param_groups, self._configuration
        places = places_of(groups)
        for place in places:
            self._check_place(place)
        self._lent = places if any(place.owner is not place.parameter for place in places) else []
        states = self._lent_state if self._lent else self.state
        if self._lent:
            places = [place._replace(owner=place.parameter) for place in places]
        self._prediction = None
        if configuration.kind.predicts and places:
            numbers = self._numbers[0]
            self._prediction = Prediction(places, groups, states, configuration.kind, numbers, configuration.step())
        return new_steppers(places, groups, states, configuration, self.noise, self._numbers, numbers_of_groups)

    def _lend_pieces(self, is_used: Callable[[Place], bool]) -> None:
        """Has steppers see what of DTensors, their gradients and their state is in this process."""
        self._lent_state.clear()
        for place in lend_gradients(self._lent):
            if is_used(place):
                self._lent_state[place.parameter] = self._entries_of(place)


def _as_list(items: Sequence[Any]) -> list[Any]:
    return items if isinstance(items, list) else [*items]
