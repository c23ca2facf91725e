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

`Koala` has the library's other optimizers: KOALA-V, KOALA-M, AdamW and SGD.
"""

from ._methods import Koala
from ._optimizer import KoalaPlusPlus
from ._report import Report

__all__ = ["Koala", "KoalaPlusPlus", "Report"]
