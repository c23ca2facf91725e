/* The smallest program: an optimizer with one tensor of three parameters takes one step.
 * Compile it with: cc five_lines.c $(pkg-config --cflags --libs koala) */
#include <koala.h>
#include <stdio.h>

int main(void) {
  float weight[3] = {1, -2, 3}, gradient[3] = {0.1f, 0.2f, -0.3f};
  koala_optimizer *optimizer = NULL;
  uint32_t group = 0;
  koala_optimizer_create(NULL, &optimizer);
  koala_optimizer_add_group(optimizer, NULL, &group);
  koala_optimizer_add_tensor(optimizer, "weight", 3, KOALA_ELEMENT_TYPE_F32, KOALA_STATE_TYPE_SAME, group, NULL);
  koala_loss loss = {.mean = 0.7, .second_moment = 0.53};
  koala_parameters tensor = {.size = sizeof tensor, .length = 3, .parameters = weight, .gradient = gradient};
  koala_report report = {.size = sizeof report};
  char error[256];
  if (koala_optimizer_step(optimizer, &loss, &tensor, 1, NULL, &report) != KOALA_STATUS_OK) {
    koala_last_error(error, sizeof error, NULL);
    fprintf(stderr, "%s\n", error);
    return 1;
  }
  printf("%s: %g %g %g\n", koala_backend_name(report.backend), weight[0], weight[1], weight[2]);
  return koala_optimizer_destroy(optimizer);
}
