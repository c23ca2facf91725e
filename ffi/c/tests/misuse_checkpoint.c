/* What can be wrong with a checkpoint: its file, or that it is another model's. Loading it has to fail with a text that
 * lists all of it, and to leave everything as it was; or, if that is asked for, to load what fits. See misuse.c. */
#include "functions.h"

#include <sys/stat.h>

enum { LARGEST = 1 << 16, EXTRA = 40 };

static unsigned char file[LARGEST];
static size_t length;

static void read_file(void) {
  FILE *stream = fopen(checkpoint, "rb");
  length = stream == NULL ? 0 : fread(file, 1, sizeof file, stream);
  if (stream == NULL || length == sizeof file || fclose(stream) != 0) exit(2);
}

static void write_file(void) {
  FILE *stream = fopen(checkpoint, "wb");
  if (stream == NULL || fwrite(file, 1, length, stream) != length || fclose(stream) != 0) exit(2);
}

static void replace(const char *old, const char *new) {
  for (size_t i = 0; i + strlen(old) <= length; i++) {
    if (memcmp(file + i, old, strlen(old)) == 0) memcpy(file + i, new, strlen(new));
  }
}

/* Loads what an optimizer has just saved, but for one change of the file. */
#define TRY(status, word, where, ...)                                       \
  do {                                                                      \
    begin(load, variant);                                                   \
    read_file();                                                            \
    __VA_ARGS__;                                                            \
    write_file();                                                           \
    attempt(load, variant, status, word, where, #__VA_ARGS__);              \
  } while (0)

static void try_files(const struct function *load, int variant) {
  TRY(KOALA_STATUS_OK, "", "", (void)0);
  TRY(KOALA_STATUS_DAMAGED, "is not a checkpoint", "it has 0 bytes", length = 0);
  TRY(KOALA_STATUS_DAMAGED, "is not a checkpoint", "it has 7 bytes", length = 7);
  TRY(KOALA_STATUS_DAMAGED, "is not a checkpoint", "a header of", memcpy(file, "not at all", 10));
  TRY(KOALA_STATUS_DAMAGED, "is not a checkpoint", "no koala-checkpoint entry", replace("koala-check", "panda-check"));
  TRY(KOALA_STATUS_DAMAGED, "is damaged", "", length -= 1);
  TRY(KOALA_STATUS_DAMAGED, "is damaged", "", length += 1);
  TRY(KOALA_STATUS_DAMAGED, "is damaged", "checksum", file[length - 1] ^= 1);
  TRY(KOALA_STATUS_DAMAGED, "is damaged", "checksum", file[length - 9] ^= 128);
  TRY(KOALA_STATUS_NEWER, "format version 2", "reads up to 1",
      replace("\"koala-checkpoint\":\"1\"", "\"koala-checkpoint\":\"2\""));
  begin(load, variant);
  if (remove(checkpoint) != 0) exit(2);
  attempt(load, variant, KOALA_STATUS_FILE, "No such file", "safetensors", "no file");
}

/* An optimizer whose first tensor has another length, whose third one is in another group, and which has more of them,
 * but no second one. The third one has stepped twice. */
static koala_optimizer *new_other(int variant) {
  koala_optimizer *other;
  uint32_t group;
  size_t third;
  must(koala_optimizer_create(NULL, &other), "create");
  for (int i = 0; i < GROUPS_MADE; i++) must(koala_optimizer_add_group(other, NULL, &group), "group");
  must(koala_optimizer_add_tensor(other, names[0], 4, type_of(variant, 0), state_type_of(variant), 0, NULL), "first");
  must(koala_optimizer_add_tensor(other, names[2], lengths[2], type_of(variant, 2), state_type_of(variant), 0, &third),
       "third");
  for (int i = 0; i < EXTRA; i++) {
    char name[24];
    snprintf(name, sizeof name, "extra %d", i);
    must(koala_optimizer_add_tensor(other, name, 1, 0, 0, 0, NULL), name);
  }
  for (int i = 0; i < 2; i++) {
    koala_parameters given = arena.parameters.at[2];
    given.tensor = third;
    must(koala_optimizer_step(other, arena.loss.at, &given, 1, NULL, NULL), "step");
  }
  return other;
}

/* The text that a function copies, and how often a word is in it. */
static char whole[1 << 14];
static size_t count_of(const char *word) {
  size_t count = 0;
  for (const char *at = whole; (at = strstr(at, word)) != NULL; at++) count++;
  return count;
}

static void expect_differences(void) {
  expect(count_of("tensor \"second\" is only in the optimizer") == 1, "what is missing is not listed");
  expect(count_of("tensor \"first\" has 4 elements in the checkpoint, 5 in the optimizer") == 1,
         "another length is not listed");
  expect(count_of("tensor \"third\" is in group 0 in the checkpoint, 1 in the optimizer") == 1,
         "another group is not listed");
  expect(count_of("is only in the checkpoint") == EXTRA && count_of("tensor \"extra 39\"") == 1,
         "what is extra is not listed");
}

static void try_another_model(const struct function *load, int variant) {
  static struct seen before, after;
  koala_optimizer *other;
  koala_loaded loaded = {.size = sizeof loaded};
  koala_scalars scalars;
  size_t listed = 0;
  begin(load, variant);
  other = new_other(variant);
  begin(load, variant);
  must(koala_optimizer_save(other, checkpoint), "save");
  attempt(load, variant, KOALA_STATUS_MISMATCH, "is of another model: ", "\"second\" is only in", "another model");
  must(koala_last_error(whole, sizeof whole, &listed), "last error");
  expect(listed == strlen(whole) && count_of("; ") == EXTRA + 2 && strchr(whole, '\n') == NULL, "no list in one line");
  expect_differences();

  look(&before, variant);
  must(koala_optimizer_load(optimizer, checkpoint, KOALA_LOADING_WHAT_FITS, &loaded), "load");
  look(&after, variant);
  expect(loaded.tensors == 1 && loaded.differences == EXTRA + 3, "what was loaded is not counted");
  must(koala_optimizer_differences(optimizer, whole, sizeof whole, &listed), "differences");
  expect(listed == strlen(whole) && count_of("\n") == EXTRA + 3, "no line for each difference");
  expect_differences();
  must(koala_optimizer_scalars(other, 1, &scalars), "scalars");
  expect(scalars.steps == 2 && memcmp(&scalars, &after.scalars[2], sizeof scalars) == 0, "what fits is not loaded");
  expect(memcmp(before.scalars, after.scalars, 2 * sizeof scalars) == 0 &&
             memcmp(before.v, after.v, 2 * sizeof before.v[0]) == 0 &&
             memcmp(before.h, after.h, 2 * sizeof before.h[0]) == 0,
         "what does not fit is not kept");

  must(koala_optimizer_save(optimizer, checkpoint), "save");
  must(koala_optimizer_load(optimizer, checkpoint, KOALA_LOADING_EXACT, NULL), "load");
  must(koala_optimizer_differences(optimizer, whole, sizeof whole, &listed), "differences");
  expect(listed == 0 && whole[0] == 0, "differences are left");
  must(koala_optimizer_destroy(other), "destroy");
}

/* A path is bytes, whatever they are in; and nobody waits for the other end of a FIFO. */
static void try_paths(void) {
  char path[sizeof checkpoint + 300];
  size_t folder = strlen(checkpoint);
  while (folder > 0 && checkpoint[folder - 1] != '/') folder--;
  snprintf(path, sizeof path, "%.*s\xFF\n.safetensors", (int)folder, checkpoint);
  for (int longest = 0; longest < 2; longest++) {
    must(koala_optimizer_save(optimizer, path), "save");
    must(koala_optimizer_load(optimizer, path, KOALA_LOADING_EXACT, NULL), "load");
    expect(remove(path) == 0, "the file has another name");
    memset(path + folder, 0xFE, 255);
    path[folder + 255] = 0;
  }
  snprintf(path, sizeof path, "%s.fifo", checkpoint);
  remove(path);
  expect(mkfifo(path, 0600) == 0, "no FIFO");
  expect(koala_optimizer_load(optimizer, path, KOALA_LOADING_EXACT, NULL) == KOALA_STATUS_FILE, "a FIFO is loaded");
  expect(koala_optimizer_save(optimizer, path) == KOALA_STATUS_FILE, "a FIFO is saved to");
  must(koala_last_error(whole, sizeof whole, NULL), "last error");
  expect(count_of(": not a regular file") == 1, "a FIFO is not told");
  expect(remove(path) == 0, "the FIFO is gone");
}

int main(int count, char **arguments) {
  const struct function *load = function_named("koala_optimizer_load");
  (void)count;
  set_checkpoint(arguments[0]);
  for (int variant = 0; variant < VARIANTS; variant++) {
    make_optimizer(variant, NULL);
    try_files(load, variant);
    try_another_model(load, variant);
  }
  /* What is written may not lie over the path. */
  make_optimizer(0, NULL);
  begin(load, 0);
  strcpy((char *)(arena.loaded.at + 1) - 8, "over it");
  arena.in.path = (char *)(arena.loaded.at + 1) - 8;
  attempt(load, 0, KOALA_STATUS_OVERLAP, "loaded and path overlap", "", "a path within the result");
  try_paths();
  must(koala_optimizer_destroy(optimizer), "destroy");
  printf("%d calls, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
