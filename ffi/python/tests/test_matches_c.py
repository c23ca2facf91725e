"""The bytes that a C program gets from the same library file: nothing is lost or changed on the way through Python."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy
import pytest
from common import BACKENDS, ELEMENT_TYPES, STATE_TYPES, bits, random_array

import koala_optim._library
from koala_optim import Settings
from koala_optim.numpy import Tensor, loss_from_samples, new_state, noise_update, step_many

HEADER = pathlib.Path(__file__).parents[3] / "include"
LENGTHS = [0, 1, 17, 1000]
STEPS = 4
SETTINGS = Settings(learning_rate=0.5, weight_decay=0.01, initial_variance=0.2, process_noise=0.3, prior_variance=0.4)

# Reads, from stdin, every tensor's parameters; then for each step two losses and every tensor's gradient. Writes what
# every tensor comes to, and R.
PROGRAM = r"""
#include <koala.h>
#include <stdio.h>
#include <stdlib.h>

enum { TENSORS = 4, STEPS = 4 };
static const size_t lengths[TENSORS] = {0, 1, 17, 1000};

static void check(koala_status status) {
  if (status != KOALA_STATUS_OK) exit(1);
}

static void take(void *into, size_t bytes) {
  if (fread(into, 1, bytes, stdin) != bytes) exit(2);
}

int main(int count, char **arguments) {
  if (count != 7) return 3;
  int type = atoi(arguments[1]), state_type = atoi(arguments[2]);
  int size = atoi(arguments[3]), state_size = atoi(arguments[4]);
  static double parameters[TENSORS][1000], gradient[TENSORS][1000], v[TENSORS][1000], h[TENSORS][1000];
  static koala_scalars scalars[TENSORS];
  koala_tensor tensors[TENSORS] = {{0}};
  for (int i = 0; i < TENSORS; i++) {
    koala_tensor *tensor = &tensors[i];
    tensor->size = sizeof *tensor;
    tensor->length = lengths[i];
    tensor->type = (koala_element_type)type;
    tensor->state_type = (koala_state_type)state_type;
    tensor->parameters = parameters[i];
    tensor->gradient = gradient[i];
    tensor->v = v[i];
    tensor->h = h[i];
    tensor->scalars = &scalars[i];
    take(parameters[i], lengths[i] * size);
  }
  koala_settings settings;
  check(koala_settings_init(&settings, sizeof settings));
  settings.learning_rate = 0.5;
  settings.weight_decay = 0.01;
  settings.initial_variance = 0.2;
  settings.process_noise = 0.3;
  settings.variant = (koala_variant)atoi(arguments[6]);
  settings.prior_variance = 0.4;
  koala_step step;
  check(koala_step_init(&step, sizeof step));
  step.groups = &settings;
  step.group_count = 1;
  check(koala_backend_by_name(arguments[5], &step.backend));
  for (int i = 0; i < STEPS; i++) {
    double losses[2];
    koala_loss loss;
    take(losses, sizeof losses);
    check(koala_loss_from_samples(KOALA_ELEMENT_TYPE_F64, losses, 2, &loss));
    check(koala_noise_update(0.9, &loss, &step.noise));
    step.loss = loss.mean;
    for (int j = 0; j < TENSORS; j++) take(gradient[j], lengths[j] * size);
    check(koala_step_tensors(&step, tensors, TENSORS, NULL, NULL));
  }
  for (int i = 0; i < TENSORS; i++) {
    fwrite(parameters[i], size, lengths[i], stdout);
    fwrite(v[i], state_size, lengths[i], stdout);
    fwrite(h[i], state_size, lengths[i], stdout);
    fwrite(&scalars[i], sizeof scalars[i], 1, stdout);
  }
  fwrite(&step.noise, sizeof step.noise, 1, stdout);
  return ferror(stdout);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("c")
    library = koala_optim._library.path()
    source, binary = folder / "steps.c", folder / "steps"
    source.write_text(PROGRAM)
    command = [
        compiler,
        "-std=c11",
        f"-I{HEADER}",
        str(source),
        library,
        "-o",
        str(binary),
    ]
    subprocess.run(command, check=True)
    return binary


@pytest.mark.parametrize("variant", ["vanilla", "definite"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("state_type", STATE_TYPES)
@pytest.mark.parametrize("element_type", ELEMENT_TYPES)
def test_a_c_program_gets_the_same_bytes(
    program: pathlib.Path, element_type: str, state_type: str, backend: str, variant: Any
) -> None:
    settings = dataclasses.replace(SETTINGS, variant=variant)
    parameters = [random_array(i, length, element_type) for i, length in enumerate(LENGTHS)]
    tensors = [Tensor(p, p.copy(), *new_state(p, state_type), settings=settings) for p in parameters]  # type: ignore[arg-type]
    given = [p.tobytes() for p in parameters]
    noise = 1.0
    for place in range(STEPS):
        losses = numpy.abs(random_array(100 + place, 2, "float64"))
        given.append(losses.tobytes())
        for i, tensor in enumerate(tensors):
            tensor.gradient = random_array(10 * place + i, LENGTHS[i], element_type)
            given.append(bits(tensor.gradient))
        loss = loss_from_samples(losses)
        noise = noise_update(noise, loss.second_moment)
        step_many(tensors, loss=loss.mean, noise=noise, backend=backend)

    found = bits(*(a for t in tensors for a in (t.parameters, t.v, t.h, t.scalars)), numpy.float64(noise))
    types = koala_optim._settings.ELEMENT_TYPES[element_type], koala_optim._settings.STATE_TYPES[state_type]
    sizes = parameters[0].itemsize, numpy.asarray(tensors[0].v).itemsize
    command = [str(word) for word in (program, *types, *sizes, backend, koala_optim._settings.VARIANTS[variant])]
    done = subprocess.run(command, input=b"".join(given), capture_output=True, check=True)
    assert found == done.stdout
