/* Every koala_cuda_* function, called with what can be wrong with it: each wrong call has to fail as the table says and
 * to write nothing. stdin names the functions that there are, one a line. The argument, if there is one, is a CUDA
 * driver to load: without it, as on most machines, there is no optimizer to be had, and only what needs none is
 * tried. */
#include <koala.h>

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NO_DEVICE_HAS_THIS = 1000000, BYTES = 20, LENGTH = 5 };

/* What calls are given; outputs hold a pattern that no wrong call may change. */
static struct arena {
  koala_cuda *optimizer, *created, *none;
  uint32_t group;
  size_t number;
  koala_report report;
  koala_tensor_report details;
  koala_cuda_counts counts;
  koala_scalars scalars;
  _Alignas(8) unsigned char v[BYTES], h[BYTES], foreign_memory[BYTES];
} arena;

static const koala_loss loss = {.mean = 0.7, .second_moment = 0.6};
static const koala_loss negative = {.mean = 0.7, .second_moment = -0.6};
#define CONFIG(...) \
  {.size = sizeof(koala_config), .gradient_factor = 1, .gradient_limit = INFINITY, .clip_norm = INFINITY, __VA_ARGS__}
static const koala_config errors = CONFIG(.on_non_finite = KOALA_ON_NON_FINITE_ERROR);
static const koala_config unknown_noise = CONFIG(.noise = 7);
static const koala_method adamw = {.size = sizeof adamw, .kind = KOALA_METHOD_KIND_ADAMW, .epsilon = 1e-8};
static const koala_config of_adamw = CONFIG(.method = &adamw);
static const koala_config clipping = {
    .size = sizeof clipping, .gradient_factor = 1, .gradient_limit = INFINITY, .clip_norm = 2};
static const koala_config vanishing = {
    .size = sizeof vanishing, .gradient_factor = 0, .gradient_limit = INFINITY, .clip_norm = INFINITY};
static const koala_config sizeless = {.size = 0};
static const koala_settings below_zero = {.size = sizeof below_zero, .learning_rate = -1, .initial_variance = 0.1};
static const koala_cuda_state sizeless_state = {.size = 8};
static const koala_cuda_state on_host = {
    .size = sizeof on_host, .v = arena.v, .h = arena.h, .scalars = &arena.scalars};
#define TENSOR(...) {.size = sizeof(koala_parameters), __VA_ARGS__}
static const koala_parameters buffers_on_host[] = {
    TENSOR(.length = LENGTH, .parameters = arena.foreign_memory,
           .gradient = arena.v)};
static const koala_parameters no_such_tensor[] = {TENSOR(.tensor = 9)};
static const koala_parameters no_such_type[] = {TENSOR(.length = LENGTH, .type = 9)};
static const koala_parameters no_such_copy[] = {TENSOR(.length = LENGTH, .copy_type = 9)};
static const koala_parameters of_other_length[] = {TENSOR(.length = 6)};
static const koala_parameters of_other_type[] = {TENSOR(.length = LENGTH, .type = KOALA_ELEMENT_TYPE_F64)};

static const koala_parameters twice[] = {TENSOR(.length = LENGTH), TENSOR(.length = LENGTH)};
/* On the device: set in main. */
static koala_parameters misaligned_gradient[] = {TENSOR(.length = LENGTH)};
static koala_parameters misaligned_copy[] = {TENSOR(.length = LENGTH, .copy_type = KOALA_COPY_TYPE_BF16)};
static koala_parameters overlapping[] = {TENSOR(.length = LENGTH)};
static koala_parameters apart[] = {TENSOR(.length = LENGTH)};
static koala_cuda_state misaligned_state = {.size = sizeof misaligned_state};
static koala_cuda_state overlapping_state = {.size = sizeof overlapping_state};
static char *on_device;
/* Read, and to be written too. */
static koala_config config_both = {.size = sizeof config_both, .gradient_factor = 1, .gradient_limit = INFINITY,
                                   .clip_norm = INFINITY, .noise_decay = 0.9};
static koala_settings settings_both = {.size = sizeof settings_both, .initial_variance = 0.1};
static koala_cuda_state state_both = {.size = sizeof state_both};
static union {
  char text[8];
  size_t number;
} name_both = {"a"};

static koala_cuda *odd(void) { return (koala_cuda *)(void *)((char *)&arena + 1); }

/* Name, arguments, status, a word of the text. WITH needs an optimizer. */
#define F32 KOALA_ELEMENT_TYPE_F32
#define SAME KOALA_STATE_TYPE_SAME
#define WITH arena.optimizer
#define ROWS(ROW)                                                                                                     \
  ROW(0, koala_cuda_create, (NULL, 0, 0, NULL), NULL_POINTER, "optimizer is NULL")                                    \
  ROW(0, koala_cuda_create, (&sizeless, 0, 0, &arena.created), STRUCT_SIZE, "koala_config")                           \
  ROW(0, koala_cuda_create, (&unknown_noise, 0, 0, &arena.created), UNKNOWN_VALUE, "koala_noise")                     \
  ROW(0, koala_cuda_create, (NULL, NO_DEVICE_HAS_THIS, 0, &arena.created), ABSENT_DEVICE, "there is no CUDA d")       \
  ROW(1, koala_cuda_create, (&errors, 0, 0, &arena.created), SETTING, "OnNonFinite::Error")                           \
  ROW(0, koala_cuda_create, (&of_adamw, 0, 0, &arena.created), SETTING, "not by adamw")                               \
  ROW(0, koala_cuda_create, (&clipping, 0, 0, &arena.created), SETTING, "by the norm 2")                              \
  ROW(0, koala_cuda_create, (&vanishing, 0, 0, &arena.created), SETTING, "factor")                                    \
  ROW(0, koala_cuda_create, (&config_both, 0, 0, (void *)&config_both), OVERLAP, "optimizer and config")              \
  ROW(0, koala_cuda_add_group, (WITH, &settings_both, (void *)&settings_both), OVERLAP, "group and settings")         \
  ROW(0, koala_cuda_add_tensor, (WITH, name_both.text, 5, F32, SAME, 0, NULL, &name_both.number), OVERLAP, "and name")\
  ROW(0, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 0, &state_both, (void *)&state_both), OVERLAP, "and state") \
  ROW(0, koala_cuda_destroy, (odd()), MISALIGNED, "optimizer is at")                                                  \
  ROW(0, koala_cuda_add_group, (NULL, NULL, &arena.group), NULL_POINTER, "optimizer is NULL")                         \
  ROW(0, koala_cuda_add_group, (WITH, NULL, NULL), NULL_POINTER, "group is NULL")                                     \
  ROW(1, koala_cuda_add_group, (WITH, &below_zero, &arena.group), SETTING, "learning rate")                           \
  ROW(0, koala_cuda_set_settings, (WITH, 0, NULL), NULL_POINTER, "koala_settings is NULL")                            \
  ROW(1, koala_cuda_set_settings, (WITH, 0, &below_zero), SETTING, "learning rate")                                   \
  ROW(0, koala_cuda_set_learning_rate, (NULL, 0, 0.5), NULL_POINTER, "optimizer is NULL")                             \
  ROW(1, koala_cuda_set_learning_rate, (WITH, 9, 0.5), UNKNOWN_GROUP, "9")                                            \
  ROW(1, koala_cuda_set_learning_rate, (WITH, 0, -0.5), SETTING, "learning rate")                                     \
  ROW(0, koala_cuda_set_scaling, (NULL, 1, INFINITY), NULL_POINTER, "optimizer is NULL")                              \
  ROW(1, koala_cuda_set_scaling, (WITH, 0, INFINITY), SETTING, "gradient's factor")                                   \
  ROW(1, koala_cuda_set_scaling, (WITH, 1, NAN), SETTING, "gradient's limit")                                         \
  ROW(0, koala_cuda_set_device_scaler, (NULL, F32, NULL, NULL), NULL_POINTER, "optimizer is NULL")                    \
  ROW(0, koala_cuda_set_device_scaler, (WITH, 9, NULL, NULL), UNKNOWN_VALUE, "element_type")                          \
  ROW(1, koala_cuda_set_device_scaler, (WITH, F32, arena.v, NULL), FOREIGN_DEVICE, "the scale of the loss at")        \
  ROW(1, koala_cuda_set_device_scaler, (WITH, F32, NULL, arena.v), FOREIGN_DEVICE, "the flag of what is infinite")    \
  ROW(1, koala_cuda_set_device_scaler, (WITH, F32, on_device + 1, NULL), MISALIGNED, "the scale of the loss at")      \
  ROW(0, koala_cuda_set_device_learning_rate, (NULL, 0, F32, NULL), NULL_POINTER, "optimizer is NULL")                \
  ROW(0, koala_cuda_set_device_learning_rate, (WITH, 0, 9, NULL), UNKNOWN_VALUE, "element_type")                      \
  ROW(1, koala_cuda_set_device_learning_rate, (WITH, 9, F32, NULL), UNKNOWN_GROUP, "9")                               \
  ROW(1, koala_cuda_set_device_learning_rate, (WITH, 0, F32, arena.v), FOREIGN_DEVICE, "the learning rate at")        \
  ROW(1, koala_cuda_set_device_learning_rate, (WITH, 0, F32, on_device + 2), MISALIGNED, "the learning rate")         \
  ROW(0, koala_cuda_add_tensor, (NULL, "a", 5, F32, SAME, 0, NULL, &arena.number), NULL_POINTER, "optimizer is")      \
  ROW(0, koala_cuda_add_tensor, (WITH, NULL, 5, F32, SAME, 0, NULL, &arena.number), NULL_POINTER, "name is NULL")     \
  ROW(0, koala_cuda_add_tensor, (WITH, "\xff", 5, F32, SAME, 0, NULL, NULL), ENCODING, "UTF-8")                       \
  ROW(0, koala_cuda_add_tensor, (WITH, "a", 5, 9, SAME, 0, NULL, &arena.number), UNKNOWN_VALUE, "element_type")       \
  ROW(0, koala_cuda_add_tensor, (WITH, "a", 5, F32, 9, 0, NULL, &arena.number), UNKNOWN_VALUE, "state_type")          \
  ROW(0, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 0, &sizeless_state, NULL), STRUCT_SIZE, "cuda_state")       \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 9, NULL, &arena.number), UNKNOWN_GROUP, "9")                \
  ROW(1, koala_cuda_add_tensor, (WITH, "known", 5, F32, SAME, 0, NULL, &arena.number), DUPLICATE_TENSOR, "known")     \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", SIZE_MAX, F32, SAME, 0, NULL, &arena.number), LENGTH, "4294967296")       \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", 1 << 20, F32, SAME, 0, NULL, &arena.number), MEMORY, "bytes of memory")   \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 0, &on_host, &arena.number), FOREIGN_DEVICE, "the v at")    \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 0, &misaligned_state, NULL), MISALIGNED, "the h at")        \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", 5, F32, SAME, 0, &overlapping_state, NULL), OVERLAP, "v and h")           \
  ROW(1, koala_cuda_add_tensor, (WITH, "a", SIZE_MAX, F32, SAME, 0, &on_host, NULL), LENGTH, "v and h")               \
  ROW(0, koala_cuda_restart, (NULL, 0), NULL_POINTER, "optimizer is NULL")                                            \
  ROW(1, koala_cuda_restart, (WITH, 9), UNKNOWN_TENSOR, "no tensor 9")                                                \
  ROW(0, koala_cuda_step, (NULL, NULL, &loss, NULL, 0), NULL_POINTER, "optimizer is NULL")                            \
  ROW(0, koala_cuda_step, (WITH, NULL, NULL, NULL, 0), NULL_POINTER, "loss is NULL")                                  \
  ROW(0, koala_cuda_step, (WITH, NULL, &loss, NULL, 1), NULL_POINTER, "tensors is NULL")                              \
  ROW(1, koala_cuda_step, (WITH, NULL, &negative, NULL, 0), SETTING, "second moment")                                 \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, no_such_tensor, 1), UNKNOWN_TENSOR, "no tensor 9")                      \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, no_such_type, 1), UNKNOWN_VALUE, "tensor \"known\"")                    \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, no_such_copy, 1), UNKNOWN_VALUE, "tensor \"known\"")                    \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, of_other_length, 1), LENGTH, "tensor \"known\"")                        \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, of_other_type, 1), TYPE, "tensor \"known\"")                            \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, buffers_on_host, 1), FOREIGN_DEVICE, "tensor \"known\"")                \
  ROW(1, koala_cuda_step, (WITH, foreign(), &loss, NULL, 0), FOREIGN_DEVICE, "stream")                                \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, twice, 2), DUPLICATE_TENSOR, "2 tensors are given")                     \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, misaligned_gradient, 1), MISALIGNED, "the gradient at")                 \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, misaligned_copy, 1), MISALIGNED, "the half-precision copy at")          \
  ROW(1, koala_cuda_step, (WITH, NULL, &loss, overlapping, 1), OVERLAP, "gradient of tensor \"known\"")               \
  ROW(0, koala_cuda_step_device_loss, (WITH, NULL, F32, NULL, NULL, NULL, 0), NULL_POINTER, "mean is NULL")           \
  ROW(0, koala_cuda_step_device_loss, (WITH, NULL, 9, arena.v, arena.h, NULL, 0), UNKNOWN_VALUE, "element_type")      \
  ROW(0, koala_cuda_step_device_loss, (NULL, NULL, F32, arena.v, arena.h, NULL, 0), NULL_POINTER, "optimizer is")     \
  ROW(1, koala_cuda_step_device_loss, (WITH, NULL, F32, arena.v, NULL, NULL, 0), NULL_POINTER, "second moment")       \
  ROW(1, koala_cuda_step_device_loss, (WITH, NULL, F32, arena.v, arena.h, NULL, 0), FOREIGN_DEVICE, "mean loss at")   \
  ROW(1, koala_cuda_step_device_loss, (WITH, NULL, F32, on_device + 2, on_device, NULL, 0), MISALIGNED, "the mean l") \
  ROW(1, koala_cuda_step_device_loss, (WITH, NULL, F32, on_device, on_device, apart, 1), OVERLAP, "mean loss and")    \
  ROW(0, koala_cuda_prepare, (NULL, NULL, NULL, 0), NULL_POINTER, "optimizer is NULL")                                \
  ROW(0, koala_cuda_prepare, (WITH, NULL, NULL, 1), NULL_POINTER, "tensors is NULL")                                  \
  ROW(1, koala_cuda_prepare, (WITH, foreign(), NULL, 0), FOREIGN_DEVICE, "stream")                                    \
  ROW(1, koala_cuda_prepare, (WITH, NULL, misaligned_gradient, 1), MISALIGNED, "the gradient at")                     \
  ROW(1, koala_cuda_prepare, (WITH, NULL, overlapping, 1), OVERLAP, "gradient of tensor \"known\"")                   \
  ROW(0, koala_cuda_write_changes, (NULL, NULL), NULL_POINTER, "optimizer is NULL")                                   \
  ROW(1, koala_cuda_write_changes, (WITH, foreign()), FOREIGN_DEVICE, "stream")                                       \
  ROW(0, koala_cuda_report, (WITH, NULL, NULL), NULL_POINTER, "koala_report is NULL")                                 \
  ROW(0, koala_cuda_report, (NULL, NULL, &arena.report), NULL_POINTER, "optimizer is NULL")                           \
  ROW(1, koala_cuda_report, (WITH, foreign(), &arena.report), FOREIGN_DEVICE, "stream")                               \
  ROW(0, koala_cuda_details, (NULL, NULL, &arena.details, 1), NULL_POINTER, "optimizer is NULL")                      \
  ROW(0, koala_cuda_details, (WITH, NULL, NULL, 1), NULL_POINTER, "reports is NULL")                                  \
  ROW(1, koala_cuda_details, (WITH, NULL, &arena.details, 1), LENGTH, "the last step had 0")                          \
  ROW(0, koala_cuda_read_state, (NULL, NULL, 0, NULL, NULL, 0, &arena.scalars), NULL_POINTER, "optimizer is NULL")    \
  ROW(0, koala_cuda_read_state, (WITH, NULL, 0, arena.v, arena.v, BYTES, NULL), OVERLAP, "v and h overlap")           \
  ROW(1, koala_cuda_read_state, (WITH, NULL, 9, NULL, NULL, 0, &arena.scalars), UNKNOWN_TENSOR, "no tensor 9")        \
  ROW(1, koala_cuda_read_state, (WITH, NULL, 0, arena.v, arena.h, 19, &arena.scalars), LENGTH, "expected 20")         \
  ROW(0, koala_cuda_count, (NULL, &arena.counts), NULL_POINTER, "optimizer is NULL")                                  \
  ROW(0, koala_cuda_count, (WITH, NULL), NULL_POINTER, "koala_cuda_counts is NULL")

static void *driver;

/* A stream of another device. */
static void *foreign(void) {
  void *(*stub_stream)(int) = NULL;
  *(void **)&stub_stream = dlsym(driver, "stub_stream");
  return stub_stream(1);
}

/* What the driver says it is; and little enough memory to ask for more. */
static void set_driver(int version, int capability) {
  void (*stub_set)(int, int, int, size_t) = NULL;
  *(void **)&stub_set = dlsym(driver, "stub_set");
  stub_set(2, version, capability, (size_t)1 << 20);
}

/* What was asked of the driver that no driver allows. */
static int mistakes(void) {
  int (*stub_mistakes)(void) = NULL;
  *(void **)&stub_mistakes = dlsym(driver, "stub_mistakes");
  return stub_mistakes();
}

/* Memory of the device for five elements, four times. */
static int take_device_memory(void) {
  int (*retain)(void **, int) = NULL;
  int (*push)(void *) = NULL;
  int (*allocate)(unsigned long long *, size_t) = NULL;
  *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
  *(void **)&push = dlsym(driver, "cuCtxPushCurrent_v2");
  *(void **)&allocate = dlsym(driver, "cuMemAlloc_v2");
  void *context = NULL;
  unsigned long long address = 0;
  if (retain(&context, 0) != 0 || push(context) != 0 || allocate(&address, 128) != 0) return 0;
  on_device = (char *)(uintptr_t)address;
  misaligned_gradient[0].parameters = misaligned_copy[0].parameters = overlapping[0].parameters = on_device;
  apart[0].parameters = on_device;
  apart[0].gradient = on_device + 32;
  misaligned_gradient[0].gradient = on_device + 34;
  misaligned_copy[0].gradient = on_device + 32;
  misaligned_copy[0].copy = on_device + 65;
  overlapping[0].gradient = on_device + 16;
  misaligned_state.v = overlapping_state.v = on_device;
  misaligned_state.h = on_device + 34;
  overlapping_state.h = on_device + 16;
  misaligned_state.scalars = overlapping_state.scalars = (koala_scalars *)(void *)(on_device + 64);
  return 1;
}

static int cases, failures;

static void expect(int right, const char *what, const char *text) {
  cases++;
  failures += !right;
  if (!right) fprintf(stderr, "%s: %s\n", what, text);
}

static void must(koala_status status, const char *what) {
  char text[512] = "";
  if (status != KOALA_STATUS_OK) koala_last_error(text, sizeof text, NULL);
  expect(status == KOALA_STATUS_OK, what, text);
}

#define TRY(needs, name, arguments, expected, word)                                           \
  if (!(needs) || arena.optimizer != NULL) {                                                  \
    struct arena before = arena;                                                              \
    koala_status status = name arguments;                                                     \
    char text[512];                                                                           \
    koala_last_error(text, sizeof text, NULL);                                                \
    expect(status == KOALA_STATUS_##expected, #name #arguments ": another status", text);     \
    expect(strstr(text, word) != NULL, #name #arguments ": the text lacks " word, text);      \
    expect(memcmp(&before, &arena, sizeof arena) == 0, #name #arguments, "memory was written"); \
  }

static const char *const named[] = {
#define NAME(needs, name, arguments, expected, word) #name,
    ROWS(NAME)};

/* Whether every function that stdin names has a row. */
static void compare_with_header(void) {
  char name[128];
  int listed = 0;
  for (; scanf("%127s", name) == 1; listed++) {
    int known = 0;
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) known |= strcmp(named[i], name) == 0;
    expect(known, name, "is in koala.h, but has no row here");
  }
  expect(listed > 10, "stdin", "names too few functions");
}

int main(int count, char **arguments) {
  if (count > 1 && (driver = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  memset(&arena, 0x5a, sizeof arena);
  arena.optimizer = NULL;
  arena.report.size = sizeof arena.report;
  arena.counts.size = sizeof arena.counts;
  if (driver != NULL) {
    uint32_t group;
    set_driver(12000, 8);
    must(koala_cuda_create(NULL, 0, 0, &arena.optimizer), "create");
    must(koala_cuda_add_group(arena.optimizer, NULL, &group), "group");
    expect(take_device_memory(), "memory of the device", "is not to be had");
    must(koala_cuda_add_tensor(arena.optimizer, "known", LENGTH, F32, SAME, group, NULL, NULL), "tensor");
  }
  ROWS(TRY)
  if (driver != NULL) {
    set_driver(11080, 8);
    TRY(1, koala_cuda_create, (NULL, 0, 0, &arena.created), ABSENT_DEVICE, "the driver is for CUDA 11.8")
    set_driver(12000, 7);
    TRY(1, koala_cuda_create, (NULL, 0, 0, &arena.created), ABSENT_DEVICE, "compute capability 7.0")
    set_driver(12000, 8);
    must(koala_cuda_step(arena.optimizer, NULL, &loss, NULL, 0), "a step of nothing");
    must(koala_cuda_report(arena.optimizer, NULL, &arena.report), "report");
    expect(arena.report.step == 1 && arena.report.stepped == 0, "the report", "is of another step");
    must(koala_cuda_read_state(arena.optimizer, NULL, 0, arena.v, arena.h, BYTES, &arena.scalars), "state");
    expect(arena.scalars.steps == 0, "the scalars", "are not those before the first step");
  }
  must(koala_cuda_destroy(arena.optimizer), "destroy");
  must(koala_cuda_destroy(NULL), "destroy NULL");
  expect(driver == NULL || mistakes() == 0, "the driver", "was asked for what no driver allows");
  compare_with_header();
  printf("%d looks, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
