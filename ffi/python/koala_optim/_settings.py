"""What all front ends share: the settings of a step; the names of policies, backends and types, and their C numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from ._library import check, ffi, lib

Variant = Literal["symmetric", "vanilla", "definite"]
OnNonFinite = Literal["keep_tensor", "keep_all", "error", "unchecked"]
OnBreakdown = Literal["restart", "skip", "error"]
ElementType = Literal["float32", "float64", "bfloat16", "float16"]
StateType = Literal["same", "float32", "bfloat16"]
CopyType = Literal["bfloat16", "float16"]
Outcome = Literal["stepped", "first_step", "restarted", "skipped", "frozen", "non_finite", "breakdown", "withheld"]

VARIANTS: Mapping[str, int] = {
    "symmetric": lib.KOALA_VARIANT_SYMMETRIC,
    "vanilla": lib.KOALA_VARIANT_VANILLA,
    "definite": lib.KOALA_VARIANT_DEFINITE,
}
ON_NON_FINITE: Mapping[str, int] = {
    "keep_tensor": lib.KOALA_ON_NON_FINITE_KEEP_TENSOR,
    "keep_all": lib.KOALA_ON_NON_FINITE_KEEP_ALL,
    "error": lib.KOALA_ON_NON_FINITE_ERROR,
    "unchecked": lib.KOALA_ON_NON_FINITE_UNCHECKED,
}
ON_BREAKDOWN: Mapping[str, int] = {
    "restart": lib.KOALA_ON_BREAKDOWN_RESTART,
    "skip": lib.KOALA_ON_BREAKDOWN_SKIP,
    "error": lib.KOALA_ON_BREAKDOWN_ERROR,
}
ELEMENT_TYPES: Mapping[str, int] = {
    "float32": lib.KOALA_ELEMENT_TYPE_F32,
    "float64": lib.KOALA_ELEMENT_TYPE_F64,
    "bfloat16": lib.KOALA_ELEMENT_TYPE_BF16,
    "float16": lib.KOALA_ELEMENT_TYPE_F16,
}
STATE_TYPES: Mapping[str, int] = {
    "same": lib.KOALA_STATE_TYPE_SAME,
    "float32": lib.KOALA_STATE_TYPE_F32,
    "bfloat16": lib.KOALA_STATE_TYPE_BF16,
}
COPY_TYPES: Mapping[str, int] = {"bfloat16": lib.KOALA_COPY_TYPE_BF16, "float16": lib.KOALA_COPY_TYPE_F16}
OUTCOMES: Mapping[int, Outcome] = {
    lib.KOALA_OUTCOME_STEPPED: "stepped",
    lib.KOALA_OUTCOME_FIRST_STEP: "first_step",
    lib.KOALA_OUTCOME_RESTARTED: "restarted",
    lib.KOALA_OUTCOME_SKIPPED: "skipped",
    lib.KOALA_OUTCOME_FROZEN: "frozen",
    lib.KOALA_OUTCOME_NON_FINITE: "non_finite",
    lib.KOALA_OUTCOME_BREAKDOWN: "breakdown",
    lib.KOALA_OUTCOME_WITHHELD: "withheld",
}


def number(what: str, name: str, known: Mapping[str, int]) -> int:
    """The C number of a name.

    Args:
        what: What the name is for, such as "on_breakdown": for the text of the error.
        name: One of the keys of `known`.
        known: A table of this module.

    Raises:
        ValueError: There is no such name; the text lists those there are.
    """
    found = known.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"{what} is {name!r}, expected one of {', '.join(map(repr, known))}")
    return found


@dataclass(frozen=True)
class Settings:
    """The settings of a group of tensors. They may be others in every step.

    Attributes:
        learning_rate: η ≥ 0, the share of the Kalman step that is taken; without unit.
        weight_decay: wd ≥ 0, coupled: the loss of a tensor is L + ½·wd·θ·θ, its measurement row H = g + wd·θ.
        initial_variance: σ > 0, the variance of a parameter before the first step, in squared units of the parameter.
        process_noise: Q ≥ 0, what that variance grows by in each step.
        variant: Which covariance is reconstructed (arXiv 2506.04432, section 3): "symmetric", the paper's
            default, has the least Frobenius norm among the symmetric ones, "vanilla" has it among all. "definite", this
            library's own, stays positive definite.
        prior_variance: γ ≥ 0, the variance in all directions that "definite" assumes, and no other variant reads; in
            squared units of the parameter. 0 stands for the initial variance.
        frozen: Whether the tensors are checked like any other, but stay as they are.

    Raises:
        ValueError: The variant is unknown, or a number is out of its range.
    """

    learning_rate: float = 1.0
    weight_decay: float = 0.0
    initial_variance: float = 0.1
    process_noise: float = 0.1
    variant: Variant = "symmetric"
    prior_variance: float = 0.0
    frozen: bool = False

    def __post_init__(self) -> None:
        # The library knows the ranges: a step of no tensors looks at the settings and does nothing.
        settings = ffi.new("koala_settings *")
        self.to_c(settings)
        step = ffi.new("koala_step *")
        check(lib.koala_step_init(step, ffi.sizeof("koala_step")))
        step.groups, step.group_count = settings, 1
        check(lib.koala_step_tensors(step, ffi.NULL, 0, ffi.NULL, ffi.NULL))

    def to_c(self, settings: Any) -> None:
        """Fills a `koala_settings`: an element of an array of them, or a pointer to one."""
        settings.size = ffi.sizeof("koala_settings")
        settings.learning_rate = self.learning_rate
        settings.weight_decay = self.weight_decay
        settings.initial_variance = self.initial_variance
        settings.process_noise = self.process_noise
        settings.variant = number("variant", self.variant, VARIANTS)
        settings.prior_variance = self.prior_variance
        settings.frozen = bool(self.frozen)


def check_scaling(factor: float, limit: float) -> None:
    """Looks at what gradients are multiplied by and limited to as they are loaded.

    Raises:
        ValueError: One of them is not above 0, or the factor is not finite.
    """
    step = ffi.new("koala_step *")
    check(lib.koala_step_init(step, ffi.sizeof("koala_step")))
    step.gradient_factor, step.gradient_limit = factor, limit
    check(lib.koala_step_tensors(step, ffi.NULL, 0, ffi.NULL, ffi.NULL))


class Backend(NamedTuple):
    """A backend: a kind of vector unit that a step can run on. All of them give the same bits.

    Attributes:
        name: Such as "avx2".
        present: Whether this processor has it.
        description: What it is, in a few words.
        absent_because: Why it is not present; empty if it is.
    """

    name: str
    present: bool
    description: str
    absent_because: str


def backends() -> list[Backend]:
    """All backends that libkoala knows, present or not."""
    count = ffi.new("size_t *")
    check(lib.koala_backend_count(count))
    return [_describe(backend) for backend in range(1, count[0] + 1)]


@cache
def backend_number(name: str) -> int:
    """The C number of a backend.

    Args:
        name: "fastest", for the fastest one that this processor has, or a name that `backends()` lists.

    Raises:
        ValueError: There is no such name; the text lists those there are.
        BackendError: This processor lacks it; the text lists those present.
    """
    known = {"fastest": lib.KOALA_BACKEND_FASTEST}
    known.update((backend.name, place) for place, backend in enumerate(backends(), 1))
    found = number("backend", name, known)
    if name != "fastest":
        check(lib.koala_backend_by_name(name.encode(), ffi.new("koala_backend *")))
    return found


def _describe(backend: int) -> Backend:
    info = ffi.new("koala_backend_info *", {"size": ffi.sizeof("koala_backend_info")})
    check(lib.koala_backend_describe(backend, info))
    texts = (ffi.string(text).decode() for text in (info.name, info.description, info.absent_because))
    name, description, absent_because = texts
    return Backend(name, bool(info.present), description, absent_because)
