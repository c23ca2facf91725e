"""What could only be seen in wrong numbers, or in memory that is not there any more: entries in mappings that are no
dicts, tensors whose memory has the negated numbers, settings that are changed where they are."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")

from test_torch_cached import ALL, parameter, same, take_step  # noqa: E402


@ALL
@pytest.mark.parametrize("length", [5, 100_000])
def test_entries_in_a_mapping_that_is_no_dict(make: Any, length: int) -> None:
    ends = []
    for kind in (dict, UserDict):
        one = parameter(length)
        optimizer = make([one], lr=0.1)
        take_step(optimizer, [one], 0)
        optimizer.state[one] = kind(optimizer.state[one])
        take_step(optimizer, [one], 1)
        for name, entry in [*optimizer.state[one].items()]:
            optimizer.state[one][name] = torch.zeros_like(entry)
        # What the memory of the entries that were there is used for.
        fillers = [torch.full((length,), 7.0) for _ in range(4)]
        take_step(optimizer, [one], 2)
        assert all(bool((filler == 7).all()) for filler in fillers)
        ends.append([one, *optimizer.state[one].values()])
    assert same(*ends)
