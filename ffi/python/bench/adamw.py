"""What AdamW costs on libkoala's kernel, beside PyTorch's fused one: ResNet-50's parameters, float32, one thread.
PyTorch does not look whether a gradient is finite; libkoala does unless it is told not to: both of its ways are timed.

    python bench/adamw.py [--quick]

All step the same memory, and are timed in turn, round after round, so that their ratio holds on a machine that drifts.
What is timed of libkoala is its call, with arguments that were made before, as PyTorch keeps its own.
"""

from __future__ import annotations

import argparse
import statistics

import step as shapes_and_time
import torch

from koala_optim import AdamW, Settings
from koala_optim._library import check, ffi, lib
from koala_optim._settings import OnNonFinite
from koala_optim.numpy import Tensor, _Call, new_state


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="rounds of one step each (default 41)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds

    torch.set_num_threads(1)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes_and_time.resnet_50()]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    fused = torch.optim.AdamW(parameters, 1e-6, weight_decay=1e-2, fused=True)
    looking, unchecked = arguments(parameters, "keep_tensor"), arguments(parameters, "unchecked")
    steps = [
        lambda: check(lib.koala_step_tensors(*looking)),
        lambda: check(lib.koala_step_tensors(*unchecked)),
        fused.step,
    ]
    for step in steps:
        step()
    times = [[shapes_and_time.seconds(step) for step in steps] for _ in range(rounds)]
    print(f"ResNet-50, float32, one thread, PyTorch {torch.__version__}; medians of {rounds} rounds")
    for place, name in enumerate(["libkoala", "libkoala, unchecked", "PyTorch's fused AdamW"]):
        milliseconds = statistics.median(row[place] for row in times) * 1e3
        ratio = statistics.median(row[place] / row[2] for row in times)
        print(f"{name:<22} {milliseconds:7.1f} ms, {ratio:.2f} × the fused one's")


def arguments(parameters: list[torch.nn.Parameter], on_non_finite: OnNonFinite) -> tuple[object, ...]:
    """Those of koala_step_tensors, which steps the parameters by AdamW."""
    method = AdamW()
    settings = Settings(learning_rate=1e-6, weight_decay=1e-2)
    tensors = []
    for parameter in parameters:
        assert parameter.grad is not None
        weight, gradient = parameter.detach().numpy().reshape(-1), parameter.grad.numpy().reshape(-1)
        tensors.append(Tensor(weight, gradient, *new_state(weight, method=method), settings=settings))
    call = _Call(tensors, 0.5, 1.0, "fastest", on_non_finite, "restart", False, method, (1.0, float("inf")))
    # What C points to has to live as long as the call.
    kept.append(call)
    return call.step, call.tensors, call.count, ffi.NULL, ffi.NULL


kept: list[_Call] = []

if __name__ == "__main__":
    main()
