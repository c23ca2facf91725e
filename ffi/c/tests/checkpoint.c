/* Goes on from a checkpoint that Rust wrote, and leaves one for Rust: ffi/tests/checkpoints.rs. The arguments are its
 * path and a koala_method_kind; stdin has the parameters and the gradients of some steps, stdout gets the parameters.
 * All else that the steps need is in the checkpoint. */
#include <koala.h>

#include <stdio.h>
#include <stdlib.h>

#include "succeeds.h"

enum { TENSORS = 2, LONGEST = 67, STEPS = 2 };

static const size_t lengths[TENSORS] = {LONGEST, 3};
static const char *const names[TENSORS] = {"a", "b"};

static struct {
  double parameters[TENSORS][LONGEST];
  struct {
    koala_loss loss;
    double gradients[TENSORS][LONGEST];
  } steps[STEPS];
} input;

static koala_optimizer *new_optimizer(koala_method_kind kind) {
  koala_optimizer *optimizer;
  koala_config config;
  koala_method method;
  uint32_t group;
  check(koala_method_init(&method, sizeof method, kind), "koala_method_init");
  check(koala_config_init(&config, sizeof config), "koala_config_init");
  config.method = &method;
  check(koala_optimizer_create(&config, &optimizer), "koala_optimizer_create");
  check(koala_optimizer_add_group(optimizer, NULL, &group), "koala_optimizer_add_group");
  /* In another order than in Rust: the last one has the number 0. */
  for (int i = TENSORS - 1; i >= 0; i--) {
    check(koala_optimizer_add_tensor(optimizer, names[i], lengths[i], KOALA_ELEMENT_TYPE_F64, KOALA_STATE_TYPE_SAME,
                                     group, NULL), names[i]);
  }
  return optimizer;
}

int main(int count, char **arguments) {
  koala_loaded loaded = {.size = sizeof loaded};
  if (count != 3 || fread(&input, sizeof input, 1, stdin) != 1) return 2;
  koala_optimizer *optimizer = new_optimizer(atoi(arguments[2]));
  check(koala_optimizer_load(optimizer, arguments[1], KOALA_LOADING_EXACT, &loaded), "koala_optimizer_load");
  if (loaded.tensors != TENSORS || loaded.differences != 0) return 3;
  for (int step = 0; step < STEPS; step++) {
    koala_parameters tensors[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
      tensors[i] = (koala_parameters){.size = sizeof(koala_parameters), .tensor = TENSORS - 1 - i, .length = lengths[i],
                                      .type = KOALA_ELEMENT_TYPE_F64, .parameters = input.parameters[i],
                                      .gradient = input.steps[step].gradients[i]};
    }
    check(koala_optimizer_predict(optimizer, tensors, TENSORS), "koala_optimizer_predict");
    check(koala_optimizer_step(optimizer, &input.steps[step].loss, tensors, TENSORS, NULL, NULL), "a step");
  }
  check(koala_optimizer_save(optimizer, arguments[1]), "koala_optimizer_save");
  fwrite(input.parameters, sizeof input.parameters, 1, stdout);
  return koala_optimizer_destroy(optimizer);
}
