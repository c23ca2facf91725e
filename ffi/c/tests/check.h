/* What the programs about misuse share: an arena that holds all memory which calls are given, right at first; a row for
 * each function, which calls it with what the arena says; and the look at what a call left behind. */
#ifndef CHECK_H
#define CHECK_H

#include <koala.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ELEMENTS = 3, GROUPS_MADE = 2, VARIANTS = 4, SPARE = 64 };

/* What the functions' rows call their arguments with. */
struct given {
  koala_step *step;
  koala_tensor *tensors;
  size_t count;
  koala_dots *dots, *part;
  koala_tensor_report *reports;
  koala_report *report;
  koala_settings *settings;
  koala_config *config;
  koala_method *method;
  koala_backend_info *info;
  koala_optimizer *optimizer, **created;
  koala_parameters *parameters;
  koala_loss *loss;
  const void *losses;
  double *noise, *distance, decay, learning_rate, gain, factor, limit;
  const char *name;
  char *text;
  size_t *number, capacity, size, tensor, length, bytes;
  uint32_t *group_number, group, threads, version;
  koala_scalars *scalars;
  koala_backend *chosen, backend;
  koala_loaded *loaded;
  const char *path;
  void *v, *h;
  koala_element_type type;
  koala_state_type state_type;
  koala_method_kind kind;
  koala_noise rule;
  koala_loading loading;
};

/* Structs of one type, with room to move them apart as a newer header's would be, and before them for results that end
 * within the first one. */
#define ROOM(type, count, name)                              \
  struct {                                                   \
    _Alignas(8) unsigned char before[ELEMENTS * SPARE];      \
    union {                                                  \
      type at[count];                                        \
      unsigned char bytes[(count) * (sizeof(type) + SPARE)]; \
    };                                                       \
  } name

enum buffer { PARAMETERS_BUFFER, GRADIENT_BUFFER, V_BUFFER, H_BUFFER, COPY_BUFFER, BUFFERS };

struct arena {
  struct given in;
  ROOM(koala_step, 1, step);
  ROOM(koala_settings, GROUPS_MADE, groups);
  ROOM(koala_settings, 1, settings);
  ROOM(koala_tensor, ELEMENTS, tensors);
  ROOM(koala_parameters, ELEMENTS, parameters);
  ROOM(koala_report, 1, report);
  ROOM(koala_config, 1, config);
  ROOM(koala_method, 1, method);
  ROOM(koala_backend_info, 1, info);
  ROOM(koala_dots, ELEMENTS, dots);
  ROOM(koala_tensor_report, ELEMENTS, reports);
  ROOM(koala_loss, 1, loss);
  ROOM(koala_loaded, 1, loaded);
  koala_scalars scalars[ELEMENTS], scalars_found;
  koala_dots part;
  koala_optimizer *created;
  double losses[ELEMENTS], noise, distance;
  size_t number[2];
  uint32_t group_number[2];
  koala_backend chosen[2];
  char name[16], text[64], path[1024];
  _Alignas(8) unsigned char buffers[ELEMENTS][BUFFERS][64], v[64], h[64];
};

/* All that can be seen of an optimizer. */
struct seen {
  double noise;
  size_t count;
  koala_backend backend;
  char names[ELEMENTS][16];
  koala_scalars scalars[ELEMENTS];
  koala_settings settings[GROUPS_MADE];
  koala_method method;
  unsigned char v[ELEMENTS][64], h[ELEMENTS][64];
};

static struct arena arena;
/* Where checkpoints are written: beside the program, if it says where that is. */
static char checkpoint[1024];
static koala_optimizer *optimizer;
static int failures, cases;

static const size_t lengths[ELEMENTS] = {5, 0, 3};
static const char *const names[ELEMENTS] = {"first", "second", "third"};
static const size_t sizes[VARIANTS] = {4, 8, 2, 2};

/* The first tensor has a group of its own. */
static inline int group_of(int element) { return element > 0; }

static inline koala_element_type type_of(int variant, int element) {
  return element == 0 ? variant : (variant + element) % VARIANTS;
}

static inline koala_state_type state_type_of(int variant) {
  return variant == KOALA_ELEMENT_TYPE_BF16 ? KOALA_STATE_TYPE_F32 : KOALA_STATE_TYPE_SAME;
}

static inline size_t state_size(int variant, int element) {
  return state_type_of(variant) == KOALA_STATE_TYPE_F32 ? 4 : sizes[type_of(variant, element)];
}

/* Numbers that all element types have. */
static inline void put(koala_element_type type, void *buffer, size_t place, int which) {
  static const float floats[] = {0.5F, -1.0F, 0.25F, 2.0F, -0.5F};
  static const uint16_t halves[] = {0x3800, 0xBC00, 0x3400, 0x4000, 0xB800};
  uint32_t bits;
  double wide = floats[which % 5];
  uint16_t upper;
  memcpy(&bits, &floats[which % 5], sizeof bits);
  upper = (uint16_t)(bits >> 16);
  switch (type) {
    case KOALA_ELEMENT_TYPE_F32: memcpy((char *)buffer + 4 * place, &bits, 4); break;
    case KOALA_ELEMENT_TYPE_F64: memcpy((char *)buffer + 8 * place, &wide, 8); break;
    case KOALA_ELEMENT_TYPE_BF16: memcpy((char *)buffer + 2 * place, &upper, 2); break;
    default: memcpy((char *)buffer + 2 * place, &halves[which % 5], 2); break;
  }
}

/* Makes one element of a buffer NaN. */
static inline void put_nan(koala_element_type type, void *buffer, size_t place) {
  memset((char *)buffer + sizes[type] * place, 0x7F, sizes[type]);
  if (type == KOALA_ELEMENT_TYPE_F32 || type == KOALA_ELEMENT_TYPE_F64) {
    ((unsigned char *)buffer)[sizes[type] * place + sizes[type] - 2] = 0xFF;
  } else {
    ((unsigned char *)buffer)[sizes[type] * place] = 0xFF;
  }
}

/* `program` is argv[0]. */
static inline void set_checkpoint(const char *program) {
  if ((size_t)snprintf(checkpoint, sizeof checkpoint, "%s.safetensors", program) < sizeof checkpoint) return;
  fprintf(stderr, "the program's path is too long\n");
  exit(1);
}

static inline void expect(int fact, const char *what) {
  cases++;
  if (fact) return;
  fprintf(stderr, "%s\n", what);
  failures++;
}

static inline void must(koala_status status, const char *what) {
  if (status == KOALA_STATUS_OK) return;
  koala_last_error(arena.text, sizeof arena.text, NULL);
  fprintf(stderr, "%s: %s\n", what, arena.text);
  exit(1);
}

/* What an out-pointer of koala_optimizer_create leads to before the call. */
#define NOT_CREATED ((koala_optimizer *)(void *)&arena)

/* Memory that is right for every call. Where a variant's filters have stepped before, its tensors' scalars say so. */
static inline void fresh(int variant) {
  struct arena *all = &arena;
  memset(all, 0xA5, sizeof *all);
  memset(all->scalars, 0, sizeof all->scalars);
  all->created = NOT_CREATED;
  all->in = (struct given){
      .step = all->step.at, .tensors = all->tensors.at, .count = ELEMENTS, .dots = all->dots.at, .part = &all->part,
      .reports = all->reports.at, .report = all->report.at, .settings = all->settings.at, .config = all->config.at,
      .info = all->info.at, .method = all->method.at, .distance = &all->distance, .gain = 0.5, .factor = 0.5,
      .limit = 2.0, .kind = KOALA_METHOD_KIND_ADAMW,
      .optimizer = optimizer, .created = &all->created, .parameters = all->parameters.at, .loss = all->loss.at,
      .losses = all->losses, .noise = &all->noise, .decay = 0.9, .learning_rate = 0.5, .name = all->name,
      .text = all->text, .number = all->number, .capacity = sizeof all->text, .tensor = 0, .length = lengths[0],
      .bytes = lengths[0] * state_size(variant, 0), .group_number = all->group_number, .group = 1, .threads = 1,
      .version = KOALA_VERSION, .scalars = &all->scalars_found, .chosen = all->chosen,
      .backend = KOALA_BACKEND_FASTEST, .v = all->v, .h = all->h, .type = variant,
      .state_type = state_type_of(variant), .loaded = all->loaded.at, .path = all->path};
  must(koala_step_init(all->step.at, sizeof *all->step.at), "step");
  must(koala_config_init(all->config.at, sizeof *all->config.at), "config");
  must(koala_method_init(all->method.at, sizeof *all->method.at, KOALA_METHOD_KIND_KOALA_M), "method");
  must(koala_settings_init(all->settings.at, sizeof *all->settings.at), "settings");
  for (int i = 0; i < GROUPS_MADE; i++) all->groups.at[i] = all->settings.at[0];
  all->step.at->groups = all->groups.at;
  all->step.at->group_count = GROUPS_MADE;
  all->step.at->loss = all->loss.at->mean = 1.5;
  all->noise = all->loss.at->second_moment = 2.5;
  all->report.at->size = sizeof *all->report.at;
  all->info.at->size = sizeof *all->info.at;
  all->loaded.at->size = sizeof *all->loaded.at;
  strcpy(all->path, checkpoint);
  strcpy(all->name, names[2]);
  for (int i = 0; i < ELEMENTS; i++) {
    put(variant, all->losses, i, i);
    all->part = all->dots.at[i] = (koala_dots){0.25, 0.125, 1.5, 1.0, 1.5};
  }
  all->dots.at[1] = (koala_dots){0, 0, 0, 0, 0};
  for (int i = 0; i < ELEMENTS; i++) {
    void *buffers[BUFFERS] = {NULL};
    for (size_t j = 0; j < BUFFERS && lengths[i] > 0; j++) {
      int of_state = j == V_BUFFER || j == H_BUFFER;
      koala_element_type type = of_state && state_size(variant, i) == 4 ? KOALA_ELEMENT_TYPE_F32 : type_of(variant, i);
      buffers[j] = all->buffers[i][j];
      for (size_t k = 0; k < lengths[i]; k++) put(type, buffers[j], k, (int)(j + k + i));
    }
    all->tensors.at[i] = (koala_tensor){
        .size = sizeof(koala_tensor), .length = lengths[i], .type = type_of(variant, i),
        .state_type = state_type_of(variant), .copy_type = KOALA_COPY_TYPE_BF16, .group = group_of(i),
        .parameters = buffers[0], .gradient = buffers[1], .v = buffers[2], .h = buffers[3], .copy = buffers[4],
        .scalars = &all->scalars[i]};
    all->parameters.at[i] = (koala_parameters){
        .size = sizeof(koala_parameters), .tensor = i, .length = lengths[i], .type = type_of(variant, i),
        .copy_type = KOALA_COPY_TYPE_F16, .parameters = buffers[0], .gradient = buffers[1], .copy = buffers[4]};
    if (variant % 2 == 1) all->scalars[i] = (koala_scalars){1.5, 0.25, 2.0, 1.0};
  }
}

/* An optimizer that has stepped once. `config` is not in the arena; NULL: the defaults. */
static inline void make_optimizer(int variant, const koala_config *config) {
  if (optimizer != NULL) must(koala_optimizer_destroy(optimizer), "destroy");
  fresh(variant);
  must(koala_optimizer_create(config, &optimizer), "create");
  for (int i = 0; i < GROUPS_MADE; i++) {
    must(koala_optimizer_add_group(optimizer, i == 0 ? NULL : arena.settings.at, arena.group_number), "group");
  }
  for (int i = 0; i < ELEMENTS; i++) {
    must(koala_optimizer_add_tensor(optimizer, names[i], lengths[i], type_of(variant, i), state_type_of(variant),
                                    group_of(i), NULL),
         "tensor");
  }
  must(koala_optimizer_predict(optimizer, arena.parameters.at, ELEMENTS), "predict");
  must(koala_optimizer_step(optimizer, arena.loss.at, arena.parameters.at, ELEMENTS, NULL, NULL), "step");
  fresh(variant);
}

static inline void look(struct seen *seen, int variant) {
  memset(seen, 0, sizeof *seen);
  must(koala_optimizer_noise(optimizer, &seen->noise), "noise");
  must(koala_optimizer_backend(optimizer, &seen->backend), "backend");
  must(koala_optimizer_tensor_count(optimizer, &seen->count), "count");
  seen->method.size = sizeof seen->method;
  must(koala_optimizer_method(optimizer, &seen->method), "method");
  for (int i = 0; i < GROUPS_MADE; i++) {
    seen->settings[i].size = sizeof(koala_settings);
    must(koala_optimizer_settings(optimizer, i, &seen->settings[i]), "settings");
  }
  for (int i = 0; i < ELEMENTS; i++) {
    must(koala_optimizer_scalars(optimizer, i, &seen->scalars[i]), "scalars");
    must(koala_optimizer_tensor_name(optimizer, i, seen->names[i], sizeof seen->names[i], NULL), "name");
    must(koala_optimizer_state(optimizer, i, seen->method.kind == KOALA_METHOD_KIND_SGD ? NULL : seen->v[i], seen->h[i],
                               lengths[i] * state_size(variant, i)),
         "state");
  }
}

struct function {
  const char *name;
  koala_status (*call)(const struct given *in);
  /* Which arguments may not be NULL, which may, and which structs are only written: bits, one for each argument. */
  unsigned needed, optional, filled;
};

/* Memory that is right for a function. */
static inline void begin(const struct function *function, int variant) {
  fresh(variant);
  if (strcmp(function->name, "koala_optimizer_add_tensor") == 0) strcpy(arena.name, "fourth");
  if (strcmp(function->name, "koala_backend_by_name") == 0) strcpy(arena.name, "scalar");
  if (strcmp(function->name, "koala_optimizer_load") == 0) must(koala_optimizer_save(optimizer, checkpoint), "save");
  if (strcmp(function->name, "koala_settings_init") == 0) arena.in.size = sizeof(koala_settings);
  if (strcmp(function->name, "koala_config_init") == 0) arena.in.size = sizeof(koala_config);
  if (strcmp(function->name, "koala_method_init") == 0) arena.in.size = sizeof(koala_method);
  if (strcmp(function->name, "koala_step_init") == 0) arena.in.size = sizeof(koala_step);
}

/* Makes a call with what the arena holds, and looks at its status, at its text, and, if it failed, at whether all
 * memory and the optimizer are as they were. `what` says what is tried, `where` is a second word that the text has. */
static inline void attempt(const struct function *function, int variant, koala_status expected, const char *word,
                           const char *where, const char *what) {
  static struct arena before;
  static struct seen seen_before, seen_after;
  char text[512];
  size_t length = 0;
  const char *wrong = NULL;
  koala_status status;
  look(&seen_before, variant);
  koala_check_version(0); /* A text that none of the words is in. */
  memcpy(&before, &arena, sizeof arena);
  status = function->call(&arena.in);
  cases++;
  koala_last_error(text, sizeof text, &length);
  if (status != expected) {
    wrong = "another status";
  } else if (status != KOALA_STATUS_OK) {
    if (strstr(text, word) == NULL || strstr(text, where) == NULL) wrong = "the text lacks a word";
    if (length == 0 || strchr(text, '\n') != NULL) wrong = "the text is empty or of several lines";
    if (memcmp(&before, &arena, sizeof arena) != 0) wrong = "memory was written";
  }
  if (status == KOALA_STATUS_OK) {
    if (arena.created != NOT_CREATED) must(koala_optimizer_destroy(arena.created), "destroy");
    if (strcmp(function->name, "koala_optimizer_destroy") == 0 && arena.in.optimizer != NULL) optimizer = NULL;
    make_optimizer(variant, NULL);
  } else {
    look(&seen_after, variant);
    if (memcmp(&seen_before, &seen_after, sizeof seen_before) != 0) wrong = "the optimizer was changed";
  }
  if (wrong != NULL) {
    fprintf(stderr, "%s, %s, type %d: %s: status %d, expected %d and \"%s\" \"%s\"; text: %s\n", function->name, what,
            variant, wrong, status, expected, word, where, text);
    failures++;
  }
}

#endif
