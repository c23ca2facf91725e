"""What is around a step: it is left out by torch.compile, what a GradScaler set for it goes if it raises, and its
warnings are of the line that called it."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any, Callable

import torch

# Methods that call libkoala, which torch.compile cannot look into.
_CALLS = ("predict", "update", "write_changes", "report")


def patch(kind: type[torch.optim.Optimizer]) -> None:
    """Wraps the methods of a class of optimizers, unless that is done.

    It is for the first optimizer that is made: PyTorch imports its compiler then, which takes seconds, and not before.
    """
    leave_out: Any = torch.compiler.disable
    if not hasattr(kind.step, "forgets_scaler"):
        kind.step = leave_out(_forgetting(kind.step))  # type: ignore[method-assign]
    for name in _CALLS:
        method = getattr(kind, name, None)
        if method is not None and not hasattr(method, "_torchdynamo_disable"):
            setattr(kind, name, leave_out(method))


def warn(text: str) -> None:
    """Warns as of the innermost line of the program that is neither PyTorch's nor this package's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("koala_optim.", "torch.")):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def _forgetting(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with its hooks, after which an exception leaves nothing of a GradScaler behind.

    The scaler sets the scale and `found_inf` before a step, and removes them after it, but not if it raises: then it
    would multiply the scale that is still there by its own before the next step.
    """

    @functools.wraps(step)
    def forgetting(optimizer: Any, *args: Any, **options: Any) -> Any:
        try:
            return step(optimizer, *args, **options)
        except BaseException:
            # Without `found_inf` the scale is the caller's own, which stays.
            if optimizer.__dict__.pop("found_inf", None) is not None:
                optimizer.__dict__.pop("grad_scale", None)
            raise

    forgetting.forgets_scaler = True  # type: ignore[attr-defined]
    return forgetting
