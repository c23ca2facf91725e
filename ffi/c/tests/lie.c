/* Tells the library that a buffer is longer than it is. Whatever watches over memory has to see that: .ci/memory.sh. */
#include <koala.h>

#include <stdlib.h>

enum { LENGTH = 5 };

int main(void) {
  koala_step step;
  koala_scalars scalars = {0, 0, 0, 0};
  float *parameters = calloc(LENGTH - 1, sizeof(float)), *gradient = calloc(LENGTH, sizeof(float));
  float *v = calloc(LENGTH, sizeof(float)), *h = calloc(LENGTH, sizeof(float));
  koala_tensor tensor = {.size = sizeof tensor, .length = LENGTH, .parameters = parameters, .gradient = gradient,
                         .v = v, .h = h, .scalars = &scalars};
  if (parameters == NULL || gradient == NULL || v == NULL || h == NULL) return 1;
  for (int i = 0; i < LENGTH; i++) gradient[i] = 1;
  koala_step_init(&step, sizeof step);
  step.loss = 1;
  koala_step_tensor(&step, &tensor, NULL);
  free(parameters), free(gradient), free(v), free(h);
  return 0;
}
