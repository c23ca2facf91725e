/* Takes cases from stdin, one after another (ffi/tests/c_methods.rs writes them): an optimizer's configuration, method
 * and settings, a model, and the gradients of some steps. Steps at all levels of the C API that there are for these,
 * which have to agree about every bit, and writes the final bits of each case to stdout: the method, the norm of the
 * last gradients; of each tensor parameters, v, h and scalars. What a method does not keep is zero, and so is all of a
 * case whose backend is not there, as what runs a program may hide some. */
#include <koala.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "succeeds.h"

enum { TENSORS = 3, LONGEST = 67, STEPS = 6 };
enum level { ONE_BY_ONE, ALL_AT_ONCE, OPTIMIZER, LEVELS };

static const size_t lengths[TENSORS] = {LONGEST, 3, 0};

struct given {
  koala_loss loss;
  double gradients[TENSORS][LONGEST];
};

struct input {
  koala_config config;
  koala_method method;
  koala_settings settings;
  double parameters[TENSORS][LONGEST];
  struct given steps[STEPS];
};

/* All that a level ends with. */
struct model {
  koala_method method;
  double gradient_norm, parameters[TENSORS][LONGEST], v[TENSORS][LONGEST], h[TENSORS][LONGEST];
  koala_scalars scalars[TENSORS];
};

static int keeps_h(const koala_method *method) {
  return method->kind != KOALA_METHOD_KIND_KOALA_V &&
         (method->kind != KOALA_METHOD_KIND_SGD || method->momentum != 0);
}

static int keeps_v(const koala_method *method) {
  return method->kind != KOALA_METHOD_KIND_KOALA_V && method->kind != KOALA_METHOD_KIND_SGD;
}

static void step_model(enum level level, const struct input *input, struct given *given, struct model *model) {
  koala_tensor tensors[TENSORS];
  koala_tensor_report reports[TENSORS];
  koala_report report = {.size = sizeof report};
  koala_step step;
  double distance;
  size_t parameters;
  check(koala_step_init(&step, sizeof step), "koala_step_init");
  step.groups = &input->settings;
  step.group_count = 1;
  step.method = &model->method;
  step.backend = input->config.backend;
  step.loss = given->loss.mean;
  step.noise = input->config.initial_noise;
  step.gradient_factor = input->config.gradient_factor;
  step.gradient_limit = input->config.gradient_limit;
  for (int i = 0; i < TENSORS; i++) {
    tensors[i] = (koala_tensor){.size = sizeof(koala_tensor), .length = lengths[i], .type = KOALA_ELEMENT_TYPE_F64,
                                .parameters = model->parameters[i], .gradient = NULL,
                                .v = keeps_v(&model->method) ? model->v[i] : NULL,
                                .h = keeps_h(&model->method) ? model->h[i] : NULL, .scalars = &model->scalars[i]};
  }
  check(koala_predict_tensors(&step, tensors, TENSORS, &distance, &parameters), "koala_predict_tensors");
  check(koala_method_predict(&model->method, distance, parameters), "koala_method_predict");
  for (int i = 0; i < TENSORS; i++) tensors[i].gradient = given->gradients[i];
  if (level == ALL_AT_ONCE) {
    check(koala_step_tensors(&step, tensors, TENSORS, NULL, &report), "koala_step_tensors");
  } else {
    for (int i = 0; i < TENSORS; i++) {
      check(koala_step_tensor(&step, &tensors[i], &reports[i]), "koala_step_tensor");
      if (reports[i].outcome <= KOALA_OUTCOME_RESTARTED) report.gain = fmax(report.gain, reports[i].gain);
    }
  }
  check(koala_method_correct(&model->method, report.gain), "koala_method_correct");
}

static void step_optimizer(koala_optimizer *optimizer, struct given *given, struct model *model) {
  koala_report report = {.size = sizeof report};
  koala_parameters tensors[TENSORS];
  for (int i = 0; i < TENSORS; i++) {
    tensors[i] = (koala_parameters){.size = sizeof(koala_parameters), .tensor = i, .length = lengths[i],
                                    .type = KOALA_ELEMENT_TYPE_F64, .parameters = model->parameters[i]};
  }
  check(koala_optimizer_predict(optimizer, tensors, TENSORS), "koala_optimizer_predict");
  for (int i = 0; i < TENSORS; i++) tensors[i].gradient = given->gradients[i];
  check(koala_optimizer_step(optimizer, &given->loss, tensors, TENSORS, NULL, &report), "koala_optimizer_step");
  model->gradient_norm = report.gradient_norm;
}

static koala_optimizer *new_optimizer(struct input *input) {
  koala_optimizer *optimizer;
  uint32_t group;
  /* What is set later has to be as good as what an optimizer is made with. */
  double factor = input->config.gradient_factor, limit = input->config.gradient_limit;
  input->config.gradient_factor = input->config.gradient_limit = 1;
  check(koala_optimizer_create(&input->config, &optimizer), "koala_optimizer_create");
  check(koala_optimizer_set_scaling(optimizer, factor, limit), "koala_optimizer_set_scaling");
  input->config.gradient_factor = factor;
  input->config.gradient_limit = limit;
  check(koala_optimizer_add_group(optimizer, &input->settings, &group), "koala_optimizer_add_group");
  for (int i = 0; i < TENSORS; i++) {
    char name[] = {(char)('a' + i), 0};
    check(koala_optimizer_add_tensor(optimizer, name, lengths[i], KOALA_ELEMENT_TYPE_F64, KOALA_STATE_TYPE_SAME, group,
                                     NULL), name);
  }
  return optimizer;
}

static void fetch_state(const koala_optimizer *optimizer, const koala_method *method, struct model *model) {
  model->method.size = sizeof model->method;
  check(koala_optimizer_method(optimizer, &model->method), "koala_optimizer_method");
  for (int i = 0; i < TENSORS; i++) {
    check(koala_optimizer_state(optimizer, i, keeps_v(method) ? model->v[i] : NULL,
                                keeps_h(method) ? model->h[i] : NULL,
                                lengths[i] * sizeof(double)), "koala_optimizer_state");
    check(koala_optimizer_scalars(optimizer, i, &model->scalars[i]), "koala_optimizer_scalars");
  }
}

/* The final bits of a case; whether all levels agree about them. */
static int try_case(struct input *input, struct model *model) {
  static struct model models[LEVELS];
  koala_backend_info info = {.size = sizeof info};
  koala_optimizer *optimizer;
  check(koala_backend_describe(input->config.backend, &info), "koala_backend_describe");
  memset(model, 0, sizeof *model);
  if (!info.present) return 1;
  input->config.method = &input->method;
  memset(models, 0, sizeof models);
  for (int level = 0; level < LEVELS; level++) {
    models[level].method = input->method;
    models[level].gradient_norm = NAN;
    memcpy(models[level].parameters, input->parameters, sizeof input->parameters);
  }
  optimizer = new_optimizer(input);
  for (int step = 0; step < STEPS; step++) {
    step_model(ONE_BY_ONE, input, &input->steps[step], &models[ONE_BY_ONE]);
    step_model(ALL_AT_ONCE, input, &input->steps[step], &models[ALL_AT_ONCE]);
    step_optimizer(optimizer, &input->steps[step], &models[OPTIMIZER]);
  }
  fetch_state(optimizer, &input->method, &models[OPTIMIZER]);
  check(koala_optimizer_destroy(optimizer), "koala_optimizer_destroy");
  *model = models[OPTIMIZER];
  /* An optimizer alone knows the norm of all gradients. */
  return memcmp(&models[0], &models[1], sizeof models[0]) == 0 &&
         (input->config.clip_norm != INFINITY || memcmp(&models[0], model, sizeof *model) == 0);
}

int main(void) {
  static struct input input;
  static struct model model;
  while (fread(&input, sizeof input, 1, stdin) == 1) {
    if (!try_case(&input, &model)) {
      fprintf(stderr, "two levels of the API do not agree\n");
      return 1;
    }
    fwrite(&model, sizeof model, 1, stdout);
  }
  return 0;
}
