/* Two steps by the call that is named, for frames.sh, which stops where the first parameter is written. */
#include <koala.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
  do { \
    if (!(condition)) abort(); \
  } while (0)

float parameters[64], gradient[64];
static float v[64], h[64];

static void by_level_1(void) {
  koala_step step;
  koala_scalars scalars = {0};
  koala_tensor tensor = {.size = sizeof tensor, .length = 64, .parameters = parameters, .gradient = gradient};
  CHECK(koala_step_init(&step, sizeof step) == KOALA_STATUS_OK);
  step.loss = 0.5;
  tensor.v = v;
  tensor.h = h;
  tensor.scalars = &scalars;
  for (int i = 0; i < 2; ++i) CHECK(koala_step_tensor(&step, &tensor, NULL) == KOALA_STATUS_OK);
}

static void by_an_optimizer(void) {
  koala_optimizer *optimizer;
  uint32_t group;
  koala_loss loss = {0.5, 0.5};
  koala_parameters tensor = {.size = sizeof tensor, .length = 64, .parameters = parameters, .gradient = gradient};
  CHECK(koala_optimizer_create(NULL, &optimizer) == KOALA_STATUS_OK);
  CHECK(koala_optimizer_add_group(optimizer, NULL, &group) == KOALA_STATUS_OK);
  CHECK(koala_optimizer_add_tensor(optimizer, "weight", 64, KOALA_ELEMENT_TYPE_F32, KOALA_STATE_TYPE_SAME, group,
                                   NULL) == KOALA_STATUS_OK);
  for (int i = 0; i < 2; ++i)
    CHECK(koala_optimizer_step(optimizer, &loss, &tensor, 1, NULL, NULL) == KOALA_STATUS_OK);
  CHECK(koala_optimizer_destroy(optimizer) == KOALA_STATUS_OK);
}

int main(int count, char **arguments) {
  for (int i = 0; i < 64; ++i) gradient[i] = 0.25f + i;
  if (count > 1 && strcmp(arguments[1], "koala_optimizer_step") == 0)
    by_an_optimizer();
  else
    by_level_1();
  return 0;
}
