"""The example of a tensor that is divided over processes says that its result is that of one process."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "examples" / "torch_distributed.py"


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch is built without processes")
@pytest.mark.parametrize("processes", [2, 3])
def test_divided_over_processes(processes: int) -> None:
    command = [sys.executable, str(EXAMPLE), "--quick", "--processes", str(processes)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    uneven, subtrees = output.splitlines()
    assert uneven.startswith("uneven parts, all-reduced")
    assert subtrees.startswith("subtrees")
    assert subtrees.endswith("the same bits")
