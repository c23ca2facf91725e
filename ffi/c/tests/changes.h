/* Every number, enum, flag, length and name that can be wrong by itself, with what is right beside it: a table. */
#ifndef CHANGES_H
#define CHANGES_H

#include "functions.h"

#include <math.h>

/* A number to be put somewhere: into a struct (each element of an array in turn), or, where no struct is named, among
 * the arguments. LEGAL ones have KOALA_STATUS_OK. */
struct change {
  const char *function; /* NULL: every one that has such arguments. */
  unsigned arguments;   /* The struct's; 0: among the arguments. */
  size_t place, bytes;
  enum { SET, MORE, MORE_THAN_MEMORY, ABSENT } how;
  union value {
    int64_t whole;
    double real;
    const char *text;
  } value;
  koala_status status;
  const char *word, *name;
};

#define IN(function, member, kind, value, status, word) \
  {function, 0, offsetof(struct given, member), sizeof(((struct given *)0)->member), SET, {.kind = value}, status, \
   word, #member}
#define AT(arguments, type, member, how, kind, value, status, word) \
  {NULL, arguments, offsetof(type, member), sizeof(((type *)0)->member), how, {.kind = value}, status, word,          \
   #type "." #member}
#define ENUM(arguments, type, member, last, word)                                     \
  AT(arguments, type, member, SET, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, word),      \
  AT(arguments, type, member, SET, whole, last + 1, KOALA_STATUS_UNKNOWN_VALUE, word)
#define FLAG(arguments, type, member)                                                                      \
  AT(arguments, type, member, SET, whole, 2, KOALA_STATUS_UNKNOWN_VALUE, "the flag " #member " is 2"),     \
  AT(arguments, type, member, SET, whole, 1, KOALA_STATUS_OK, "")
#define REAL(arguments, type, member, word)                                                                \
  AT(arguments, type, member, SET, real, NAN, KOALA_STATUS_SETTING, word " is NaN"),                       \
  AT(arguments, type, member, SET, real, INFINITY, KOALA_STATUS_SETTING, word " is inf"),                  \
  AT(arguments, type, member, SET, real, -0.5, KOALA_STATUS_SETTING, word " is -0.5")
#define LIMIT(arguments, type, member, word)                                                               \
  AT(arguments, type, member, SET, real, NAN, KOALA_STATUS_SETTING, word " is NaN"),                       \
  AT(arguments, type, member, SET, real, 0.0, KOALA_STATUS_SETTING, word " is 0"),                         \
  AT(arguments, type, member, SET, real, -0.5, KOALA_STATUS_SETTING, word " is -0.5"),                     \
  AT(arguments, type, member, SET, real, INFINITY, KOALA_STATUS_OK, "")
#define BUFFER(arguments, type, member)                                                                           \
  AT(arguments, type, member, SET, whole, 0, KOALA_STATUS_NULL_POINTER, #member " is NULL"),                      \
  AT(arguments, type, member, MORE, whole, 1, KOALA_STATUS_MISALIGNED, "expected a multiple of")
#define SIZE(function, type)                                                           \
  IN(function, size, whole, 0, KOALA_STATUS_STRUCT_SIZE, "is 0"),                      \
  IN(function, size, whole, sizeof(type) - 4, KOALA_STATUS_STRUCT_SIZE, "expected"),   \
  IN(function, size, whole, 1 << 20, KOALA_STATUS_STRUCT_SIZE, "1048576"),             \
  IN(function, size, whole, -1, KOALA_STATUS_STRUCT_SIZE, "18446744073709551615"),     \
  IN(function, size, whole, sizeof(type) + 16, KOALA_STATUS_OK, "")
#define UNKNOWN_GROUP(function)                                                               \
  IN(function, group, whole, GROUPS_MADE, KOALA_STATUS_UNKNOWN_GROUP, "has 2 groups"),        \
  IN(function, group, whole, -1, KOALA_STATUS_UNKNOWN_GROUP, "4294967295")
#define UNKNOWN_TENSOR(function)                                                              \
  IN(function, tensor, whole, ELEMENTS, KOALA_STATUS_UNKNOWN_TENSOR, "no tensor 3"),          \
  IN(function, tensor, whole, -1, KOALA_STATUS_UNKNOWN_TENSOR, "18446744073709551615")
#define NAMES(function)                                                                       \
  IN(function, name, text, "\xFF\xFE", KOALA_STATUS_ENCODING, "UTF-8"),                       \
  IN(function, name, text, "cut \xE2\x82", KOALA_STATUS_ENCODING, "UTF-8")
#define PATHS(function)                                                                       \
  IN(function, path, text, "no\xFF/run", KOALA_STATUS_FILE, "no\\xff/run: No such file"),     \
  IN(function, path, text, "", KOALA_STATUS_FILE, "No such file"),                            \
  IN(function, path, text, "no/such/folder/run", KOALA_STATUS_FILE, "no/such/folder/run")

enum { TENSOR_OR_TENSORS = TENSOR | TENSORS, ANY_SETTINGS = GROUPS | SETTINGS };

static const struct change changes[] = {
    ENUM(STEP, koala_step, backend, KOALA_BACKEND_AVX512, "koala_backend"),
    ENUM(STEP, koala_step, on_non_finite, KOALA_ON_NON_FINITE_UNCHECKED, "koala_on_non_finite"),
    ENUM(STEP, koala_step, on_breakdown, KOALA_ON_BREAKDOWN_ERROR, "koala_on_breakdown"),
    FLAG(STEP, koala_step, norms),
    AT(STEP, koala_step, backend, ABSENT, whole, 0, KOALA_STATUS_ABSENT_BACKEND, "cannot run here"),
    AT(STEP, koala_step, noise, SET, real, -0.5, KOALA_STATUS_SETTING, "noise is -0.5"),
    AT(STEP, koala_step, noise, SET, real, -INFINITY, KOALA_STATUS_SETTING, "noise is -inf"),
    AT(STEP, koala_step, noise, SET, real, 0.0, KOALA_STATUS_OK, ""),
    AT(STEP, koala_step, noise, SET, real, NAN, KOALA_STATUS_OK, ""),
    AT(STEP, koala_step, loss, SET, real, NAN, KOALA_STATUS_OK, ""),
    AT(STEP, koala_step, method, SET, whole, 1, KOALA_STATUS_MISALIGNED, "koala_method is"),
    REAL(STEP, koala_step, gradient_factor, "gradient's factor"),
    LIMIT(STEP, koala_step, gradient_limit, "gradient's limit"),
    AT(STEP, koala_step, groups, MORE, whole, 1, KOALA_STATUS_MISALIGNED, "groups is"),
    AT(STEP, koala_step, group_count, SET, whole, -1, KOALA_STATUS_LENGTH, "groups are more"),
    AT(STEP, koala_step, group_count, SET, whole, PTRDIFF_MAX / sizeof(koala_settings) + 1, KOALA_STATUS_LENGTH,
       "more than memory"),

    ENUM(ANY_SETTINGS, koala_settings, variant, KOALA_VARIANT_DEFINITE, "koala_variant"),
    FLAG(ANY_SETTINGS, koala_settings, frozen),
    REAL(ANY_SETTINGS, koala_settings, learning_rate, "learning rate"),
    REAL(ANY_SETTINGS, koala_settings, weight_decay, "weight decay"),
    REAL(ANY_SETTINGS, koala_settings, initial_variance, "initial variance"),
    REAL(ANY_SETTINGS, koala_settings, process_noise, "process noise"),
    REAL(ANY_SETTINGS, koala_settings, prior_variance, "prior variance"),
    AT(ANY_SETTINGS, koala_settings, initial_variance, SET, real, 0.0, KOALA_STATUS_SETTING, "initial variance is 0"),
    AT(ANY_SETTINGS, koala_settings, variant, SET, whole, KOALA_VARIANT_VANILLA, KOALA_STATUS_OK, ""),
    AT(ANY_SETTINGS, koala_settings, variant, SET, whole, KOALA_VARIANT_DEFINITE, KOALA_STATUS_OK, ""),
    AT(ANY_SETTINGS, koala_settings, prior_variance, SET, real, 0.5, KOALA_STATUS_OK, ""),
    AT(ANY_SETTINGS, koala_settings, learning_rate, SET, real, 0.0, KOALA_STATUS_OK, ""),
    AT(ANY_SETTINGS, koala_settings, weight_decay, SET, real, 0.5, KOALA_STATUS_OK, ""),

    ENUM(TENSOR_OR_TENSORS, koala_tensor, type, KOALA_ELEMENT_TYPE_F16, "koala_element_type"),
    ENUM(TENSOR_OR_TENSORS, koala_tensor, state_type, KOALA_STATE_TYPE_BF16, "koala_state_type"),
    ENUM(TENSOR_OR_TENSORS, koala_tensor, copy_type, KOALA_COPY_TYPE_F16, "koala_copy_type"),
    FLAG(TENSOR_OR_TENSORS, koala_tensor, exchange),
    AT(TENSOR_OR_TENSORS, koala_tensor, state_type, SET, whole, KOALA_STATE_TYPE_BF16, KOALA_STATUS_OK, ""),
    AT(TENSOR_OR_TENSORS, koala_tensor, copy_type, SET, whole, KOALA_COPY_TYPE_NONE, KOALA_STATUS_OK, ""),
    AT(TENSOR_OR_TENSORS, koala_tensor, group, SET, whole, GROUPS_MADE, KOALA_STATUS_UNKNOWN_GROUP, "are 2 groups"),
    AT(TENSOR_OR_TENSORS, koala_tensor, group, SET, whole, -1, KOALA_STATUS_UNKNOWN_GROUP, "4294967295"),
    AT(TENSOR_OR_TENSORS, koala_tensor, length, SET, whole, -1, KOALA_STATUS_LENGTH, "18446744073709551615 elements"),
    AT(TENSOR_OR_TENSORS, koala_tensor, length, MORE_THAN_MEMORY, whole, 0, KOALA_STATUS_LENGTH, "more than memory"),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, parameters),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, gradient),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, v),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, h),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, copy),
    BUFFER(TENSOR_OR_TENSORS, koala_tensor, scalars),

    AT(STEPS, koala_scalars, steps, SET, real, 1.5, KOALA_STATUS_SETTING, "steps in the scalars are 1.5"),
    AT(STEPS, koala_scalars, steps, SET, real, -1.0, KOALA_STATUS_SETTING, "steps in the scalars are -1"),
    AT(STEPS, koala_scalars, steps, SET, real, NAN, KOALA_STATUS_SETTING, "steps in the scalars are NaN"),
    AT(STEPS, koala_scalars, steps, SET, real, INFINITY, KOALA_STATUS_SETTING, "steps in the scalars are inf"),
    AT(STEPS, koala_scalars, steps, SET, real, 1e300, KOALA_STATUS_SETTING, "whole number"),
    AT(STEPS, koala_scalars, steps, SET, real, 9007199254740994.0, KOALA_STATUS_SETTING, "2^53"),
    AT(STEPS, koala_scalars, steps, SET, real, 7.0, KOALA_STATUS_OK, ""),
    AT(STEPS, koala_scalars, h_h, SET, real, NAN, KOALA_STATUS_OK, ""),

    /* Of KOALA-M. */
    ENUM(METHOD, koala_method, kind, KOALA_METHOD_KIND_SGD, "koala_method_kind"),
    REAL(METHOD, koala_method, variance, "variance"),
    REAL(METHOD, koala_method, process_noise, "process noise"),
    REAL(METHOD, koala_method, velocity_variance, "variance of a velocity"),
    REAL(METHOD, koala_method, velocity_decay, "velocity decay"),
    REAL(METHOD, koala_method, velocity_noise, "process noise of a velocity"),
    AT(METHOD, koala_method, covariance, SET, real, NAN, KOALA_STATUS_SETTING, "covariance is NaN"),
    AT(METHOD, koala_method, covariance, SET, real, -0.5, KOALA_STATUS_OK, ""),
    AT(METHOD, koala_method, momentum, SET, real, NAN, KOALA_STATUS_OK, ""),
    AT(METHOD, koala_method, nesterov, SET, whole, 2, KOALA_STATUS_OK, ""),

    AT(CONFIG, koala_config, method, SET, whole, 1, KOALA_STATUS_MISALIGNED, "koala_method is"),
    REAL(CONFIG, koala_config, gradient_factor, "gradient's factor"),
    LIMIT(CONFIG, koala_config, gradient_limit, "gradient's limit"),
    LIMIT(CONFIG, koala_config, clip_norm, "norm to clip by"),
    AT(CONFIG, koala_config, clip_norm, SET, real, -INFINITY, KOALA_STATUS_SETTING, "norm to clip by is -inf"),
    ENUM(CONFIG, koala_config, noise, KOALA_NOISE_FIXED, "koala_noise"),
    ENUM(CONFIG, koala_config, backend, KOALA_BACKEND_AVX512, "koala_backend"),
    ENUM(CONFIG, koala_config, on_non_finite, KOALA_ON_NON_FINITE_UNCHECKED, "koala_on_non_finite"),
    ENUM(CONFIG, koala_config, on_breakdown, KOALA_ON_BREAKDOWN_ERROR, "koala_on_breakdown"),
    FLAG(CONFIG, koala_config, norms),
    REAL(CONFIG, koala_config, initial_noise, "noise"),
    REAL(CONFIG, koala_config, noise_decay, "noise decay"),
    AT(CONFIG, koala_config, noise_decay, SET, real, 1.5, KOALA_STATUS_SETTING, "from 0 to 1"),
    AT(CONFIG, koala_config, noise_decay, SET, real, 1.0, KOALA_STATUS_OK, ""),
    AT(CONFIG, koala_config, backend, ABSENT, whole, 0, KOALA_STATUS_ABSENT_BACKEND, "cannot run here"),
    AT(CONFIG, koala_config, threads, SET, whole, 0, KOALA_STATUS_OK, ""),
    AT(CONFIG, koala_config, threads, SET, whole, 513, KOALA_STATUS_THREADS, "513 threads: at most 512"),
    AT(CONFIG, koala_config, threads, SET, whole, 4294967295, KOALA_STATUS_THREADS, "4294967295 threads"),
    AT(CONFIG, koala_config, threads, SET, whole, 2, KOALA_STATUS_OK, ""),

    ENUM(PARAMETERS, koala_parameters, type, KOALA_ELEMENT_TYPE_F16, "koala_element_type"),
    ENUM(PARAMETERS, koala_parameters, copy_type, KOALA_COPY_TYPE_F16, "koala_copy_type"),
    AT(PARAMETERS, koala_parameters, copy_type, SET, whole, KOALA_COPY_TYPE_NONE, KOALA_STATUS_OK, ""),
    AT(PARAMETERS, koala_parameters, tensor, SET, whole, ELEMENTS, KOALA_STATUS_UNKNOWN_TENSOR, "no tensor 3"),
    AT(PARAMETERS, koala_parameters, tensor, SET, whole, -1, KOALA_STATUS_UNKNOWN_TENSOR, "18446744073709551615"),
    AT(PARAMETERS, koala_parameters, length, SET, whole, 0, KOALA_STATUS_LENGTH, "found 0"),
    AT(PARAMETERS, koala_parameters, length, SET, whole, 4, KOALA_STATUS_LENGTH, "found 4"),
    AT(PARAMETERS, koala_parameters, length, SET, whole, -1, KOALA_STATUS_LENGTH, "18446744073709551615 elements"),
    AT(PARAMETERS, koala_parameters, length, MORE_THAN_MEMORY, whole, 0, KOALA_STATUS_LENGTH, "more than memory"),
    BUFFER(PARAMETERS, koala_parameters, parameters),
    BUFFER(PARAMETERS, koala_parameters, gradient),
    BUFFER(PARAMETERS, koala_parameters, copy),

    IN("koala_check_version", version, whole, 0, KOALA_STATUS_VERSION, "0.0.0"),
    IN("koala_check_version", version, whole, KOALA_VERSION + 1, KOALA_STATUS_VERSION, "0.1.1"),
    IN("koala_check_version", version, whole, KOALA_VERSION + 1000, KOALA_STATUS_VERSION, "0.2.0"),
    IN("koala_check_version", version, whole, KOALA_VERSION + 1000000, KOALA_STATUS_VERSION, "1.1.0"),
    IN("koala_check_version", version, whole, -1, KOALA_STATUS_VERSION, "4294.967.295"),
    IN("koala_backend_describe", backend, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "-1 is no koala_backend"),
    IN("koala_backend_describe", backend, whole, KOALA_BACKEND_AVX512 + 1, KOALA_STATUS_UNKNOWN_VALUE, "6 is no"),
    IN("koala_backend_describe", backend, whole, KOALA_BACKEND_NEON, KOALA_STATUS_OK, ""),
    IN("koala_backend_by_name", name, text, "avx9", KOALA_STATUS_UNKNOWN_BACKEND, "avx9"),
    IN("koala_backend_by_name", name, text, "", KOALA_STATUS_UNKNOWN_BACKEND, "scalar"),
    IN("koala_backend_by_name", name, text, "portable", KOALA_STATUS_OK, ""),
    NAMES("koala_backend_by_name"),
    SIZE("koala_settings_init", koala_settings),
    SIZE("koala_step_init", koala_step),
    SIZE("koala_config_init", koala_config),
    SIZE("koala_method_init", koala_method),
    IN("koala_method_init", kind, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "koala_method_kind"),
    IN("koala_method_init", kind, whole, KOALA_METHOD_KIND_SGD + 1, KOALA_STATUS_UNKNOWN_VALUE, "koala_method_kind"),
    IN("koala_method_predict", gain, real, NAN, KOALA_STATUS_SETTING, "squared distance is NaN"),
    IN("koala_method_predict", gain, real, -0.5, KOALA_STATUS_SETTING, "squared distance is -0.5"),
    IN("koala_method_predict", length, whole, 0, KOALA_STATUS_OK, ""),
    IN("koala_method_correct", gain, real, INFINITY, KOALA_STATUS_SETTING, "gain is inf"),
    IN("koala_method_correct", gain, real, -0.5, KOALA_STATUS_SETTING, "gain is -0.5"),
    IN("koala_method_correct", gain, real, 0.0, KOALA_STATUS_OK, ""),
    IN("koala_optimizer_set_scaling", factor, real, 0.0, KOALA_STATUS_SETTING, "gradient's factor is 0"),
    IN("koala_optimizer_set_scaling", factor, real, INFINITY, KOALA_STATUS_SETTING, "gradient's factor is inf"),
    IN("koala_optimizer_set_scaling", limit, real, NAN, KOALA_STATUS_SETTING, "gradient's limit is NaN"),
    IN("koala_optimizer_set_scaling", limit, real, -0.5, KOALA_STATUS_SETTING, "gradient's limit is -0.5"),
    IN("koala_optimizer_set_scaling", limit, real, INFINITY, KOALA_STATUS_OK, ""),
    IN("koala_loss_from_samples", type, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "koala_element_type"),
    IN("koala_loss_from_samples", type, whole, 4, KOALA_STATUS_UNKNOWN_VALUE, "koala_element_type"),
    IN("koala_loss_from_samples", count, whole, 0, KOALA_STATUS_NO_SAMPLES, "no samples"),
    IN("koala_loss_from_samples", count, whole, -1, KOALA_STATUS_LENGTH, "losses are more than memory"),
    IN("koala_noise_validate", rule, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "-1 is no koala_noise"),
    IN("koala_noise_validate", rule, whole, KOALA_NOISE_FIXED + 1, KOALA_STATUS_UNKNOWN_VALUE, "2 is no koala_noise"),
    IN("koala_noise_validate", rule, whole, KOALA_NOISE_FIXED, KOALA_STATUS_OK, ""),
    IN("koala_noise_validate", decay, real, NAN, KOALA_STATUS_SETTING, "noise decay is NaN"),
    IN("koala_noise_validate", decay, real, 1.5, KOALA_STATUS_SETTING, "noise decay is 1.5"),
    IN("koala_noise_validate", gain, real, -0.5, KOALA_STATUS_SETTING, "noise is -0.5"),
    IN("koala_noise_validate", gain, real, INFINITY, KOALA_STATUS_SETTING, "noise is inf"),
    IN("koala_scaling_validate", factor, real, 0.0, KOALA_STATUS_SETTING, "gradient's factor is 0"),
    IN("koala_scaling_validate", factor, real, INFINITY, KOALA_STATUS_SETTING, "gradient's factor is inf"),
    IN("koala_scaling_validate", limit, real, NAN, KOALA_STATUS_SETTING, "gradient's limit is NaN"),
    IN("koala_scaling_validate", limit, real, INFINITY, KOALA_STATUS_OK, ""),
    IN("koala_noise_update", decay, real, NAN, KOALA_STATUS_SETTING, "noise decay is NaN"),
    IN("koala_noise_update", decay, real, -0.5, KOALA_STATUS_SETTING, "noise decay is -0.5"),
    IN("koala_noise_update", decay, real, 1.5, KOALA_STATUS_SETTING, "noise decay is 1.5"),
    IN("koala_noise_update", decay, real, 0.0, KOALA_STATUS_OK, ""),
    UNKNOWN_GROUP("koala_optimizer_settings"),
    UNKNOWN_GROUP("koala_optimizer_set_settings"),
    UNKNOWN_GROUP("koala_optimizer_set_learning_rate"),
    UNKNOWN_GROUP("koala_optimizer_add_tensor"),
    IN("koala_optimizer_set_learning_rate", learning_rate, real, NAN, KOALA_STATUS_SETTING, "learning rate is NaN"),
    IN("koala_optimizer_set_learning_rate", learning_rate, real, INFINITY, KOALA_STATUS_SETTING, "rate is inf"),
    IN("koala_optimizer_set_learning_rate", learning_rate, real, -0.5, KOALA_STATUS_SETTING, "learning rate is -0.5"),
    IN("koala_optimizer_set_threads", threads, whole, 0, KOALA_STATUS_OK, ""),
    IN("koala_optimizer_set_threads", threads, whole, 4294967295, KOALA_STATUS_THREADS, "4294967295 threads"),
    IN("koala_optimizer_set_threads", threads, whole, 2, KOALA_STATUS_OK, ""),
    NAMES("koala_optimizer_add_tensor"),
    IN("koala_optimizer_add_tensor", name, text, "third", KOALA_STATUS_DUPLICATE_TENSOR, "third"),
    IN("koala_optimizer_add_tensor", name, text, "", KOALA_STATUS_OK, ""),
    IN("koala_optimizer_add_tensor", type, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "koala_element_type"),
    IN("koala_optimizer_add_tensor", type, whole, 4, KOALA_STATUS_UNKNOWN_VALUE, "koala_element_type"),
    IN("koala_optimizer_add_tensor", state_type, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "koala_state_type"),
    IN("koala_optimizer_add_tensor", state_type, whole, 3, KOALA_STATUS_UNKNOWN_VALUE, "koala_state_type"),
    IN("koala_optimizer_add_tensor", length, whole, -1, KOALA_STATUS_MEMORY, "18446744073709551615 elements"),
    IN("koala_optimizer_add_tensor", length, whole, PTRDIFF_MAX / 4 + 1, KOALA_STATUS_MEMORY, "not enough memory"),
    IN("koala_optimizer_add_tensor", length, whole, 0, KOALA_STATUS_OK, ""),
    NAMES("koala_optimizer_find_tensor"),
    IN("koala_optimizer_find_tensor", name, text, "nobody", KOALA_STATUS_UNKNOWN_TENSOR, "nobody"),
    UNKNOWN_TENSOR("koala_optimizer_tensor_name"),
    UNKNOWN_TENSOR("koala_optimizer_scalars"),
    UNKNOWN_TENSOR("koala_optimizer_state"),
    UNKNOWN_TENSOR("koala_optimizer_restart"),
    IN("koala_optimizer_tensor_name", capacity, whole, -1, KOALA_STATUS_LENGTH, "buffer are more than memory"),
    IN("koala_optimizer_tensor_name", capacity, whole, 1, KOALA_STATUS_OK, ""),
    IN("koala_optimizer_differences", capacity, whole, -1, KOALA_STATUS_LENGTH, "buffer are more than memory"),
    IN("koala_optimizer_differences", capacity, whole, 0, KOALA_STATUS_OK, ""),
    PATHS("koala_optimizer_save"),
    IN("koala_optimizer_save", path, text, ".", KOALA_STATUS_FILE, "not a regular file"),
    PATHS("koala_optimizer_load"),
    IN("koala_optimizer_load", loading, whole, -1, KOALA_STATUS_UNKNOWN_VALUE, "koala_loading"),
    IN("koala_optimizer_load", loading, whole, 2, KOALA_STATUS_UNKNOWN_VALUE, "2 is no koala_loading"),
    IN("koala_optimizer_load", loading, whole, KOALA_LOADING_WHAT_FITS, KOALA_STATUS_OK, ""),
    IN("koala_optimizer_state", bytes, whole, 0, KOALA_STATUS_LENGTH, "0 bytes"),
    IN("koala_optimizer_state", bytes, whole, -1, KOALA_STATUS_LENGTH, "18446744073709551615 bytes"),
    IN("koala_optimizer_state", bytes, whole, 7, KOALA_STATUS_LENGTH, "7 bytes"),
    IN("koala_optimizer_state", v, whole, 0, KOALA_STATUS_OK, ""),
    IN("koala_optimizer_state", h, whole, 0, KOALA_STATUS_OK, ""),
};

#endif
