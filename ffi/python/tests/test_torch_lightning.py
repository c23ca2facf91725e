"""Lightning's strategy "ddp", which gives each process the closure of its own loss: replicas stay equal to the bit."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("numpy")
pytest.importorskip("lightning")

PROGRAM = """
import lightning
import torch
from torch_models import digits, perceptron

from koala_optim.torch import new_optimizer


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = perceptron()

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return new_optimizer(self.parameters(), "koala++", lr=0.3)

    def on_train_end(self):
        mine = torch.cat([parameter.detach().flatten() for parameter in self.parameters()])
        both = [torch.empty_like(mine) for _ in range(2)]
        torch.distributed.all_gather(both, mine)
        print("rank", self.global_rank, "is equal:", torch.equal(*both), flush=True)


images, labels = digits()
data = torch.utils.data.TensorDataset(images[:512], labels[:512])
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=8, **quiet)
trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=32))
"""


def test_replicas_are_equal(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    command = [sys.executable, "-W", "ignore", str(program)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
    for rank in range(2):
        assert f"rank {rank} is equal: True" in done.stdout, done.stdout + done.stderr
