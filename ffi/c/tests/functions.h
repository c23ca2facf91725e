/* A row for each function of koala.h that takes pointers or values which can be wrong. */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "check.h"

/* Bits for arguments. TENSORS and PARAMETERS are arrays; TENSOR is one koala_tensor, at the same place. GROUPS and
 * STEPS are what a koala_step and a koala_tensor lead to: the settings and the scalars. */
enum argument {
  STEP = 1 << 0, GROUPS = 1 << 1, TENSOR = 1 << 2, TENSORS = 1 << 3, STEPS = 1 << 4, PARAMETERS = 1 << 5,
  SETTINGS = 1 << 6, CONFIG = 1 << 7, REPORT = 1 << 8, INFO = 1 << 9, DOTS = 1 << 10, REPORTS = 1 << 11, LOSS = 1 << 12,
  LOSSES = 1 << 13, NOISE = 1 << 14, OPTIMIZER = 1 << 15, CREATED = 1 << 16, NAME = 1 << 17, TEXT = 1 << 18,
  LENGTH = 1 << 19, NUMBER = 1 << 20, GROUP_NUMBER = 1 << 21, SCALARS = 1 << 22, CHOSEN = 1 << 23, PART = 1 << 24,
  METHOD = 1 << 25, DISTANCE = 1 << 26, PATH = 1 << 27, LOADED = 1 << 28
};

enum { ONE = STEP | GROUPS | TENSOR | STEPS, MANY = STEP | GROUPS | TENSORS | STEPS };

/* Name, arguments, those that may not be NULL, those that may, structs that are only written. */
#define FUNCTIONS(F)                                                                                                  \
  F(koala_check_version, (in->version), 0, 0, 0)                                                                      \
  F(koala_backend_count, (in->number), NUMBER, 0, 0)                                                                  \
  F(koala_backend_describe, (in->backend, in->info), INFO, 0, INFO)                                                   \
  F(koala_backend_fastest, (in->chosen), CHOSEN, 0, 0)                                                                \
  F(koala_backend_by_name, (in->name, in->chosen), NAME | CHOSEN, 0, 0)                                               \
  F(koala_backend_from_environment, (in->chosen), CHOSEN, 0, 0)                                                       \
  F(koala_settings_init, (in->settings, in->size), SETTINGS, 0, SETTINGS)                                             \
  F(koala_settings_validate, (in->settings), SETTINGS, 0, 0)                                                          \
  F(koala_method_init, (in->method, in->size, in->kind), METHOD, 0, METHOD)                                           \
  F(koala_method_validate, (in->method), METHOD, 0, 0)                                                                \
  F(koala_method_predict, (in->method, in->gain, in->length), METHOD, 0, 0)                                           \
  F(koala_method_correct, (in->method, in->gain), METHOD, 0, 0)                                                       \
  F(koala_loss_from_samples, (in->type, in->losses, in->count, in->loss), LOSSES | LOSS, 0, 0)                        \
  F(koala_noise_validate, (in->rule, in->decay, in->gain), 0, 0, 0)                                                   \
  F(koala_scaling_validate, (in->factor, in->limit), 0, 0, 0)                                                         \
  F(koala_noise_update, (in->decay, in->loss, in->noise), LOSS | NOISE, 0, 0)                                         \
  F(koala_step_init, (in->step, in->size), STEP, 0, STEP)                                                             \
  F(koala_step_validate, (in->step), STEP | GROUPS, 0, 0)                                                             \
  F(koala_step_tensor, (in->step, in->tensors, in->reports), ONE, REPORTS, 0)                                         \
  F(koala_step_tensors, (in->step, in->tensors, in->count, in->reports, in->report), MANY, REPORTS | REPORT, REPORT)  \
  F(koala_predict_tensors, (in->step, in->tensors, in->count, in->distance, in->number), MANY | DISTANCE | NUMBER,    \
    0, 0)                                                                                                             \
  F(koala_dots_add, (in->dots, in->part), DOTS | PART, 0, 0)                                                          \
  F(koala_dots_tensor, (in->step, in->tensors, in->dots), ONE | DOTS, 0, 0)                                           \
  F(koala_dots_tensors, (in->step, in->tensors, in->count, in->dots), MANY | DOTS, 0, 0)                              \
  F(koala_apply_tensor, (in->step, in->tensors, in->dots, in->reports), ONE | DOTS, REPORTS, 0)                       \
  F(koala_apply_tensors, (in->step, in->tensors, in->count, in->dots, in->reports, in->report), MANY | DOTS,          \
    REPORTS | REPORT, REPORT)                                                                                         \
  F(koala_config_init, (in->config, in->size), CONFIG, 0, CONFIG)                                                     \
  F(koala_config_validate, (in->config), CONFIG, 0, 0)                                                                \
  F(koala_optimizer_create, (in->config, in->created), CREATED, CONFIG, 0)                                            \
  F(koala_optimizer_destroy, (in->optimizer), 0, OPTIMIZER, 0)                                                        \
  F(koala_optimizer_add_group, (in->optimizer, in->settings, in->group_number), OPTIMIZER | GROUP_NUMBER, SETTINGS, 0)\
  F(koala_optimizer_settings, (in->optimizer, in->group, in->settings), OPTIMIZER | SETTINGS, 0, SETTINGS)            \
  F(koala_optimizer_set_settings, (in->optimizer, in->group, in->settings), OPTIMIZER | SETTINGS, 0, 0)               \
  F(koala_optimizer_set_method, (in->optimizer, in->group, in->method), OPTIMIZER | METHOD, 0, 0)                     \
  F(koala_optimizer_set_learning_rate, (in->optimizer, in->group, in->learning_rate), OPTIMIZER, 0, 0)                \
  F(koala_optimizer_set_scaling, (in->optimizer, in->factor, in->limit), OPTIMIZER, 0, 0)                             \
  F(koala_optimizer_set_threads, (in->optimizer, in->threads), OPTIMIZER, 0, 0)                                       \
  F(koala_optimizer_add_tensor,                                                                                       \
    (in->optimizer, in->name, in->length, in->type, in->state_type, in->group, in->number),                          \
    OPTIMIZER | NAME, NUMBER, 0)                                                                                      \
  F(koala_optimizer_tensor_count, (in->optimizer, in->number), OPTIMIZER | NUMBER, 0, 0)                              \
  F(koala_optimizer_find_tensor, (in->optimizer, in->name, in->number), OPTIMIZER | NAME | NUMBER, 0, 0)              \
  F(koala_optimizer_tensor_name, (in->optimizer, in->tensor, in->text, in->capacity, in->number), OPTIMIZER | TEXT,   \
    LENGTH, 0)                                                                                                        \
  F(koala_optimizer_scalars, (in->optimizer, in->tensor, in->scalars), OPTIMIZER | SCALARS, 0, 0)                     \
  F(koala_optimizer_state, (in->optimizer, in->tensor, in->v, in->h, in->bytes), OPTIMIZER, 0, 0)                     \
  F(koala_optimizer_restart, (in->optimizer, in->tensor), OPTIMIZER, 0, 0)                                            \
  F(koala_optimizer_noise, (in->optimizer, in->noise), OPTIMIZER | NOISE, 0, 0)                                       \
  F(koala_optimizer_method, (in->optimizer, in->method), OPTIMIZER | METHOD, 0, METHOD)                               \
  F(koala_optimizer_backend, (in->optimizer, in->chosen), OPTIMIZER | CHOSEN, 0, 0)                                   \
  F(koala_optimizer_set_log, (in->optimizer, NULL, NULL), OPTIMIZER, 0, 0)                                            \
  F(koala_optimizer_predict, (in->optimizer, in->parameters, in->count), OPTIMIZER | PARAMETERS, 0, 0)                \
  F(koala_optimizer_step, (in->optimizer, in->loss, in->parameters, in->count, in->reports, in->report),              \
    OPTIMIZER | LOSS | PARAMETERS, REPORTS | REPORT, REPORT)                                                          \
  F(koala_optimizer_save, (in->optimizer, in->path), OPTIMIZER | PATH, 0, 0)                                          \
  F(koala_optimizer_load, (in->optimizer, in->path, in->loading, in->loaded), OPTIMIZER | PATH, LOADED, LOADED)       \
  F(koala_optimizer_differences, (in->optimizer, in->text, in->capacity, in->number), OPTIMIZER | TEXT, LENGTH, 0)

#define CALL(name, arguments, needed, optional, filled) \
  static koala_status call_##name(const struct given *in) { return name arguments; }
FUNCTIONS(CALL)

#define ROW(name, arguments, needed, optional, filled) {#name, call_##name, needed, optional, filled},
static const struct function functions[] = {FUNCTIONS(ROW)};

enum { FUNCTIONS_HERE = sizeof functions / sizeof functions[0] };

/* A prediction does not look at gradients. */
static inline int predicts(const struct function *function) { return strstr(function->name, "predict") != NULL; }

static inline const struct function *function_named(const char *name) {
  for (int i = 0; i < FUNCTIONS_HERE; i++) {
    if (strcmp(functions[i].name, name) == 0) return &functions[i];
  }
  fprintf(stderr, "there is no row for %s\n", name);
  exit(1);
}

#endif
