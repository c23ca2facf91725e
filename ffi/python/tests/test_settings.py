"""Settings, names and backends: what is accepted, and what is said of what is not."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import koala_optim
from koala_optim import ArgumentError, BackendError, KoalaError, Settings, backends
from koala_optim._library import ffi, lib
from koala_optim._settings import (
    COPY_TYPES,
    ELEMENT_TYPES,
    ON_BREAKDOWN,
    ON_NON_FINITE,
    OUTCOMES,
    STATE_TYPES,
    VARIANTS,
    backend_number,
    number,
)


def test_the_defaults_are_the_library_s() -> None:
    ours, theirs = ffi.new("koala_settings *"), ffi.new("koala_settings *")
    Settings().to_c(ours)
    lib.koala_settings_init(theirs, ffi.sizeof("koala_settings"))
    assert bytes(ffi.buffer(ours)) == bytes(ffi.buffer(theirs))


def test_every_setting_reaches_the_library() -> None:
    struct = ffi.new("koala_settings *")
    Settings(0.5, 0.25, 2, 0, "definite", 0.125, True).to_c(struct)
    found = (struct.learning_rate, struct.weight_decay, struct.initial_variance, struct.process_noise)
    assert found == (0.5, 0.25, 2.0, 0.0)
    assert (struct.variant, struct.prior_variance, struct.frozen) == (lib.KOALA_VARIANT_DEFINITE, 0.125, 1)


def test_settings_are_values() -> None:
    settings = Settings(learning_rate=0.1)
    assert settings == Settings(0.1) and hash(settings) == hash(Settings(0.1))
    assert dataclasses.replace(settings, process_noise=0.2) == Settings(0.1, process_noise=0.2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.learning_rate = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"learning_rate": -1.0}, "the learning rate is -1, expected a finite number, at least 0"),
        ({"weight_decay": float("inf")}, "the weight decay is inf"),
        ({"initial_variance": 0.0}, "the initial variance is 0, expected a finite number above 0"),
        ({"process_noise": float("nan")}, "the process noise is NaN"),
        ({"prior_variance": -1.0}, "the prior variance is -1, expected a finite number, at least 0"),
        ({"variant": "asymmetric"}, "variant is 'asymmetric', expected one of 'symmetric', 'vanilla', 'definite'"),
        ({"variant": ["vanilla"]}, "expected one of 'symmetric', 'vanilla', 'definite'"),
    ],
)
def test_what_is_out_of_range_is_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Settings(**settings)


@pytest.mark.parametrize(
    ("table", "prefix"),
    [
        (VARIANTS, "KOALA_VARIANT_"),
        (ON_NON_FINITE, "KOALA_ON_NON_FINITE_"),
        (ON_BREAKDOWN, "KOALA_ON_BREAKDOWN_"),
        (ELEMENT_TYPES, "KOALA_ELEMENT_TYPE_"),
        (STATE_TYPES, "KOALA_STATE_TYPE_"),
        ({"none": 0, **COPY_TYPES}, "KOALA_COPY_TYPE_"),
        (OUTCOMES, "KOALA_OUTCOME_"),
    ],
)
def test_no_name_of_the_library_is_missing(table: dict[Any, Any], prefix: str) -> None:
    numbers = {getattr(lib, name) for name in dir(lib) if name.startswith(prefix)}
    assert numbers == set(table if prefix == "KOALA_OUTCOME_" else table.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    assert number("on_breakdown", "skip", ON_BREAKDOWN) == lib.KOALA_ON_BREAKDOWN_SKIP
    with pytest.raises(ValueError, match="^on_breakdown is 'jump', expected one of 'restart', 'skip', 'error'$"):
        number("on_breakdown", "jump", ON_BREAKDOWN)


def test_backends() -> None:
    found = {backend.name: backend for backend in backends()}
    assert found["scalar"].present and found["portable"].present
    for name, backend in found.items():
        assert backend.description
        assert backend.present == (backend.absent_because == "")
        if backend.present:
            assert backend_number(name) == getattr(lib, f"KOALA_BACKEND_{name.upper()}")
        else:
            with pytest.raises(BackendError, match=f'"{name}" cannot run here: .*; present are scalar, portable'):
                backend_number(name)
    assert backend_number("fastest") == lib.KOALA_BACKEND_FASTEST
    with pytest.raises(ValueError, match="backend is 'mmx', expected one of 'fastest', 'scalar', 'portable', 'neon'"):
        backend_number("mmx")


def test_an_error_has_the_status_of_the_library() -> None:
    with pytest.raises(ArgumentError) as caught:
        Settings(learning_rate=-1)
    assert caught.value.status == lib.KOALA_STATUS_SETTING
    assert isinstance(caught.value, KoalaError)


def test_the_package_is_of_the_library_s_version() -> None:
    assert koala_optim.__version__ == f"{lib.KOALA_VERSION_MAJOR}.{lib.KOALA_VERSION_MINOR}.{lib.KOALA_VERSION_PATCH}"


def test_the_package_imports_no_framework(tmp_path: pathlib.Path) -> None:
    program = "import sys, koala_optim; print(*{'jax', 'numpy', 'optax', 'torch'} & set(sys.modules))"
    # From elsewhere, so that it is the installed package that is imported.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == ""
