/* Every function of koala.h, called with everything that can be wrong with it by itself: pointers, sizes of structs,
 * enums, flags, numbers, lengths, names. Each wrong call has to fail as the table says and to leave everything as it
 * was, and each right one beside it has to succeed. misuse_together.c has what is wrong only together with something
 * else. Those of koala_cuda are in misuse_cuda.c.
 * stdin names the functions that there are, one a line. */
#define _POSIX_C_SOURCE 200112L
#include "changes.h"

/* Pointers: their names in texts, where they are among the arguments, how they have to be aligned. */
static const struct pointer {
  unsigned arguments;
  const char *name;
  size_t place, alignment;
} pointers[] = {
#define POINTER(arguments, name, member, type) {arguments, name, offsetof(struct given, member), _Alignof(type)}
    POINTER(STEP, "koala_step is", step, koala_step),
    POINTER(TENSOR, "koala_tensor is", tensors, koala_tensor),
    POINTER(TENSORS, "tensors is", tensors, koala_tensor),
    POINTER(PARAMETERS, "tensors is", parameters, koala_parameters),
    POINTER(SETTINGS, "koala_settings is", settings, koala_settings),
    POINTER(CONFIG, "koala_config is", config, koala_config),
    POINTER(METHOD, "koala_method is", method, koala_method),
    POINTER(DISTANCE, "distance_squared is", distance, double),
    POINTER(REPORT, "koala_report is", report, koala_report),
    POINTER(INFO, "koala_backend_info is", info, koala_backend_info),
    POINTER(DOTS, "is", dots, koala_dots), /* "dots is", or "sum is". */
    POINTER(PART, "part is", part, koala_dots),
    POINTER(REPORTS, "report", reports, koala_tensor_report),
    POINTER(LOSS, "loss is", loss, koala_loss),
    POINTER(LOSSES, "losses is", losses, uint16_t),
    POINTER(NOISE, "noise is", noise, double),
    POINTER(OPTIMIZER, "optimizer is", optimizer, void *),
    POINTER(CREATED, "optimizer is", created, void *),
    POINTER(NAME, "name is", name, char),
    POINTER(TEXT, "buffer is", text, char),
    POINTER(LENGTH, "length is", number, size_t),
    POINTER(NUMBER, "is", number, size_t),
    POINTER(GROUP_NUMBER, "group is", group_number, uint32_t),
    POINTER(SCALARS, "scalars is", scalars, koala_scalars),
    POINTER(CHOSEN, "backend is", chosen, koala_backend),
    POINTER(PATH, "path is", path, char),
    POINTER(LOADED, "koala_loaded is", loaded, koala_loaded),
};

/* Structs that begin with their size, and what koala_tensor and koala_step lead to. */
static const struct layout {
  unsigned arguments;
  size_t place, size, last_member; /* How long the last member is; 0: there is no size. */
  int elements;
} layouts[] = {
#define LAYOUT(arguments, member, type, last, elements) \
  {arguments, offsetof(struct arena, member.at), sizeof(type), sizeof(type) - offsetof(type, last), elements}
    LAYOUT(STEP, step, koala_step, backend, 1),
    LAYOUT(GROUPS, groups, koala_settings, variant, GROUPS_MADE),
    LAYOUT(TENSOR, tensors, koala_tensor, scalars, 1),
    LAYOUT(TENSORS, tensors, koala_tensor, scalars, ELEMENTS),
    LAYOUT(PARAMETERS, parameters, koala_parameters, copy, ELEMENTS),
    LAYOUT(SETTINGS, settings, koala_settings, variant, 1),
    LAYOUT(CONFIG, config, koala_config, threads, 1),
    LAYOUT(METHOD, method, koala_method, velocity_noise, 1),
    LAYOUT(REPORT, report, koala_report, withheld, 1),
    LAYOUT(INFO, info, koala_backend_info, absent_because, 1),
    LAYOUT(LOADED, loaded, koala_loaded, differences, 1),
    {STEPS, offsetof(struct arena, scalars), sizeof(koala_scalars), 0, ELEMENTS},
};

static koala_backend absent;

static unsigned arguments_of(const struct function *function) { return function->needed | function->optional; }

/* How many structs a function looks at: of one tensor, its own scalars, and the settings of its group. */
static int elements_of(const struct function *function, const struct layout *layout) {
  return layout->arguments & (STEPS | GROUPS) && function->needed & TENSOR ? 1 : layout->elements;
}

static void put_number(void *place, size_t bytes, int64_t number) {
  int32_t narrow = (int32_t)number;
  memcpy(place, bytes == 4 ? (void *)&narrow : (void *)&number, bytes);
}

static void apply(const struct change *change, void *base, int variant, int element) {
  unsigned char *place = (unsigned char *)base + change->place;
  size_t number;
  switch (change->how) {
    case SET:
      if (change->bytes == sizeof change->value) {
        memcpy(place, &change->value, sizeof change->value);
      } else {
        put_number(place, change->bytes, change->value.whole);
      }
      break;
    case MORE:
      memcpy(&number, place, sizeof number);
      put_number(place, change->bytes, (int64_t)number + change->value.whole);
      break;
    case MORE_THAN_MEMORY:
      put_number(place, change->bytes, (int64_t)(PTRDIFF_MAX / sizes[type_of(variant, element)] + 1));
      break;
    case ABSENT: put_number(place, change->bytes, absent); break;
  }
}

static void try_change(const struct function *function, int variant, const struct change *change) {
  if (change->function != NULL) {
    if (strcmp(change->function, function->name) != 0) return;
    begin(function, variant);
    apply(change, &arena.in, variant, 0);
    attempt(function, variant, change->status, change->word, "", change->name);
    return;
  }
  for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
    const struct layout *layout = &layouts[i];
    unsigned given = layout->arguments & change->arguments & arguments_of(function) & ~function->filled;
    int elements = elements_of(function, layout);
    /* The middle one has no buffers. */
    for (int element = 0; given != 0 && element < elements; element += elements == ELEMENTS ? 2 : 1) {
      size_t length = strlen(change->name);
      int unread = predicts(function) && length > 9 && strcmp(change->name + length - 9, ".gradient") == 0;
      const char *where = given & (TENSORS | STEPS) && element == 2 ? "tensor \"2\"" : "";
      begin(function, variant);
      apply(change, (unsigned char *)&arena + layout->place + element * layout->size, variant, element);
      attempt(function, variant, unread ? KOALA_STATUS_OK : change->status, change->word, where, change->name);
    }
  }
}

static void try_pointers(const struct function *function, int variant) {
  for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++) {
    const struct pointer *pointer = &pointers[i];
    unsigned char *place = (unsigned char *)&arena.in + pointer->place;
    char word[64];
    size_t address;
    if ((pointer->arguments & arguments_of(function)) == 0) continue;
    snprintf(word, sizeof word, "%s NULL", pointer->name);
    begin(function, variant);
    put_number(place, sizeof(void *), 0);
    attempt(function, variant, pointer->arguments & function->needed ? KOALA_STATUS_NULL_POINTER : KOALA_STATUS_OK,
            word, "", "NULL");
    if (pointer->alignment == 1) continue;
    begin(function, variant);
    memcpy(&address, place, sizeof address);
    put_number(place, sizeof(void *), (int64_t)address + 1);
    attempt(function, variant, KOALA_STATUS_MISALIGNED, "expected a multiple of", "", "an odd address");
  }
}

static void set_size(const struct layout *layout, size_t stride, int element, size_t size) {
  memcpy((unsigned char *)&arena + layout->place + element * stride, &size, sizeof size);
}

/* Moves structs apart, each with room behind it, as in an array of a newer header's; `fill` is the last byte. */
static void widen(const struct layout *layout, size_t more, int last, int fill) {
  unsigned char *first = (unsigned char *)&arena + layout->place;
  for (int element = layout->elements - 1; element >= 0; element--) {
    unsigned char *moved = first + element * (layout->size + more);
    memmove(moved, first + element * layout->size, layout->size);
    memset(moved + layout->size, 0, more);
    set_size(layout, layout->size + more, element, layout->size + more);
  }
  first[(last + 1) * (layout->size + more) - 1] = (unsigned char)fill;
}

/* Moves structs of settings together, each without the last member, as in an array of an older header's. */
static void shorten(const struct layout *layout) {
  const size_t size = offsetof(koala_settings, prior_variance);
  unsigned char *first = (unsigned char *)&arena + layout->place;
  for (int element = 0; element < layout->elements; element++) {
    memmove(first + element * size, first + element * layout->size, size);
    set_size(layout, size, element, size);
  }
  memset(first + layout->elements * size, 0xFF, layout->elements * (layout->size - size));
}

static void try_sizes(const struct function *function, int variant) {
  for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
    const struct layout *layout = &layouts[i];
    unsigned given = layout->arguments & arguments_of(function);
    const size_t wrong[] = {0, layout->size - layout->last_member, 1 << 20, SIZE_MAX};
    int last = elements_of(function, layout) - 1;
    if (given == 0 || layout->last_member == 0 || strstr(function->name, "_init") != NULL) continue;
    for (int j = 0; j < 4; j++) {
      begin(function, variant);
      set_size(layout, layout->size, 0, wrong[j]);
      attempt(function, variant, KOALA_STATUS_STRUCT_SIZE, "the size in a koala_", "expected", "a wrong size");
    }
    if (last > 0) {
      begin(function, variant);
      set_size(layout, layout->size, last, layout->size + 8);
      attempt(function, variant, KOALA_STATUS_STRUCT_SIZE, "not that of the first", "element", "unequal sizes");
      begin(function, variant);
      widen(layout, 4, last, 0);
      attempt(function, variant, KOALA_STATUS_STRUCT_SIZE, "the size in a koala_", "", "a size that misaligns");
    }
    if (layout->arguments & ANY_SETTINGS) {
      begin(function, variant);
      shorten(layout);
      attempt(function, variant, KOALA_STATUS_OK, "", "", "an older header's struct");
    }
    begin(function, variant);
    widen(layout, 16, last, 0);
    attempt(function, variant, KOALA_STATUS_OK, "", "", "a newer header's struct");
    begin(function, variant);
    widen(layout, 16, last, 1);
    if (layout->arguments & function->filled) {
      attempt(function, variant, KOALA_STATUS_OK, "", "", "a newer header's struct that is filled");
    } else {
      attempt(function, variant, KOALA_STATUS_STRUCT_SIZE, "members set", "koala_", "a newer header's member");
    }
  }
}

/* What returns a text or a number, or tells of the errors of the others. */
static const char *const others[] = {"koala_version", "koala_status_string", "koala_backend_name", "koala_last_error"};

static void try_others(void) {
  char text[64] = "untouched", whole[512];
  size_t numbers[2] = {0, 0}, places[4], length = 0;
  expect(koala_version() == KOALA_VERSION, "koala_version is not the header's");
  for (int i = 0; i <= KOALA_STATUS_METHOD; i++) {
    expect(strcmp(koala_status_string(i), "an unknown status") != 0, "a status has no text");
  }
  expect(strcmp(koala_status_string(-1), "an unknown status") == 0, "-1 is a status");
  expect(strcmp(koala_status_string(KOALA_STATUS_METHOD + 1), "an unknown status") == 0, "34 is a status");
  for (int i = 0; i <= KOALA_BACKEND_AVX512; i++) expect(koala_backend_name(i) != NULL, "a backend has no name");
  expect(koala_backend_name(-1) == NULL && koala_backend_name(6) == NULL, "no backend has a name");

  koala_check_version(0);
  expect(koala_last_error(whole, sizeof whole, &length) == KOALA_STATUS_OK && strlen(whole) == length && length > 8,
         "the last error is not there");
  expect(koala_last_error(NULL, 8, numbers) == KOALA_STATUS_NULL_POINTER && numbers[0] == 0, "NULL takes 8 bytes");
  expect(koala_last_error(text, 4, (size_t *)(void *)((char *)numbers + 1)) == KOALA_STATUS_MISALIGNED &&
             numbers[0] == 0 && strcmp(text, "untouched") == 0,
         "koala_last_error writes a length to an odd address");
  memset(places, 0x5A, sizeof places);
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    expect(koala_last_error((char *)places, sizeof places, &places[i]) == KOALA_STATUS_OVERLAP,
           "koala_last_error writes a length into its text");
  }
  for (size_t i = 0; i < sizeof places; i++) {
    expect(((char *)places)[i] == 0x5A, "koala_last_error has written to what overlaps");
  }
  koala_check_version(0);
  expect(koala_last_error(NULL, 0, numbers) == KOALA_STATUS_OK && numbers[0] == length, "NULL takes no bytes");
  expect(koala_last_error(text, 4, NULL) == KOALA_STATUS_OK && memcmp(text, whole, 3) == 0 && text[3] == 0 &&
             strcmp(text + 4, "uched") == 0,
         "a text is not cut where it has to be");
  expect(koala_last_error(text, 0, NULL) == KOALA_STATUS_OK && memcmp(text, whole, 3) == 0, "no bytes are some");
}

static void try_environment(void) {
  const struct function *function = function_named("koala_backend_from_environment");
  const struct {
    const char *value;
    koala_status status;
  } rows[] = {{"avx9", KOALA_STATUS_UNKNOWN_BACKEND}, {"", KOALA_STATUS_UNKNOWN_BACKEND},
              {koala_backend_name(absent), KOALA_STATUS_ABSENT_BACKEND}, {"scalar", KOALA_STATUS_OK}};
  make_optimizer(0, NULL);
  for (int i = 0; i < 4; i++) {
    begin(function, 0);
    setenv("KOALA_BACKEND", rows[i].value, 1);
    attempt(function, 0, rows[i].status, rows[i].value, "scalar", "KOALA_BACKEND");
  }
  unsetenv("KOALA_BACKEND");
}

/* Whether every function that stdin names has been called. */
static void compare_with_header(void) {
  char name[128];
  int listed = 0;
  while (scanf("%127s", name) == 1) {
    int known = 0;
    for (int i = 0; i < FUNCTIONS_HERE; i++) known |= strcmp(functions[i].name, name) == 0;
    for (int i = 0; i < 4; i++) known |= strcmp(others[i], name) == 0;
    if (!known) fprintf(stderr, "%s is in koala.h, but has no row here\n", name);
    failures += !known;
    listed++;
  }
  if (listed != FUNCTIONS_HERE + 4) {
    fprintf(stderr, "koala.h has %d functions, but there are rows for %d\n", listed, FUNCTIONS_HERE + 4);
    failures++;
  }
}

int main(int count, char **arguments) {
  (void)count;
  set_checkpoint(arguments[0]);
  unsetenv("KOALA_BACKEND");
  for (koala_backend backend = 1; backend <= KOALA_BACKEND_AVX512; backend++) {
    koala_backend_info info = {.size = sizeof info};
    must(koala_backend_describe(backend, &info), "describe");
    if (!info.present) absent = backend;
  }
  for (int variant = 0; variant < VARIANTS; variant++) {
    make_optimizer(variant, NULL);
    for (int i = 0; i < FUNCTIONS_HERE; i++) {
      /* An optimizer of KOALA++ does not have it: misuse_methods.c tries it. */
      if (strcmp(functions[i].name, "koala_optimizer_set_method") == 0) continue;
      begin(&functions[i], variant);
      attempt(&functions[i], variant, KOALA_STATUS_OK, "", "", "what is right");
      try_pointers(&functions[i], variant);
      try_sizes(&functions[i], variant);
      for (size_t j = 0; j < sizeof changes / sizeof changes[0]; j++) try_change(&functions[i], variant, &changes[j]);
    }
  }
  try_others();
  try_environment();
  compare_with_header();
  must(koala_optimizer_destroy(optimizer), "destroy");
  printf("%d calls, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
