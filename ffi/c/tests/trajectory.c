/* Takes a trajectory from stdin (ffi/tests/trajectories.rs writes it), steps through it at all levels of the C API,
 * which have to agree about every bit, and writes the final bits to stdout: R; of each tensor parameters, v, h and
 * scalars. */
#include <koala.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "succeeds.h"

struct header {
  int64_t backend, type, state_type, variant, noise_rule, tensors, steps;
  double initial_variance, process_noise, weight_decay, learning_rate, noise_decay, initial_noise;
};

/* One copy of the model, whose state the caller owns. */
struct model {
  koala_tensor *tensors;
  koala_scalars *scalars;
  double noise;
};

enum level { ONE_BY_ONE, ALL_AT_ONCE, IN_HALVES, OPTIMIZER, LEVELS };

static void take(void *into, size_t bytes) {
  if (fread(into, 1, bytes, stdin) != bytes) {
    fprintf(stderr, "the trajectory ends too early\n");
    exit(1);
  }
}

static void *room(size_t bytes) {
  void *memory = malloc(bytes + 1); /* Not nothing for a tensor without elements. */
  if (memory == NULL) exit(1);
  return memory;
}

static size_t size_of(int64_t type) {
  return type == KOALA_ELEMENT_TYPE_F64 ? 8 : type == KOALA_ELEMENT_TYPE_F32 ? 4 : 2;
}

static size_t state_size(const struct header *header) {
  switch (header->state_type) {
    case KOALA_STATE_TYPE_F32: return 4;
    case KOALA_STATE_TYPE_BF16: return 2;
    default: return size_of(header->type);
  }
}

static struct model new_model(const struct header *header, const int64_t *lengths) {
  struct model model = {calloc(header->tensors, sizeof(koala_tensor)), calloc(header->tensors, sizeof(koala_scalars)),
                        header->initial_noise};
  if (model.tensors == NULL || model.scalars == NULL) exit(1);
  for (int64_t i = 0; i < header->tensors; i++) {
    size_t bytes = lengths[i] * state_size(header);
    koala_tensor *tensor = &model.tensors[i];
    tensor->size = sizeof *tensor;
    tensor->length = lengths[i];
    tensor->type = (koala_element_type)header->type;
    tensor->state_type = (koala_state_type)header->state_type;
    tensor->parameters = room(lengths[i] * size_of(header->type));
    tensor->v = memset(room(bytes), 0, bytes);
    tensor->h = memset(room(bytes), 0, bytes);
    tensor->scalars = &model.scalars[i];
  }
  return model;
}

static void free_model(struct model *model, int64_t tensors) {
  for (int64_t i = 0; i < tensors; i++) {
    free(model->tensors[i].parameters);
    free(model->tensors[i].v);
    free(model->tensors[i].h);
  }
  free(model->tensors);
  free(model->scalars);
}

static void step_model(enum level level, const struct header *header, const koala_settings *settings,
                       const koala_loss *loss, struct model *model, koala_dots *dots) {
  koala_step step;
  check(koala_step_init(&step, sizeof step), "koala_step_init");
  if (header->noise_rule == KOALA_NOISE_AVERAGED)
    check(koala_noise_update(header->noise_decay, loss, &model->noise), "koala_noise_update");
  step.groups = settings;
  step.group_count = 1;
  step.backend = (koala_backend)header->backend;
  step.loss = loss->mean;
  step.noise = model->noise;
  switch (level) {
    case ONE_BY_ONE:
      for (int64_t i = 0; i < header->tensors; i++)
        check(koala_step_tensor(&step, &model->tensors[i], NULL), "koala_step_tensor");
      break;
    case ALL_AT_ONCE:
      check(koala_step_tensors(&step, model->tensors, header->tensors, NULL, NULL), "koala_step_tensors");
      break;
    default:
      check(koala_dots_tensors(&step, model->tensors, header->tensors, dots), "koala_dots_tensors");
      check(koala_apply_tensors(&step, model->tensors, header->tensors, dots, NULL, NULL), "koala_apply_tensors");
  }
}

/* Copies the optimizer's state into the model that holds its parameters. */
static void fetch_state(const struct header *header, const koala_optimizer *optimizer, struct model *model) {
  for (int64_t i = 0; i < header->tensors; i++) {
    koala_tensor *tensor = &model->tensors[i];
    check(koala_optimizer_state(optimizer, i, tensor->v, tensor->h, tensor->length * state_size(header)), "state");
    check(koala_optimizer_scalars(optimizer, i, tensor->scalars), "scalars");
  }
  check(koala_optimizer_noise(optimizer, &model->noise), "noise");
}

static koala_optimizer *new_optimizer(const struct header *header, const koala_settings *settings,
                                      const int64_t *lengths) {
  koala_config config;
  koala_optimizer *optimizer;
  uint32_t group;
  check(koala_config_init(&config, sizeof config), "koala_config_init");
  config.noise = (koala_noise)header->noise_rule;
  config.noise_decay = header->noise_decay;
  config.initial_noise = header->initial_noise;
  config.backend = (koala_backend)header->backend;
  check(koala_optimizer_create(&config, &optimizer), "koala_optimizer_create");
  check(koala_optimizer_add_group(optimizer, settings, &group), "koala_optimizer_add_group");
  for (int64_t i = 0; i < header->tensors; i++) {
    char name[32];
    snprintf(name, sizeof name, "tensor %d", (int)i);
    check(koala_optimizer_add_tensor(optimizer, name, lengths[i], (koala_element_type)header->type,
                                     (koala_state_type)header->state_type, group, NULL), name);
  }
  return optimizer;
}

static void step_optimizer(const struct header *header, koala_optimizer *optimizer, const koala_loss *loss,
                           const struct model *model, koala_parameters *given) {
  for (int64_t i = 0; i < header->tensors; i++) {
    const koala_tensor *tensor = &model->tensors[i];
    memset(&given[i], 0, sizeof given[i]);
    given[i].size = sizeof given[i];
    given[i].tensor = i;
    given[i].length = tensor->length;
    given[i].type = tensor->type;
    given[i].parameters = tensor->parameters;
    given[i].gradient = tensor->gradient;
  }
  check(koala_optimizer_step(optimizer, loss, given, header->tensors, NULL, NULL), "koala_optimizer_step");
}

/* Writes a model's final bits, or compares them with those of the first one. */
static void compare(const struct header *header, const struct model *model, const struct model *first) {
  int differs = memcmp(&model->noise, &first->noise, sizeof(double)) != 0;
  for (int64_t i = 0; i < header->tensors; i++) {
    const koala_tensor *one = &model->tensors[i], *other = &first->tensors[i];
    size_t bytes = one->length * state_size(header);
    differs |= memcmp(one->parameters, other->parameters, one->length * size_of(header->type)) != 0;
    differs |= memcmp(one->v, other->v, bytes) != 0 || memcmp(one->h, other->h, bytes) != 0;
    differs |= memcmp(one->scalars, other->scalars, sizeof(koala_scalars)) != 0;
  }
  if (differs) {
    fprintf(stderr, "two levels of the API do not agree\n");
    exit(1);
  }
}

static void write_bits(const struct header *header, const struct model *model) {
  fwrite(&model->noise, sizeof(double), 1, stdout);
  for (int64_t i = 0; i < header->tensors; i++) {
    const koala_tensor *tensor = &model->tensors[i];
    fwrite(tensor->parameters, size_of(header->type), tensor->length, stdout);
    fwrite(tensor->v, state_size(header), tensor->length, stdout);
    fwrite(tensor->h, state_size(header), tensor->length, stdout);
    fwrite(tensor->scalars, sizeof(koala_scalars), 1, stdout);
  }
}

int main(void) {
  struct header header;
  struct model models[LEVELS];
  koala_settings settings;
  take(&header, sizeof header);
  int64_t *lengths = room(header.tensors * sizeof *lengths);
  void **gradients = room(header.tensors * sizeof *gradients);
  koala_dots *dots = room(header.tensors * sizeof *dots);
  koala_parameters *given = room(header.tensors * sizeof *given);
  take(lengths, header.tensors * sizeof *lengths);
  check(koala_settings_init(&settings, sizeof settings), "koala_settings_init");
  settings.initial_variance = header.initial_variance;
  settings.process_noise = header.process_noise;
  settings.weight_decay = header.weight_decay;
  settings.learning_rate = header.learning_rate;
  settings.variant = (koala_variant)header.variant;
  for (int level = 0; level < LEVELS; level++) models[level] = new_model(&header, lengths);
  koala_optimizer *optimizer = new_optimizer(&header, &settings, lengths);
  for (int64_t i = 0; i < header.tensors; i++) {
    size_t bytes = lengths[i] * size_of(header.type);
    gradients[i] = room(bytes);
    take(models[0].tensors[i].parameters, bytes);
    for (int level = 0; level < LEVELS; level++) {
      models[level].tensors[i].gradient = gradients[i];
      if (level > 0) memcpy(models[level].tensors[i].parameters, models[0].tensors[i].parameters, bytes);
    }
  }
  for (int64_t number = 0; number < header.steps; number++) {
    koala_loss loss;
    take(&loss, sizeof loss);
    for (int64_t i = 0; i < header.tensors; i++) take(gradients[i], lengths[i] * size_of(header.type));
    for (int level = 0; level < OPTIMIZER; level++)
      step_model((enum level)level, &header, &settings, &loss, &models[level], dots);
    step_optimizer(&header, optimizer, &loss, &models[OPTIMIZER], given);
  }
  fetch_state(&header, optimizer, &models[OPTIMIZER]);
  for (int level = 1; level < LEVELS; level++) compare(&header, &models[level], &models[0]);
  write_bits(&header, &models[0]);
  for (int level = 0; level < LEVELS; level++) free_model(&models[level], header.tensors);
  for (int64_t i = 0; i < header.tensors; i++) free(gradients[i]);
  free(gradients), free(lengths), free(dots), free(given);
  check(koala_optimizer_destroy(optimizer), "koala_optimizer_destroy");
  return 0;
}
