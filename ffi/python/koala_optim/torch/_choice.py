"""One way to have any of the optimizers, for whoever chooses among them."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import ParamsT

from .._methods import METHODS, Method
from .._settings import Settings
from ._kinds import KINDS, KOALA_PLUS_PLUS
from ._koala_plus_plus import KoalaPlusPlus
from ._optimizer import Optimizer


def new_optimizer(params: ParamsT, method: Method | Settings | str = KOALA_PLUS_PLUS, **options: Any) -> Optimizer:
    """An optimizer of that method.

    A training loop that calls `predict()` before it takes gradients, and then `step(loss=losses)` or `update`, fits all
    of them. What suits as `lr` differs: about 1 for the KOALA family, far less for AdamW and SGD. So does where a step
    runs: that of KOALA++ on any device, the others' on the CPU.

    >>> import torch
    >>> from koala_optim import AdamW
    >>> from koala_optim.torch import new_optimizer
    >>> data = torch.ones(4, 3)
    >>> for method, lr in [("koala++", 1.0), ("koala-m", 1.0), (AdamW(beta1=0.8), 1e-3), ("sgd", 0.1)]:
    ...     model = torch.nn.Linear(3, 2)
    ...     optimizer = new_optimizer(model.parameters(), method, lr=lr)
    ...     optimizer.predict()  # KOALA-M moves the parameters here, before their gradients are taken.
    ...     losses = model(data).square().sum(1)
    ...     losses.mean().backward()
    ...     _ = optimizer.step(loss=losses)

    Args:
        params: As in `torch.optim`.
        method: "koala++", "koala-v", "koala-m", "adamw" or "sgd"; or a `KoalaV`, `KoalaM`, `AdamW` or `Sgd` of
            `koala_optim`, with its numbers; or, for KOALA++ with its numbers, a `Settings`, which is not frozen.
        options: The other arguments of `KoalaPlusPlus`, or of `Optimizer` for the other methods. They come before what
            is in a `Settings`.

    Raises:
        TypeError, ValueError: The method is unknown, or an argument is not as the class says.
    """
    if isinstance(method, Settings):
        if method.frozen:
            raise ValueError("the settings are frozen; in PyTorch, a parameter is by requires_grad_(False)")
        numbers = {
            "lr": method.learning_rate,
            "weight_decay": method.weight_decay,
            "initial_variance": method.initial_variance,
            "process_noise": method.process_noise,
            "variant": method.variant,
            "prior_variance": method.prior_variance,
        }
        return KoalaPlusPlus(params, **{**numbers, **options})
    if method == KOALA_PLUS_PLUS:
        return KoalaPlusPlus(params, **options)
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method is {method!r}, expected one of {', '.join(KINDS)}")
        method = METHODS[method]()
    return Optimizer(params, method, **options)
