"""What a step of AdamW costs a user of PyTorch: `new_optimizer(parameters, "adamw")` beside PyTorch's fused AdamW. The
parameters are those of ResNet-50, float32, one thread. PyTorch does not look whether a gradient is finite; libkoala
does unless it is told not to: both of its ways are timed.

    python bench/adamw.py [--quick]

All step the same memory, and are timed in turn, round after round, so that their ratio holds on a machine that drifts.
Then it times tensors of one element, where nothing is left but what a step costs whatever its size.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, Callable

import step as shapes_and_time
import torch

from koala_optim.torch import new_optimizer

NAMES = ["libkoala", "libkoala, unchecked", "PyTorch's fused AdamW"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="rounds of one step each (default 41)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds

    torch.set_num_threads(1)
    shapes = shapes_and_time.resnet_50()
    print(f"float32, one thread, PyTorch {torch.__version__}; medians of {rounds} rounds")
    print("ResNet-50:")
    compare(shapes, rounds, 1e3, "ms")
    print(f"as many tensors ({len(shapes)}), each of one element:")
    compare([(1,)] * len(shapes), rounds, 1e6, "µs")


def compare(shapes: list[tuple[int, ...]], rounds: int, scale: float, unit: str) -> None:
    """Prints what each optimizer takes for a step of tensors of these shapes."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    steps: list[Callable[[], Any]] = [
        new_optimizer(parameters, "adamw", lr=1e-6, weight_decay=1e-2).step,
        new_optimizer(parameters, "adamw", lr=1e-6, weight_decay=1e-2, on_non_finite="unchecked").step,
        torch.optim.AdamW(parameters, 1e-6, weight_decay=1e-2, fused=True).step,
    ]
    for step in steps:
        step()
    times = [[shapes_and_time.seconds(step) for step in steps] for _ in range(rounds)]
    for place, name in enumerate(NAMES):
        median = statistics.median(row[place] for row in times) * scale
        ratio = statistics.median(row[place] / row[2] for row in times)
        print(f"  {name:<22} {median:7.1f} {unit}, {ratio:.2f} × the fused one's")


if __name__ == "__main__":
    main()
