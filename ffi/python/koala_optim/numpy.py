"""The optimizer step of KOALA++ (arXiv 2506.04432) on arrays whose buffers and state are yours, changed in place.

An array is whatever supports the buffer protocol (of NumPy, `array.array`, `memoryview`) or DLPack (of PyTorch), is
contiguous in the memory of the CPU, and has elements of float32, float64, float16, or bfloat16 (by `ml_dtypes` or
DLPack). Nothing is copied. Shapes are not looked at, only numbers of elements.

    >>> import numpy
    >>> from koala_optim.numpy import new_state, step
    >>> weight, gradient = numpy.float32([1, -2, 3]), numpy.float32([0.1, 0.2, -0.3])
    >>> state = new_state(weight)
    >>> step(weight, gradient, *state, loss=0.7, noise=0.53).outcome
    'first_step'

For n parameters θ with the gradient g of the minibatch's mean loss L, a step is, with H = g + wd·θ:

    α = H·h / h·h,   λ = (H·v + Q·H·h) / s,   w = H·v / h·h − (H·h)(h·v) / (h·h)²
    v' = (α − λ)·v + Q·H + (w − Q·λ)·h,   s' = H·v' + Q·H·H + R
    θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)

and v', H, s' are the v, h, s of the next step. On a first step v' = σ·H. A call either does all that or, if it raises,
has written nothing. A `method` of `koala_optim` steps otherwise: by KOALA-V, KOALA-M, AdamW, or SGD with momentum.

The library runs without the interpreter's lock, so other threads of Python go on meanwhile; they must leave the arrays
alone until the call returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy

from ._library import check, ffi, lib
from ._memory import Array, Memory, Watch, memory_of
from ._methods import Method
from ._settings import (
    COPY_TYPES,
    ELEMENT_TYPES,
    ON_BREAKDOWN,
    ON_NON_FINITE,
    OUTCOMES,
    STATE_TYPES,
    OnBreakdown,
    OnNonFinite,
    Outcome,
    Settings,
    StateType,
    backend_number,
    number,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Loss",
    "Report",
    "State",
    "Tensor",
    "TensorReport",
    "apply",
    "apply_many",
    "dots",
    "dots_many",
    "loss_from_samples",
    "new_state",
    "noise_update",
    "predict",
    "step",
    "step_many",
]

_DEFAULTS = Settings()
_Own = TypeVar("_Own", bound=Method)


class Loss(NamedTuple):
    """The measurement of one step, of a minibatch's per-sample losses.

    Attributes:
        mean: L.
        second_moment: m ≥ 0, the mean of the squares.
    """

    mean: float
    second_moment: float


class State(NamedTuple):
    """The filter of one tensor between two steps.

    Attributes:
        v: v = H·P, the product of gradient and covariance, of the parameters' shape; with another method, what it
            keeps there, or None.
        h: The measurement row H of the step before, of the parameters' shape; likewise.
        scalars: Four float64: h·h, h·v, the innovation variance S, and the number of steps taken. All zero: the next
            step is a first step, and v and h are not read.
    """

    v: NDArray[Any] | None
    h: NDArray[Any] | None
    scalars: NDArray[numpy.float64]


@dataclass(eq=False)
class Tensor:
    """A tensor of n parameters, to be stepped with others in one call.

    Its arrays are looked up when it is first stepped, and again after one has been assigned, has moved to other memory,
    or has become one of another length or type: with the same bits, or the same errors, as at first. For as long as it
    is kept, NumPy does not resize them.

    Attributes:
        parameters: θ, n elements: read and written.
        gradient: g = ∂L/∂θ of the minibatch's mean loss, n elements of the parameters' type: read.
        v: See `State`; n elements of the parameters' type, of float32, or of bfloat16: read and written. None where
            the method has no such vector.
        h: See `State`; n elements of v's type: read and written. None likewise.
        scalars: See `State`; four float64: read and written.
        settings: The settings of its group.
        copy: n elements of bfloat16 or float16, written with the new parameters, rounded, if the tensor steps.
        exchange: Allow `gradient`, which must be writable then, and `h` to change places, which saves writing h. They
            do if the tensor steps in another variant than "definite", has no weight decay, and has its state in its own
            type; then the report says `exchanged`, what was given as gradient holds h, and what was given as h is free
            for the next gradient.
    """

    parameters: Array
    gradient: Array
    v: Array | None
    h: Array | None
    scalars: Array
    settings: Settings = _DEFAULTS
    copy: Array | None = None
    exchange: bool = False

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name != "settings":
            # What `_lend` has looked up is no longer so.
            self.__dict__.pop("_lent", None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lent"}


class TensorReport(NamedTuple):
    """What a step did with one tensor. Scalars are zero where the step did not come that far.

    Attributes:
        outcome: "stepped"; "first_step"; "restarted", as on a first step, because S would not have been positive; or
            why the tensor is kept as it was: "skipped", its gradient is (nearly) zero; "frozen", by its settings;
            "non_finite", something is NaN or infinite; "breakdown", S would not have been positive; "withheld", another
            tensor is not finite, under "keep_all".
        innovation_variance: S of this step.
        alpha: α = (H·h)/(h·h).
        lambda_: λ = (H·v + Q·H·h)/S of the step before: the Kalman gain seen from H.
        w: The weight of the symmetric correction.
        gain: (H·H)/S, from which the shared variances of KOALA-V and KOALA-M learn; 0 for other methods.
        gradient_norm: ‖g‖ before the step; NaN unless norms were asked for, as are the other two.
        measurement_norm: ‖H‖ = ‖g + wd·θ‖ before the step.
        parameters_norm: ‖θ‖ before the step.
        exchanged: Whether `gradient` and `h` changed places: see `Tensor.exchange`.
    """

    outcome: Outcome
    innovation_variance: float
    alpha: float
    lambda_: float
    w: float
    gain: float
    gradient_norm: float
    measurement_norm: float
    parameters_norm: float
    exchanged: bool


class Report(NamedTuple):
    """What a step did with a list of tensors.

    Attributes:
        backend: The name of the backend that ran.
        stepped: Tensors that stepped, first steps and restarts included.
        first_steps: Those of them that stepped for the first time.
        restarts: Those of them whose filter restarted, S having come out as zero or less.
        skipped: Tensors kept because their gradient is (nearly) zero.
        frozen: Tensors kept because they are frozen.
        non_finite: Tensors kept because something was NaN or infinite.
        breakdowns: Tensors kept because S came out as zero or less.
        withheld: Tensors kept because another one is not finite, under "keep_all".
        gain: The largest one among the tensors that stepped, for `Method.corrected`.
        tensors: One report for each tensor, in their order.
    """

    backend: str
    stepped: int
    first_steps: int
    restarts: int
    skipped: int
    frozen: int
    non_finite: int
    breakdowns: int
    withheld: int
    gain: float
    tensors: list[TensorReport]


def new_state(parameters: Array, state_type: StateType = "same", method: Method | None = None) -> State:
    """A state for a tensor that has not stepped yet: zeros, of the parameters' shape.

    Args:
        parameters: An array of the shape and type that is to be stepped.
        state_type: What v and h are stored in: "same", as the parameters; "float32", for parameters in half precision;
            "bfloat16", half the memory and less traffic, for some accuracy.
        method: Which optimizer it is for; None: KOALA++.

    Raises:
        TypeError, ValueError: See `step`.
        ImportError: An array of bfloat16 is needed, and `ml_dtypes` is not installed.
    """
    number("state_type", state_type, STATE_TYPES)
    memory = memory_of("parameters", parameters, writable=False)
    dtype = _numpy_dtype(memory.dtype if state_type == "same" else state_type)
    h, v = (numpy.zeros(memory.shape, dtype) if has else None for has in (method.vectors if method else (True, True)))
    return State(v, h, numpy.zeros(4))


def loss_from_samples(losses: Array) -> Loss:
    """Averages the per-sample losses of a minibatch, in float64 and in their order.

    Raises:
        ValueError: There are none.
        TypeError: See `step`.
    """
    samples = memory_of("losses", losses, writable=False)
    loss = ffi.new("koala_loss *")
    check(lib.koala_loss_from_samples(ELEMENT_TYPES[samples.dtype], samples.pointer, samples.length, loss))
    return Loss(loss.mean, loss.second_moment)


def noise_update(noise: float, second_moment: float, decay: float = 0.9) -> float:
    """R of the next step, which all tensors share: decay·R + (1 − decay)·m. R is 1 before the first step.

    Args:
        noise: R ≥ 0 of the step before, in squared units of the loss.
        second_moment: m ≥ 0, the mean of the squared per-sample losses: see `loss_from_samples`.
        decay: In [0, 1].

    Raises:
        ValueError: One of them is out of its range.
    """
    updated = ffi.new("double *", noise)
    check(lib.koala_noise_update(decay, ffi.new("koala_loss *", (0.0, second_moment)), updated))
    return float(updated[0])


def predict(tensors: Sequence[Tensor], method: _Own, *, backend: str = "fastest") -> _Own:
    """The prediction of KOALA-V and KOALA-M, before each step, and before the gradient of that step is taken.

    KOALA-M moves the parameters by their velocities, in place; gradients are not looked at. Other methods do not.

        method = predict(tensors, method)
        ...                                    # The gradients are taken.
        method = method.corrected(step_many(tensors, loss=loss, noise=noise, method=method).gain)

    Returns:
        The method at the time of the next measurement.

    Args and errors are those of `step`.
    """
    call = _Call(tensors, 0.0, 0.0, backend, method=method)
    distance, parameters = ffi.new("double *"), ffi.new("size_t *")
    check(lib.koala_predict_tensors(call.step, call.tensors, call.count, distance, parameters))
    return method.predicted(distance[0], parameters[0])


def step(
    parameters: Array,
    gradient: Array,
    v: Array | None,
    h: Array | None,
    scalars: Array,
    *,
    loss: float,
    noise: float,
    settings: Settings = _DEFAULTS,
    method: Method | None = None,
    gradient_factor: float = 1.0,
    gradient_limit: float = math.inf,
    backend: str = "fastest",
    on_non_finite: OnNonFinite = "keep_tensor",
    on_breakdown: OnBreakdown = "restart",
    norms: bool = False,
    copy: Array | None = None,
    exchange: bool = False,
) -> TensorReport:
    """One step of one tensor, in place.

    Args:
        parameters, gradient, v, h, scalars, copy, exchange: See `Tensor`.
        loss: L, the minibatch's mean loss.
        noise: R ≥ 0, the variance of the measurement noise: see `noise_update`.
        settings: The settings of the tensor.
        method: Which optimizer steps, with its shared numbers as they are now; None: KOALA++.
        gradient_factor: Above 0: what the gradient is multiplied by as it is loaded, at no pass over memory. For mixed
            precision: one over the factor that the loss was scaled by.
        gradient_limit: Above 0: no element of the gradient, scaled, is taken to be farther from zero.
        backend: Where to run: see `koala_optim.backends`. All give the same bits.
        on_non_finite: Where the gradient, the loss or a scalar is NaN or infinite: "keep_tensor" leaves that tensor as
            it is, "keep_all" leaves every tensor of the call as it is, "error" does too, and raises. "unchecked" is
            "keep_tensor", but AdamW and SGD do not look at the gradient, which saves reading it twice, and write what
            is not finite in it to its place.
        on_breakdown: Where the innovation variance S would not be positive: "restart" starts the filter anew, as on a
            first step, "skip" leaves that tensor as it is, "error" leaves every tensor as it is, and raises.
        norms: Whether to report the norms, which may cost a pass more over gradient and parameters.

    Raises:
        TypeError: An argument is no array, or is one of a type that does not go with the parameters'.
        ValueError: An array is not contiguous, not writable, on another device, or of another length than the
            parameters; two overlap; a number is out of its range; a name is unknown.
        NonFiniteError, BreakdownError: As the two policies say.
        BackendError: This processor lacks the backend.
    """
    tensor = Tensor(parameters, gradient, v, h, scalars, settings, copy, exchange)
    scaling = (gradient_factor, gradient_limit)
    call = _Call([tensor], loss, noise, backend, on_non_finite, on_breakdown, norms, method, scaling, alone=True)
    report = ffi.new("koala_tensor_report *")
    check(lib.koala_step_tensor(call.step, call.tensors, report))
    return call.tensor_report(0, report)


def step_many(
    tensors: Sequence[Tensor],
    *,
    loss: float,
    noise: float,
    method: Method | None = None,
    gradient_factor: float = 1.0,
    gradient_limit: float = math.inf,
    backend: str = "fastest",
    on_non_finite: OnNonFinite = "keep_tensor",
    on_breakdown: OnBreakdown = "restart",
    norms: bool = False,
) -> Report:
    """One step of each of many tensors, with the same bits as `step`, in one call of the library.

    Small ones are worked on together, so that is faster. No two tensors may overlap, which is not looked at.

    Args and errors are those of `step`; a text names a tensor by its place, from 0.
    """
    scaling = (gradient_factor, gradient_limit)
    call = _Call(tensors, loss, noise, backend, on_non_finite, on_breakdown, norms, method, scaling)
    count = call.count
    reports = ffi.new("koala_tensor_report[]", count)
    report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
    check(lib.koala_step_tensors(call.step, call.tensors, count, reports, report))
    return call.report(reports, report)


def dots(
    parameters: Array,
    gradient: Array,
    v: Array,
    h: Array,
    scalars: Array,
    *,
    loss: float,
    noise: float,
    settings: Settings = _DEFAULTS,
    backend: str = "fastest",
) -> NDArray[numpy.float64]:
    """The first half of a step: the dots of a tensor, or of the part of one that this process has.

    Writes nothing. The dots of the parts of a tensor, summed by any all-reduce, are those of the whole, for `apply`;
    the last bits may depend on the order of the sum.

    Returns:
        Five float64: H·h, H·v, H·H, θ·θ (0 without weight decay), and g·g (or infinity where it is known to be far from
        that of a tensor that is skipped).

    Args and errors are those of `step`.
    """
    tensor = Tensor(parameters, gradient, v, h, scalars, settings)
    call = _Call([tensor], loss, noise, backend, alone=True)
    found = numpy.empty(5)
    check(lib.koala_dots_tensor(call.step, call.tensors, ffi.from_buffer("koala_dots *", found)))
    return found


def dots_many(
    tensors: Sequence[Tensor], *, loss: float, noise: float, backend: str = "fastest"
) -> NDArray[numpy.float64]:
    """The first half of a step of many tensors: a row of five dots for each. See `dots`."""
    call = _Call(tensors, loss, noise, backend)
    found = numpy.empty((call.count, 5))
    check(lib.koala_dots_tensors(call.step, call.tensors, call.count, ffi.from_buffer("koala_dots[]", found)))
    return found


def apply(
    parameters: Array,
    gradient: Array,
    v: Array,
    h: Array,
    scalars: Array,
    dots: Array,
    *,
    loss: float,
    noise: float,
    settings: Settings = _DEFAULTS,
    backend: str = "fastest",
    on_non_finite: OnNonFinite = "keep_tensor",
    on_breakdown: OnBreakdown = "restart",
    copy: Array | None = None,
) -> TensorReport:
    """The second half of a step: decides by the dots of the whole tensor, and writes the part that this process has.

    Every process that has a part decides the same, given the same dots, scalars, numbers and policies.

    Args:
        dots: Five float64: see `dots`.

    Other args and errors are those of `step`.
    """
    tensor = Tensor(parameters, gradient, v, h, scalars, settings, copy)
    call = _Call([tensor], loss, noise, backend, on_non_finite, on_breakdown, alone=True)
    given = _float64("dots", dots, 5, writable=False)
    report = ffi.new("koala_tensor_report *")
    check(lib.koala_apply_tensor(call.step, call.tensors, ffi.cast("koala_dots *", given.pointer), report))
    return call.tensor_report(0, report)


def apply_many(
    tensors: Sequence[Tensor],
    dots: Array,
    *,
    loss: float,
    noise: float,
    backend: str = "fastest",
    on_non_finite: OnNonFinite = "keep_tensor",
    on_breakdown: OnBreakdown = "restart",
) -> Report:
    """The second half of a step of many tensors, with a row of five dots for each. See `apply` and `step_many`."""
    call = _Call(tensors, loss, noise, backend, on_non_finite, on_breakdown)
    count = call.count
    given = _float64("dots", dots, 5 * count, writable=False)
    reports = ffi.new("koala_tensor_report[]", count)
    report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
    pointer = ffi.cast("koala_dots *", given.pointer)
    check(lib.koala_apply_tensors(call.step, call.tensors, count, pointer, reports, report))
    return call.report(reports, report)


class _Call:
    """What the library is called with. It keeps alive what its structs point to."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        loss: float,
        noise: float,
        backend: str,
        on_non_finite: OnNonFinite = "keep_tensor",
        on_breakdown: OnBreakdown = "restart",
        norms: bool = False,
        method: Method | None = None,
        scaling: tuple[float, float] = (1.0, math.inf),
        alone: bool = False,
    ) -> None:
        self.given = tensors
        self.count = len(tensors)
        self.tensors = ffi.new("koala_tensor[]", self.count)
        self.lent = _lend_all(tensors, alone)
        places: dict[Settings, int] = {}
        settings, group = None, 0
        for place, (tensor, lent) in enumerate(zip(tensors, self.lent)):
            if tensor.settings is not settings:
                settings = tensor.settings
                group = places.setdefault(settings, len(places))
            lent.struct.group = group
            self.tensors[place] = lent.struct[0]
        self.groups = ffi.new("koala_settings[]", max(1, len(places)))
        for settings, group in zip(places or (_DEFAULTS,), self.groups):
            settings.to_c(group)
        self.step = ffi.new("koala_step *")
        check(lib.koala_step_init(self.step, ffi.sizeof("koala_step")))
        self.step.groups, self.step.group_count = self.groups, len(self.groups)
        self.step.loss, self.step.noise = loss, noise
        self.method = method.to_c() if method else ffi.NULL
        self.step.method = self.method
        self.step.gradient_factor, self.step.gradient_limit = scaling
        self.step.backend = backend_number(backend)
        self.step.on_non_finite = number("on_non_finite", on_non_finite, ON_NON_FINITE)
        self.step.on_breakdown = number("on_breakdown", on_breakdown, ON_BREAKDOWN)
        self.step.norms = bool(norms)

    def tensor_report(self, place: int, report: Any) -> TensorReport:
        tensor = self.given[place]
        exchanged = tensor.exchange and self.tensors[place].h != self.lent[place].struct.h
        if exchanged and tensor.h is not None:
            tensor.gradient, tensor.h = tensor.h, tensor.gradient
        return TensorReport(
            OUTCOMES[report.outcome],
            report.innovation_variance,
            report.alpha,
            getattr(report, "lambda"),
            report.w,
            report.gain,
            report.gradient_norm,
            report.measurement_norm,
            report.parameters_norm,
            exchanged,
        )

    def report(self, reports: Any, report: Any) -> Report:
        return Report(
            backend=ffi.string(lib.koala_backend_name(report.backend)).decode(),
            stepped=report.stepped,
            first_steps=report.first_steps,
            restarts=report.restarts,
            skipped=report.skipped,
            frozen=report.frozen,
            non_finite=report.non_finite,
            breakdowns=report.breakdowns,
            withheld=report.withheld,
            gain=report.gain,
            tensors=[self.tensor_report(place, found) for place, found in enumerate(reports)],
        )


class _Lent(NamedTuple):
    """What the library is told of a tensor.

    Attributes:
        struct: A `koala_tensor *`.
        memories: What it points to.
        watch: Tells whether that is still so.
    """

    struct: Any
    memories: list[Memory]
    watch: Watch


def _lend_all(tensors: Sequence[Tensor], alone: bool) -> list[_Lent]:
    """Looks up the arrays of tensors, unless what an earlier call has looked up still holds."""
    lent: list[Any] = [tensor.__dict__["_lent"] for tensor in tensors if "_lent" in tensor.__dict__]
    if not Watch.all_hold([one.watch for one in lent]):
        for tensor in tensors:
            if "_lent" in tensor.__dict__ and not Watch.all_hold([tensor.__dict__["_lent"].watch]):
                del tensor.__dict__["_lent"]
    return [
        tensor.__dict__.get("_lent") or _lend(tensor, "" if alone else f'tensor "{place}": ')
        for place, tensor in enumerate(tensors)
    ]


def _lend(tensor: Tensor, prefix: str) -> _Lent:
    """Looks up the arrays of a tensor, and keeps what is found with it where that can be watched."""
    parameters = memory_of(f"{prefix}parameters", tensor.parameters, writable=True)
    gradient = memory_of(f"{prefix}gradient", tensor.gradient, writable=tensor.exchange)
    # Whether the method can do without them, the library looks.
    vectors = {
        name: memory_of(f"{prefix}{name}", vector, writable=True)
        for name, vector in (("v", tensor.v), ("h", tensor.h))
        if vector is not None
    }
    scalars = _float64(f"{prefix}scalars", tensor.scalars, 4, writable=True)
    for name, memory in {"gradient": gradient, **vectors}.items():
        _check_length(prefix + name, memory, parameters.length)
    if gradient.dtype != parameters.dtype:
        raise TypeError(f"{prefix}gradient is of {gradient.dtype}, the parameters of {parameters.dtype}")
    state_type = "same"
    for name, vector in vectors.items():
        state_type = "same" if vector.dtype == parameters.dtype else vector.dtype
        if state_type not in STATE_TYPES:
            expected = ", ".join(dict.fromkeys((parameters.dtype, "float32", "bfloat16")))
            text = (
                f"{prefix}{name} is of {vector.dtype}, expected one of {expected} for parameters of {parameters.dtype}"
            )
            raise TypeError(text)
    if len({vector.dtype for vector in vectors.values()}) > 1:
        raise TypeError(f"{prefix}h is of {vectors['h'].dtype}, v of {vectors['v'].dtype}")

    struct = ffi.new("koala_tensor *")
    struct.size = ffi.sizeof("koala_tensor")
    struct.length = parameters.length
    struct.type = ELEMENT_TYPES[parameters.dtype]
    struct.state_type = STATE_TYPES[state_type]
    struct.exchange = bool(tensor.exchange)
    memories = [parameters, gradient, *vectors.values(), scalars]
    struct.parameters, struct.gradient = parameters.pointer, gradient.pointer
    for name, vector in vectors.items():
        setattr(struct, name, vector.pointer)
    struct.scalars = ffi.cast("koala_scalars *", scalars.pointer)
    if tensor.copy is not None:
        copy = memory_of(f"{prefix}copy", tensor.copy, writable=True)
        _check_length(f"{prefix}copy", copy, parameters.length)
        if copy.dtype not in COPY_TYPES:
            raise TypeError(f"{prefix}copy is of {copy.dtype}, expected one of {', '.join(COPY_TYPES)}")
        struct.copy_type = COPY_TYPES[copy.dtype]
        struct.copy = copy.pointer
        memories.append(copy)
    arrays = (tensor.parameters, tensor.gradient, tensor.v, tensor.h, tensor.scalars, tensor.copy)
    watch = Watch(array for array in arrays if array is not None)
    lent = _Lent(struct, memories, watch)
    if watch.lasts:
        tensor.__dict__["_lent"] = lent
    return lent


def _check_length(name: str, memory: Memory, length: int) -> None:
    if memory.length != length:
        raise ValueError(f"{name} has {memory.length} elements, the parameters {length}")


def _float64(name: str, array: Array, length: int, writable: bool) -> Memory:
    memory = memory_of(name, array, writable=writable)
    if memory.dtype != "float64":
        raise TypeError(f"{name} is of {memory.dtype}, expected float64")
    if memory.length != length:
        raise ValueError(f"{name} has {memory.length} elements, expected {length}")
    return memory


def _numpy_dtype(name: str) -> Any:
    if name != "bfloat16":
        return numpy.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("a NumPy array of bfloat16 needs the package ml_dtypes") from error
    return ml_dtypes.bfloat16
