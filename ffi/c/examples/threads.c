/* Steps with the program's own threads (OpenMP) on its own buffers: one large tensor, of which each thread has a part;
 * and a model of many tensors, of which each thread has a list. Compares both with what one thread comes to. */
#include <koala.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 1 << 22, TENSORS = 200, THREADS = 4, STEPS = 4 };

struct model {
  float parameters[LENGTH], gradient[LENGTH], v[LENGTH], h[LENGTH];
};

static struct model divided, whole;

static void check(koala_status status) {
  char text[256];
  if (status == KOALA_STATUS_OK) return;
  koala_last_error(text, sizeof text, NULL); /* Each thread has its own. */
  fprintf(stderr, "%s\n", text);
  exit(1);
}

static void expect(int fact, const char *expected) {
  if (fact) return;
  fprintf(stderr, "expected %s\n", expected);
  exit(1);
}

/* Numbers between 0 and 1, the same in both models. */
static void draw(float in_divided[LENGTH], float in_whole[LENGTH], uint32_t seed) {
  for (size_t i = 0; i < LENGTH; i++) {
    seed = seed * 1664525 + 1013904223;
    in_divided[i] = in_whole[i] = (float)seed / 4294967296.0f;
  }
}

static koala_tensor make_tensor(struct model *model, size_t start, size_t end, koala_scalars *scalars) {
  return (koala_tensor){
    .size = sizeof(koala_tensor), .length = end - start, .scalars = scalars,
    .parameters = model->parameters + start, .gradient = model->gradient + start,
    .v = model->v + start, .h = model->h + start,
  };
}

/* Steps one tensor, of which each thread has a part and a copy of the scalars. */
static void step_parts(const koala_step *step, koala_scalars scalars[THREADS]) {
  koala_tensor parts[THREADS];
  koala_dots dots[THREADS], sum = {0};
  for (size_t i = 0; i < THREADS; i++)
    parts[i] = make_tensor(&divided, LENGTH / THREADS * i, LENGTH / THREADS * (i + 1), &scalars[i]);
#pragma omp parallel for
  for (int i = 0; i < THREADS; i++) check(koala_dots_tensor(step, &parts[i], &dots[i]));
  /* In this order, so that every run has the same sum. */
  for (int i = 0; i < THREADS; i++) check(koala_dots_add(&sum, &dots[i]));
#pragma omp parallel for
  for (int i = 0; i < THREADS; i++) check(koala_apply_tensor(step, &parts[i], &sum, NULL));
}

/* Steps many tensors, of which each thread has a list. */
static void step_lists(const koala_step *step, koala_tensor tensors[TENSORS]) {
#pragma omp parallel for
  for (int i = 0; i < THREADS; i++)
    check(koala_step_tensors(step, tensors + TENSORS / THREADS * i, TENSORS / THREADS, NULL, NULL));
}

int main(void) {
  omp_set_num_threads(THREADS);
  koala_step step;
  koala_settings settings;
  check(koala_step_init(&step, sizeof step));
  check(koala_settings_init(&settings, sizeof settings));
  settings.weight_decay = 0.01;
  step.groups = &settings;
  step.group_count = 1;
  step.loss = 0.7;

  koala_scalars of_parts[THREADS] = {0}, of_whole = {0};
  koala_tensor undivided = make_tensor(&whole, 0, LENGTH, &of_whole);
  float difference = 0;
  draw(divided.parameters, whole.parameters, 1);
  for (uint32_t i = 0; i < STEPS; i++) {
    draw(divided.gradient, whole.gradient, 2 + i);
    step_parts(&step, of_parts);
    check(koala_step_tensor(&step, &undivided, NULL));
  }
  for (int i = 1; i < THREADS; i++)
    expect(memcmp(&of_parts[i], &of_parts[0], sizeof *of_parts) == 0, "the same scalars in all threads");
  for (size_t i = 0; i < LENGTH; i++)
    difference = fmaxf(difference, fabsf(divided.parameters[i] - whole.parameters[i]));
  expect(difference <= 1e-6f, "a tensor in parts to be near the whole one");

  koala_scalars scalars[2][TENSORS] = {0};
  koala_tensor in_lists[TENSORS], together[TENSORS];
  size_t start = 0;
  for (size_t i = 0; i < TENSORS; i++) {
    size_t end = start + 1 + 997 * i % 20000;
    in_lists[i] = make_tensor(&divided, start, end, &scalars[0][i]);
    together[i] = make_tensor(&whole, start, end, &scalars[1][i]);
    start = end;
  }
  draw(divided.parameters, whole.parameters, 1);
  for (uint32_t i = 0; i < STEPS; i++) {
    draw(divided.gradient, whole.gradient, 2 + i);
    step_lists(&step, in_lists);
    check(koala_step_tensors(&step, together, TENSORS, NULL, NULL));
  }
  size_t bytes = start * sizeof(float);
  expect(memcmp(divided.parameters, whole.parameters, bytes) == 0, "the same parameters in lists");
  expect(memcmp(divided.v, whole.v, bytes) == 0 && memcmp(divided.h, whole.h, bytes) == 0, "the same state in lists");
  expect(memcmp(scalars[0], scalars[1], sizeof scalars[0]) == 0, "the same scalars in lists");

  printf("%d threads: a tensor in parts differs by at most %.1g, %d tensors in lists in no bit\n",
         omp_get_max_threads(), difference, TENSORS);
  return 0;
}
