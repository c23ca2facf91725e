"""Where the library's file is, which has another name on each system."""

from __future__ import annotations

import pathlib
from types import SimpleNamespace

import pytest

from koala_optim import _library


@pytest.mark.parametrize("name", ["lib_koala.so", "lib_koala.dylib", "_koala.dll"])
def test_it_is_found_on_every_system(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in [name, "__init__.py", "ffi.py", "_koala.pdb"]:
        (tmp_path / other).touch()
    monkeypatch.setattr(_library, "_koala", SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    assert _library.path() == str(tmp_path / name)
