/* After fork(): the child has none of its parent's threads, and steps with its own, to the same bits. A child that
 * waits for a thread which it does not have is ended by its alarm. One that is done kills itself, so that nobody looks
 * for leaks there: what the threads held that it does not have is lost in it. */
#define _POSIX_C_SOURCE 200809L
#include <koala.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Enough for an optimizer to wake its threads, and seconds. */
enum { LENGTH = 1 << 21, PATIENCE = 200 };

typedef struct {
  const char *name;
  bool steps_before, predicts, other_threads;
  uint32_t threads;
} Case;

typedef struct {
  koala_optimizer *optimizer;
  float *parameters, *gradient;
} Model;

static const char *running = "";

static void expect(bool fact, const char *what) {
  if (fact) return;
  char error[256];
  koala_last_error(error, sizeof error, NULL);
  fprintf(stderr, "%s, in process %ld: not so: %s (last error: %s)\n", running, (long)getpid(), what, error);
  _exit(1);
}

static void ok(koala_status status) { expect(status == KOALA_STATUS_OK, "the call succeeds"); }

static Model new_model(const Case *c) {
  koala_config config;
  koala_method method;
  uint32_t group;
  Model model = {NULL, malloc(LENGTH * sizeof(float)), malloc(LENGTH * sizeof(float))};
  expect(model.parameters && model.gradient, "there is memory");
  for (size_t i = 0; i < LENGTH; i++) {
    model.parameters[i] = (float)(i % 7) - 3;
    model.gradient[i] = (float)(i % 13) / 16 - 0.25f;
  }
  ok(koala_config_init(&config, sizeof config));
  ok(koala_method_init(&method, sizeof method, KOALA_METHOD_KIND_KOALA_M));
  if (c->predicts) config.method = &method;
  config.threads = c->threads;
  ok(koala_optimizer_create(&config, &model.optimizer));
  ok(koala_optimizer_add_group(model.optimizer, NULL, &group));
  ok(koala_optimizer_add_tensor(model.optimizer, "weight", LENGTH, KOALA_ELEMENT_TYPE_F32, KOALA_STATE_TYPE_SAME, group,
                                NULL));
  return model;
}

static void step(const Case *c, Model *model) {
  koala_loss loss = {.mean = 0.75, .second_moment = 0.625};
  koala_parameters tensor = {.size = sizeof tensor, .length = LENGTH, .parameters = model->parameters};
  if (c->predicts) ok(koala_optimizer_predict(model->optimizer, &tensor, 1));
  tensor.gradient = model->gradient;
  ok(koala_optimizer_step(model->optimizer, &loss, &tensor, 1, NULL, NULL));
}

static void end(Model *model) {
  ok(koala_optimizer_destroy(model->optimizer));
  free(model->parameters);
  free(model->gradient);
}

static void wait_for(pid_t child) {
  int status;
  expect(waitpid(child, &status, 0) == child, "the child ends");
  expect(WIFEXITED(status) || WTERMSIG(status) != SIGALRM, "the child waits for nothing");
  expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child succeeds");
}

/* Has a child step, unless nothing is expected, and end what it got; first a child of the child's, and so on. */
static pid_t start(const Case *c, Model *model, const float *expected, int generations) {
  pid_t child = fork();
  expect(child >= 0, "there is another process");
  if (child != 0) return child;
  alarm(PATIENCE);
  if (c->other_threads) ok(koala_optimizer_set_threads(model->optimizer, 3));
  if (generations > 1) wait_for(start(c, model, expected, generations - 1));
  if (expected != NULL) {
    step(c, model);
    expect(memcmp(model->parameters, expected, LENGTH * sizeof(float)) == 0, "the bits are those of the parent");
  }
  end(model);
  for (;;) kill(getpid(), SIGKILL);
}

static void try(const Case *c) {
  Model model = new_model(c), alone = new_model(c);
  pid_t children[3];
  running = c->name;
  /* What is expected, by one thread. */
  ok(koala_optimizer_set_threads(alone.optimizer, 1));
  for (int i = 0; i < 1 + c->steps_before; i++) step(c, &alone);
  if (c->steps_before) step(c, &model);
  children[0] = start(c, &model, alone.parameters, 1);
  children[1] = start(c, &model, alone.parameters, 2);
  children[2] = start(c, &model, NULL, 1);
  step(c, &model);
  expect(memcmp(model.parameters, alone.parameters, LENGTH * sizeof(float)) == 0, "the parent goes on");
  for (int i = 0; i < 3; i++) wait_for(children[i]);
  step(c, &model);
  end(&model);
  end(&alone);
}

int main(void) {
  const Case cases[] = {
      {.name = "after a step", .threads = 2, .steps_before = true},
      {.name = "after nothing", .threads = 2},
      {.name = "after a step of KOALA-M", .threads = 2, .steps_before = true, .predicts = true},
      {.name = "before KOALA-M's first prediction", .threads = 3, .predicts = true},
      {.name = "with a new number of threads in the child", .threads = 2, .steps_before = true, .other_threads = true},
      {.name = "with all processors", .threads = 0, .steps_before = true},
      {.name = "without threads", .threads = 1, .steps_before = true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) try(&cases[i]);
  printf("%zu cases of fork\n", sizeof cases / sizeof *cases);
}
