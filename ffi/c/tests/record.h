/* Included before an example, this writes down what it does with its optimizer: settings, tensors, and for each step
 * the loss, the gradients, and the parameters before and after. ffi/tests/recorded.rs does the same in Rust. The record
 * is the file that KOALA_RECORD names. */
#ifndef KOALA_RECORD_H
#define KOALA_RECORD_H

#include <koala.h>
#include <stdio.h>
#include <stdlib.h>

static FILE *record_file(void) {
  static FILE *file = NULL;
  if (file == NULL) file = fopen(getenv("KOALA_RECORD"), "wb");
  if (file == NULL) exit(1);
  return file;
}

static void record(const void *bytes, size_t size) {
  if (size > 0 && fwrite(bytes, 1, size, record_file()) != size) exit(1);
}

static void record_number(uint64_t number) { record(&number, sizeof number); }

static inline koala_status recorded_add_group(koala_optimizer *optimizer, const koala_settings *settings,
                                              uint32_t *group) {
  koala_settings defaults;
  koala_settings_init(&defaults, sizeof defaults);
  record("G", 1);
  record(settings == NULL ? &defaults : settings, sizeof defaults);
  return koala_optimizer_add_group(optimizer, settings, group);
}

static inline koala_status recorded_set_learning_rate(koala_optimizer *optimizer, uint32_t group,
                                                      double learning_rate) {
  record("L", 1);
  record_number(group);
  record(&learning_rate, sizeof learning_rate);
  return koala_optimizer_set_learning_rate(optimizer, group, learning_rate);
}

static inline koala_status recorded_add_tensor(koala_optimizer *optimizer, const char *name, size_t length,
                                        koala_element_type type, koala_state_type state_type, uint32_t group,
                                        size_t *number) {
  record("T", 1);
  record_number(length);
  record_number(group);
  if (type != KOALA_ELEMENT_TYPE_F32 || state_type != KOALA_STATE_TYPE_SAME) exit(1); /* Nothing else is replayed. */
  return koala_optimizer_add_tensor(optimizer, name, length, type, state_type, group, number);
}

static inline koala_status recorded_step(koala_optimizer *optimizer, const koala_loss *loss,
                                         const koala_parameters *tensors, size_t count, koala_tensor_report *reports,
                                         koala_report *report) {
  record("S", 1);
  record(loss, sizeof *loss);
  record_number(count);
  for (size_t i = 0; i < count; i++) {
    record_number(tensors[i].tensor);
    record(tensors[i].parameters, tensors[i].length * sizeof(float));
    record(tensors[i].gradient, tensors[i].length * sizeof(float));
  }
  koala_status status = koala_optimizer_step(optimizer, loss, tensors, count, reports, report);
  for (size_t i = 0; i < count; i++) record(tensors[i].parameters, tensors[i].length * sizeof(float));
  fflush(record_file());
  return status;
}

#define koala_optimizer_add_group recorded_add_group
#define koala_optimizer_set_learning_rate recorded_set_learning_rate
#define koala_optimizer_add_tensor recorded_add_tensor
#define koala_optimizer_step recorded_step

#endif
