/* What the policies make an error, and what they keep: gradients, losses and scalars that are not finite, and
 * innovation variances that are not positive. See misuse.c. */
#include "functions.h"

#include <math.h>

enum trouble { NOT_FINITE, BREAKDOWN };
enum { LAST = ELEMENTS - 1, MANY_TENSORS = 20 };

/* What becomes of the first and the last tensor where the last one has a trouble; the one between has no elements. An
 * optimizer's breakdown is the first one's, and a restart does not help against it. */
static const struct row {
  enum trouble trouble;
  koala_on_non_finite on_non_finite;
  koala_on_breakdown on_breakdown;
  koala_status status;
  koala_outcome first, last;
} rows[] = {
    {NOT_FINITE, KOALA_ON_NON_FINITE_KEEP_TENSOR, KOALA_ON_BREAKDOWN_ERROR, KOALA_STATUS_OK, KOALA_OUTCOME_STEPPED,
     KOALA_OUTCOME_NON_FINITE},
    {NOT_FINITE, KOALA_ON_NON_FINITE_KEEP_ALL, KOALA_ON_BREAKDOWN_ERROR, KOALA_STATUS_OK, KOALA_OUTCOME_WITHHELD,
     KOALA_OUTCOME_NON_FINITE},
    {NOT_FINITE, KOALA_ON_NON_FINITE_ERROR, KOALA_ON_BREAKDOWN_RESTART, KOALA_STATUS_NON_FINITE, 0, 0},
    {NOT_FINITE, KOALA_ON_NON_FINITE_UNCHECKED, KOALA_ON_BREAKDOWN_ERROR, KOALA_STATUS_OK, KOALA_OUTCOME_STEPPED,
     KOALA_OUTCOME_NON_FINITE},
    {BREAKDOWN, KOALA_ON_NON_FINITE_ERROR, KOALA_ON_BREAKDOWN_RESTART, KOALA_STATUS_OK, KOALA_OUTCOME_STEPPED,
     KOALA_OUTCOME_RESTARTED},
    {BREAKDOWN, KOALA_ON_NON_FINITE_ERROR, KOALA_ON_BREAKDOWN_SKIP, KOALA_STATUS_OK, KOALA_OUTCOME_STEPPED,
     KOALA_OUTCOME_BREAKDOWN},
    {BREAKDOWN, KOALA_ON_NON_FINITE_KEEP_TENSOR, KOALA_ON_BREAKDOWN_ERROR, KOALA_STATUS_BREAKDOWN, 0, 0},
};

static const char *const word_of[] = {"not finite", "innovation variance"};

/* Puts the trouble where the function meets it. The filters have all stepped before. */
static void trouble(const struct function *function, int variant, const struct row *row) {
  koala_settings settings = {.size = sizeof settings};
  int optimizers = (function->needed & PARAMETERS) != 0, halves = (function->needed & DOTS) != 0;
  if (optimizers) {
    /* Without any noise, the first step leaves no variance: that of the second one comes out as zero. */
    koala_config config;
    must(koala_config_init(&config, sizeof config), "config");
    config.noise = KOALA_NOISE_FIXED;
    config.initial_noise = row->trouble == BREAKDOWN ? 0 : 1;
    config.on_non_finite = row->on_non_finite;
    config.on_breakdown = row->on_breakdown;
    make_optimizer(variant, &config);
    must(koala_optimizer_settings(optimizer, 0, &settings), "settings");
    if (row->trouble == BREAKDOWN) settings.process_noise = 0;
    must(koala_optimizer_set_settings(optimizer, 0, &settings), "settings");
  }
  begin(function, variant);
  arena.step.at->on_non_finite = row->on_non_finite;
  arena.step.at->on_breakdown = row->on_breakdown;
  for (int i = 0; i < ELEMENTS; i++) arena.scalars[i] = (koala_scalars){1.5, 0.25, 2.0, 1.0};
  if (row->trouble == BREAKDOWN) {
    arena.scalars[LAST].innovation_variance = 1e-6; /* So that much more than there is would be subtracted. */
  } else if (halves) {
    arena.dots.at[LAST].c = NAN;
  } else {
    put_nan(type_of(variant, LAST), arena.buffers[LAST][GRADIENT_BUFFER], 1);
  }
}

static void try_row(const struct function *function, int variant, const struct row *row) {
  struct arena before;
  koala_report *report = arena.report.at;
  koala_outcome first = row->first, last = row->last;
  int optimizers = (function->needed & PARAMETERS) != 0, kept_first, kept_last;
  if (optimizers && row->trouble == BREAKDOWN) first = KOALA_OUTCOME_BREAKDOWN, last = KOALA_OUTCOME_STEPPED;
  trouble(function, variant, row);
  if (row->status != KOALA_STATUS_OK) {
    const char *where = !optimizers ? "tensor \"2\"" : row->trouble == BREAKDOWN ? "\"first\"" : "\"third\"";
    attempt(function, variant, row->status, word_of[row->trouble], where, "trouble");
    return;
  }
  memcpy(&before, &arena, sizeof arena);
  must(function->call(&arena.in), function->name);
  expect(arena.reports.at[0].outcome == first && arena.reports.at[LAST].outcome == last &&
             arena.reports.at[1].outcome == KOALA_OUTCOME_SKIPPED,
         "other outcomes than those of the policy");
  kept_first = first != KOALA_OUTCOME_STEPPED;
  kept_last = last != KOALA_OUTCOME_STEPPED && last != KOALA_OUTCOME_RESTARTED;
  expect(report->stepped == (uint64_t)(2 - kept_first - kept_last) && report->skipped == 1 &&
             report->withheld == (first == KOALA_OUTCOME_WITHHELD) &&
             report->non_finite == (last == KOALA_OUTCOME_NON_FINITE) &&
             report->restarts == (last == KOALA_OUTCOME_RESTARTED) &&
             report->breakdowns == (uint64_t)(first == KOALA_OUTCOME_BREAKDOWN) + (last == KOALA_OUTCOME_BREAKDOWN),
         "the report does not count the outcomes");
  expect((memcmp(before.buffers[0], arena.buffers[0], sizeof arena.buffers[0]) == 0) == kept_first &&
             (memcmp(before.buffers[LAST], arena.buffers[LAST], sizeof arena.buffers[LAST]) == 0) == kept_last,
         "a tensor was kept that steps, or the other way round");
  expect((memcmp(&before.scalars[0], &arena.scalars[0], sizeof(koala_scalars)) == 0) == (kept_first || optimizers) &&
             (memcmp(&before.scalars[LAST], &arena.scalars[LAST], sizeof(koala_scalars)) == 0) ==
                 (kept_last || optimizers),
         "the scalars do not go with the tensor");
}

/* A call with one thing changed in the arena, under the policies that make everything an error. */
#define TRY(name, variant, status, word, where, ...)                       \
  do {                                                                     \
    const struct function *function = function_named(name);                \
    begin(function, variant);                                              \
    arena.step.at->on_non_finite = KOALA_ON_NON_FINITE_ERROR;              \
    arena.step.at->on_breakdown = KOALA_ON_BREAKDOWN_ERROR;                \
    __VA_ARGS__;                                                           \
    attempt(function, variant, status, word, where, #__VA_ARGS__);         \
  } while (0)

static void try_errors(int variant) {
  const char *const steps[] = {"koala_step_tensor", "koala_step_tensors", "koala_apply_tensor", "koala_apply_tensors"};
  const koala_scalars stepped = {1.5, 0.25, 2.0, 1.0};
  koala_scalars *scalars = arena.scalars;
  koala_settings *groups = arena.groups.at;
  koala_config config;
  for (int i = 0; i < 4; i++) {
    TRY(steps[i], variant, KOALA_STATUS_NON_FINITE, "loss", "NaN", arena.step.at->loss = NAN);
    TRY(steps[i], variant, KOALA_STATUS_NON_FINITE, "noise", "inf", arena.step.at->noise = INFINITY);
    TRY(steps[i], variant, KOALA_STATUS_NON_FINITE, "not finite", "", scalars[0] = stepped, scalars[0].h_h = NAN);
    TRY(steps[i], variant, KOALA_STATUS_NON_FINITE, "not finite", "", scalars[0] = stepped, scalars[0].h_v = INFINITY);
    TRY(steps[i], variant, KOALA_STATUS_BREAKDOWN, "not positive", "", scalars[0] = stepped,
        scalars[0].innovation_variance = 1e-6);
    TRY(steps[i], variant, KOALA_STATUS_BREAKDOWN, "not positive", "", scalars[0] = (koala_scalars){0, 0, 0, 0},
        arena.step.at->noise = 0, groups[0].process_noise = 0);
    TRY(steps[i], variant, KOALA_STATUS_OK, "", "", scalars[0] = stepped, arena.in.count = 1);
  }
  must(koala_config_init(&config, sizeof config), "config");
  config.on_non_finite = KOALA_ON_NON_FINITE_ERROR;
  make_optimizer(variant, &config);
  TRY("koala_optimizer_step", variant, KOALA_STATUS_NON_FINITE, "mean NaN", "2.5", arena.loss.at->mean = NAN);
  TRY("koala_optimizer_step", variant, KOALA_STATUS_NON_FINITE, "second moment inf", "1.5",
      arena.loss.at->second_moment = INFINITY);
  TRY("koala_optimizer_step", variant, KOALA_STATUS_NON_FINITE, "not finite", "third",
      put_nan(type_of(variant, LAST), arena.buffers[LAST][GRADIENT_BUFFER], 0));
  TRY("koala_optimizer_step", variant, KOALA_STATUS_OK, "", "", (void)0);
}

/* More tensors than are worked on together, the last of which has a trouble: none may be written, or all others. */
static void try_many(int halves, koala_on_non_finite on_non_finite) {
  struct {
    float parameters[MANY_TENSORS][3], gradient[MANY_TENSORS][3], v[MANY_TENSORS][3], h[MANY_TENSORS][3];
    koala_scalars scalars[MANY_TENSORS];
  } model, before;
  static koala_dots dots[MANY_TENSORS];
  koala_tensor tensors[MANY_TENSORS];
  koala_tensor_report reports[MANY_TENSORS];
  koala_report report = {.size = sizeof report};
  koala_step step;
  int is_error = on_non_finite == KOALA_ON_NON_FINITE_ERROR;
  koala_status status;
  memset(&model, 0, sizeof model);
  must(koala_step_init(&step, sizeof step), "step");
  step.on_non_finite = on_non_finite;
  step.loss = 1.5;
  for (int i = 0; i < MANY_TENSORS; i++) {
    for (int j = 0; j < 3; j++) model.gradient[i][j] = (float)(1 + i + j);
    tensors[i] = (koala_tensor){.size = sizeof(koala_tensor), .length = 3, .parameters = model.parameters[i],
                                .gradient = model.gradient[i], .v = model.v[i], .h = model.h[i],
                                .scalars = &model.scalars[i]};
  }
  model.gradient[MANY_TENSORS - 1][2] = NAN;
  memcpy(&before, &model, sizeof model);
  if (halves) {
    must(koala_dots_tensors(&step, tensors, MANY_TENSORS, dots), "dots");
    status = koala_apply_tensors(&step, tensors, MANY_TENSORS, dots, reports, &report);
  } else {
    status = koala_step_tensors(&step, tensors, MANY_TENSORS, reports, &report);
  }
  expect(status == (is_error ? KOALA_STATUS_NON_FINITE : KOALA_STATUS_OK), "another status with many tensors");
  if (on_non_finite == KOALA_ON_NON_FINITE_KEEP_TENSOR || on_non_finite == KOALA_ON_NON_FINITE_UNCHECKED) {
    expect(report.stepped == MANY_TENSORS - 1 && report.non_finite == 1, "all but one of many tensors step");
    expect(memcmp(before.parameters, model.parameters, sizeof model.parameters) != 0, "many tensors do not step");
    return;
  }
  expect(memcmp(&before, &model, sizeof model) == 0, "one of many tensors has a trouble, and others are written");
  if (status == KOALA_STATUS_OK) expect(report.withheld == MANY_TENSORS - 1, "many tensors are withheld");
}

/* A NaN in a gradient under UNCHECKED: it is written to its place, or the tensor is kept, as `kept` says. */
static void try_unchecked(koala_method_kind kind, int with_optimizer, int kept) {
  enum { LENGTH = 40, PLACE = 17 };
  float parameters[LENGTH], gradient[LENGTH], v[LENGTH] = {0}, h[LENGTH] = {0};
  const float before = 0.5F;
  koala_method method;
  koala_report report = {.size = sizeof report};
  must(koala_method_init(&method, sizeof method, kind), "method");
  for (int i = 0; i < LENGTH; i++) parameters[i] = before, gradient[i] = (float)(i + 1);
  gradient[PLACE] = NAN;
  if (with_optimizer) {
    koala_loss loss = {1.5, 2.5};
    koala_parameters tensor = {
        .size = sizeof tensor, .length = LENGTH, .parameters = parameters, .gradient = gradient};
    koala_optimizer *stepped;
    koala_config config;
    uint32_t group;
    must(koala_config_init(&config, sizeof config), "config");
    config.method = &method;
    config.on_non_finite = KOALA_ON_NON_FINITE_UNCHECKED;
    must(koala_optimizer_create(&config, &stepped), "create");
    must(koala_optimizer_add_group(stepped, NULL, &group), "group");
    must(koala_optimizer_add_tensor(stepped, "weight", LENGTH, 0, 0, group, NULL), "tensor");
    must(koala_optimizer_step(stepped, &loss, &tensor, 1, NULL, &report), "step");
    must(koala_optimizer_state(stepped, 0, kind == KOALA_METHOD_KIND_SGD ? NULL : v, h, sizeof h), "state");
    must(koala_optimizer_destroy(stepped), "destroy");
  } else {
    koala_scalars scalars = {0, 0, 0, 0};
    koala_tensor tensor = {.size = sizeof tensor, .length = LENGTH, .parameters = parameters, .gradient = gradient,
                           .v = v, .h = h, .scalars = &scalars};
    koala_step step;
    must(koala_step_init(&step, sizeof step), "step");
    step.method = &method;
    step.loss = 1.5;
    step.on_non_finite = KOALA_ON_NON_FINITE_UNCHECKED;
    must(koala_step_tensors(&step, &tensor, 1, NULL, &report), "step");
  }
  expect(report.stepped == !kept && report.non_finite == (uint64_t)kept, "UNCHECKED: another outcome");
  for (int i = 0; i < LENGTH; i++) {
    int nan = !kept && i == PLACE;
    expect(isnan(parameters[i]) == nan && (parameters[i] == before) == kept, "UNCHECKED: other parameters");
    expect(isnan(h[i]) == nan && (kept ? h[i] == 0 : h[i] != 0), "UNCHECKED: another h");
    expect(isnan(v[i]) == (nan && kind == KOALA_METHOD_KIND_ADAMW), "UNCHECKED: another v");
  }
}

int main(void) {
  const char *const functions_of_rows[] = {"koala_step_tensors", "koala_apply_tensors", "koala_optimizer_step"};
  for (int variant = 0; variant < VARIANTS; variant++) {
    make_optimizer(variant, NULL);
    for (int i = 0; i < 3; i++) {
      for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++) {
        try_row(function_named(functions_of_rows[i]), variant, &rows[j]);
      }
    }
    try_errors(variant);
  }
  for (koala_on_non_finite policy = 0; policy <= KOALA_ON_NON_FINITE_UNCHECKED; policy++) {
    try_many(0, policy);
    try_many(1, policy);
  }
  for (int with_optimizer = 0; with_optimizer <= 1; with_optimizer++) {
    try_unchecked(KOALA_METHOD_KIND_KOALA_PLUS_PLUS, with_optimizer, 1);
    try_unchecked(KOALA_METHOD_KIND_ADAMW, with_optimizer, 0);
    try_unchecked(KOALA_METHOD_KIND_SGD, with_optimizer, 0);
  }
  must(koala_optimizer_destroy(optimizer), "destroy");
  printf("%d calls, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
