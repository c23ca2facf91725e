/* A tensor in the memory of an NVIDIA GPU takes one step; or, where there is none, the text of what is missing.
 * Compile it with: cc cuda.c $(pkg-config --cflags --libs koala)
 *
 * Memory of the GPU comes from the driver, some functions of which are found here by their names, so that nothing of
 * CUDA is needed to compile this. With cuda_runtime.h it would be cudaMalloc and cudaMemcpy. */
#include <dlfcn.h>
#include <koala.h>
#include <stdio.h>

typedef unsigned long long device_pointer;

static int (*retain)(void **context, int device);
static int (*push)(void *context);
static int (*allocate)(device_pointer *memory, size_t bytes);
static int (*upload)(device_pointer to, const void *from, size_t bytes, void *stream);
static int (*download)(void *to, device_pointer from, size_t bytes, void *stream);
static int (*synchronize)(void *stream);
static int (*give_back)(device_pointer memory);

static int failed(const char *what) {
  char error[256];
  koala_last_error(error, sizeof error, NULL);
  fprintf(stderr, "%s: %s\n", what, error);
  return 1;
}

int main(void) {
  koala_cuda *optimizer = NULL;
  if (koala_cuda_create(NULL, 0, 0, &optimizer) != KOALA_STATUS_OK) {
    char missing[256];
    koala_last_error(missing, sizeof missing, NULL);
    printf("nothing was stepped: %s\n", missing);
    return 0;
  }
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (driver == NULL) return failed("libcuda.so.1");
  *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
  *(void **)&push = dlsym(driver, "cuCtxPushCurrent_v2");
  *(void **)&allocate = dlsym(driver, "cuMemAlloc_v2");
  *(void **)&upload = dlsym(driver, "cuMemcpyHtoDAsync_v2");
  *(void **)&download = dlsym(driver, "cuMemcpyDtoHAsync_v2");
  *(void **)&synchronize = dlsym(driver, "cuStreamSynchronize");
  *(void **)&give_back = dlsym(driver, "cuMemFree_v2");

  float weight[3] = {1, -2, 3}, gradient[3] = {0.1f, 0.2f, -0.3f};
  device_pointer on_device[2];
  void *context, *stream = NULL;
  if (retain(&context, 0) != 0 || push(context) != 0 || allocate(&on_device[0], sizeof weight) != 0 ||
      allocate(&on_device[1], sizeof gradient) != 0 || upload(on_device[0], weight, sizeof weight, stream) != 0 ||
      upload(on_device[1], gradient, sizeof gradient, stream) != 0 || synchronize(stream) != 0) {
    return failed("the driver");
  }

  uint32_t group = 0;
  koala_loss loss = {.mean = 0.7, .second_moment = 0.53};
  koala_parameters tensor = {.size = sizeof tensor, .length = 3, .parameters = (void *)on_device[0],
                             .gradient = (void *)on_device[1]};
  if (koala_cuda_add_group(optimizer, NULL, &group) != KOALA_STATUS_OK ||
      koala_cuda_add_tensor(optimizer, "weight", 3, KOALA_ELEMENT_TYPE_F32, KOALA_STATE_TYPE_SAME, group, NULL, NULL) !=
          KOALA_STATUS_OK ||
      koala_cuda_step(optimizer, stream, &loss, &tensor, 1) != KOALA_STATUS_OK) {
    return failed("the step");
  }
  if (download(weight, on_device[0], sizeof weight, stream) != 0) return failed("the driver");
  if (synchronize(stream) != 0) return failed("the driver");
  if (give_back(on_device[0]) != 0 || give_back(on_device[1]) != 0) return failed("the driver");
  printf("cuda: %g %g %g\n", weight[0], weight[1], weight[2]);
  return koala_cuda_destroy(optimizer);
}
