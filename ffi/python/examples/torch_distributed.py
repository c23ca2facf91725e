"""A tensor that is divided over processes: each has a part of parameters, gradient and state, and only the five dot
products of the parts travel, in one all-reduce for a step.

    python examples/torch_distributed.py             # two processes; --processes N for more; --quick for a small tensor

The result is that of one process to the rounding of a sum in float64. It is that to the last bit where the parts are
subtrees of the sum that one process takes, and the sums of the parts are added up as that does: see `add` and `parts`.
"""

from __future__ import annotations

import argparse
import os
import socket
from typing import Any

import numpy
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

from koala_optim import Settings
from koala_optim.numpy import apply, dots, new_state, step

SETTINGS = Settings(learning_rate=0.5, weight_decay=0.01)
STEPS = 5
# Dots are summed over blocks of 1024 elements, and those by a tree: src/types/contract.rs.
BLOCK = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="how many (default 2)")
    parser.add_argument("--length", type=int, default=3_000_001, help="parameters of the tensor (default 3 000 001)")
    parser.add_argument("--quick", action="store_true", help="a tensor of 100 003 parameters")
    options = parser.parse_args()
    length = 100_003 if options.quick else options.length
    if length <= BLOCK * (options.processes - 1):
        raise SystemExit(f"{length} parameters are too few for {options.processes} processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing: Any = torch.multiprocessing
    multiprocessing.spawn(run, (options.processes, length, port), options.processes)


def run(rank: int, processes: int, length: int, port: int) -> None:
    """What each process does."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=processes)
    torch.set_num_threads(1)
    for name, ends in (
        ("uneven parts, all-reduced", uneven(length, processes)),
        ("subtrees", parts(length, processes)),
    ):
        found = divided(rank, ends, in_order=name == "subtrees")
        if rank == 0:
            wanted = undivided(length)
            difference = ((found - wanted).abs().max() / wanted.abs().max()).item()
            same = torch.equal(found, wanted)
            lengths = ", ".join(str(end - begin) for begin, end in zip([0, *ends], ends))
            print(f"{name} ({lengths}): {'the same bits' if same else f'equal to {difference:.1e}'}", flush=True)
            if difference > 1e-6 or (name == "subtrees" and not same):
                raise SystemExit("that is not the result of one process")
    torch.distributed.destroy_process_group()


def divided(rank: int, ends: list[int], in_order: bool) -> Tensor:
    """Steps this process's part, and gathers all of them."""
    begin, end = [0, *ends][rank], ends[rank]
    parameters = data(ends[-1], 0)[begin:end].clone()
    v, h, scalars = (torch.from_numpy(array) for array in new_state(parameters))
    for number in range(STEPS):
        loss = 1 / (number + 1)
        gradient = data(ends[-1], number + 1)[begin:end].clone()
        part = torch.from_numpy(dots(parameters, gradient, v, h, scalars, loss=loss, noise=1.0, settings=SETTINGS))
        if in_order:
            gathered = [torch.empty_like(part) for _ in ends]
            torch.distributed.all_gather(gathered, part)
            total = add(gathered, [0, *ends])
        else:
            torch.distributed.all_reduce(part)
            total = part
        # Every process has the same numbers, and decides the same.
        apply(parameters, gradient, v, h, scalars, total, loss=loss, noise=1.0, settings=SETTINGS)
    sizes = [end - begin for begin, end in zip([0, *ends], ends)]
    padded = torch.zeros(max(sizes))
    padded[: end - begin] = parameters
    gathered = [torch.empty_like(padded) for _ in ends]
    torch.distributed.all_gather(gathered, padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes)])


def undivided(length: int) -> Tensor:
    """The same in one process."""
    parameters = data(length, 0)
    state = new_state(parameters)
    for number in range(STEPS):
        loss = 1 / (number + 1)
        step(parameters, data(length, number + 1), *state, loss=loss, noise=1.0, settings=SETTINGS)
    return parameters


def data(length: int, seed: int) -> Tensor:
    """Numbers that every process agrees on."""
    return torch.from_numpy(numpy.random.default_rng(seed).standard_normal(length, numpy.float32))


def uneven(length: int, processes: int) -> list[int]:
    """Where each part ends: the second is twice as long as the first, and so on."""
    shares = range(1, processes + 1)
    return [length * sum(shares[:count]) // sum(shares) for count in shares]


def parts(length: int, processes: int) -> list[int]:
    """Where each part ends, if all are to be subtrees of the sum over the whole: the longest part is divided as the sum
    is, until there are enough."""
    begins = [(0, length)]
    while len(begins) < processes:
        begin, end = max(begins, key=lambda part: part[1] - part[0])
        place = begins.index((begin, end))
        middle = begin + split(end - begin)
        begins[place : place + 1] = [(begin, middle), (middle, end)]
    return [end for _, end in begins]


def split(length: int) -> int:
    """The left part of a sum: the largest power of two of blocks that is less than all of them."""
    blocks = -(-length // BLOCK)
    return BLOCK << ((blocks - 1).bit_length() - 1)


def add(sums: list[Tensor], bounds: list[int]) -> Tensor:
    """Adds the dots of subtrees in the order of the tree. `bounds`: where the parts begin, and the last one ends."""
    if len(sums) == 1:
        return sums[0]
    place = bounds.index(bounds[0] + split(bounds[-1] - bounds[0]))
    return add(sums[:place], bounds[: place + 1]) + add(sums[place:], bounds[place:])


if __name__ == "__main__":
    main()
