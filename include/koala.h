/* koala.h: the optimizer step of KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432) for C, C++, and whatever
 * calls C. Made by cbindgen from the sources of libkoala; do not edit. Licence: MIT or Apache-2.0.
 *
 * KOALA++ trains a network by a Kalman filter over its parameters. There are three ways to call it:
 *   - koala_step_tensor and koala_step_tensors take whole steps of tensors whose buffers and state the caller owns;
 *   - koala_dots_tensor(s), then koala_apply_tensor(s), take a step in two halves, for tensors split over processes;
 *   - a koala_optimizer has named tensors in groups, their state, the noise, reports and checkpoints. A koala_cuda does
 *     all that on an NVIDIA GPU, except checkpoints.
 * For the same input, all of them give the same bits, on every processor, backend and number of threads. Whole steps and
 * a koala_optimizer can step by another method than KOALA++, which a koala_method chooses: KOALA-V, KOALA-M, AdamW, or
 * SGD with momentum.
 *
 * What holds for every function:
 *   - It returns a koala_status, unless it returns a constant text or number. Results go through pointers. If the
 *     status is not KOALA_STATUS_OK, nothing that a pointer leads to has been written, and nothing of an optimizer has
 *     changed; koala_last_error has a text that names what is wrong. (KOALA_STATUS_PANIC is the exception.)
 *   - No pointer may be NULL unless the function says so. Pointers are aligned for their type. What is written overlaps
 *     nothing else of the call. A call checks all this, unless the function says that it does not. The rest is the
 *     caller's promise: a pointer leads to as many elements as the length says, and a handle to what made it; no buffer
 *     lies over the structs that describe it, its tensor or the step; and until the call returns, nobody else writes to
 *     what it uses, or reads what it writes.
 *   - A struct that begins with `size` may become longer in later versions: set it to its sizeof, and begin with the
 *     struct's init function where it has one, else with zeros. New members are added at the end, and with zero in them
 *     everything is as it was without them.
 *   - A koala_*_validate function finds out whether other calls will take some settings. It changes nothing.
 *   - A function starts no thread, allocates, prints and calls back nothing, unless it says so. A call that does not
 *     succeed may allocate a few words for its text. (The system may allocate at a thread's first call, if this library
 *     was loaded while the program ran.) The library has no signal handler and no global state, except the last error of
 *     each thread and a hook of Rust's that keeps its own panics from printing. It reads no environment variable unless
 *     a function says so.
 *   - Where there is not enough memory, the status is KOALA_STATUS_MEMORY, and nothing has changed. In three cases Rust
 *     ends the process instead, with a line on standard error: if there is no memory to start threads, to save or load a
 *     checkpoint, or for what koala_cuda keeps on the host.
 *   - Any thread may call any function at any time. Calls at the same time may share what pointers to const lead to, but
 *     not what other pointers lead to. The processor's floating-point state must be the default one (round to nearest,
 *     denormals kept).
 *   - After fork(), the child may go on with what there was before, if no thread was in a call then: an optimizer
 *     starts threads of its own there when it needs them, and returns KOALA_STATUS_THREADS if it can't have them.
 *     It knows a process by its id. A child that has the same id as its parent, as the first process in another pid
 *     namespace may, is taken for its parent, and must not use an optimizer that has threads. Only koala_cuda can't go on
 *     in a child, because CUDA does not.
 *   - Text is UTF-8. Lengths are numbers of elements, sizes are bytes.
 */


#ifndef KOALA_H
#define KOALA_H

#include <stddef.h>
#include <stdint.h>

/**
 * The version of this header: a program compiled with it needs a library of the same major version, and below 1.0 of
 * the same minor version too.
 */
#define KOALA_VERSION_MAJOR 0

/**
 * See KOALA_VERSION_MAJOR.
 */
#define KOALA_VERSION_MINOR 1

/**
 * See KOALA_VERSION_MAJOR.
 */
#define KOALA_VERSION_PATCH 0

/**
 * The version as one number: 1000000 times major, plus 1000 times minor, plus patch.
 */
#define KOALA_VERSION 1000

/**
 * What a call came to. Zero is success; after anything else nothing has been written, and koala_last_error has a text
 * that names the tensor and the numbers.
 */
enum koala_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * All was done.
   */
  KOALA_STATUS_OK = 0,
  /**
   * A pointer is NULL that may not be.
   */
  KOALA_STATUS_NULL_POINTER = 1,
  /**
   * A pointer is not aligned as its type has to be.
   */
  KOALA_STATUS_MISALIGNED = 2,
  /**
   * Two buffers overlap, one of which would be written.
   */
  KOALA_STATUS_OVERLAP = 3,
  /**
   * The size in a struct's first member is none that this library knows: it was not set, or it is of a newer header
   * and a member that this library lacks is not zero.
   */
  KOALA_STATUS_STRUCT_SIZE = 4,
  /**
   * An enum or a flag has a value that is none of its own.
   */
  KOALA_STATUS_UNKNOWN_VALUE = 5,
  /**
   * A length is not the tensor's, or larger than memory can be.
   */
  KOALA_STATUS_LENGTH = 6,
  /**
   * The parameters' type is not the one that the tensor was added with.
   */
  KOALA_STATUS_TYPE = 7,
  /**
   * A text is not UTF-8.
   */
  KOALA_STATUS_ENCODING = 8,
  /**
   * A number is outside of its range.
   */
  KOALA_STATUS_SETTING = 9,
  /**
   * A loss was to be made from no samples.
   */
  KOALA_STATUS_NO_SAMPLES = 10,
  /**
   * A loss, gradient, parameter or scalar is NaN or infinite, or a parameter, v or h would be, and
   * KOALA_ON_NON_FINITE_ERROR is set.
   */
  KOALA_STATUS_NON_FINITE = 11,
  /**
   * An innovation variance would not be positive, and KOALA_ON_BREAKDOWN_ERROR is set.
   */
  KOALA_STATUS_BREAKDOWN = 12,
  /**
   * There is no tensor of that name or number.
   */
  KOALA_STATUS_UNKNOWN_TENSOR = 13,
  /**
   * A tensor was added, or given, before.
   */
  KOALA_STATUS_DUPLICATE_TENSOR = 14,
  /**
   * There is no group of that number.
   */
  KOALA_STATUS_UNKNOWN_GROUP = 15,
  /**
   * There is no backend of that name or number.
   */
  KOALA_STATUS_UNKNOWN_BACKEND = 16,
  /**
   * The backend cannot run on this processor.
   */
  KOALA_STATUS_ABSENT_BACKEND = 17,
  /**
   * There is not enough memory.
   */
  KOALA_STATUS_MEMORY = 18,
  /**
   * The threads could not be had.
   */
  KOALA_STATUS_THREADS = 19,
  /**
   * The header and the library do not fit.
   */
  KOALA_STATUS_VERSION = 20,
  /**
   * There is a mistake in the library, and the call was given up: what it was to write may be half-written. Please
   * report it. A koala_optimizer or koala_cuda is poisoned by it.
   */
  KOALA_STATUS_PANIC = 21,
  /**
   * An earlier call on this koala_optimizer or koala_cuda ended with KOALA_STATUS_PANIC. It can only be destroyed.
   */
  KOALA_STATUS_POISONED = 22,
  /**
   * There is no CUDA driver, no device of that number, or one of them is too old.
   */
  KOALA_STATUS_ABSENT_DEVICE = 23,
  /**
   * A buffer or a stream is not the device's.
   */
  KOALA_STATUS_FOREIGN_DEVICE = 24,
  /**
   * A call of the CUDA driver failed: after this, what was put on the stream may have run in part. Or the stream is
   * being captured, and the call cannot be: then nothing has been put there.
   */
  KOALA_STATUS_DRIVER = 25,
  /**
   * A step in halves was to be another one than of KOALA++ with gradients as they are: nothing else is offered so.
   */
  KOALA_STATUS_HALVES = 26,
  /**
   * KOALA-M was to step before koala_optimizer_predict was called for that step.
   */
  KOALA_STATUS_NOT_PREDICTED = 27,
  /**
   * A file cannot be read or written.
   */
  KOALA_STATUS_FILE = 28,
  /**
   * A file is not a checkpoint, or it was cut short, or its bytes have changed.
   */
  KOALA_STATUS_DAMAGED = 29,
  /**
   * A later version of this library wrote the checkpoint, in a format that this one does not know.
   */
  KOALA_STATUS_NEWER = 30,
  /**
   * The checkpoint is of another model or method, and KOALA_LOADING_EXACT is set.
   */
  KOALA_STATUS_MISMATCH = 31,
  /**
   * Something else is wrong, for which this version of the C interface has no status: koala_last_error says what.
   */
  KOALA_STATUS_OTHER = 32,
  /**
   * A group's method is not one that it can have.
   */
  KOALA_STATUS_METHOD = 33,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_status koala_status;
#else
typedef int32_t koala_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a step runs. All backends give the same bits.
 */
enum koala_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The fastest one that this processor has.
   */
  KOALA_BACKEND_FASTEST = 0,
  /**
   * Plain code, one element at a time. Always present.
   */
  KOALA_BACKEND_SCALAR = 1,
  /**
   * 128-bit vectors of whatever the library was compiled for. Always present.
   */
  KOALA_BACKEND_PORTABLE = 2,
  /**
   * 128-bit vectors of 64-bit Arm.
   */
  KOALA_BACKEND_NEON = 3,
  /**
   * 256-bit vectors of x86-64, with AVX2 and F16C.
   */
  KOALA_BACKEND_AVX2 = 4,
  /**
   * 512-bit vectors of x86-64, with AVX-512 F and DQ.
   */
  KOALA_BACKEND_AVX512 = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_backend koala_backend;
#else
typedef int32_t koala_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which covariance KOALA++ reconstructs: paper, section 3.
 */
enum koala_variant
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The symmetric one of the least Frobenius norm, the paper's default.
   */
  KOALA_VARIANT_SYMMETRIC = 0,
  /**
   * The one of the least Frobenius norm without that constraint.
   */
  KOALA_VARIANT_VANILLA = 1,
  /**
   * One that stays positive definite, with a prior variance in all directions: the innovation variance S does not break
   * down. It is this library's own, not the paper's.
   */
  KOALA_VARIANT_DEFINITE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_variant koala_variant;
#else
typedef int32_t koala_variant;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a tensor's parameters and gradient are stored in. Arithmetic is in float64 for KOALA_ELEMENT_TYPE_F64, and in
 * float32 for all others.
 */
enum koala_element_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * IEEE 754 binary32: float.
   */
  KOALA_ELEMENT_TYPE_F32 = 0,
  /**
   * IEEE 754 binary64: double.
   */
  KOALA_ELEMENT_TYPE_F64 = 1,
  /**
   * bfloat16, the upper half of a binary32, in a uint16_t.
   */
  KOALA_ELEMENT_TYPE_BF16 = 2,
  /**
   * IEEE 754 binary16, in a uint16_t.
   */
  KOALA_ELEMENT_TYPE_F16 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_element_type koala_element_type;
#else
typedef int32_t koala_element_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The rule for R, the variance of the measurement noise, which all tensors of an optimizer share.
 */
enum koala_noise
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * R ← decay·R + (1 − decay)·m before each step, m being the mean of the squared per-sample losses.
   */
  KOALA_NOISE_AVERAGED = 0,
  /**
   * Always the initial R.
   */
  KOALA_NOISE_FIXED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_noise koala_noise;
#else
typedef int32_t koala_noise;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The optimizers. What h and v of a tensor hold depends on the kind; where a method has no such vector, its buffer is
 * not looked at and may be NULL. Both are zero before the first step; KOALA++ alone does not read them then.
 */
enum koala_method_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * KOALA++ (Xia, Davtyan, Favaro, 2025). Its numbers are in koala_settings.
   */
  KOALA_METHOD_KIND_KOALA_PLUS_PLUS = 0,
  /**
   * KOALA-V (Davtyan et al., 2022): one variance for all parameters. Neither h nor v.
   */
  KOALA_METHOD_KIND_KOALA_V = 1,
  /**
   * KOALA-M (Davtyan et al., 2022): one covariance for all parameters and their velocities. h is the velocity, v the
   * running average of the parameters. A prediction has to precede each step: see koala_predict_tensors and
   * koala_optimizer_predict.
   */
  KOALA_METHOD_KIND_KOALA_M = 2,
  /**
   * AdamW (Loshchilov and Hutter, 2019). h is the mean of the gradient, v the mean of its square.
   */
  KOALA_METHOD_KIND_ADAMW = 3,
  /**
   * Stochastic gradient descent. h is the momentum, unless that is 0. No v.
   */
  KOALA_METHOD_KIND_SGD = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_method_kind koala_method_kind;
#else
typedef int32_t koala_method_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What to do with a tensor whose gradient, loss or scalars are NaN or infinite. It is not written, unless it is
 * unchecked. The same is done with a tensor of which the step would make a finite parameter, v or h infinite, as its
 * type has it (binary16 ends at 65504): what the scalars do not rule out is tried on copies first, a pass more.
 *
 * What the scalars say nothing about is taken to be: parameters, and velocities of KOALA-M, at most half of the
 * largest number (a 1024th, with a weight decay of SGD); v of KOALA++ at most h times a variance of initial_variance
 * plus process_noise for each step; SGD's momentum at most the gradient's norm over 1 − momentum; AdamW's mean at
 * most its mean of squares' root over √(1 − beta2). Beyond that, in steps in halves, and in a `copy`, what is too
 * large becomes infinite.
 */
enum koala_on_non_finite
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Leave that tensor as it is, step the others, and count it in the report.
   */
  KOALA_ON_NON_FINITE_KEEP_TENSOR = 0,
  /**
   * Leave every tensor as it is, and the noise too, and count it in the report.
   */
  KOALA_ON_NON_FINITE_KEEP_ALL = 1,
  /**
   * Leave every tensor as it is, and return KOALA_STATUS_NON_FINITE.
   */
  KOALA_ON_NON_FINITE_ERROR = 2,
  /**
   * As KEEP_TENSOR, where that costs no pass over the gradient. AdamW and SGD, which have no pass before the one
   * that writes, do not look at it then, unless for its norm or because it has a limit: what is not finite in it is
   * written to its place in the parameters and the state. That saves reading the gradient twice.
   */
  KOALA_ON_NON_FINITE_UNCHECKED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_on_non_finite koala_on_non_finite;
#else
typedef int32_t koala_on_non_finite;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What to do with a tensor whose innovation variance S would not be positive, which the recursion does not rule out.
 */
enum koala_on_breakdown
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Restart its filter, as on a first step with this gradient, and count it in the report.
   */
  KOALA_ON_BREAKDOWN_RESTART = 0,
  /**
   * Leave it as it is, and count it in the report.
   */
  KOALA_ON_BREAKDOWN_SKIP = 1,
  /**
   * Leave every tensor as it is, and return KOALA_STATUS_BREAKDOWN.
   */
  KOALA_ON_BREAKDOWN_ERROR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_on_breakdown koala_on_breakdown;
#else
typedef int32_t koala_on_breakdown;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the state's two vectors, v and h, are stored in.
 */
enum koala_state_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The parameters' own type.
   */
  KOALA_STATE_TYPE_SAME = 0,
  /**
   * binary32: for parameters in half precision.
   */
  KOALA_STATE_TYPE_F32 = 1,
  /**
   * bfloat16: half the memory and less traffic, for some accuracy.
   */
  KOALA_STATE_TYPE_BF16 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_state_type koala_state_type;
#else
typedef int32_t koala_state_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A second place for a tensor's new parameters, rounded to half precision.
 */
enum koala_copy_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * There is none.
   */
  KOALA_COPY_TYPE_NONE = 0,
  /**
   * In bfloat16.
   */
  KOALA_COPY_TYPE_BF16 = 1,
  /**
   * In binary16.
   */
  KOALA_COPY_TYPE_F16 = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_copy_type koala_copy_type;
#else
typedef int32_t koala_copy_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a step did with one tensor.
 */
enum koala_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Stepped, with the filter's memory of the steps before.
   */
  KOALA_OUTCOME_STEPPED = 0,
  /**
   * Stepped, for the first time.
   */
  KOALA_OUTCOME_FIRST_STEP = 1,
  /**
   * Stepped as for the first time, because the innovation variance would not have been positive.
   */
  KOALA_OUTCOME_RESTARTED = 2,
  /**
   * Kept: the gradient's norm is below 1e-9, or H = g + wd·θ is zero and there is nothing to learn.
   */
  KOALA_OUTCOME_SKIPPED = 3,
  /**
   * Kept: the settings say frozen.
   */
  KOALA_OUTCOME_FROZEN = 4,
  /**
   * Kept: the gradient, the loss or a scalar is NaN or infinite, or an element of parameters, v or h would be.
   */
  KOALA_OUTCOME_NON_FINITE = 5,
  /**
   * Kept: the innovation variance would not have been positive.
   */
  KOALA_OUTCOME_BREAKDOWN = 6,
  /**
   * Kept: it could have stepped, but another tensor is not finite, under KOALA_ON_NON_FINITE_KEEP_ALL.
   */
  KOALA_OUTCOME_WITHHELD = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_outcome koala_outcome;
#else
typedef int32_t koala_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What to do where a checkpoint differs from the optimizer.
 */
enum koala_loading
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Any difference is an error.
   */
  KOALA_LOADING_EXACT = 0,
  /**
   * Load what fits. A tensor that is missing, has another length or shape, or another type stays as it is. A tensor
   * of another group is loaded, and stays in its group. Each group takes the settings of the checkpoint's group of
   * the same number, if there is one. Of another method's checkpoint nothing fits, settings and noise neither: then
   * nothing is loaded.
   */
  KOALA_LOADING_WHAT_FITS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum koala_loading koala_loading;
#else
typedef int32_t koala_loading;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * KOALA++ over a model on an NVIDIA GPU. It does what koala_optimizer does on the processor, and gives the same bits.
 * Made by koala_cuda_create, ended by koala_cuda_destroy.
 *
 * It needs the driver (of CUDA 12.0 or later) and a GPU of compute capability 8.0 or later, and no library of CUDA;
 * it works in the device's primary context, as the CUDA runtime and the frameworks do. Parameters, gradients and
 * states are addresses on the device. `stream` is a CUstream or cudaStream_t, and NULL is the default stream; work
 * that is put on several streams has to be ordered among them. A step only puts kernels on the stream: the host does
 * not wait, unless a function says so. What a step is given has to live, and stay as it is, until the step has run.
 *
 * Functions that take a pointer to const may be called by several threads at once, as long as no thread is in one that
 * does not.
 */
typedef struct koala_cuda koala_cuda;

/**
 * KOALA++, or another method, over a model: named tensors in groups, their filters, the noise that they share. Made by
 * koala_optimizer_create, ended by koala_optimizer_destroy.
 *
 * Several threads may be in functions that take a pointer to const at once. Any other function has to have the
 * optimizer for itself. It need not be called by the thread that made the optimizer.
 */
typedef struct koala_optimizer koala_optimizer;

/**
 * A backend, as koala_backend_describe tells of it. Set `size` before the call.
 */
typedef struct koala_backend_info {
  /**
   * sizeof(koala_backend_info).
   */
  size_t size;
  /**
   * Its number.
   */
  koala_backend backend;
  /**
   * 1 if this processor has it, else 0.
   */
  uint32_t present;
  /**
   * Its name, such as "avx2".
   */
  char name[16];
  /**
   * What it is, in a few words.
   */
  char description[64];
  /**
   * Why it is not present; empty if it is.
   */
  char absent_because[64];
} koala_backend_info;

/**
 * The settings of a group of tensors. koala_settings_init fills it with the defaults; a step may use other settings
 * than the step before.
 *
 * `initial_variance`, `process_noise`, `variant` and `prior_variance` are numbers of KOALA++. For another method, whose
 * numbers are in koala_method, they have to be the defaults: any other value is KOALA_STATUS_SETTING.
 */
typedef struct koala_settings {
  /**
   * sizeof(koala_settings).
   */
  size_t size;
  /**
   * η ≥ 0: the share of the Kalman step that is taken. Default 1, which is for the KOALA family: AdamW and SGD want
   * far less.
   */
  double learning_rate;
  /**
   * wd ≥ 0, coupled: the loss of a tensor is L + ½·wd·θ·θ; but beside the gradient for AdamW. Default 0.
   */
  double weight_decay;
  /**
   * σ > 0: the variance of a parameter before the first step, in squared units of the parameter. Default 0.1.
   */
  double initial_variance;
  /**
   * Q ≥ 0: what that variance grows by in each step. Default 0.1.
   */
  double process_noise;
  /**
   * Default KOALA_VARIANT_SYMMETRIC.
   */
  koala_variant variant;
  /**
   * 1: the tensors are checked like any other and stay as they are. Default 0.
   */
  uint32_t frozen;
  /**
   * γ ≥ 0: the prior variance of KOALA_VARIANT_DEFINITE, which alone reads it, in squared units of the parameter. 0,
   * the default, stands for `initial_variance`.
   */
  double prior_variance;
} koala_settings;

/**
 * The measurement of one step: of a minibatch, the mean loss and the mean of the squared per-sample losses.
 */
typedef struct koala_loss {
  /**
   * L, the mean.
   */
  double mean;
  /**
   * m ≥ 0, the mean of the squares; only KOALA_NOISE_AVERAGED reads it.
   */
  double second_moment;
} koala_loss;

/**
 * Which optimizer steps, and its numbers that all tensors share. koala_method_init fills it with the defaults of a
 * kind. Numbers of other kinds are not looked at. The variances and the process noise of KOALA-V and KOALA-M move
 * with each step: a koala_optimizer keeps them, and who steps without one calls koala_method_predict and
 * koala_method_correct.
 */
typedef struct koala_method {
  /**
   * sizeof(koala_method).
   */
  size_t size;
  /**
   * Which optimizer.
   */
  koala_method_kind kind;
  /**
   * SGD, 1: a step follows the gradient and the new momentum, as Nesterov has it, which needs a momentum above 0.
   * Default 0.
   */
  uint32_t nesterov;
  /**
   * SGD: μ, in [0, 1), what a step keeps of the momentum. Default 0.9.
   */
  double momentum;
  /**
   * AdamW: β₁, in [0, 1), what a step keeps of the mean of the gradient. Default 0.9.
   */
  double beta1;
  /**
   * AdamW: β₂, in [0, 1), what a step keeps of the mean of its square. Default 0.999.
   */
  double beta2;
  /**
   * AdamW: ε ≥ 1e-37, in units of the gradient. Default 1e-8.
   */
  double epsilon;
  /**
   * KOALA-V, KOALA-M: the variance of every parameter, at least 0, as it is now. Default 0.1.
   */
  double variance;
  /**
   * KOALA-V, KOALA-M: what that variance grows by in each step, at least 0; for KOALA-M it adapts. Default 0.1, and
   * for KOALA-M 0.01.
   */
  double process_noise;
  /**
   * KOALA-M: the covariance of a parameter and its velocity, as it is now. Default 0.
   */
  double covariance;
  /**
   * KOALA-M: the variance of a velocity, at least 0, as it is now. Default 0.1.
   */
  double velocity_variance;
  /**
   * KOALA-M: what a prediction leaves of a velocity, in [0, 1]. Default 0.9.
   */
  double velocity_decay;
  /**
   * KOALA-M: the process noise of a velocity, at least 0. Default 0.01.
   */
  double velocity_noise;
} koala_method;

/**
 * Everything about a step but the tensors, for the functions that need no optimizer. koala_step_init fills it with the
 * defaults; `loss` and `noise` are to be set for every step.
 */
typedef struct koala_step {
  /**
   * sizeof(koala_step).
   */
  size_t size;
  /**
   * The settings of the groups of tensors, each of the same size. NULL: a single group with the defaults.
   */
  const struct koala_settings *groups;
  /**
   * How many groups there are; not looked at if `groups` is NULL. For more than 16, the functions that take an
   * array of tensors allocate some hundred bytes per group until they return.
   */
  size_t group_count;
  /**
   * Which optimizer steps, with its shared numbers as they are now. NULL, the default: KOALA++.
   */
  const struct koala_method *method;
  /**
   * L, the minibatch's mean loss. Default 0.
   */
  double loss;
  /**
   * R ≥ 0, the variance of the measurement noise: see koala_noise_update. Default 1.
   */
  double noise;
  /**
   * At least 1e-37: what gradients are multiplied by as they are loaded, at no pass over memory. Default 1. For
   * mixed precision: one over the factor that the loss was scaled by.
   */
  double gradient_factor;
  /**
   * At least 1e-37: no element of a gradient, scaled, is taken to be farther from zero. Default infinite, which is
   * no limit. What is NaN or infinite before it counts as that.
   */
  double gradient_limit;
  /**
   * Where to run. Default KOALA_BACKEND_FASTEST.
   */
  koala_backend backend;
  /**
   * Default KOALA_ON_NON_FINITE_KEEP_TENSOR. Under KEEP_ALL and ERROR, koala_step_tensors and koala_apply_tensors
   * allocate some hundred bytes per tensor until they return, if there are more than 16.
   */
  koala_on_non_finite on_non_finite;
  /**
   * Default KOALA_ON_BREAKDOWN_RESTART. With KOALA_ON_BREAKDOWN_ERROR the two functions allocate as much.
   */
  koala_on_breakdown on_breakdown;
  /**
   * 1: whole steps report the norms, which may cost a pass more over gradient and parameters. Default 0.
   */
  uint32_t norms;
} koala_step;

/**
 * The scalars of one tensor's filter between two steps: four doubles, all zero before the first step. A caller may
 * keep them as an array of doubles, and save them as such. This struct never changes.
 */
typedef struct koala_scalars {
  /**
   * x = h·h, with h the measurement row of the step before.
   */
  double h_h;
  /**
   * y = h·v.
   */
  double h_v;
  /**
   * s, the innovation variance S of the step before.
   */
  double innovation_variance;
  /**
   * Steps taken: a whole number. At 0, v and h are not read, and the next step is a first step.
   */
  double steps;
} koala_scalars;

/**
 * A tensor of n = `length` parameters whose buffers are the caller's, for the functions that need no optimizer. Begin
 * with zeros, then set `size`, and what applies.
 *
 * Each buffer is aligned for its elements, has n of them, and overlaps no other one of the same call; all may be NULL
 * if n is 0. `parameters` and `gradient` are of `type`, `v` and `h` of `state_type`.
 */
typedef struct koala_tensor {
  /**
   * sizeof(koala_tensor).
   */
  size_t size;
  /**
   * n, the number of parameters; 0 is legal and does nothing.
   */
  size_t length;
  /**
   * What parameters and gradient are stored in.
   */
  koala_element_type type;
  /**
   * What v and h are stored in.
   */
  koala_state_type state_type;
  /**
   * What `copy` is stored in: KOALA_COPY_TYPE_NONE if there is none, and then `copy` is not looked at.
   */
  koala_copy_type copy_type;
  /**
   * Its group: a place in koala_step's `groups`.
   */
  uint32_t group;
  /**
   * 1: the call may let `gradient` and `h` change places in this struct, which saves writing h: it does if the
   * tensor steps by KOALA++ with its gradient as it is, in another variant than the definite one, has no weight
   * decay, and has its state in its own type. Either way `h` is the state afterwards, and what `gradient` holds is
   * of no use. The gradient's memory must be writable then. Only koala_step_tensor and koala_step_tensors look at
   * this.
   */
  uint32_t exchange;
  /**
   * Zero.
   */
  uint32_t reserved;
  /**
   * θ: read and written.
   */
  void *parameters;
  /**
   * g = ∂L/∂θ of the minibatch's mean loss: read.
   */
  const void *gradient;
  /**
   * v = H·P, the product of gradient and covariance: read (but for a first step) and written. It need not be
   * initialized before the first step. With another method than KOALA++: what koala_method_kind says, zero before
   * the first step, and not looked at where the method has no such vector.
   */
  void *v;
  /**
   * h, the measurement row of the step before: read (but for a first step) and written, and otherwise as v.
   */
  void *h;
  /**
   * Written with the new parameters, rounded, if the tensor steps; what is too large for it becomes infinite.
   */
  void *copy;
  /**
   * Read and written; not NULL.
   */
  struct koala_scalars *scalars;
} koala_tensor;

/**
 * The scalars of one tensor's step: zero where the step did not come that far. This struct never changes.
 */
typedef struct koala_tensor_report {
  /**
   * What was done.
   */
  koala_outcome outcome;
  /**
   * Zero.
   */
  uint32_t reserved;
  /**
   * S, the innovation variance of this step.
   */
  double innovation_variance;
  /**
   * α = (H·h)/(h·h).
   */
  double alpha;
  /**
   * λ = (H·v + Q·(H·h))/S of the step before: the Kalman gain seen from H.
   */
  double lambda;
  /**
   * w, the weight of the symmetric correction.
   */
  double w;
  /**
   * (H·H)/S, from which the shared numbers of KOALA-V and KOALA-M learn; 0 for other methods.
   */
  double gain;
  /**
   * ‖g‖ before the step; NaN unless norms were asked for.
   */
  double gradient_norm;
  /**
   * ‖H‖ = ‖g + wd·θ‖ before the step; NaN unless norms were asked for.
   */
  double measurement_norm;
  /**
   * ‖θ‖ before the step; NaN unless norms were asked for.
   */
  double parameters_norm;
} koala_tensor_report;

/**
 * What a step did with a list of tensors: how many of them came to what. Set `size` before the call.
 */
typedef struct koala_report {
  /**
   * sizeof(koala_report).
   */
  size_t size;
  /**
   * The backend that ran; KOALA_BACKEND_FASTEST only from koala_cuda_report, as it was none of them.
   */
  koala_backend backend;
  /**
   * Zero.
   */
  uint32_t reserved;
  /**
   * Steps that took an optimizer's noise forward, this one included; 0 from a call without an optimizer.
   */
  uint64_t step;
  /**
   * R of this step.
   */
  double noise;
  /**
   * The Euclidean norm of all gradients of an optimizer's step together, scaled but not yet clipped by it; without
   * what is frozen or not finite. NaN unless koala_config has a clip_norm.
   */
  double gradient_norm;
  /**
   * The largest gain among the tensors that stepped, for koala_method_correct; 0 if none did. 0 from an optimizer,
   * which learns from it by itself.
   */
  double gain;
  /**
   * Tensors that stepped, first steps and restarts included.
   */
  uint64_t stepped;
  /**
   * Tensors that stepped for the first time; `stepped` counts them too.
   */
  uint64_t first_steps;
  /**
   * Tensors whose filter restarted because S came out as zero or less; `stepped` counts them too.
   */
  uint64_t restarts;
  /**
   * Tensors kept because their gradient is (nearly) zero.
   */
  uint64_t skipped;
  /**
   * Tensors kept because they are frozen.
   */
  uint64_t frozen;
  /**
   * Tensors kept because something was NaN or infinite, or would be.
   */
  uint64_t non_finite;
  /**
   * Tensors kept because S came out as zero or less.
   */
  uint64_t breakdowns;
  /**
   * Tensors kept because another one is not finite, under KOALA_ON_NON_FINITE_KEEP_ALL.
   */
  uint64_t withheld;
} koala_report;

/**
 * The dot products of a tensor, or of a part of one: five doubles. Add up the parts member by member, by
 * koala_dots_add or by any all-reduce of arrays of doubles, and you have the dots of the whole tensor. This struct
 * never changes.
 */
typedef struct koala_dots {
  /**
   * a = H·h; 0 on a first step.
   */
  double a;
  /**
   * b = H·v; 0 on a first step.
   */
  double b;
  /**
   * c = H·H.
   */
  double c;
  /**
   * t = θ·θ; 0 without weight decay.
   */
  double t;
  /**
   * g·g, or infinity where it is known to be above the bound below which a tensor is skipped.
   */
  double gradient_squared;
} koala_dots;

/**
 * What an optimizer is made with. koala_config_init fills it with the defaults.
 */
typedef struct koala_config {
  /**
   * sizeof(koala_config).
   */
  size_t size;
  /**
   * Which optimizer steps; it is copied. NULL, the default: KOALA++.
   */
  const struct koala_method *method;
  /**
   * At least 1e-37: what gradients are multiplied by as they are loaded, at no pass over memory. Default 1. See
   * koala_optimizer_set_scaling.
   */
  double gradient_factor;
  /**
   * At least 1e-37: no element of a gradient, scaled, is taken to be farther from zero. Default infinite, which is
   * no limit. What is NaN or infinite before it counts as that.
   */
  double gradient_limit;
  /**
   * Above 0: the Euclidean norm of all gradients of a step together, scaled, above which they are shrunk to that
   * norm. The first pass then goes over all tensors before any is written. Default infinite, which is no limit.
   */
  double clip_norm;
  /**
   * R before the first step, at least 0; with KOALA_NOISE_FIXED, R for ever. Default 1, the paper's.
   */
  double initial_noise;
  /**
   * The decay of KOALA_NOISE_AVERAGED, in [0, 1]. Default 0.9, the paper's.
   */
  double noise_decay;
  /**
   * Default KOALA_NOISE_AVERAGED.
   */
  koala_noise noise;
  /**
   * Where steps run. Default KOALA_BACKEND_FASTEST.
   */
  koala_backend backend;
  /**
   * Default KOALA_ON_NON_FINITE_KEEP_TENSOR.
   */
  koala_on_non_finite on_non_finite;
  /**
   * Default KOALA_ON_BREAKDOWN_RESTART.
   */
  koala_on_breakdown on_breakdown;
  /**
   * How many threads a step uses, at most 512 (255 where pointers have 32 bits); 0 is as many as there are
   * processors that this process may use. Default 1: the calling one, and none is started. No bit of the results
   * depends on it.
   */
  uint32_t threads;
  /**
   * 1: the reports of tensors have their norms, which may cost a pass more over gradient and parameters. Default 0.
   */
  uint32_t norms;
} koala_config;

/**
 * Hears of a tensor that a step restarted or kept because of trouble: a text of one line, of at most 512 bytes, valid
 * during the call, and the context that was given with the function. It is called by the thread that called
 * koala_optimizer_step, after all tensors have stepped. It must not call that optimizer, and must return: no
 * exception, no longjmp.
 */
typedef void (*koala_log)(void *context, const char *text);

/**
 * The parameters and the gradient of one of an optimizer's tensors, for one step. Begin with zeros, then set `size`,
 * and what applies.
 *
 * The buffers are aligned for their elements, have `length` of them, and overlap no other one that is written in the
 * same call; all may be NULL if `length` is 0.
 */
typedef struct koala_parameters {
  /**
   * sizeof(koala_parameters).
   */
  size_t size;
  /**
   * The tensor's number, from koala_optimizer_add_tensor.
   */
  size_t tensor;
  /**
   * Its number of parameters, which must be the one that it was added with.
   */
  size_t length;
  /**
   * What they are stored in, which must be what it was added with.
   */
  koala_element_type type;
  /**
   * What `copy` is stored in: KOALA_COPY_TYPE_NONE if there is none, and then `copy` is not looked at.
   */
  koala_copy_type copy_type;
  /**
   * θ: read and written.
   */
  void *parameters;
  /**
   * g = ∂L/∂θ of the minibatch's mean loss: read. koala_optimizer_predict does not look at it.
   */
  const void *gradient;
  /**
   * Written with the new parameters, rounded, if the tensor steps; what is too large for it becomes infinite.
   */
  void *copy;
} koala_parameters;

/**
 * What was loaded. Set `size` before the call.
 */
typedef struct koala_loaded {
  /**
   * sizeof(koala_loaded).
   */
  size_t size;
  /**
   * Tensors whose state was.
   */
  uint64_t tensors;
  /**
   * How much was not, as it differs: koala_optimizer_differences tells of each. 0 after KOALA_LOADING_EXACT.
   */
  uint64_t differences;
} koala_loaded;

/**
 * Where a tensor's filter is on the device, if the caller owns it. Begin with zeros, then set all. It has to live for
 * as long as the tensor is stepped, restarted or read; between two steps it may be copied, and be written with what
 * was copied before.
 */
typedef struct koala_cuda_state {
  /**
   * sizeof(koala_cuda_state).
   */
  size_t size;
  /**
   * v: as many elements of the state's type as the tensor has. It need not be initialized before the first step.
   */
  void *v;
  /**
   * h: as many elements of the state's type as the tensor has. It need not be initialized before the first step.
   */
  void *h;
  /**
   * The scalars: all zero before the first step.
   */
  struct koala_scalars *scalars;
} koala_cuda_state;

/**
 * What an optimizer has asked of its device until now. Set `size` before the call.
 */
typedef struct koala_cuda_counts {
  /**
   * sizeof(koala_cuda_counts).
   */
  size_t size;
  /**
   * Steps put on a stream; captured ones are not counted, nor is what a graph's launches do.
   */
  uint64_t steps;
  /**
   * Kernels put on a stream, or captured: three for each group of a step's tensors, and one for every 255 words
   * that change before it: seven for a group's settings, four for a filter that restarts, one for a gradient that
   * has moved, or that is captured.
   */
  uint64_t launches;
  /**
   * Calls of the driver for which the host waited: to allocate and to free, to describe tensors that are not those
   * of the step before, and to read.
   */
  uint64_t waits;
} koala_cuda_counts;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, as KOALA_VERSION.
 */
uint32_t koala_version(void);

/**
 * Whether this library can be called by a program that was compiled with a header of that version: pass KOALA_VERSION.
 * A program that links a shared library may ask this once, at its start.
 *
 * Returns KOALA_STATUS_VERSION if the header is of another major version, below 1.0 of another minor version, or newer
 * than the library.
 */
koala_status koala_check_version(uint32_t header);

/**
 * A few words on a status, in English, for ever valid; never NULL.
 */
const char *koala_status_string(koala_status status);

/**
 * Copies the text of the last call on this thread that did not succeed: English, UTF-8, one line, such as
 * `tensor "weight": expected 3 elements, found 2 in the gradient`. Empty if there was none.
 *
 * `buffer` receives at most `capacity` bytes, the last of them NUL, and may be NULL if `capacity` is 0. A text that is
 * too long is cut. `length`, unless NULL, receives the length of the whole text without NUL: at most 512, but for what
 * is wrong with a checkpoint, since that names a path, or lists all that differs.
 *
 * If this call itself does not succeed, the text stays the same.
 */
koala_status koala_last_error(char *buffer, size_t capacity, size_t *length);

/**
 * How many backends this library knows, present or not, KOALA_BACKEND_FASTEST not counted: they have the numbers from
 * 1 to `*count`.
 */
koala_status koala_backend_count(size_t *count);

/**
 * Tells of a backend: whether this processor has it, and if not, why. KOALA_BACKEND_FASTEST stands for the fastest.
 *
 * Returns KOALA_STATUS_UNKNOWN_VALUE for a number that is no backend's.
 */
koala_status koala_backend_describe(koala_backend backend, struct koala_backend_info *info);

/**
 * The backend that runs where KOALA_BACKEND_FASTEST is asked for.
 */
koala_status koala_backend_fastest(koala_backend *backend);

/**
 * The backend of that name, such as koala_backend_name gives.
 *
 * Returns KOALA_STATUS_UNKNOWN_BACKEND if there is none, and KOALA_STATUS_ABSENT_BACKEND if this processor lacks it;
 * the text lists those present.
 */
koala_status koala_backend_by_name(const char *name, koala_backend *backend);

/**
 * The backend that the environment variable KOALA_BACKEND names, or the fastest one where it is not set. Nothing else
 * in this library looks at the environment. Allocates.
 *
 * Returns what koala_backend_by_name does.
 */
koala_status koala_backend_from_environment(koala_backend *backend);

/**
 * The name of a backend, such as "avx2", or "fastest"; for ever valid. NULL for a number that is none.
 */
const char *koala_backend_name(koala_backend backend);

/**
 * Fills `settings` with the defaults. `size` is sizeof(koala_settings).
 */
koala_status koala_settings_init(struct koala_settings *settings, size_t size);

/**
 * Finds out whether a group of tensors can have these settings, and changes nothing.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
 */
koala_status koala_settings_validate(const struct koala_settings *settings);

/**
 * Averages the losses of `count` samples, in float64 and in their order, into `loss`.
 *
 * Returns KOALA_STATUS_NO_SAMPLES if `count` is 0.
 */
koala_status koala_loss_from_samples(koala_element_type type,
                                     const void *losses,
                                     size_t count,
                                     struct koala_loss *loss);

/**
 * Finds out whether an optimizer can have this rule for the noise, and changes nothing: see koala_config's `noise`,
 * `noise_decay` and `initial_noise`.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
 */
koala_status koala_noise_validate(koala_noise rule, double decay, double initial);

/**
 * Finds out whether gradients can be scaled by this factor and limited to this distance from zero, and changes
 * nothing: see koala_config's `gradient_factor` and `gradient_limit`.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
 */
koala_status koala_scaling_validate(double factor, double limit);

/**
 * Takes the noise forward by one step, for callers who keep it themselves: *noise ← decay·*noise + (1 − decay)·m,
 * with m the loss's second moment. An optimizer does this itself. The paper has a decay of 0.9, and 1 before the
 * first step.
 *
 * Returns KOALA_STATUS_SETTING if the decay is not in [0, 1], if the noise is negative, or if the second moment is
 * negative or not finite.
 */
koala_status koala_noise_update(double decay, const struct koala_loss *loss, double *noise);

/**
 * Fills `method` with the defaults of a kind; numbers of other kinds are zero. `size` is sizeof(koala_method).
 */
koala_status koala_method_init(struct koala_method *method, size_t size, koala_method_kind kind);

/**
 * Finds out whether an optimizer can step by this method with these numbers, and changes nothing.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
 */
koala_status koala_method_validate(const struct koala_method *method);

/**
 * Moves the shared numbers to the time of the next measurement, before its gradient is taken, for callers without an
 * optimizer, who call this before each step of KOALA-V and KOALA-M. `distance_squared` and `parameters` are what
 * koala_predict_tensors gives; KOALA-M alone reads them. Does nothing to other methods.
 */
koala_status koala_method_predict(struct koala_method *method, double distance_squared, size_t parameters);

/**
 * Lets the shared numbers learn from a step, for callers without an optimizer, who call this after each step of
 * KOALA-V and KOALA-M. `gain` is the largest one among the tensors that stepped, 0 if none did: that of a
 * koala_report. Does nothing to other methods.
 */
koala_status koala_method_correct(struct koala_method *method, double gain);

/**
 * Fills `step` with the defaults. `size` is sizeof(koala_step).
 */
koala_status koala_step_init(struct koala_step *step, size_t size);

/**
 * Finds out whether tensors can step with this: its groups' settings, its method, its scaling, its policies, its
 * backend and its noise. Steps nothing and changes nothing. A loss may be any number, as policies judge it.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
 */
koala_status koala_step_validate(const struct koala_step *step);

/**
 * One whole step of one tensor: two passes over its buffers, or one read-only pass where it is skipped. Allocates
 * nothing, and uses no thread but the calling one. Several threads may step different tensors at once.
 *
 * `report`, unless NULL, receives what was done. `tensor` is changed by an exchange only.
 */
koala_status koala_step_tensor(const struct koala_step *step,
                               struct koala_tensor *tensor,
                               struct koala_tensor_report *report);

/**
 * One whole step of each of `count` tensors. Small ones are worked on together, so one call for a model is faster
 * than many. Each tensor gets the same bits as from koala_step_tensor. Allocates nothing but what koala_step says,
 * and uses no thread but the calling one.
 *
 * `reports`, unless NULL, receives `count` reports, in the order of the tensors; `report`, unless NULL, the sum. A
 * text names a tensor by its place, from 0. Whether buffers of different tensors overlap is not looked at: if they
 * do, what they hold afterwards is unspecified.
 */
koala_status koala_step_tensors(const struct koala_step *step,
                                struct koala_tensor *tensors,
                                size_t count,
                                struct koala_tensor_report *reports,
                                struct koala_report *report);

/**
 * KOALA-M's prediction, before the gradient of a step is taken: parameters move by their velocities h, and these
 * decay. Gradients are not looked at, nor are `step`'s loss and noise but for the sign. Then koala_method_predict
 * moves the shared numbers, by what is written here: `*distance_squared`, the sum of ‖v − θ‖² before the prediction,
 * and `*parameters`, over how many parameters. A tensor that is frozen, or of which that sum is not finite, counts
 * for neither and stays as it is.
 *
 * Other methods have nothing to predict here: both are 0. Allocates nothing but what koala_step says, and uses no
 * thread but the calling one.
 */
koala_status koala_predict_tensors(const struct koala_step *step,
                                   const struct koala_tensor *tensors,
                                   size_t count,
                                   double *distance_squared,
                                   size_t *parameters);

/**
 * Adds the dots of a part of a tensor to a sum, member by member. `sum` and `part` may be the same.
 */
koala_status koala_dots_add(struct koala_dots *sum, const struct koala_dots *part);

/**
 * The first half of a step: the dots of a tensor, or of the part of one that this process has. Reads only: parameters,
 * gradient, and, but for a first step, v and h. Allocates nothing.
 *
 * If a tensor is divided, the sum of its parts' dots may differ in the last bits of float64 from the dots of the
 * undivided tensor.
 *
 * Returns KOALA_STATUS_HALVES, as do the three functions below, for another method than KOALA++ and for gradients that
 * are scaled or limited.
 */
koala_status koala_dots_tensor(const struct koala_step *step,
                               const struct koala_tensor *tensor,
                               struct koala_dots *dots);

/**
 * The first half of a step of `count` tensors: `dots` receives as many. See koala_dots_tensor.
 */
koala_status koala_dots_tensors(const struct koala_step *step,
                                const struct koala_tensor *tensors,
                                size_t count,
                                struct koala_dots *dots);

/**
 * The second half of a step: decides by the dots of the whole tensor, and writes the tensor, or the part of one that
 * this process has. Every process that has a part decides the same, given the same `step`, dots and scalars.
 * Allocates nothing.
 *
 * Give the same `step` and `tensor` as to koala_dots_tensor. `report`, unless NULL, receives what was done, without
 * norms.
 */
koala_status koala_apply_tensor(const struct koala_step *step,
                                const struct koala_tensor *tensor,
                                const struct koala_dots *dots,
                                struct koala_tensor_report *report);

/**
 * The second half of a step of `count` tensors, with as many dots. `reports`, unless NULL, receives as many reports,
 * and `report`, unless NULL, the sum. Allocates nothing but what koala_step says. See koala_apply_tensor.
 */
koala_status koala_apply_tensors(const struct koala_step *step,
                                 const struct koala_tensor *tensors,
                                 size_t count,
                                 const struct koala_dots *dots,
                                 struct koala_tensor_report *reports,
                                 struct koala_report *report);

/**
 * Fills `config` with the defaults. `size` is sizeof(koala_config).
 */
koala_status koala_config_init(struct koala_config *config, size_t size);

/**
 * Finds out whether an optimizer can have this configuration, its method included. Makes none, and starts no thread.
 *
 * Returns KOALA_STATUS_SETTING for a number out of its range, and KOALA_STATUS_THREADS for too many threads;
 * koala_last_error names the number.
 */
koala_status koala_config_validate(const struct koala_config *config);

/**
 * Makes an optimizer without tensors. `config` may be NULL, for the defaults. `*optimizer` is the caller's to destroy.
 * Allocates.
 */
koala_status koala_optimizer_create(const struct koala_config *config, struct koala_optimizer **optimizer);

/**
 * Ends an optimizer, frees its memory, and joins its threads. NULL does nothing. The pointer is of no use afterwards.
 */
koala_status koala_optimizer_destroy(struct koala_optimizer *optimizer);

/**
 * Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers
 * from 0 on, in the order in which they are made. Allocates.
 */
koala_status koala_optimizer_add_group(struct koala_optimizer *optimizer,
                                       const struct koala_settings *settings,
                                       uint32_t *group);

/**
 * The settings of a group. Set `settings->size` before the call.
 */
koala_status koala_optimizer_settings(const struct koala_optimizer *optimizer,
                                      uint32_t group,
                                      struct koala_settings *settings);

/**
 * Changes the settings of a group from the next step on.
 */
koala_status koala_optimizer_set_settings(struct koala_optimizer *optimizer,
                                          uint32_t group,
                                          const struct koala_settings *settings);

/**
 * Changes the numbers of a group's method from the next step on: AdamW's betas can differ by group, for one. A new group
 * has the numbers of koala_config. Those of KOALA++ are in koala_settings instead.
 *
 * Returns KOALA_STATUS_METHOD for another kind than the optimizer's, for KOALA++, for KOALA-V and KOALA-M, whose numbers
 * all tensors share, and where tensors of the group have other state vectors than the method; KOALA_STATUS_SETTING for a
 * number out of its range.
 */
koala_status koala_optimizer_set_method(struct koala_optimizer *optimizer,
                                        uint32_t group,
                                        const struct koala_method *method);

/**
 * Changes the learning rate of a group from the next step on.
 */
koala_status koala_optimizer_set_learning_rate(struct koala_optimizer *optimizer, uint32_t group, double learning_rate);

/**
 * Makes a tensor of `length` parameters known, and allocates its state. `name` is copied; no two tensors have the
 * same. Tensors have the numbers from 0 on, in the order in which they are added; `number`, unless NULL, receives it.
 * A tensor may be added at any time. Allocates.
 */
koala_status koala_optimizer_add_tensor(struct koala_optimizer *optimizer,
                                        const char *name,
                                        size_t length,
                                        koala_element_type type,
                                        koala_state_type state_type,
                                        uint32_t group,
                                        size_t *number);

/**
 * How many tensors there are.
 */
koala_status koala_optimizer_tensor_count(const struct koala_optimizer *optimizer, size_t *count);

/**
 * The number of the tensor of that name.
 */
koala_status koala_optimizer_find_tensor(const struct koala_optimizer *optimizer, const char *name, size_t *number);

/**
 * Copies the name of a tensor, as koala_last_error copies its text.
 */
koala_status koala_optimizer_tensor_name(const struct koala_optimizer *optimizer,
                                         size_t tensor,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

/**
 * The scalars of a tensor's filter after the last step.
 */
koala_status koala_optimizer_scalars(const struct koala_optimizer *optimizer,
                                     size_t tensor,
                                     struct koala_scalars *scalars);

/**
 * Copies v and h of a tensor's filter, as they are stored: each to a buffer of exactly `bytes` bytes, the tensor's
 * length times the size of its state's type, or 0 where the method has no such vector. Either may be NULL, if it is
 * not wanted. Before the first step they are zero.
 *
 * Returns KOALA_STATUS_LENGTH if `bytes` is another number.
 */
koala_status koala_optimizer_state(const struct koala_optimizer *optimizer,
                                   size_t tensor,
                                   void *v,
                                   void *h,
                                   size_t bytes);

/**
 * Restarts the filter of a tensor: its next step will be a first step.
 */
koala_status koala_optimizer_restart(struct koala_optimizer *optimizer, size_t tensor);

/**
 * Changes what becomes of gradients as they are loaded, from the next step on: see koala_config's gradient_factor,
 * which is one over the factor that the loss was scaled by, and gradient_limit.
 */
koala_status koala_optimizer_set_scaling(struct koala_optimizer *optimizer, double factor, double limit);

/**
 * Changes how many threads a step uses, from the next one on: see koala_config's threads. The threads of before are
 * joined. Allocates.
 */
koala_status koala_optimizer_set_threads(struct koala_optimizer *optimizer, uint32_t count);

/**
 * R, as the last step used it.
 */
koala_status koala_optimizer_noise(const struct koala_optimizer *optimizer, double *noise);

/**
 * The method, with its shared numbers as they are after the last step; numbers of other kinds are zero. Set
 * `method->size` before the call.
 */
koala_status koala_optimizer_method(const struct koala_optimizer *optimizer, struct koala_method *method);

/**
 * The backend that an optimizer's steps run on: never KOALA_BACKEND_FASTEST.
 */
koala_status koala_optimizer_backend(const struct koala_optimizer *optimizer, koala_backend *backend);

/**
 * Has `function` called for every tensor whose filter restarts, or which is kept because something is not finite or
 * because of a breakdown. NULL: nothing is called any more, as at first.
 */
koala_status koala_optimizer_set_log(struct koala_optimizer *optimizer, koala_log function, void *context);

/**
 * Steps the given tensors, which may be some or all of the optimizer's, in any order, each once; with the order in
 * which they were added, finding them is cheapest. Allocates nothing, and uses no thread but the calling one unless
 * the optimizer was made with more.
 *
 * `reports`, unless NULL, receives `count` reports, in the order of the tensors; `report`, unless NULL, the sum.
 *
 * Returns KOALA_STATUS_SETTING if the loss's second moment is negative, KOALA_STATUS_NOT_PREDICTED if KOALA-M has not
 * predicted for this step, and what the optimizer's policies make an error.
 */
koala_status koala_optimizer_step(struct koala_optimizer *optimizer,
                                  const struct koala_loss *loss,
                                  const struct koala_parameters *tensors,
                                  size_t count,
                                  struct koala_tensor_report *reports,
                                  struct koala_report *report);

/**
 * KOALA-M's prediction, which has to precede each of its steps, before the gradient of that step is taken: the
 * parameters move by their velocities. Give the tensors of the step; their gradients are not looked at. Does nothing
 * for another method.
 */
koala_status koala_optimizer_predict(struct koala_optimizer *optimizer,
                                     const struct koala_parameters *tensors,
                                     size_t count);

/**
 * Saves all that the optimizer knows to the file of that path, from which koala_optimizer_load goes on with the bits
 * of a run that never stopped: on any backend, with any number of threads, and from any language that has this
 * library. The parameters are the caller's to save. Allocates.
 *
 * The file is written under another name beside its own, synchronized to the disk, and then renamed: if this process
 * is killed, or the power fails, the path leads to the old file or to the new one, each whole, and never to a part; a
 * file `.koala-*.tmp` may be left, which the next call with this path removes. Links are followed, and a file's
 * permissions kept; what is no regular file, such as a device or a FIFO, is not written to. The file is one of
 * safetensors, which Python and others read, and ends with a checksum.
 *
 * The path is bytes as the system takes them, in any encoding, ended by NUL; on Windows, UTF-8.
 *
 * Returns KOALA_STATUS_FILE if it cannot be written; then the path leads to what it led to before, unless all that
 * failed was to synchronize the folder after the renaming.
 */
koala_status koala_optimizer_save(const struct koala_optimizer *optimizer, const char *path);

/**
 * Loads what koala_optimizer_save has saved, or `Optimizer::save` in Rust: the state of each tensor, the settings of
 * each group, the method with its shared numbers, the noise and its rule, the policies, what becomes of gradients,
 * and the number of steps. Where the caller has set something else than the file has, the file wins: set what is to
 * be different afterwards. Backend, threads, norms and log stay the caller's.
 *
 * The optimizer needs to have the same tensors in the same groups, in any order: they are matched by name. `loaded`,
 * unless NULL, receives what was loaded. All of the file is read and verified before anything changes. Allocates as
 * many bytes as the file has, and a few times as many as its names and notes have.
 *
 * Returns KOALA_STATUS_FILE if the file cannot be read, or is no regular file; KOALA_STATUS_DAMAGED if it is no
 * checkpoint, was cut short, or its bytes have changed; KOALA_STATUS_NEWER if a later version of this library wrote
 * it in another format; and KOALA_STATUS_MISMATCH under KOALA_LOADING_EXACT, with a text of koala_last_error that
 * lists every tensor which is missing, extra, or of another length, type or group, however many they are.
 */
koala_status koala_optimizer_load(struct koala_optimizer *optimizer,
                                  const char *path,
                                  koala_loading loading,
                                  struct koala_loaded *loaded);

/**
 * Copies what the last koala_optimizer_load that succeeded did not load, as koala_last_error copies its text: a line
 * for each difference, such as `tensor "head" is only in the optimizer`, each ended by a newline. Empty if there was
 * none.
 */
koala_status koala_optimizer_differences(const struct koala_optimizer *optimizer,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

/**
 * Makes an optimizer without tensors on the device of that number, from 0. `config` may be NULL, for the defaults;
 * its `backend` and `threads` are not looked at. `group_bytes` is how many bytes of parameters, gradients and states
 * are worked on together. They should fit into a cache; 0 stands for half of the device's L2. The host waits.
 *
 * Returns KOALA_STATUS_ABSENT_DEVICE if there is no driver or no such device, which koala_last_error tells apart;
 * KOALA_STATUS_SETTING also for another method than KOALA++, for gradients that are to be clipped by their norm, and
 * for a policy that makes an error of what only the device knows: KOALA_ON_NON_FINITE_ERROR,
 * KOALA_ON_BREAKDOWN_ERROR.
 */
koala_status koala_cuda_create(const struct koala_config *config,
                               uint32_t device,
                               size_t group_bytes,
                               struct koala_cuda **optimizer);

/**
 * Waits for what it has put on streams, ends an optimizer, and frees its memory. NULL does nothing. The pointer is of
 * no use afterwards, nor is a graph in which a step was captured. Not to be called while a stream is being captured.
 */
koala_status koala_cuda_destroy(struct koala_cuda *optimizer);

/**
 * Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers
 * from 0 on, in the order in which they are made. The host waits.
 */
koala_status koala_cuda_add_group(struct koala_cuda *optimizer, const struct koala_settings *settings, uint32_t *group);

/**
 * Changes the settings of a group from the next step on, which writes them on its stream. A learning rate on the
 * device stays: see koala_cuda_set_device_learning_rate.
 */
koala_status koala_cuda_set_settings(struct koala_cuda *optimizer,
                                     uint32_t group,
                                     const struct koala_settings *settings);

/**
 * Changes the learning rate of a group from the next step on, which writes it on its stream.
 */
koala_status koala_cuda_set_learning_rate(struct koala_cuda *optimizer, uint32_t group, double learning_rate);

/**
 * Makes a tensor of `length` parameters known, at most 2^32. `name` is copied; no two tensors have the same. `state`
 * says where its filter is; NULL: it is allocated, for which the host waits. Tensors have the numbers from 0 on, in
 * the order in which they are added; `number`, unless NULL, receives it. A tensor may be added at any time.
 * Allocates.
 */
koala_status koala_cuda_add_tensor(struct koala_cuda *optimizer,
                                   const char *name,
                                   size_t length,
                                   koala_element_type type,
                                   koala_state_type state_type,
                                   uint32_t group,
                                   const struct koala_cuda_state *state,
                                   size_t *number);

/**
 * Restarts the filter of a tensor: its next step will be a first step.
 */
koala_status koala_cuda_restart(struct koala_cuda *optimizer, size_t tensor);

/**
 * Changes what becomes of gradients as they are loaded, from the next step on: see koala_config's gradient_factor and
 * gradient_limit. A step that was captured in a graph keeps what held then.
 */
koala_status koala_cuda_set_scaling(struct koala_cuda *optimizer, double factor, double limit);

/**
 * Has every step from the next one on read, when it runs, what a gradient scaler keeps on the device: addresses of an
 * element of `type` each, and NULL for what is not to be read any more.
 *
 * `scale` is what the loss that was differentiated was multiplied by: gradients are multiplied by the factor of
 * koala_cuda_set_scaling divided by it. The loss that a step is given is the one that was not multiplied. If the
 * quotient is no factor that koala_cuda_set_scaling takes, no gradient counts as finite. `found_infinite` is zero, or
 * the step does nothing, and counts every tensor as not finite. Both are read whenever a step runs, or a graph that
 * it was captured in while they were set.
 */
koala_status koala_cuda_set_device_scaler(struct koala_cuda *optimizer,
                                          koala_element_type type,
                                          const void *scale,
                                          const void *found_infinite);

/**
 * Has every step from the next one on read the learning rate of a group on the device, when it runs: an element of
 * `type` at that address. NULL, or koala_cuda_set_learning_rate, ends it; koala_cuda_set_settings does not. A rate
 * below zero, NaN or infinite keeps the group's tensors as they are, and counts them as not finite. As all settings,
 * the address is written by the next step that is not captured, or by koala_cuda_write_changes; the launches of a
 * graph read what is there.
 */
koala_status koala_cuda_set_device_learning_rate(struct koala_cuda *optimizer,
                                                 uint32_t group,
                                                 koala_element_type type,
                                                 const void *learning_rate);

/**
 * Puts a step of the given tensors on the stream: some or all of the optimizer's, in any order, each once. Their
 * buffers are on the device. The host does not wait if these are the tensors of the step before, whose gradients and
 * learning rates may be others; for other tensors it allocates, too.
 *
 * On a stream that is being captured, the step is captured, if its tensors were prepared or stepped before and no
 * settings or restarts are left to write. What was captured keeps the addresses of the call: parameters, gradients,
 * copies, states and a scaler's numbers have to stay where they are for as long as the graph is launched, and the
 * optimizer must not be destroyed. Other steps may be taken meanwhile, with any tensors and with gradients elsewhere.
 * A loss from the host stays what it was.
 *
 * Returns KOALA_STATUS_SETTING if the loss's second moment is negative, KOALA_STATUS_FOREIGN_DEVICE for a stream or a
 * buffer elsewhere, and KOALA_STATUS_DRIVER if the step cannot be captured; the capture goes on without it.
 */
koala_status koala_cuda_step(struct koala_cuda *optimizer,
                             void *stream,
                             const struct koala_loss *loss,
                             const struct koala_parameters *tensors,
                             size_t count);

/**
 * Puts a step on the stream as koala_cuda_step does, with a loss that only the device knows: `mean` and
 * `second_moment` are addresses there, of an element of `type` each. `second_moment` may be NULL with
 * KOALA_NOISE_FIXED. A second moment below zero is taken as one that is not finite. It is the step to be captured in
 * a graph: each launch reads the loss.
 */
koala_status koala_cuda_step_device_loss(struct koala_cuda *optimizer,
                                         void *stream,
                                         koala_element_type type,
                                         const void *mean,
                                         const void *second_moment,
                                         const struct koala_parameters *tensors,
                                         size_t count);

/**
 * Does all for a step of these tensors but the step: checks and describes them, allocates, and writes changed
 * settings. So the step after it can be captured in a graph, though none was taken before, and returns no error that
 * is about its tensors. The host waits, unless these are the tensors of the step before.
 */
koala_status koala_cuda_prepare(struct koala_cuda *optimizer,
                                void *stream,
                                const struct koala_parameters *tensors,
                                size_t count);

/**
 * Puts settings that have changed, and restarts, on the stream without a step. A step does it first, but for one that
 * is captured in a graph, or launched by it: so this comes before a capture, and before a launch for which settings
 * have changed. While the stream is being captured, it returns KOALA_STATUS_DRIVER if there is something to write.
 */
koala_status koala_cuda_write_changes(struct koala_cuda *optimizer, void *stream);

/**
 * What the last step on the stream did. Set `report->size` before the call. The host waits for it, so the stream must
 * not be one that is being captured.
 */
koala_status koala_cuda_report(const struct koala_cuda *optimizer, void *stream, struct koala_report *report);

/**
 * What the last step did with each of its `count` tensors, in the order in which they were given; if that was
 * captured, what the last launch of its graph did. The host waits for it. Allocates.
 *
 * Returns KOALA_STATUS_LENGTH if it had another number of tensors.
 */
koala_status koala_cuda_details(const struct koala_cuda *optimizer,
                                void *stream,
                                struct koala_tensor_report *reports,
                                size_t count);

/**
 * Copies the filter of a tensor to the host, as it is stored: v and h each to a buffer of exactly `bytes` bytes, the
 * tensor's length times the size of its state's type. Each of the three may be NULL, if it is not wanted. The host
 * waits.
 *
 * Returns KOALA_STATUS_LENGTH if `bytes` is another number. After KOALA_STATUS_DRIVER, v and h may have been written.
 */
koala_status koala_cuda_read_state(struct koala_cuda *optimizer,
                                   void *stream,
                                   size_t tensor,
                                   void *v,
                                   void *h,
                                   size_t bytes,
                                   struct koala_scalars *scalars);

/**
 * What has been asked of the device until now. Does not wait.
 */
koala_status koala_cuda_count(const struct koala_cuda *optimizer, struct koala_cuda_counts *counts);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KOALA_H */
