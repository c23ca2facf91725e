"""What a step did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._settings import OUTCOMES, Outcome


class Report(NamedTuple):
    """What a step did with the parameters that had a gradient.

    Attributes:
        noise: R of this step, in squared units of the loss.
        stepped: Parameters that stepped, first steps and restarts included.
        first_steps: Those of them that stepped for the first time.
        restarts: Those of them whose filter restarted, S having come out as zero or less.
        skipped: Parameters kept because their gradient is (nearly) zero.
        non_finite: Parameters kept because something was NaN or infinite.
        breakdowns: Parameters kept because S came out as zero or less.
        withheld: Parameters kept because another one is not finite, under "keep_all".
        outcomes: What was done with each one, by its name.
    """

    noise: float
    stepped: int
    first_steps: int
    restarts: int
    skipped: int
    non_finite: int
    breakdowns: int
    withheld: int
    outcomes: dict[str, Outcome]


def report_of(noise: float, found: Iterable[tuple[str, int]]) -> Report:
    """Counts outcomes, each with the name of its parameter."""
    outcomes = {name: OUTCOMES[outcome] for name, outcome in found}
    count = list(outcomes.values()).count
    return Report(
        noise=noise,
        stepped=count("stepped") + count("first_step") + count("restarted"),
        first_steps=count("first_step"),
        restarts=count("restarted"),
        skipped=count("skipped"),
        non_finite=count("non_finite"),
        breakdowns=count("breakdown"),
        withheld=count("withheld"),
        outcomes=outcomes,
    )
