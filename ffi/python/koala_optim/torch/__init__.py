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

`Optimizer` has the library's other methods: KOALA-V, KOALA-M, AdamW and SGD.
`new_optimizer(model.parameters(), "adamw", lr=1e-3)` takes any of them, KOALA++ too, by name or with its numbers.
"""

from __future__ import annotations

from ._choice import new_optimizer
from ._koala_plus_plus import KoalaPlusPlus
from ._optimizer import Optimizer
from ._report import Report

__all__ = ["KoalaPlusPlus", "Optimizer", "Report", "new_optimizer"]
