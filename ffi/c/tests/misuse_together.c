/* Calls of which no argument is wrong by itself: buffers that overlap, tensors that are given twice or as another type,
 * what the policies make an error. And what looks wrong and is not: nothing at all, of no length. See misuse.c. */
#include "functions.h"

#include <math.h>

static const struct member {
  const char *name;
  size_t in_tensor, in_parameters; /* SIZE_MAX: not there. */
} members[] = {
    {"parameters", offsetof(koala_tensor, parameters), offsetof(koala_parameters, parameters)},
    {"gradient", offsetof(koala_tensor, gradient), offsetof(koala_parameters, gradient)},
    {"copy", offsetof(koala_tensor, copy), offsetof(koala_parameters, copy)},
    {"v", offsetof(koala_tensor, v), SIZE_MAX},
    {"h", offsetof(koala_tensor, h), SIZE_MAX},
    {"scalars", offsetof(koala_tensor, scalars), SIZE_MAX},
};

enum { GRADIENT = 1, OF_PARAMETERS = 3, OF_TENSORS = 6, LAST = ELEMENTS - 1 };

/* Where an element's pointer to a buffer stands, for the array that a function has. */
static unsigned char **pointer_to(const struct function *function, int element, int member) {
  unsigned char *of = (unsigned char *)&arena.tensors.at[element] + members[member].in_tensor;
  if (function->needed & PARAMETERS) {
    of = (unsigned char *)&arena.parameters.at[element] + members[member].in_parameters;
  }
  return (unsigned char **)(void *)of;
}

static size_t bytes_of(int variant, int element, int member) {
  switch (member) {
    case 2: return 2 * lengths[element];
    case 3: case 4: return state_size(variant, element) * lengths[element];
    case 5: return sizeof(koala_scalars);
    default: return sizes[type_of(variant, element)] * lengths[element];
  }
}

/* Lets one buffer begin `offset` bytes behind another's beginning. */
static void move_over(const struct function *function, int element, int member, int other_element, int other,
                      size_t offset) {
  *pointer_to(function, element, member) = *pointer_to(function, other_element, other) + offset;
}

static void try_buffers_of_one(const struct function *function, int variant, int element) {
  int count = function->needed & PARAMETERS ? OF_PARAMETERS : OF_TENSORS;
  for (int other = 1; other < count; other++) {
    size_t bytes = bytes_of(variant, element, other);
    for (int member = 0; member < other; member++) {
      int unread = predicts(function) && (member == GRADIENT || other == GRADIENT);
      koala_status overlap = unread ? KOALA_STATUS_OK : KOALA_STATUS_OVERLAP;
      begin(function, variant);
      move_over(function, element, member, element, other, 0);
      attempt(function, variant, overlap, members[member].name, members[other].name, "one over another");
      if (unread) continue; /* What is moved over an end may reach the next buffer. */
      begin(function, variant);
      move_over(function, element, member, element, other, (bytes - 1) / 8 * 8);
      attempt(function, variant, KOALA_STATUS_OVERLAP, members[member].name, members[other].name, "one over an end");
      if (element != LAST) continue; /* Where there is room for two in the place of one. */
      begin(function, variant);
      move_over(function, element, member, element, other, (bytes + 7) / 8 * 8);
      attempt(function, variant, KOALA_STATUS_OK, "", "", "one behind another");
    }
  }
}

static void try_buffers_of_two(const struct function *function, int variant) {
  for (int other = 0; other < OF_PARAMETERS; other++) {
    for (int member = 0; member < OF_PARAMETERS; member++) {
      int only_read = predicts(function) ? member == GRADIENT || other == GRADIENT
                                         : member == GRADIENT && other == GRADIENT;
      begin(function, variant);
      move_over(function, 0, member, LAST, other, 0);
      attempt(function, variant, only_read ? KOALA_STATUS_OK : KOALA_STATUS_OVERLAP, members[member].name,
              members[other].name, "one over another tensor's");
    }
  }
}

/* Results that would be written over a tensor's buffers. */
static void try_results(const struct function *function, int variant) {
  unsigned arguments = function->needed | function->optional;
  int element = function->needed & TENSOR ? 0 : LAST;
  int count = function->needed & PARAMETERS ? OF_PARAMETERS : OF_TENSORS;
  for (int member = 0; member < count; member++) {
    const char *name = members[member].name;
    if (arguments & DOTS) {
      begin(function, variant);
      arena.in.dots = (koala_dots *)(void *)*pointer_to(function, element, member);
      attempt(function, variant, KOALA_STATUS_OVERLAP, "dots", name, "dots over a buffer");
    }
    if (arguments & REPORTS) {
      begin(function, variant);
      arena.in.reports = (koala_tensor_report *)(void *)*pointer_to(function, element, member);
      attempt(function, variant, KOALA_STATUS_OVERLAP, "report", name, "reports over a buffer");
    }
    if (arguments & REPORT) {
      begin(function, variant);
      arena.in.report = (koala_report *)(void *)*pointer_to(function, element, member);
      memcpy(arena.in.report, arena.report.at, sizeof(size_t));
      attempt(function, variant, KOALA_STATUS_OVERLAP, "report", name, "a report over a buffer");
    }
  }
}

/* Results whose last bytes would be written over the first ones of something that the call reads or writes besides. */
static void try_results_over_arguments(const struct function *function, int variant) {
  const struct {
    unsigned arguments;
    void *first;
  } others[] = {{STEP, arena.step.at},          {GROUPS, arena.groups.at},         {TENSOR | TENSORS, arena.tensors.at},
                {PARAMETERS, arena.parameters.at}, {REPORTS, arena.reports.at},    {DOTS, arena.dots.at},
                {LOSS, arena.loss.at}};
  const struct {
    unsigned argument;
    size_t place, bytes;
  } results[] = {{DOTS, offsetof(struct given, dots), sizeof(koala_dots)},
                 {REPORTS, offsetof(struct given, reports), sizeof(koala_tensor_report)},
                 {REPORT, offsetof(struct given, report), sizeof(koala_report)}};
  unsigned arguments = function->needed | function->optional;
  for (int i = 0; i < 3; i++) {
    size_t count = function->needed & TENSOR || results[i].argument == REPORT ? 1 : ELEMENTS;
    for (int j = 0; j < 7; j++) {
      unsigned char *result = (unsigned char *)others[j].first + 8 - count * results[i].bytes;
      if (!(results[i].argument & arguments) || !(others[j].arguments & arguments)) continue;
      if (results[i].argument & others[j].arguments) continue;
      if (results[i].argument == DOTS && arguments & REPORTS) continue; /* The second half reads them. */
      begin(function, variant);
      if (results[i].argument == REPORT) memcpy(result, arena.report.at, sizeof(size_t));
      memcpy((unsigned char *)&arena.in + results[i].place, &result, sizeof result);
      attempt(function, variant, KOALA_STATUS_OVERLAP, "overlap", "", "results over an argument");
    }
  }
}

/* A result whose first bytes would be written over the first ones of an argument. */
static void try_result_over(const struct function *function, int variant, size_t place, const void *first) {
  size_t address = (size_t)first / 8 * 8;
  memcpy((unsigned char *)&arena.in + place, &address, sizeof address);
  attempt(function, variant, KOALA_STATUS_OVERLAP, "overlap", "", "a result over an argument");
}

/* Every number, name or pointer that a call gives, over everything else of it. */
static void try_every_result_over_every_argument(const struct function *function, int variant) {
  const struct {
    unsigned argument;
    size_t place;
  } results[] = {{NUMBER, offsetof(struct given, number)},
                 {LENGTH, offsetof(struct given, number)},
                 {GROUP_NUMBER, offsetof(struct given, group_number)},
                 {CREATED, offsetof(struct given, created)},
                 {CHOSEN, offsetof(struct given, chosen)},
                 {NOISE, offsetof(struct given, noise)},
                 {DISTANCE, offsetof(struct given, distance)},
                 {LOSS, offsetof(struct given, loss)}};
  const struct {
    unsigned argument;
    void *first;
  } others[] = {{STEP, arena.step.at},      {GROUPS, arena.groups.at},     {TENSORS, arena.tensors.at},
                {NAME, arena.name},         {TEXT, arena.text},            {CONFIG, arena.config.at},
                {CONFIG, arena.method.at},  {SETTINGS, arena.settings.at}, {LOSSES, arena.losses},
                {LOSS, arena.loss.at},      {NUMBER, arena.number},        {DISTANCE, &arena.distance}};
  unsigned arguments = function->needed | function->optional;
  for (int i = 0; i < 8; i++) {
    if (!(results[i].argument & arguments)) continue;
    if (results[i].argument == LOSS && !(arguments & LOSSES)) continue; /* It is read. */
    for (int j = 0; j < 12; j++) {
      if (!(others[j].argument & arguments) || results[i].argument == others[j].argument) continue;
      begin(function, variant);
      arena.config.at->method = arena.method.at;
      try_result_over(function, variant, results[i].place, others[j].first);
    }
    if (!(arguments & TENSORS)) continue;
    for (int member = 0; member < OF_TENSORS; member++) {
      if (predicts(function) && member == GRADIENT) continue;
      begin(function, variant);
      try_result_over(function, variant, results[i].place, *pointer_to(function, LAST, member));
    }
  }
}

static void try_overlaps(int variant) {
  for (int i = 0; i < FUNCTIONS_HERE; i++) {
    const struct function *function = &functions[i];
    try_every_result_over_every_argument(function, variant);
    if (!(function->needed & (TENSOR | TENSORS | PARAMETERS))) continue;
    try_buffers_of_one(function, variant, 0);
    if (!(function->needed & TENSOR)) try_buffers_of_one(function, variant, LAST);
    if (function->needed & PARAMETERS) try_buffers_of_two(function, variant);
    try_results(function, variant);
    try_results_over_arguments(function, variant);
  }
}

/* A call with one thing changed in the arena. */
#define TRY(name, variant, status, word, where, ...)                   \
  do {                                                                 \
    const struct function *function = function_named(name);            \
    begin(function, variant);                                          \
    __VA_ARGS__;                                                       \
    attempt(function, variant, status, word, where, #__VA_ARGS__);     \
  } while (0)

/* Buffers over the loss, which only the gradient may lie over; and dots that are added to others. */
static void try_loss_and_dots(int variant) {
  const char *step = "koala_optimizer_step", *add = "koala_dots_add";
  koala_parameters *given = &arena.parameters.at[LAST];
  void *loss = arena.loss.at;
  TRY(step, variant, KOALA_STATUS_OVERLAP, "loss and parameters", "third", given->parameters = loss);
  TRY(step, variant, KOALA_STATUS_OVERLAP, "loss and copy", "third", given->copy = (char *)loss + 8);
  TRY(step, variant, KOALA_STATUS_OK, "", "", given->gradient = loss);
  TRY(add, variant, KOALA_STATUS_OK, "", "", arena.in.part = arena.in.dots);
  TRY(add, variant, KOALA_STATUS_OVERLAP, "sum and part", "",
      arena.in.part = (koala_dots *)(void *)((char *)arena.in.dots + 8));
}

static void try_lists(int variant) {
  const char *step = "koala_optimizer_step";
  koala_parameters *given = arena.parameters.at;
  TRY(step, variant, KOALA_STATUS_DUPLICATE_TENSOR, "given twice", "first", given[LAST] = given[0],
      given[LAST].parameters = arena.buffers[1][0], given[LAST].copy = arena.buffers[1][1]);
  TRY(step, variant, KOALA_STATUS_DUPLICATE_TENSOR, "4 tensors are given", "only 3", arena.in.count = 4);
  TRY(step, variant, KOALA_STATUS_LENGTH, "more than memory", "reports", arena.in.count = SIZE_MAX);
  TRY(step, variant, KOALA_STATUS_LENGTH, "more than memory", "tensors", arena.in.count = SIZE_MAX,
      arena.in.reports = NULL);
  TRY(step, variant, KOALA_STATUS_TYPE, "added as", "third", given[LAST].type = (given[LAST].type + 1) % VARIANTS);
  TRY(step, variant, KOALA_STATUS_OK, "", "", given[0] = given[LAST], arena.in.count = 1);
  TRY("koala_optimizer_find_tensor", variant, KOALA_STATUS_UNKNOWN_TENSOR, "fourth", "", strcpy(arena.name, "fourth"));
  TRY("koala_optimizer_add_tensor", variant, KOALA_STATUS_DUPLICATE_TENSOR, "first", "", strcpy(arena.name, "first"));
  for (int i = 0; i < FUNCTIONS_HERE; i++) {
    const char *name = functions[i].name;
    size_t largest = PTRDIFF_MAX / sizeof(koala_tensor);
    if (!(functions[i].needed & TENSORS)) continue;
    TRY(name, variant, KOALA_STATUS_LENGTH, "more than memory", "", arena.in.count = SIZE_MAX);
    TRY(name, variant, KOALA_STATUS_LENGTH, "more than memory", "", arena.in.count = largest + 1);
    TRY(name, variant, KOALA_STATUS_UNKNOWN_GROUP, "0 groups", "tensor \"0\"", arena.step.at->group_count = 0);
    TRY(name, variant, KOALA_STATUS_UNKNOWN_GROUP, "1 groups", "tensor \"1\"", arena.step.at->group_count = 1);
    TRY(name, variant, KOALA_STATUS_UNKNOWN_GROUP, "1 groups", "tensor \"1\"", arena.step.at->groups = NULL);
  }
}

static void try_noise(void) {
  const char *update = "koala_noise_update", *step = "koala_optimizer_step";
  const double wrong[] = {NAN, INFINITY, -0.5};
  for (int i = 0; i < 3; i++) {
    TRY(update, 0, KOALA_STATUS_SETTING, "noise is", "at least 0", arena.noise = wrong[i]);
    TRY(update, 0, KOALA_STATUS_SETTING, "second moment is", "at least 0", arena.loss.at->second_moment = wrong[i]);
  }
  TRY(update, 0, KOALA_STATUS_OK, "", "", arena.noise = 0, arena.loss.at->second_moment = 0, arena.loss.at->mean = NAN);
  TRY(step, 0, KOALA_STATUS_SETTING, "second moment", "-0.5", arena.loss.at->second_moment = -0.5);
  TRY(step, 0, KOALA_STATUS_SETTING, "second moment", "-inf", arena.loss.at->second_moment = -INFINITY);
  TRY(step, 0, KOALA_STATUS_OK, "", "", arena.loss.at->second_moment = NAN);
  TRY("koala_optimizer_create", 0, KOALA_STATUS_OK, "", "", arena.config.at->noise = KOALA_NOISE_FIXED,
      arena.config.at->noise_decay = NAN);
}

/* Nothing, in all ways. */
static void try_nothing(int variant) {
  koala_tensor *tensors = arena.tensors.at;
  for (int i = 0; i < FUNCTIONS_HERE; i++) {
    const struct function *function = &functions[i];
    const char *name = function->name;
    if (function->needed & (TENSORS | PARAMETERS)) {
      TRY(name, variant, KOALA_STATUS_OK, "", "", arena.in.count = 0, arena.in.tensors = NULL, arena.in.dots = NULL,
          arena.in.parameters = NULL, arena.in.reports = NULL, arena.in.report = NULL);
      TRY(name, variant, KOALA_STATUS_OK, "", "", arena.in.count = 0, arena.step.at->group_count = 0);
    }
    if (function->needed & TENSOR) {
      TRY(name, variant, KOALA_STATUS_OK, "", "", arena.in.tensors = &tensors[1]);
      TRY(name, variant, KOALA_STATUS_NULL_POINTER, "scalars", "", arena.in.tensors = &tensors[1],
          tensors[1].scalars = NULL);
      TRY(name, variant, KOALA_STATUS_OK, "", "", arena.step.at->groups = NULL, arena.step.at->group_count = 77);
      TRY(name, variant, KOALA_STATUS_OK, "", "", tensors[0].copy_type = KOALA_COPY_TYPE_NONE, tensors[0].copy = NULL);
    }
  }
  TRY("koala_loss_from_samples", variant, KOALA_STATUS_NO_SAMPLES, "no samples", "", arena.in.losses = NULL,
      arena.in.count = 0);
  TRY("koala_optimizer_tensor_name", variant, KOALA_STATUS_OK, "", "", arena.in.text = NULL, arena.in.capacity = 0);
  TRY("koala_optimizer_state", variant, KOALA_STATUS_OVERLAP, "v and h", "", arena.in.h = arena.v + arena.in.bytes - 1);
  TRY("koala_optimizer_state", variant, KOALA_STATUS_OK, "", "", arena.in.h = arena.v + arena.in.bytes);
  TRY("koala_optimizer_state", variant, KOALA_STATUS_OK, "", "", arena.in.tensor = 1, arena.in.bytes = 0,
      arena.in.v = NULL, arena.in.h = NULL);
}

int main(void) {
  for (int variant = 0; variant < VARIANTS; variant++) {
    make_optimizer(variant, NULL);
    try_overlaps(variant);
    try_loss_and_dots(variant);
    try_lists(variant);
    try_nothing(variant);
  }
  make_optimizer(0, NULL);
  try_noise();
  must(koala_optimizer_destroy(optimizer), "destroy");
  printf("%d calls, %d of them not as they should be\n", cases, failures);
  return failures != 0;
}
