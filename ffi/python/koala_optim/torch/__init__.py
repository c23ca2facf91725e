"""KOALA++ (arXiv 2506.04432) for PyTorch: an optimizer like those of `torch.optim`, whose step is a call of libkoala.

>>> import torch
>>> from koala_optim.torch import KoalaPlusPlus
>>> model = torch.nn.Linear(3, 2)
>>> optimizer = KoalaPlusPlus(model.parameters())
>>> losses = model(torch.ones(4, 3)).square().sum(1)  # One for each sample.
>>> losses.mean().backward()
>>> optimizer.step(loss=losses)
>>> optimizer.report().first_steps
2

`Koala` has the library's other optimizers: KOALA-V, KOALA-M, AdamW and SGD. It needs NumPy, which the rest does not.
`new_optimizer(model.parameters(), "adamw", lr=1e-3)` takes any of them, KOALA++ too, by name or with its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._choice import new_optimizer
from ._optimizer import KoalaPlusPlus
from ._report import Report

if TYPE_CHECKING:
    from ._methods import Koala

__all__ = ["Koala", "KoalaPlusPlus", "Report", "new_optimizer"]


def __getattr__(name: str) -> Any:
    if name == "Koala":
        from ._methods import Koala

        return Koala
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
