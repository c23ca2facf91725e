// A CUDA driver whose devices are this processor, for tests of device.rs: the functions that it calls, as NVIDIA's manual
// describes them, over the shim. What a real driver would refuse is refused, or counted as a mistake.
//
// Built by tests and by .ci/cuda.sh, with the shared object's name libcuda.so, so that it is found where the real one
// would be.

#include <cstdlib>
#include <cstring>
#include <string>

#include "libcuda.h"

extern "C" int koala_shim_launch(unsigned number, unsigned blocks, const void *argument);
extern "C" std::size_t koala_shim_argument_bytes(unsigned number);

namespace {

enum Attribute { L2_CACHE_SIZE = 38, MAJOR = 75, MINOR = 76, MEMORY_POOLS_SUPPORTED = 115 };
enum PointerAttribute { MEMORY_TYPE = 2, IS_MANAGED = 8, DEVICE_ORDINAL = 9 };

std::map<unsigned long long, std::size_t> allocations;
const char *const functions[] = {"koala_dots", "koala_recursion", "koala_update", "koala_change"};
int function_handles[4], module_handle;

// The allocation that has the address; null if none does.
const std::pair<const unsigned long long, std::size_t> *allocation_at(unsigned long long address) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return nullptr;
    const auto &found = *--after;
    return address < found.first + found.second ? &found : nullptr;
}

}  // namespace

bool within(unsigned long long address, std::size_t bytes) {
    const auto *found = allocation_at(address);
    return found && address + bytes <= found->first + found->second;
}

extern "C" {

// For the tests.
void stub_set(int devices, int version, int major, std::size_t memory) {
    machine.devices = devices;
    machine.version = version;
    machine.major = major;
    machine.memory = memory;
}
// From now on the memory of the process passes for the devices'.
void stub_take_host_memory() { machine.host_is_device = true; }
int stub_mistakes() { return machine.mistakes; }
int stub_held() {
    return machine.modules + static_cast<int>(allocations.size() + stack.size()) + contexts[0].retained +
           contexts[1].retained;
}
int stub_synchronizations() { return machine.synchronizations; }
void *stub_stream(int device) {
    static Stream streams[] = {{&contexts[0], nullptr}, {&contexts[1], nullptr}};
    return &streams[device];
}

int cuInit(unsigned flags) {
    if (machine.devices == 0) return NO_DEVICE;
    initialized = flags == 0;
    return initialized ? SUCCESS : INVALID_VALUE;
}

int cuDriverGetVersion(int *version) {
    *version = machine.version;
    return SUCCESS;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR_OF_THE_STUB";
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    if (!initialized) return mistake(INVALID_VALUE);
    *count = machine.devices;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    if (!initialized || ordinal < 0 || ordinal >= machine.devices) return mistake(INVALID_DEVICE);
    *device = ordinal;
    return SUCCESS;
}

// Benchmarks tell by it that what they measure is no GPU's.
int cuDeviceGetName(char *name, int length, int) {
    std::strncpy(name, "the stub driver, not a GPU", static_cast<std::size_t>(length));
    return SUCCESS;
}

int cuDeviceTotalMem_v2(std::size_t *bytes, int) {
    *bytes = machine.memory;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
    if (attribute == L2_CACHE_SIZE) *value = 4096;
    else if (attribute == MAJOR) *value = machine.major;
    else if (attribute == MINOR) *value = 0;
    else if (attribute == MEMORY_POOLS_SUPPORTED) *value = 1;
    else return mistake(INVALID_VALUE);
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Context **context, int device) {
    contexts[device].retained += 1;
    *context = &contexts[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    if (contexts[device].retained == 0) return mistake(INVALID_CONTEXT);
    contexts[device].retained -= 1;
    return SUCCESS;
}

int cuCtxPushCurrent_v2(Context *context) {
    if (context->retained == 0) return mistake(INVALID_CONTEXT);
    stack.push_back(context);
    return SUCCESS;
}

int cuCtxPopCurrent_v2(Context **context) {
    if (stack.empty()) return mistake(INVALID_CONTEXT);
    *context = stack.back();
    stack.pop_back();
    return SUCCESS;
}

int cuCtxSynchronize() {
    if (spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    machine.synchronizations += 1;
    return ready() ? SUCCESS : mistake(INVALID_CONTEXT);
}

int cuModuleLoadData(void **module, const void *image) {
    if (!ready()) return mistake(INVALID_CONTEXT);
    if (std::string(static_cast<const char *>(image)).find(".target sm_80") == std::string::npos) return INVALID_PTX;
    machine.modules += 1;
    *module = &module_handle;
    return SUCCESS;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    if (!ready() || module != &module_handle) return mistake(INVALID_VALUE);
    for (int i = 0; i < 4; ++i)
        if (std::strcmp(name, functions[i]) == 0) {
            *function = &function_handles[i];
            return SUCCESS;
        }
    if (const auto found = kernels.find(name); found != kernels.end()) {
        *function = &found->second;
        return SUCCESS;
    }
    return mistake(NOT_FOUND);
}

int cuModuleUnload(void *module) {
    if (!ready() || module != &module_handle) return mistake(INVALID_VALUE);
    machine.modules -= 1;
    return SUCCESS;
}

int cuMemAlloc_v2(unsigned long long *address, std::size_t bytes) {
    if (spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    if (!ready() || bytes == 0) return mistake(INVALID_VALUE);
    if (bytes > machine.memory) return OUT_OF_MEMORY;
    void *memory = std::malloc(bytes);
    std::memset(memory, 0xff, bytes);
    *address = reinterpret_cast<unsigned long long>(memory);
    allocations[*address] = bytes;
    machine.memory -= bytes;
    return SUCCESS;
}

int cuMemFree_v2(unsigned long long address) {
    if (spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    if (!ready() || !allocations.count(address)) return mistake(INVALID_VALUE);
    machine.memory += allocations[address];
    allocations.erase(address);
    std::free(reinterpret_cast<void *>(address));
    return SUCCESS;
}

int cuMemAllocAsync(unsigned long long *address, std::size_t bytes, void *stream) {
    if (!ready(stream) || is_captured(stream)) return mistake(INVALID_CONTEXT);
    // No bytes, which candle asks for, have an address of their own.
    return cuMemAlloc_v2(address, bytes == 0 ? 1 : bytes);
}

int cuMemFreeAsync(unsigned long long address, void *stream) {
    return ready(stream) && !is_captured(stream) ? cuMemFree_v2(address) : mistake(INVALID_CONTEXT);
}

int cuMemsetD8Async(unsigned long long address, unsigned char value, std::size_t bytes, void *stream) {
    if (is_captured(stream) && spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    if (!ready(stream) || !within(address, bytes)) return mistake(INVALID_VALUE);
    std::memset(reinterpret_cast<void *>(address), value, bytes);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, std::size_t bytes, void *stream) {
    if (is_captured(stream) && spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    if (!ready(stream) || !within(to, bytes)) return mistake(INVALID_VALUE);
    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, std::size_t bytes, void *stream) {
    if (is_captured(stream) && spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    if (!ready(stream) || !within(from, bytes)) return mistake(INVALID_VALUE);
    std::memcpy(to, reinterpret_cast<void *>(from), bytes);
    return SUCCESS;
}

int cuStreamSynchronize(void *stream) {
    if (is_captured(stream) && spoils_captures()) return mistake(CAPTURE_UNSUPPORTED);
    machine.synchronizations += 1;
    return ready(stream) ? SUCCESS : mistake(INVALID_CONTEXT);
}

int cuStreamGetCtx(void *stream, Context **context) {
    if (!ready()) return mistake(INVALID_CONTEXT);
    *context = made(stream) ? made(stream)->context : current();
    return SUCCESS;
}

int cuStreamIsCapturing(void *stream, int *status) {
    if (!ready(stream)) return mistake(INVALID_CONTEXT);
    const Graph *graph = made(stream) ? made(stream)->captured : nullptr;
    *status = graph ? 1 + graph->spoilt : 0;
    return SUCCESS;
}

int cuPointerGetAttribute(void *value, int attribute, unsigned long long address) {
    if (!ready()) return mistake(INVALID_CONTEXT);
    if (!machine.host_is_device && !allocation_at(address)) return INVALID_VALUE;
    if (attribute == MEMORY_TYPE) *static_cast<unsigned *>(value) = 2;  // a device's
    // One byte, whatever room there is.
    else if (attribute == IS_MANAGED) *static_cast<bool *>(value) = false;
    else if (attribute == DEVICE_ORDINAL) *static_cast<int *>(value) = current()->device;
    else return mistake(INVALID_VALUE);
    return SUCCESS;
}

int cuLaunchKernel(void *handle, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared_bytes, void *stream, void **arguments, void **extra) {
    for (const auto &[name, kernel] : kernels)
        if (handle == &kernel) {
            if (!ready(stream) || is_captured(stream) || extra) return mistake(INVALID_VALUE);
            kernel(arguments);
            return SUCCESS;
        }
    const long number = static_cast<int *>(handle) - function_handles;
    if (!ready(stream) || number < 0 || number > 3 || x == 0 || y != 1 || z != 1 || threads_y != 1 || threads_z != 1)
        return mistake(INVALID_VALUE);
    if (shared_bytes != 0 || extra || threads != 128) return mistake(INVALID_VALUE);
    const auto *argument = static_cast<const char *>(arguments[0]);
    const auto kernel = static_cast<unsigned>(number);
    return run(stream, [kernel, x, copy = std::string(argument, koala_shim_argument_bytes(kernel))] {
        return koala_shim_launch(kernel, x, copy.data()) == 0 ? SUCCESS : mistake(INVALID_VALUE);
    });
}

}  // extern "C"
