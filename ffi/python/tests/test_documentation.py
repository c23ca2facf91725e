"""The examples in the README and in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.split("\n")[0] for example in EXAMPLES])
def test_the_readme_s_examples_run(example: str) -> None:
    for package in re.findall(r"^import (\w+)", example, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    exec(example, {})


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("name", ["numpy", "torch", "torch._choice"])
def test_docstrings(name: str) -> None:
    if name.startswith("torch"):
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(f"koala_optim.{name}"))
    assert result.attempted > 0 and result.failed == 0
