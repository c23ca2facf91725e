/* What koala.h promises of memory and of the environment: what allocates nothing does not, from a process's first call
 * on; where no memory is to be had, whichever of a call's allocations it is that fails, the status says so and nothing
 * has changed; and nobody asks for an environment variable. The allocator and getenv are this program's own. */
#define _GNU_SOURCE
#include <koala.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

/* While a call is watched: how many allocations there were, and which of them fails; and what was asked of getenv. */
static int watching;
static long allocations, failing, asked;

static int refused(void) { return watching && ++allocations == failing; }

void *malloc(size_t size) { return refused() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return refused() ? NULL : __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { return refused() ? NULL : __libc_realloc(memory, size); }
void *aligned_alloc(size_t alignment, size_t size) { return refused() ? NULL : __libc_memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
  *memory = refused() ? NULL : __libc_memalign(alignment, size);
  return *memory == NULL ? ENOMEM : 0;
}

char *getenv(const char *name) {
  size_t length = strlen(name);
  asked += watching;
  for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
  }
  return NULL;
}

enum { TENSORS = 40, GROUPS = 20, LENGTH = 5, LONG_NAME = 5000 };

static int failures;
static koala_optimizer *optimizer;
static size_t tensors_added;
static uint32_t group;
static char long_name[LONG_NAME + 1];
static float memory[TENSORS][4][LENGTH];
static koala_scalars scalars[TENSORS];
static koala_settings groups[GROUPS];
static koala_step step;
static koala_tensor tensors[TENSORS];
static koala_parameters parameters[TENSORS];
static const koala_loss loss = {0.7, 0.6};

static void expect(int fact, const char *what, const char *detail) {
  if (fact) return;
  fprintf(stderr, "promises.c: %s: %s\n", what, detail);
  failures++;
}

/* A name that no tensor has yet, of 5000 bytes. */
static const char *next_name(void) {
  memset(long_name, 'n', LONG_NAME);
  snprintf(long_name, 20, "%zu", tensors_added);
  long_name[strlen(long_name)] = 'n';
  return long_name;
}

static koala_status create(void) {
  koala_optimizer *made = NULL;
  koala_status status = koala_optimizer_create(NULL, &made);
  if (status == KOALA_STATUS_OK) koala_optimizer_destroy(made);
  return status;
}
static koala_status add_group(void) { return koala_optimizer_add_group(optimizer, NULL, &group); }
static koala_status add_tensor(void) {
  koala_status status = koala_optimizer_add_tensor(optimizer, next_name(), LENGTH, KOALA_ELEMENT_TYPE_F32,
                                                   KOALA_STATE_TYPE_SAME, 0, NULL);
  tensors_added += status == KOALA_STATUS_OK;
  return status;
}
static koala_status add_again(void) {
  return koala_optimizer_add_tensor(optimizer, "0", LENGTH, KOALA_ELEMENT_TYPE_F32, KOALA_STATE_TYPE_SAME, 0, NULL);
}
static koala_status take_step(void) {
  return koala_optimizer_step(optimizer, &loss, parameters, TENSORS, NULL, NULL);
}
static koala_status take_wrong_step(void) {
  koala_status status;
  parameters[1].length = 3;
  status = take_step();
  parameters[1].length = LENGTH;
  return status;
}
static koala_status find(void) {
  size_t number;
  return koala_optimizer_find_tensor(optimizer, "1", &number);
}
static koala_status find_none(void) {
  size_t number;
  return koala_optimizer_find_tensor(optimizer, next_name(), &number);
}
static koala_status restart(void) { return koala_optimizer_restart(optimizer, 0); }
static koala_status restart_none(void) { return koala_optimizer_restart(optimizer, 1000000); }
static koala_status set_none(void) { return koala_optimizer_set_learning_rate(optimizer, 99, 0.5); }
static koala_status set_rate(void) { return koala_optimizer_set_learning_rate(optimizer, 0, 0.5); }
static koala_status no_backend(void) {
  koala_backend backend;
  return koala_backend_by_name(next_name(), &backend);
}
static koala_status a_backend(void) {
  koala_backend backend;
  return koala_backend_by_name("scalar", &backend);
}
static koala_status wrong_version(void) { return koala_check_version(0); }
static koala_status init_step(void) { return koala_step_init(&step, sizeof step); }
static koala_status step_one(void) { return koala_step_tensor(&step, tensors, NULL); }
static koala_status step_many(void) { return koala_step_tensors(&step, tensors, TENSORS, NULL, NULL); }
static koala_status step_atomically(void) {
  koala_status status;
  step.on_non_finite = KOALA_ON_NON_FINITE_KEEP_ALL;
  status = step_many();
  step.on_non_finite = KOALA_ON_NON_FINITE_KEEP_TENSOR;
  return status;
}
static koala_status step_with_groups(void) {
  koala_status status;
  step.groups = groups;
  step.group_count = GROUPS;
  status = step_many();
  step.groups = NULL;
  return status;
}
/* An error of the library's, with a tensor's place. */
static koala_status step_what_is_not_finite(void) {
  koala_status status;
  step.on_non_finite = KOALA_ON_NON_FINITE_ERROR;
  memory[3][1][0] *= 1e38F;
  memory[3][1][0] *= 1e38F;
  status = koala_step_tensors(&step, tensors, 16, NULL, NULL);
  memory[3][1][0] = 0.5F;
  step.on_non_finite = KOALA_ON_NON_FINITE_KEEP_TENSOR;
  return status;
}

/* Calls, what they come to, and whether they may allocate: -1, nothing; 0, for a text; 1, it says so. */
static const struct row {
  const char *name;
  koala_status (*call)(void), status;
  int allocates;
} rows[] = {
    {"koala_step_init", init_step, KOALA_STATUS_OK, -1},
    {"koala_step_tensor", step_one, KOALA_STATUS_OK, -1},
    {"koala_step_tensors", step_many, KOALA_STATUS_OK, -1},
    {"koala_step_tensors, KEEP_ALL", step_atomically, KOALA_STATUS_OK, 1},
    {"koala_step_tensors, 20 groups", step_with_groups, KOALA_STATUS_OK, 1},
    {"koala_step_tensors, infinite", step_what_is_not_finite, KOALA_STATUS_NON_FINITE, 0},
    {"koala_check_version", wrong_version, KOALA_STATUS_VERSION, 0},
    {"koala_backend_by_name, of none", no_backend, KOALA_STATUS_UNKNOWN_BACKEND, 0},
    {"koala_backend_by_name", a_backend, KOALA_STATUS_OK, -1},
    {"koala_optimizer_create", create, KOALA_STATUS_OK, 1},
    {"koala_optimizer_add_group", add_group, KOALA_STATUS_OK, 1},
    {"koala_optimizer_add_tensor", add_tensor, KOALA_STATUS_OK, 1},
    {"koala_optimizer_add_tensor, again", add_again, KOALA_STATUS_DUPLICATE_TENSOR, 1},
    {"koala_optimizer_step", take_step, KOALA_STATUS_OK, -1},
    {"koala_optimizer_step, wrong", take_wrong_step, KOALA_STATUS_LENGTH, 0},
    {"koala_optimizer_find_tensor", find, KOALA_STATUS_OK, -1},
    {"koala_optimizer_find_tensor, none", find_none, KOALA_STATUS_UNKNOWN_TENSOR, 0},
    {"koala_optimizer_restart", restart, KOALA_STATUS_OK, -1},
    {"koala_optimizer_restart, none", restart_none, KOALA_STATUS_UNKNOWN_TENSOR, 0},
    {"koala_optimizer_set_learning_rate", set_rate, KOALA_STATUS_OK, -1},
    {"koala_optimizer_set_learning_rate, none", set_none, KOALA_STATUS_UNKNOWN_GROUP, 0},
};

/* Makes a call whose allocation of that number fails. */
static koala_status call(const struct row *row, long number) {
  koala_status status;
  allocations = asked = 0;
  failing = number;
  watching = 1;
  status = row->call();
  watching = 0;
  return status;
}

/* All that can be seen of the optimizer and of the tensors. */
struct seen {
  size_t count;
  double noise;
  koala_scalars of_first, of_tensors[TENSORS];
  float memory[TENSORS][4][LENGTH];
};

static struct seen look(void) {
  struct seen seen;
  memset(&seen, 0, sizeof seen);
  koala_optimizer_tensor_count(optimizer, &seen.count);
  koala_optimizer_noise(optimizer, &seen.noise);
  koala_optimizer_scalars(optimizer, 0, &seen.of_first);
  memcpy(seen.of_tensors, scalars, sizeof scalars);
  memcpy(seen.memory, memory, sizeof memory);
  return seen;
}

static void try_row(const struct row *row) {
  koala_status status = call(row, 0);
  expect(status == row->status, row->name, "another status");
  expect(row->allocates >= 0 || allocations == 0, row->name, "it allocates");
  for (long number = 1; row->allocates >= 0; number++) {
    const struct seen before = look();
    struct seen after;
    status = call(row, number);
    if (allocations < number) {
      expect(status == row->status, row->name, "another status, though nothing failed");
      break;
    }
    after = look();
    /* A text may be shorter for it, and a call need not have what it would like to. */
    if (status == row->status) continue;
    expect(status == KOALA_STATUS_MEMORY, row->name, "no memory, and another status than that");
    expect(memcmp(&before, &after, sizeof before) == 0, row->name, "no memory, and something changed");
  }
  expect(asked == 0, row->name, "it asks for an environment variable");
}

static koala_status create_with_threads(void) {
  koala_config config;
  koala_optimizer *made = NULL;
  koala_status status = koala_config_init(&config, sizeof config);
  config.threads = 2;
  if (status == KOALA_STATUS_OK) status = koala_optimizer_create(&config, &made);
  if (status == KOALA_STATUS_OK) koala_optimizer_destroy(made);
  return status;
}

/* Threads are started without a look at the environment. (Without memory for them the process may end.) */
static void try_threads(void) {
  static const struct row row = {"koala_optimizer_create, threads", create_with_threads, KOALA_STATUS_OK, 1};
  expect(call(&row, 0) == row.status, row.name, "another status");
  expect(asked == 0, row.name, "it asks for an environment variable");
}

/* A thread's first error. */
static void *fail_first(void *unused) {
  static const struct row row = {"a thread's first error", wrong_version, KOALA_STATUS_VERSION, -1};
  (void)unused;
  try_row(&row);
  return NULL;
}

static void make(void) {
  const char name[][3] = {"0", "1", "2"};
  for (int i = 0; i < GROUPS; i++) koala_settings_init(&groups[i], sizeof groups[i]);
  expect(koala_optimizer_create(NULL, &optimizer) == KOALA_STATUS_OK, "create", "failed");
  koala_optimizer_add_group(optimizer, NULL, &group);
  for (int i = 0; i < TENSORS; i++) {
    char number[8];
    snprintf(number, sizeof number, "%d", i);
    koala_optimizer_add_tensor(optimizer, i < 3 ? name[i] : number, LENGTH, KOALA_ELEMENT_TYPE_F32,
                               KOALA_STATE_TYPE_SAME, 0, NULL);
    parameters[i] = (koala_parameters){.size = sizeof *parameters, .tensor = (size_t)i, .length = LENGTH,
                                       .parameters = memory[i][0], .gradient = memory[i][1]};
  }
  tensors_added = TENSORS;
}

int main(void) {
  pthread_t thread;
  for (int i = 0; i < TENSORS; i++) {
    for (int j = 0; j < LENGTH; j++) memory[i][0][j] = memory[i][1][j] = 0.5F;
    tensors[i] = (koala_tensor){.size = sizeof *tensors, .length = LENGTH, .parameters = memory[i][0],
                                .gradient = memory[i][1], .v = memory[i][2], .h = memory[i][3],
                                .scalars = &scalars[i]};
  }
  try_row(&rows[0]); /* The first call of this process. */
  make();
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) try_row(&rows[i]);
  try_threads();
  pthread_create(&thread, NULL, fail_first, NULL);
  pthread_join(thread, NULL);
  koala_optimizer_destroy(optimizer);
  return failures != 0;
}
