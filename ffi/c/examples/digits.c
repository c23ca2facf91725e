/* Softmax regression on the UCI digits, a line each on stdin: 64 pixels of 0 to 16, and the digit, with commas between.
 * An optimizer has the weight, which decays, and the bias; for each minibatch it is given the losses of the samples. */
#include <koala.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 64, CLASSES = 10, MOST_LINES = 4096, BATCH = 32, EPOCHS = 20 };

static struct sample {
  float pixels[PIXELS];
  int digit;
} train[MOST_LINES], held_out[MOST_LINES];
static float weight[CLASSES][PIXELS], bias[CLASSES], weight_gradient[CLASSES][PIXELS], bias_gradient[CLASSES];

static void check(koala_status status) {
  char text[256];
  if (status == KOALA_STATUS_OK) return;
  koala_last_error(text, sizeof text, NULL);
  fprintf(stderr, "%s\n", text);
  exit(1);
}

static void expect(int fact, const char *expected, int line) {
  if (fact) return;
  fprintf(stderr, "line %d: expected %s\n", line, expected);
  exit(1);
}

/* Reads one sample; 0 at the end. */
static int read_sample(struct sample *sample, int line) {
  for (int i = 0; i < PIXELS; i++) {
    int found = scanf(i == 0 ? "%f" : ",%f", &sample->pixels[i]);
    if (found == EOF && i == 0) return 0;
    expect(found == 1 && sample->pixels[i] >= 0 && sample->pixels[i] <= 16, "64 pixels of 0 to 16", line);
    sample->pixels[i] /= 16;
  }
  int found = scanf(",%d", &sample->digit);
  expect(found == 1 && sample->digit >= 0 && sample->digit < CLASSES, "a digit after the pixels", line);
  return 1;
}

/* Gives the likeliest digit, and writes the probabilities of all. */
static int predict(const struct sample *sample, float probability[CLASSES]) {
  int likeliest = 0;
  float sum = 0;
  for (int digit = 0; digit < CLASSES; digit++) {
    probability[digit] = bias[digit];
    for (int i = 0; i < PIXELS; i++) probability[digit] += weight[digit][i] * sample->pixels[i];
    if (probability[digit] > probability[likeliest]) likeliest = digit;
  }
  float largest = probability[likeliest];
  for (int digit = 0; digit < CLASSES; digit++) sum += probability[digit] = expf(probability[digit] - largest);
  for (int digit = 0; digit < CLASSES; digit++) probability[digit] /= sum;
  return likeliest;
}

/* Adds a sample's part to the gradients of the mean loss of `count` samples, and gives its own loss. */
static float differentiate(const struct sample *sample, int count) {
  float probability[CLASSES];
  predict(sample, probability);
  for (int digit = 0; digit < CLASSES; digit++) {
    float error = (probability[digit] - (digit == sample->digit)) / (float)count;
    bias_gradient[digit] += error;
    for (int i = 0; i < PIXELS; i++) weight_gradient[digit][i] += error * sample->pixels[i];
  }
  return -logf(fmaxf(probability[sample->digit], 1e-30f));
}

int main(void) {
  int train_count = 0, held_out_count = 0, right = 0, line = 1;
  while (line <= MOST_LINES && read_sample(line % 5 == 0 ? &held_out[held_out_count] : &train[train_count], line))
    line++ % 5 == 0 ? held_out_count++ : train_count++;
  expect(train_count >= BATCH, "more lines", line);

  koala_optimizer *optimizer;
  koala_settings settings;
  uint32_t decaying, plain;
  koala_parameters tensors[2] = {
    {.size = sizeof *tensors, .length = CLASSES * PIXELS, .parameters = weight, .gradient = weight_gradient},
    {.size = sizeof *tensors, .length = CLASSES, .parameters = bias, .gradient = bias_gradient},
  };
  check(koala_optimizer_create(NULL, &optimizer));
  check(koala_settings_init(&settings, sizeof settings));
  check(koala_optimizer_add_group(optimizer, &settings, &plain));
  settings.weight_decay = 1e-4;
  check(koala_optimizer_add_group(optimizer, &settings, &decaying));
  check(koala_optimizer_add_tensor(optimizer, "weight", CLASSES * PIXELS, KOALA_ELEMENT_TYPE_F32,
                                   KOALA_STATE_TYPE_SAME, decaying, &tensors[0].tensor));
  check(koala_optimizer_add_tensor(optimizer, "bias", CLASSES, KOALA_ELEMENT_TYPE_F32,
                                   KOALA_STATE_TYPE_SAME, plain, &tensors[1].tensor));
  koala_report report = {.size = sizeof report};
  for (int step = 0; step < EPOCHS * (train_count / BATCH); step++) {
    float losses[BATCH];
    koala_loss loss;
    memset(weight_gradient, 0, sizeof weight_gradient);
    memset(bias_gradient, 0, sizeof bias_gradient);
    for (int i = 0; i < BATCH; i++) losses[i] = differentiate(&train[(step * BATCH + i) % train_count], BATCH);
    check(koala_loss_from_samples(KOALA_ELEMENT_TYPE_F32, losses, BATCH, &loss));
    check(koala_optimizer_step(optimizer, &loss, tensors, 2, NULL, &report));
  }
  check(koala_optimizer_destroy(optimizer));

  for (int i = 0; i < held_out_count; i++) {
    float probability[CLASSES];
    right += predict(&held_out[i], probability) == held_out[i].digit;
  }
  double accuracy = 100.0 * right / held_out_count;
  printf("held-out accuracy %.1f %% on backend %s\n", accuracy, koala_backend_name(report.backend));
  return accuracy < 90;
}
