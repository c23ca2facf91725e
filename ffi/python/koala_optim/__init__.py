"""The optimizer step of KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432) for PyTorch, JAX and NumPy.

A model of PyTorch (`koala_optim.torch`):

    from koala_optim.torch import KoalaPlusPlus
    optimizer = KoalaPlusPlus(model.parameters())
    losses = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none")
    losses.mean().backward()
    optimizer.step(loss=losses)

Arrays of NumPy, or of whatever shares its memory, in place (`koala_optim.numpy`):

    from koala_optim.numpy import new_state, step
    weight, gradient = numpy.float32([1, -2, 3]), numpy.float32([0.1, 0.2, -0.3])
    state = new_state(weight)
    report = step(weight, gradient, *state, loss=0.7, noise=0.53)

There, a `KoalaV`, `KoalaM`, `AdamW` or `Sgd` as `method` steps instead of KOALA++, on the same kernel; in PyTorch,
`koala_optim.torch.new_optimizer` takes each of these methods, or its name. For JAX there is `koala_optim.optax`. All
give the same bits, on every processor. Importing this package imports none of those.
"""

from ._library import (
    ArgumentError,
    BackendError,
    BreakdownError,
    KoalaError,
    LibraryError,
    NonFiniteError,
    OutOfMemoryError,
    lib,
)
from ._methods import AdamW, KoalaM, KoalaV, Method, Sgd
from ._settings import Backend, Settings, backends

__all__ = [
    "AdamW",
    "ArgumentError",
    "Backend",
    "BackendError",
    "BreakdownError",
    "KoalaError",
    "KoalaM",
    "KoalaV",
    "LibraryError",
    "Method",
    "NonFiniteError",
    "OutOfMemoryError",
    "Settings",
    "Sgd",
    "__version__",
    "backends",
]

__version__ = "{}.{}.{}".format(*(lib.koala_version() // unit % 1000 for unit in (1_000_000, 1000, 1)))
