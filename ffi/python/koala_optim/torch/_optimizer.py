"""`KoalaPlusPlus`, the optimizer: its groups, its measurement noise, and what goes into a checkpoint."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_, itemgetter
from typing import Any, Callable, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .._library import check, ffi, lib
from .._settings import ON_BREAKDOWN, ON_NON_FINITE, OnBreakdown, OnNonFinite, Settings, Variant, backend_number, number
from ._around import warn
from ._cuda import CudaTable, measure_on_cuda, new_tables
from ._loss import Measurement, Number, given_loss, loss_error, measure, next_noise, noise_rule
from ._operations import Operations
from ._places import Place, check_whole, has_kernel, lend_gradients, places_of, take_back
from ._ranks import ProcessGroupOrFalse, Ranks
from ._report import Report, report_of
from ._resumable import Resumable
from ._state import STATE_DTYPES, VECTORS, entries_of
from ._table import Table
from ._threads import Threads, counted

_parameters = itemgetter("params")

# The entries of a group beside its parameters and what all groups share.
_OWN = ("lr", "weight_decay", "initial_variance", "process_noise", "variant", "state_dtype")


@dataclass(frozen=True)
class _Configuration:
    """What holds for all groups, checked."""

    on_non_finite: OnNonFinite
    on_breakdown: OnBreakdown
    backend: str
    threads: int
    fallback: Literal["torch", "error"]

    def step(self) -> Any:
        """A `koala_step *` with it."""
        step = ffi.new("koala_step *")
        check(lib.koala_step_init(step, ffi.sizeof("koala_step")))
        step.backend = backend_number("fastest" if self.backend == "torch" else self.backend)
        step.on_non_finite = number("on_non_finite", self.on_non_finite, ON_NON_FINITE)
        step.on_breakdown = number("on_breakdown", self.on_breakdown, ON_BREAKDOWN)
        return step

    @property
    def is_atomic(self) -> bool:
        """Whether trouble with one parameter may keep all of them."""
        return self.on_non_finite in ("keep_all", "error") or self.on_breakdown == "error"

    @property
    def raises(self) -> bool:
        """Whether trouble with a parameter may be an error, so that a step has to wait for its device."""
        return "error" in (self.on_non_finite, self.on_breakdown)


class KoalaPlusPlus(Resumable):
    """KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432): a Kalman filter over a network's parameters.

    The parameters θ are the hidden state, the minibatch loss L is the measurement. For each tensor θ of n parameters
    with the gradient g of L, the filter keeps v = H·P, the product of measurement row and covariance, instead of the
    n × n covariance P itself. A step is, with H = g + wd·θ, the row h and the innovation variance s of the step before:

        α = H·h / h·h,   λ = (H·v + Q·H·h) / s,   w = H·v / h·h − (H·h)(h·v) / (h·h)²   (vanilla: 0)
        v' = (α − λ)·v + Q·H + (w − Q·λ)·h,       s' = H·v' + Q·H·H + R
        θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)

    On a first step h = H and v = σ·H. All tensors share the measurement noise R ← decay·R + (1 − decay)·m, with m the
    mean of the squared losses of the minibatch's samples. So a step needs the loss:

        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    or `step(closure)`, or `update(loss, second_moment)`. Where only the mean L is given, m is taken to be L².

    Parameters without a gradient are left as they are. So are those whose gradient has a norm below 1e-9. As with every
    optimizer of PyTorch, a parameter that is frozen by `requires_grad_(False)` has to lose its gradient too, which
    `zero_grad()` sees to.

    On the CPU a step is one call of libkoala, on all parameters, with the same bits on every machine. Dot products are
    summed in the order of the memory, so these bits are others in channels-last order. A dense tensor in any memory
    format is stepped where it is. One whose elements lie apart is copied there and back in each step, and a gradient in
    another order than its parameter is copied. The processor must not flush denormal numbers to zero
    (`torch.set_flush_denormal`) if bits are to be the same.

    `state[parameter]` has the tensors "v" and "h", of the parameter's shape, and "scalars", four float64: h·h, h·v, s
    and the number of steps. A filter restarts if its scalars are set to zero, or if the state is not there any more.
    Between two steps, groups and state may be edited as in every optimizer of PyTorch, and tensors may be replaced by
    others of their shape, or moved in memory. Entries of other names are left alone. What all parameters share is in
    each group: R as "measurement_noise", its "noise_decay", "gradient_factor" and "gradient_limit". Edit it in all
    groups: a step raises an error where they differ.

    On an NVIDIA GPU (of compute capability 8.0 or later, with a driver for CUDA 12.0 or later) a step is a few kernels
    of libkoala on PyTorch's current stream, for all parameters together, with the CPU's bits: where the whole model is
    on one GPU or several, and no policy is "error". Nothing waits for the GPU if the loss is a tensor there, which is
    then averaged there; `report()`, `noise` and `state_dict()` wait. `lr` may be a tensor there too, of one number,
    which each step reads when it runs: where that is below zero or not finite, nothing is written, and the parameters
    count as not finite. (One on another device is waited for.) Such a step can be captured in a CUDA graph once a step
    has been taken: call `write_changes()` before the capture, and before a replay if settings have changed, but for
    what is written into such an `lr`. A replay reads loss and gradients where they were, whatever steps are taken in
    between. It is of no use any more once `load_state_dict()` or `add_param_group()` was called, the optimizer is gone,
    a parameter or its state has moved, or groups have other parameters. None of this has run on a GPU yet.

    Where torch.distributed is initialized, each process gives the loss of its own minibatch, and L and m are averaged
    over the processes, each of which counts the same, as `DistributedDataParallel` averages gradients: replicas stay
    equal to the bit. So all processes take each step together. What is not finite in one of them counts so in all, and
    an error in one is an error in all, of which none has written anything; but for a gradient that is not finite in one
    of them alone, where on_non_finite is "error". The first step compares the parameters too, and warns if they are not
    the same. A backend on the GPU, such as NCCL, averages there, and nothing waits.

    The step needs whole tensors. The parts that FullyShardedDataParallel, `fully_shard` and DeepSpeed's ZeRO make of
    them are an error, but for `per_shard=True`; a DTensor that is `Replicate()` is whole. A part that is taken out of a
    DTensor before it is given cannot be told from any other tensor.

    With `torch.amp.GradScaler`, give the loss that is not scaled: `scaler.step(optimizer, loss=losses)`. The gradients
    are divided by the scale as they are loaded, and stay as they are. On an NVIDIA GPU the kernels ask the scaler,
    nothing waits, and a step in which something was infinite counts all parameters as not finite.

    Args:
        params: Tensors, or pairs of name and tensor (so that errors have the name), or dicts with groups of either; all
            of the next six arguments may differ from group to group.
        lr: η ≥ 0, the share of the Kalman step that is taken; without unit. Schedulers change it.
        weight_decay: wd ≥ 0, coupled.
        initial_variance: σ > 0, the variance of a parameter before the first step, in squared units of the parameter.
        process_noise: Q ≥ 0, what that variance grows by in each step.
        variant: Which covariance of the least Frobenius norm is reconstructed (section 3 of the paper): "symmetric", or
            "vanilla", without that constraint.
        state_dtype: What v and h are stored in: None, as the parameter; `torch.float32`, for parameters in half
            precision; `torch.bfloat16`, half the memory and less traffic, for some accuracy. (Parameters that are
            bfloat16 themselves lose most updates: a step below 1/512 of a weight rounds to nothing.)
        noise: "averaged", as above; or a number, R for ever.
        noise_decay: In [0, 1], of the average.
        initial_noise: R ≥ 0 before the first step, in squared units of the loss.
        gradient_factor: Above 0: what gradients are multiplied by as they are loaded, at no pass over memory: one over
            the number of minibatches, for example, that they were summed over.
        gradient_limit: Above 0: no element of a gradient, multiplied so, is taken to be farther from zero.
        on_non_finite: What to do with a parameter whose gradient, loss or scalars are NaN or infinite: "keep_tensor"
            leaves it as it is; "keep_all" leaves every parameter, and R; "error" does too, and raises. "unchecked" is
            "keep_tensor" here: only in AdamW and SGD does looking cost anything.
        on_breakdown: What to do if S would not be positive, which the recursion does not rule out: "restart" the filter
            as on a first step; "skip" leaves that parameter; "error" leaves every parameter, and raises.
        backend: Where libkoala runs: see `koala_optim.backends`. All of them give the same bits. Or "torch": operations
            of PyTorch, as on other devices.
        threads: How many threads share the parameters, each of them taking whole tensors, so that bits stay the same:
            at most 512; 0 stands for as many as there are processors for this process. With 1, none is started.
            Policies that may keep all parameters use one thread.
        fallback: For parameters that libkoala has no kernel for: "torch", the same mathematics in
            operations of PyTorch, announced by one warning; or "error".
        process_group: The processes that L and m are averaged over. None: all of them; or a
            `torch.distributed.ProcessGroup`, of those with other minibatches for the same parameters; or False, to
            average nothing, where `step` is given what is averaged already.
        per_shard: What to do with parameters of which each process has a part: False, an error; True, each process
            steps its part as a tensor of its own, which is not the step of the whole tensor, and depends on how many
            processes there are.

    Raises:
        TypeError, ValueError: An argument is not as said; a parameter is sparse, complex, a part of one that is
            divided over processes, or has elements that share their memory; a group has another value of what all
            groups share.
        BackendError: This processor lacks the backend.
    """

    _entries = (*_OWN, *Resumable._shared)
    _configuration: _Configuration
    _told: tuple[Any, Any] | None

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        initial_variance: float = 0.1,
        process_noise: float = 0.1,
        variant: Variant = "symmetric",
        state_dtype: torch.dtype | None = None,
        *,
        noise: Literal["averaged"] | float = "averaged",
        noise_decay: float = 0.9,
        initial_noise: float = 1.0,
        gradient_factor: float = 1.0,
        gradient_limit: float = math.inf,
        on_non_finite: OnNonFinite = "keep_tensor",
        on_breakdown: OnBreakdown = "restart",
        backend: str = "fastest",
        threads: int = 1,
        fallback: Literal["torch", "error"] = "torch",
        process_group: ProcessGroupOrFalse = None,
        per_shard: bool = False,
    ) -> None:
        self._ranks = Ranks(process_group, per_shard)
        if fallback not in ("torch", "error"):
            raise ValueError(f"fallback is {fallback!r}, expected 'torch' or 'error'")
        rule = noise_rule(noise, noise_decay, initial_noise)
        self._configuration = _Configuration(on_non_finite, on_breakdown, backend, counted(threads), fallback)
        self._configuration.step()
        self._reset()
        settings = (lr, weight_decay, initial_variance, process_noise, variant, state_dtype)
        scaling = {"gradient_factor": gradient_factor, "gradient_limit": gradient_limit}
        super().__init__(params, {**dict(zip(_OWN, settings)), **rule, **scaling})

    @property
    def noise(self) -> float:
        """R of the last step, in squared units of the loss; before the first step, what it starts from. Waits for a GPU
        that the step ran on.
        """
        for table in self._tables_on_cuda():
            if self._told == self._noise_rule():
                return table.noise()
        return float(self.param_groups[0]["measurement_noise"])

    def predict(self) -> None:
        """The filter's prediction, before the gradient is taken. In KOALA++ it changes nothing but the covariance,
        which `update` sees to: this is here for training loops that call it.
        """

    def update(self, loss: Number, second_moment: Number | None = None) -> None:
        """The filter's update, with the gradients that are there: `step(loss=loss, second_moment=second_moment)`."""
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
            TypeError: There is neither closure nor loss; a gradient is sparse, or of another type than its parameter.
                (Without a loss, torch.distributed.checkpoint has an optimizer make its state, by gradients and learning
                rates of zero: that is what such a first step does.)
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
        measurement, found_inf = self._agree(lambda: self._measure(loss, second_moment))
        steppers, tables = self._steppers, self._tables_on_cuda()
        if tables:
            self._check_shared()
            # What one of them refuses is refused before any parameter is written.
            _kept = [table.look() for table in tables]
            if len(tables) > 1:
                for table in tables:
                    table.prepare()
            for table in tables:
                table.put(measurement, self._scaler()[0], found_inf)
            take_back(self._lent)
            return returned
        factor = self._factor(found_inf)
        if factor is None:
            return returned
        mean, moment = measurement
        before = self.noise
        noise = next_noise(self.param_groups[0]["noise_decay"], before, (mean, moment))
        if noise is None:
            if self._configuration.on_non_finite == "error":
                raise loss_error((mean, moment))
            mean = math.nan
        # All that one of them refuses is refused before any parameter is written.
        measured, alone = (mean, before if noise is None else noise), len(steppers) == 1
        finishes = [stepper.prepare_step(*measured, factor, alone) for stepper in steppers]
        # Not `all`: each one is to step.
        goes_on = [finish() for finish in finishes]
        take_back(self._lent)
        if noise is not None and all(goes_on):
            self._share(measurement_noise=noise)
        return returned

    def _measure(self, loss: Number | None, second_moment: Number | None) -> Measurement:
        """Looks at all that may be wrong in this process alone."""
        if loss is None:
            raise TypeError("step() needs the loss: a closure that returns it, or loss=...")
        self._check_given()
        self._current_steppers()
        self._lend_pieces()
        if self._ranks.are_several():
            # The others may not take a step that this one refuses.
            self._check_numbers()
            for stepper in self._steppers:
                stepper.check()
        return (measure_on_cuda if self._tables_on_cuda() else measure)(loss, second_moment)

    def write_changes(self) -> None:
        """Puts settings that have changed on the current stream, before a step is captured in a CUDA graph, and before
        it is replayed. A step that is not captured does this itself; on other devices there is nothing to do. A number
        that is written into an `lr` on the GPU is no change: it is read there.
        """
        if self._steppers:
            self._current_steppers()
        for table in self._tables_on_cuda():
            table.write_changes()

    def report(self) -> Report:
        """What the last step did. Waits for the devices that it ran on."""
        return report_of(self.noise, (found for stepper in self._steppers for found in stepper.outcomes()))

    def _check_group(self, group: dict[str, Any]) -> None:
        lr, weight_decay, initial_variance, process_noise = (float(group[name]) for name in _OWN[:4])
        Settings(lr, weight_decay, initial_variance, process_noise, group["variant"])
        if group["state_dtype"] not in STATE_DTYPES:
            expected = ", ".join(map(str, STATE_DTYPES))
            raise ValueError(f"state_dtype is {group['state_dtype']}, expected one of {expected}")
        _check_direction(group)

    def _check_place(self, place: Place) -> None:
        check_whole(place, self._steps_parts())
        has_kernel(place)

    def _vectors(self, group: dict[str, Any]) -> Sequence[str]:
        return VECTORS

    def _read_noise(self) -> None:
        # What a step on a GPU does not tell, unless somebody has written another R into the groups since.
        if self._tables_on_cuda() and self._told == self._noise_rule():
            self._share(measurement_noise=self.noise)
            self._told = self._noise_rule()

    def _reset(self) -> None:
        # The next step looks at the parameters anew.
        self._steppers: Sequence[Table | Operations] = []
        # If there are DTensors: all parameters, and the state of those with a gradient, of DTensors' what is here.
        self._lent: list[Place] = []
        self._lent_state: dict[Tensor, Any] = {}
        # Of what the steppers were made: the parameters, and what groups say of how many, their state, and direction.
        self._stepped: list[Tensor] = []
        self._shape: list[tuple[Any, ...]] = []
        # R and its rule, as the groups had them when a GPU was told, or last told R.
        self._told = None

    def _noise_rule(self) -> tuple[Any, Any]:
        group = self.param_groups[0]
        decay = group["noise_decay"]
        return float(group["measurement_noise"]), None if decay is None else float(decay)

    def _current_steppers(self) -> Sequence[Table | Operations]:
        self._check_entries()
        groups = self.param_groups
        parameters = list(chain.from_iterable(map(_parameters, groups)))
        shape = [(len(group["params"]), group.get("state_dtype"), group.get("maximize")) for group in groups]
        is_as_before = shape == self._shape and all(map(is_, parameters, self._stepped))
        if not is_as_before or (self._tables_on_cuda() and self._told != self._noise_rule()):
            self._read_noise()
            self._steppers = self._new_steppers()
            self._stepped, self._shape, self._told = parameters, shape, self._noise_rule()
        for stepper in self._steppers:
            stepper.take(groups, self._lent_state if self._lent else self.state)
        return self._steppers

    def _new_steppers(self) -> Sequence[Table | Operations]:
        configuration = self._configuration
        for group in self.param_groups:
            _check_direction(group)
        places = places_of(self.param_groups)
        for place in places:
            self._check_place(place)
        self._lent = places if any(place.owner is not place.parameter for place in places) else []
        states: MutableMapping[Any, Any] = self._lent_state if self._lent else self.state
        if self._lent:
            places = [place._replace(owner=place.parameter) for place in places]
        kernel = [has_kernel(place) and configuration.backend != "torch" for place in places]
        others = [place for place, has in zip(places, kernel) if not has]
        if others and configuration.backend != "torch":
            tables, why_not = new_tables(places, self.param_groups, states, configuration, self.noise)
            if tables:
                return tables
            device = others[0].parameter.device
            if configuration.fallback == "error":
                raise TypeError(f"{others[0]} is on {device}, where libkoala has no kernel{why_not}")
            stepped = f"{len(others)} parameters are stepped by operations of PyTorch"
            warn(f"libkoala has no kernel for {device}{why_not}: {stepped}")
        if others and configuration.is_atomic:
            # Only one of them can tell whether all are well.
            others, kernel = places, [False] * len(places)
        step = configuration.step()
        steppers: list[Table | Operations] = []
        if any(kernel):
            own = [place for place, has in zip(places, kernel) if has]
            threads = 1 if configuration.is_atomic else configuration.threads
            executor = Threads(threads - 1) if threads > 1 else None
            steppers.append(Table(own, self.param_groups, states, step, threads, executor))
        if others:
            steppers.append(Operations(others, self.param_groups, states, step))
        return steppers

    def _lend_pieces(self) -> None:
        """Has steppers see what of DTensors, their gradients and their state is in this process."""
        self._lent_state.clear()
        for place in lend_gradients(self._lent):
            if place.parameter.grad is not None:
                dtype = self.param_groups[place.group]["state_dtype"]
                entries = entries_of(place, self.state, dtype, VECTORS, self._ranks.per_shard)
                self._lent_state[place.parameter] = entries

    def _tables_on_cuda(self) -> list[CudaTable]:
        """Those there are; if there are some, there are no other steppers."""
        return [stepper for stepper in self._steppers if isinstance(stepper, CudaTable)]


def _check_direction(group: dict[str, Any]) -> None:
    """Looks at where a group is to go.

    Raises:
        ValueError: Up.
    """
    if group.get("maximize"):
        raise ValueError("KOALA++ takes the loss towards zero: it cannot maximize")
