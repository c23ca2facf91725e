"""The parameters of one CUDA device that libkoala steps, on PyTorch's current stream and without waiting for it.

A table as on the CPU, which koala_cuda_step is given. All that needs a GPU is in the first three functions.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._library import DeviceError, check, ffi, lib
from ._kinds import KINDS, KOALA_PLUS_PLUS, Numbers
from ._loss import Measurement, Number, measure, measure_there
from ._places import TYPES, Place
from ._rows import address_of, describe, state_type_of
from ._table import Table


def is_cuda(device: torch.device) -> bool:
    """Whether koala_cuda is for that device: not for AMD's, which PyTorch calls so too."""
    return device.type == "cuda" and torch.version.cuda is not None


def stream_of(device: torch.device) -> int:
    """The handle of the stream that PyTorch works on."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def is_capturing() -> bool:
    """Whether what is put on the current stream is captured in a graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def measure_on_cuda(loss: Number, second_moment: Number | None) -> Measurement:
    """See `measure`. What only a device knows stays there."""
    if isinstance(loss, Tensor) and is_cuda(loss.device):
        return measure_there(loss, second_moment)
    return measure(loss, second_moment)


def new_tables(
    places: Sequence[Place],
    groups: list[dict[str, Any]],
    states: MutableMapping[Any, Any],
    configuration: Any,
    noise: float,
) -> tuple[list[CudaTable], str]:
    """Tables for a model that is on CUDA devices, one for each; if libkoala cannot step it there, none, and why not."""
    devices = list(dict.fromkeys(place.parameter.device for place in places))
    if not any(map(is_cuda, devices)):
        return [], ""
    if configuration.raises:
        return [], ' if a policy is "error"'
    if not all(map(is_cuda, devices)):
        return [], " if a part of the model is elsewhere"
    if configuration.is_atomic and len(devices) > 1:
        return [], ' if "keep_all" is about several'
    tables = []
    for device in devices:
        own = [place for place in places if place.parameter.device == device]
        step = configuration.step()
        step.noise = noise
        try:
            tables.append(CudaTable(own, groups, states, step, groups[0]["noise_decay"]))
        except DeviceError as error:
            return [], f" ({error})"
    return tables, ""


class CudaTable(Table):
    """The parameters of an optimizer on one CUDA device.

    Args:
        places, groups, states: See `Table`.
        step: A `koala_step *`, with the policies; its noise is the one before the next step.
        noise_decay: None: the noise is fixed.

    Raises:
        DeviceError: There is no driver or device, or one that is too old.
    """

    _struct_name = "koala_parameters"

    def __init__(
        self,
        places: Sequence[Place],
        groups: list[dict[str, Any]],
        states: MutableMapping[Any, Any],
        step: Any,
        noise_decay: float | None,
    ) -> None:
        kind = KINDS[KOALA_PLUS_PLUS]
        super().__init__(places, groups, states, kind, Numbers(kind), step)
        self._device = places[0].parameter.device
        self._where = str(self._device)
        config = ffi.new("koala_config *")
        check(lib.koala_config_init(config, ffi.sizeof("koala_config")))
        config.initial_noise, config.on_non_finite, config.on_breakdown = (
            step.noise,
            step.on_non_finite,
            step.on_breakdown,
        )
        config.noise = lib.KOALA_NOISE_FIXED if noise_decay is None else lib.KOALA_NOISE_AVERAGED
        config.noise_decay = noise_decay or 0.0
        created = ffi.new("koala_cuda **")
        check(lib.koala_cuda_create(config, self._device.index or 0, 0, created))
        self._optimizer = ffi.gc(created[0], lib.koala_cuda_destroy)
        group = ffi.new("uint32_t *")
        for _ in groups:
            check(lib.koala_cuda_add_group(self._optimizer, ffi.NULL, group))
        # Of libkoala's tensors, which of the places each is.
        self._place_of: list[int] = []
        # What the last step was told of, which has to be there until it has run: tensors, for what only a device knows.
        self._measurement: Measurement = (0.0, 0.0)
        self._scaler: list[Tensor | None] = [None, None]
        self._rates: dict[int, Tensor] = {}
        # How libkoala scales: by numbers, and by what is where.
        self._scaling: tuple[Any, ...] = ()
        self._scaler_places: tuple[Any, ...] = ()

    def check(self) -> None:
        """See `Table.check`. What only libkoala sees on the device is left to the step."""
        self.look()

    def look(self) -> Any:
        """See `Table.look`."""
        kept = super().look()
        scaling = float(self._groups[0]["gradient_factor"]), float(self._groups[0]["gradient_limit"])
        if scaling != self._scaling:
            self._check(lib.koala_cuda_set_scaling(self._optimizer, *scaling))
            self._scaling = scaling
        return kept

    def prepare(self) -> None:
        """Has libkoala look at what `look` found: it refuses none of that any more when a step is put. In a capture,
        there is nothing to do: nothing runs yet.

        Raises:
            ValueError: Memory overlaps.
            DeviceError: There is no memory left, or the driver does not do as it should. Nothing has been written.
        """
        if not is_capturing():
            self._check(lib.koala_cuda_prepare(self._optimizer, self._stream(), self._table, len(self._active)))

    def put(self, measurement: Measurement, scale: Tensor | None, found_infinite: Tensor | None) -> None:
        """Puts a step of every parameter that had a gradient when `look` was called on the current stream. Gradients
        are divided by the scale; the step does nothing if something was found to be infinite.

        Raises:
            ValueError: Memory overlaps.
            DeviceError: The driver does not do as it should; a part of the step may have run.
        """
        if isinstance(measurement, Tensor):
            measurement = measurement.to(self._device, non_blocking=True)
        self._measurement = measurement
        self._take_scaler([scale, found_infinite])
        self._take_step(self._put)

    def _take_scaler(self, numbers: list[Tensor | None]) -> None:
        """Has libkoala read those numbers, all of one type: float32, as GradScaler's are, or float64."""
        single = all(number is None or number.dtype == torch.float32 for number in numbers)
        dtype = torch.float32 if single else torch.float64
        self._scaler = [
            None if number is None else number.detach().resolve_neg().to(self._device, dtype, non_blocking=True)
            for number in numbers
        ]
        places = [ffi.NULL if number is None else address_of(number) for number in self._scaler]
        if (dtype, *places) != self._scaler_places:
            self._check(lib.koala_cuda_set_device_scaler(self._optimizer, TYPES[dtype], *places))
            self._scaler_places = (dtype, *places)

    def write_changes(self) -> None:
        """Puts settings that are others on the current stream."""
        for index in self._changed_settings():
            self._change_settings(index)
        self._check(lib.koala_cuda_write_changes(self._optimizer, self._stream()))

    def noise(self) -> float:
        """R of the last step. Waits for it."""
        report = ffi.new("koala_report *", {"size": ffi.sizeof("koala_report")})
        self._check(lib.koala_cuda_report(self._optimizer, self._stream(), report))
        return float(report.noise)

    def outcomes(self) -> Iterator[tuple[str, int]]:
        """See `Table.outcomes`. Waits for the device."""
        if self._active:
            self._check(lib.koala_cuda_details(self._optimizer, self._stream(), self._reports, len(self._active)))
        return super().outcomes()

    def _stream(self) -> Any:
        return ffi.cast("void *", stream_of(self._device))

    def _put(self) -> None:
        measurement, optimizer, stream, count = self._measurement, self._optimizer, self._stream(), len(self._active)
        if isinstance(measurement, Tensor):
            mean, moment = address_of(measurement), address_of(measurement[1])
            double = TYPES[torch.float64]
            self._check(lib.koala_cuda_step_device_loss(optimizer, stream, double, mean, moment, self._table, count))
        else:
            self._check(
                lib.koala_cuda_step(optimizer, stream, ffi.new("koala_loss *", measurement), self._table, count)
            )

    def _check(self, status: int) -> None:
        check(status, lambda number: str(self._places[self._place_of[number]])[:-1])

    def _is_here(self, parameter: Tensor) -> bool:
        return parameter.device == self._device

    def _learning_rate(self, index: int) -> Any:
        rate = self._groups[index]["lr"]
        is_read_there = isinstance(rate, Tensor) and self._is_here(rate) and rate.dtype in TYPES and rate.numel() == 1
        if is_read_there and not rate.is_neg():
            self._rates[index] = rate
            return rate.dtype, rate.data_ptr()
        self._rates.pop(index, None)
        return super()._learning_rate(index)

    def _change_settings(self, index: int) -> None:
        self._check(lib.koala_cuda_set_settings(self._optimizer, index, self._settings + index))
        rate = self._rates.get(index)
        dtype, place = (torch.float64, ffi.NULL) if rate is None else (rate.dtype, address_of(rate))
        self._check(lib.koala_cuda_set_device_learning_rate(self._optimizer, index, TYPES[dtype], place))

    def _describe_state(self, struct: Any, index: int, state: dict[str, Tensor]) -> None:
        place, number, described = self._places[index], ffi.new("size_t *"), ffi.new("koala_cuda_state *")
        described.size = ffi.sizeof("koala_cuda_state")
        describe(described, state)
        name = str(len(self._place_of)).encode()
        self._place_of.append(index)
        types = struct.type, state_type_of(place, state)
        status = lib.koala_cuda_add_tensor(self._optimizer, name, struct.length, *types, place.group, described, number)
        self._check(status)
        struct.tensor = number[0]
