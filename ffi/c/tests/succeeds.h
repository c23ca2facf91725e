/* Ends a program at the first call that fails, with what it says. */
#ifndef KOALA_TEST_SUCCEEDS_H
#define KOALA_TEST_SUCCEEDS_H

#include <koala.h>

#include <stdio.h>
#include <stdlib.h>

static void check(koala_status status, const char *what) {
  char text[512];
  if (status == KOALA_STATUS_OK) return;
  koala_last_error(text, sizeof text, NULL);
  fprintf(stderr, "%s: %s: %s\n", what, koala_status_string(status), text);
  exit(1);
}

#endif
