"""Checkpoints that Rust wrote are files of safetensors: its own package reads in them what the library documents."""

from __future__ import annotations

import json
import pathlib

import ml_dtypes
import numpy
from safetensors import safe_open

SAMPLE = pathlib.Path(__file__).parents[3] / "tests" / "data" / "checkpoint.safetensors"


def test_safetensors_reads_a_checkpoint() -> None:
    with safe_open(SAMPLE, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}

    assert (metadata["koala-checkpoint"], metadata["note/epoch"]) == ("1", "3")
    optimizer = json.loads(metadata["optimizer"])
    assert optimizer["steps"] == 4
    assert optimizer["groups"][0]["learning_rate"] == 0.1 + 0.2
    assert optimizer["groups"][1]["process_noise"] == 1 / 3

    expected = {"checksum": ("uint8", (8,))}
    for name, length, parameters, state in [
        ("weight", 5, "float32", "float32"),
        ("bias", 1, "float64", "float64"),
        ("half", 3, ml_dtypes.bfloat16, "float32"),
        ("empty", 0, "float16", ml_dtypes.bfloat16),
    ]:
        expected[f"tensor/{name}"] = (parameters, (length, 1))
        expected[f"state/{name}/v"] = expected[f"state/{name}/h"] = (state, (length,))
        expected[f"state/{name}/scalars"] = ("float64", (4,))
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    assert found == {name: (numpy.dtype(dtype), shape) for name, (dtype, shape) in expected.items()}

    # The sample's own: h·h is that of the h beside it, after as many steps as the tensor was in.
    h_h, _, innovation_variance, steps = tensors["state/bias/scalars"]
    assert h_h == tensors["state/bias/h"][0] ** 2 and innovation_variance > 0 and 0 < steps <= 4
    assert not tensors["state/empty/scalars"].any()
