"""A training that is killed and goes on from its last checkpoint in another process ends with the same bits."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from torch_models import perceptron, train  # noqa: E402

from koala_optim.torch import KoalaPlusPlus  # noqa: E402

STEPS = 60
# Trains from the last checkpoint on, and makes one after every step. What is half-written is not yet a checkpoint. One
# that is to be killed does not take the last step. One that goes on has all settings, R's rule among them, from there.
PROGRAM = """
import os, sys, time
import torch
from koala_optim.torch import KoalaPlusPlus
from torch_models import perceptron, train

path, steps, is_killed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "killed"
model = perceptron()
settings = dict(lr=0.7, weight_decay=1e-4, noise_decay=0.5) if is_killed else {}
optimizer = KoalaPlusPlus(model.parameters(), state_dtype=torch.bfloat16, **settings)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
done = 0
if os.path.exists(path):
    checkpoint = torch.load(path, weights_only=True)
    done = checkpoint["done"]
    for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
        part.load_state_dict(checkpoint[name])
for step in range(done, steps):
    while is_killed and step == steps - 1:
        time.sleep(1)
    train(model, optimizer, range(step, step + 1))
    scheduler.step()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    checkpoint = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**checkpoint, "done": step + 1}, path + ".new")
    os.replace(path + ".new", path)
"""


def start(path: pathlib.Path, fate: str) -> subprocess.Popen[bytes]:
    folders = [str(pathlib.Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [sys.executable, "-c", PROGRAM, str(path), str(STEPS), fate]
    # From elsewhere, so that it is the installed package that is imported.
    return subprocess.Popen(command, env=environment, cwd=path.parent)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_and_resumed(tmp_path: pathlib.Path, seed: int) -> None:
    killed = tmp_path / "killed"
    process = start(killed, "killed")
    while not killed.exists():
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < torch.load(killed)["done"] < STEPS
    assert start(killed, "resumed").wait() == 0

    model = perceptron()
    optimizer = KoalaPlusPlus(model.parameters(), 0.7, 1e-4, state_dtype=torch.bfloat16, noise_decay=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        train(model, optimizer, range(step, step + 1))
        scheduler.step()
    resumed = torch.load(killed)
    assert resumed["done"] == STEPS
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, resumed["model"][name])
    for index, state in optimizer.state_dict()["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, resumed["optimizer"]["state"][index][name])
    assert resumed["optimizer"]["param_groups"][0]["measurement_noise"] == optimizer.noise
