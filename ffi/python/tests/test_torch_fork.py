"""Processes that are forked while an optimizer of PyTorch has threads: its copy in the child steps with threads of its
own. So do other copies. Each test is a program of its own: a fork of this one would have the threads of other tests."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("numpy")

PROGRAM = """
import copy, hashlib, multiprocessing, os, pickle, signal, sys, torch
from koala_optim.torch import new_optimizer

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
trained = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in (3000, 50, 7000, 1)]
method = sys.argv[1]
optimizer = new_optimizer(trained, method, lr=0.1, **({"threads": 3} if method == "koala++" else {}))

def step(optimizer, *numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        optimizer.predict()
        for one in optimizer.param_groups[0]["params"]:
            one.grad = torch.randn(one.shape, generator=generator)
        optimizer.step(loss=0.5)

def bits(optimizer):
    numbers = torch.cat([one.detach() for one in optimizer.param_groups[0]["params"]]).numpy()
    return hashlib.sha256(numbers.tobytes()).digest()

step(optimizer, 1)
found = []

# A child, and what it forks itself.
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(30)
    step(optimizer, 2, 3)
    grandchild = os.fork()
    if grandchild:
        os.waitpid(grandchild, 0)
        os._exit(0)
    signal.alarm(30)
    step(optimizer, 4)
    os.write(writing, bits(optimizer))
    os._exit(0)
os.close(writing)
found.append(os.read(reading, 64))
os.waitpid(child, 0)

def work(queue):
    signal.alarm(30)
    step(optimizer, 2, 3, 4)
    queue.put(bits(optimizer))

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=work, args=(queue,))
process.start()
process.join()
assert process.exitcode == 0
found.append(queue.get())

for each in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), optimizer):
    step(each, 2, 3, 4)
    found.append(bits(each))
assert len(found) == 5 and len(set(found)) == 1, found
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("method", ["koala++", "koala-m"])
def test_the_same_bits(method: str, tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, method], check=True, cwd=tmp_path)
