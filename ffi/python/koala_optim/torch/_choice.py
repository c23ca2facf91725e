"""One way to have any of the optimizers, for whoever chooses among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim.optimizer import ParamsT

from .._methods import METHODS, Method
from .._settings import Settings
from ._optimizer import KoalaPlusPlus

if TYPE_CHECKING:
    from ._methods import Koala

# KOALA++, whose numbers are settings, is no `Method`.
_KOALA_PLUS_PLUS = "koala++"


def new_optimizer(
    params: ParamsT, method: Method | Settings | str = _KOALA_PLUS_PLUS, **options: Any
) -> KoalaPlusPlus | Koala:
    """An optimizer of that method.

    A training loop that calls `predict()` before it takes gradients, and then `step(loss=losses)` or `update`, fits all
    of them. What suits as `lr` differs: about 1 for the KOALA family, far less for AdamW and SGD. So does where a step
    runs: that of KOALA++ on any device, and on the CPU by as many `threads` as it is given; the others' on the CPU, by
    one thread, and with more to do for each parameter beside the step itself.

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
        options: The other arguments of `KoalaPlusPlus`, or of `Koala` for the other methods, which come before what is
            in a `Settings`.

    Raises:
        TypeError, ValueError: The method is unknown, or an argument is not as the class says.
        ImportError: NumPy is not installed, and the method is another one than KOALA++.
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
        }
        return KoalaPlusPlus(params, **{**numbers, **options})
    if method == _KOALA_PLUS_PLUS:
        return KoalaPlusPlus(params, **options)
    # Only this needs NumPy.
    from ._methods import Koala

    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method is {method!r}, expected one of {', '.join((_KOALA_PLUS_PLUS, *METHODS))}")
        method = METHODS[method]()
    return Koala(params, method, **options)
