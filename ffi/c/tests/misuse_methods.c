/* What can be wrong with other methods than KOALA++, and with scaled gradients: numbers, predictions, halves, and which
 * of a tensor's vectors there are. See misuse.c. */
#include "functions.h"

#include <math.h>

/* A call with one thing changed in the arena, whose method is of that kind. */
#define TRY(name, variant, kind_, status, word, where, ...)                                                     \
  do {                                                                                                          \
    const struct function *function = function_named(name);                                                     \
    begin(function, variant);                                                                                   \
    must(koala_method_init(arena.method.at, sizeof(koala_method), KOALA_METHOD_KIND_##kind_), "method");        \
    arena.step.at->method = arena.config.at->method = arena.method.at;                                          \
    __VA_ARGS__;                                                                                                \
    attempt(function, variant, status, word, where, #kind_ ": " #__VA_ARGS__);                                  \
  } while (0)

/* A number of a method that is wrong, and one that is right. */
#define NUMBER_OF(name, kind, member, wrong, word, right)                                                       \
  TRY(name, variant, kind, KOALA_STATUS_SETTING, word, "expected", method->member = wrong);                     \
  TRY(name, variant, kind, KOALA_STATUS_SETTING, word, "NaN", method->member = NAN);                            \
  TRY(name, variant, kind, KOALA_STATUS_OK, "", "", method->member = right)

static void try_numbers(int variant) {
  const char *const names[] = {"koala_step_tensor", "koala_step_tensors", "koala_predict_tensors",
                               "koala_optimizer_create"};
  koala_method *method = arena.method.at;
  for (int i = 0; i < 4; i++) {
    NUMBER_OF(names[i], KOALA_V, variance, -0.5, "variance is", 0.0);
    NUMBER_OF(names[i], KOALA_V, process_noise, INFINITY, "process noise is", 0.5);
    NUMBER_OF(names[i], ADAMW, beta1, 1.0, "beta1 is", 0.0);
    NUMBER_OF(names[i], ADAMW, beta2, -0.5, "beta2 is", 0.5);
    NUMBER_OF(names[i], ADAMW, epsilon, 0.0, "epsilon is", 1e-3);
    NUMBER_OF(names[i], SGD, momentum, 1.0, "momentum is", 0.0);
    TRY(names[i], variant, SGD, KOALA_STATUS_UNKNOWN_VALUE, "the flag nesterov is 2", "", method->nesterov = 2);
    TRY(names[i], variant, SGD, KOALA_STATUS_UNKNOWN_VALUE, "5 is no koala_method_kind", "", method->kind = 5);
    TRY(names[i], variant, SGD, KOALA_STATUS_STRUCT_SIZE, "the size in a koala_method", "", method->size -= 8);
    TRY(names[i], variant, SGD, KOALA_STATUS_OK, "", "", method->nesterov = 1);
    TRY(names[i], variant, SGD, KOALA_STATUS_SETTING, "momentum is 0", "", method->nesterov = 1, method->momentum = 0);
    TRY(names[i], variant, KOALA_PLUS_PLUS, KOALA_STATUS_OK, "", "", method->momentum = NAN);
  }
}

/* What a method does not keep may be NULL; what it keeps may not. */
static void try_vectors(int variant) {
  const char *const steps[] = {"koala_step_tensor", "koala_step_tensors", "koala_predict_tensors"};
  koala_tensor *first = arena.tensors.at;
  for (int i = 0; i < 3; i++) {
    TRY(steps[i], variant, KOALA_V, KOALA_STATUS_OK, "", "", first->v = first->h = NULL);
    TRY(steps[i], variant, KOALA_V, KOALA_STATUS_OK, "", "", first->v = first->parameters);
    TRY(steps[i], variant, SGD, KOALA_STATUS_OK, "", "", first->v = NULL);
    TRY(steps[i], variant, SGD, KOALA_STATUS_NULL_POINTER, "h is NULL", "", first->h = NULL);
    TRY(steps[i], variant, SGD, KOALA_STATUS_OVERLAP, "h", "parameters", first->h = first->parameters);
    TRY(steps[i], variant, SGD, KOALA_STATUS_OK, "", "", first->h = NULL, arena.method.at->momentum = 0);
    TRY(steps[i], variant, ADAMW, KOALA_STATUS_NULL_POINTER, "v is NULL", "", first->v = NULL);
    TRY(steps[i], variant, KOALA_M, KOALA_STATUS_NULL_POINTER, "h is NULL", "", first->h = NULL);
  }
  TRY("koala_step_tensors", variant, SGD, KOALA_STATUS_OVERLAP, "report", "method",
      arena.in.report = (koala_report *)(void *)((char *)arena.method.at + 8 - sizeof(koala_report)),
      arena.in.report->size = sizeof(koala_report));
  TRY("koala_predict_tensors", variant, KOALA_M, KOALA_STATUS_OVERLAP, "distance_squared", "parameters",
      arena.in.distance = first->parameters);
  TRY("koala_predict_tensors", variant, KOALA_M, KOALA_STATUS_OVERLAP, "distance_squared", "parameters",
      arena.in.distance = (double *)(void *)arena.in.number);
  TRY("koala_predict_tensors", variant, KOALA_M, KOALA_STATUS_OK, "", "", first->gradient = NULL);
}

static void try_halves(int variant) {
  const char *const halves[] = {"koala_dots_tensor", "koala_dots_tensors", "koala_apply_tensor", "koala_apply_tensors"};
  for (int i = 0; i < 4; i++) {
    TRY(halves[i], variant, SGD, KOALA_STATUS_HALVES, "halves", "KOALA++", (void)0);
    TRY(halves[i], variant, KOALA_V, KOALA_STATUS_HALVES, "halves", "", arena.in.count = 0);
    TRY(halves[i], variant, KOALA_PLUS_PLUS, KOALA_STATUS_HALVES, "halves", "", arena.step.at->gradient_factor = 0.5);
    TRY(halves[i], variant, KOALA_PLUS_PLUS, KOALA_STATUS_HALVES, "halves", "", arena.step.at->gradient_limit = 0.5);
    TRY(halves[i], variant, KOALA_PLUS_PLUS, KOALA_STATUS_OK, "", "", (void)0);
  }
}

/* The numbers of KOALA++ have to be the defaults in the settings for another method. */
static void try_settings_of_another(int variant) {
  const char *const steps[] = {"koala_step_validate", "koala_step_tensor", "koala_step_tensors",
                               "koala_predict_tensors"};
  koala_settings *group = arena.groups.at;
  for (int i = 0; i < 4; i++) {
    TRY(steps[i], variant, ADAMW, KOALA_STATUS_SETTING, "numbers of koala++", "adamw", group->initial_variance = 0.5);
    TRY(steps[i], variant, SGD, KOALA_STATUS_SETTING, "process_noise", "sgd", group->process_noise = 0);
    TRY(steps[i], variant, KOALA_V, KOALA_STATUS_SETTING, "variant", "koala-v", group->variant = 1);
    TRY(steps[i], variant, KOALA_M, KOALA_STATUS_SETTING, "prior_variance", "koala-m", group->prior_variance = 0.5);
    TRY(steps[i], variant, ADAMW, KOALA_STATUS_OK, "", "", group->weight_decay = 0.5);
  }
}

/* An optimizer of that kind, which has stepped once. */
static void make_optimizer_of(int variant, koala_method_kind kind) {
  koala_config config;
  koala_method method;
  must(koala_method_init(&method, sizeof method, kind), "method");
  must(koala_config_init(&config, sizeof config), "config");
  config.method = &method;
  make_optimizer(variant, &config);
}

static void try_optimizers(int variant) {
  const char *predict = "koala_optimizer_predict";
  make_optimizer_of(variant, KOALA_METHOD_KIND_KOALA_M);
  TRY("koala_optimizer_step", variant, KOALA_M, KOALA_STATUS_NOT_PREDICTED, "has to predict", "", (void)0);
  TRY(predict, variant, KOALA_M, KOALA_STATUS_UNKNOWN_TENSOR, "no tensor 7", "", arena.parameters.at[2].tensor = 7);
  TRY(predict, variant, KOALA_M, KOALA_STATUS_DUPLICATE_TENSOR, "given twice", "first",
      arena.parameters.at[2] = arena.parameters.at[0], arena.parameters.at[2].parameters = arena.buffers[1][0],
      arena.parameters.at[2].copy = arena.buffers[1][1]);
  TRY(predict, variant, KOALA_M, KOALA_STATUS_OK, "", "", arena.parameters.at[0].gradient = NULL);
  make_optimizer_of(variant, KOALA_METHOD_KIND_SGD);
  TRY("koala_optimizer_state", variant, SGD, KOALA_STATUS_LENGTH, "bytes for v, expected 0", "first", (void)0);
  TRY("koala_optimizer_state", variant, SGD, KOALA_STATUS_OK, "", "", arena.in.v = NULL);
  make_optimizer(variant, NULL);
}

/* The numbers of a group's method, and its settings. After a call that is right, the optimizer is one of KOALA++. */
static void try_groups(int variant) {
  const char *set_method = "koala_optimizer_set_method", *set_settings = "koala_optimizer_set_settings";
  koala_method *method = arena.method.at;
  koala_settings *settings = arena.settings.at;
  TRY(set_method, variant, ADAMW, KOALA_STATUS_METHOD, "adamw, expected koala++", "", (void)0);
  TRY(set_method, variant, KOALA_PLUS_PLUS, KOALA_STATUS_METHOD, "koala_settings", "", (void)0);
  make_optimizer_of(variant, KOALA_METHOD_KIND_ADAMW);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_NULL_POINTER, "optimizer is NULL", "", arena.in.optimizer = NULL);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_NULL_POINTER, "method is NULL", "", arena.in.method = NULL);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_MISALIGNED, "expected a multiple of", "",
      arena.in.method = (koala_method *)(void *)((char *)method + 1));
  TRY(set_method, variant, ADAMW, KOALA_STATUS_STRUCT_SIZE, "the size in a koala_method", "", method->size -= 8);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_UNKNOWN_VALUE, "5 is no koala_method_kind", "", method->kind = 5);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_UNKNOWN_GROUP, "has 2 groups", "", arena.in.group = GROUPS_MADE);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_SETTING, "beta1 is 1", "expected", method->beta1 = 1);
  TRY(set_method, variant, SGD, KOALA_STATUS_METHOD, "sgd, expected adamw", "", (void)0);
  TRY(set_method, variant, KOALA_PLUS_PLUS, KOALA_STATUS_METHOD, "koala_settings", "", (void)0);
  TRY(set_settings, variant, ADAMW, KOALA_STATUS_SETTING, "numbers of koala++", "adamw", settings->variant = 2);
  TRY("koala_optimizer_add_group", variant, ADAMW, KOALA_STATUS_SETTING, "numbers of koala++", "adamw",
      settings->prior_variance = 0.5);
  TRY(set_method, variant, ADAMW, KOALA_STATUS_OK, "", "", method->beta1 = 0.5);
  make_optimizer_of(variant, KOALA_METHOD_KIND_SGD);
  TRY(set_method, variant, SGD, KOALA_STATUS_METHOD, "other state vectors", "", method->momentum = 0);
  TRY(set_method, variant, SGD, KOALA_STATUS_OK, "", "", method->momentum = 0.5);
  make_optimizer_of(variant, KOALA_METHOD_KIND_KOALA_M);
  TRY(set_method, variant, KOALA_M, KOALA_STATUS_METHOD, "numbers that all tensors share", "", method->variance = 0.5);
  make_optimizer(variant, NULL);
}

int main(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    make_optimizer(variant, NULL);
    try_numbers(variant);
    try_vectors(variant);
    try_halves(variant);
    try_settings_of_another(variant);
    try_groups(variant);
    try_optimizers(variant);
  }
  must(koala_optimizer_destroy(optimizer), "destroy");
  printf("%d calls, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
