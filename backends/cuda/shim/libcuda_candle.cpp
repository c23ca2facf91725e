// The driver of our own, continued: what the framework candle needs to have tensors on one of its devices. These are
// the few of candle's kernels that the tests of its adapter use, each as a loop over the elements, and the libraries
// of the CUDA toolkit that it is linked with, as far as it calls them to open a device. .ci/candle-cuda.sh builds it.

#include "libcuda.h"

namespace {

// An argument of a kernel.
template <typename T> T argument(void **arguments, int place) { return *static_cast<T *>(arguments[place]); }

// Where an array has its elements: by a null pointer, one after the other, else by its lengths and strides.
struct Layout {
    std::size_t dimensions;
    const std::size_t *lengths, *strides;

    Layout(void **arguments, int place, int array = 0)
        : dimensions(argument<std::size_t>(arguments, place)),
          lengths(argument<const std::size_t *>(arguments, place + 1)),
          strides(lengths + dimensions * static_cast<std::size_t>(1 + array)) {}

    std::size_t operator()(std::size_t i) const {
        if (!lengths) return i;
        std::size_t found = 0;
        for (std::size_t d = dimensions; d-- > 0; i /= lengths[d]) found += i % lengths[d] * strides[d];
        return found;
    }
};

template <typename From, typename To, typename Function>
void each(void **arguments, int from, int to, Function function) {
    const Layout layout(arguments, 1);
    const auto *in = argument<const From *>(arguments, from);
    auto *out = argument<To *>(arguments, to);
    for (std::size_t i = 0; i < argument<std::size_t>(arguments, 0); ++i) out[i] = function(in[layout(i)]);
}

template <typename T> void copy(void **arguments) {
    each<T, T>(arguments, 3, 4, [](T x) { return x; });
}

template <typename T> void square(void **arguments) {
    each<T, T>(arguments, 3, 4, [](T x) { return x * x; });
}

template <typename T> void to_double(void **arguments) {
    each<T, double>(arguments, 3, 4, [](T x) { return static_cast<double>(x); });
}

template <typename T> void affine(void **arguments) {
    const T factor = argument<T>(arguments, 5), term = argument<T>(arguments, 6);
    each<T, T>(arguments, 3, 4, [=](T x) { return x * factor + term; });
}

template <typename T> void set(void **arguments) {
    const Layout layout(arguments, 1);
    for (std::size_t i = 0; i < argument<std::size_t>(arguments, 0); ++i)
        argument<T *>(arguments, 4)[layout(i)] = argument<T>(arguments, 3);
}

template <typename T, typename Function> void pairs(void **arguments, Function function) {
    const Layout left(arguments, 1, 0), right(arguments, 1, 1);
    const auto *x = argument<const T *>(arguments, 3), *y = argument<const T *>(arguments, 4);
    for (std::size_t i = 0; i < argument<std::size_t>(arguments, 0); ++i)
        argument<T *>(arguments, 5)[i] = function(x[left(i)], y[right(i)]);
}

template <typename T> void sum(void **arguments) {
    pairs<T>(arguments, [](T x, T y) { return x + y; });
}

template <typename T> void product(void **arguments) {
    pairs<T>(arguments, [](T x, T y) { return x * y; });
}

// So many sums, of so many elements each.
template <typename T> void sums(void **arguments, std::size_t count) {
    const Layout layout(arguments, 2);
    const auto terms = argument<std::size_t>(arguments, 1);
    for (std::size_t i = 0; i < count; ++i) {
        T total = 0;
        for (std::size_t j = 0; j < terms; ++j) total += argument<const T *>(arguments, 4)[layout(i * terms + j)];
        argument<T *>(arguments, 5)[i] = total;
    }
}

// Told how many results, and how many elements.
template <typename T> void short_sums(void **arguments) { sums<T>(arguments, argument<std::size_t>(arguments, 0)); }
template <typename T> void long_sums(void **arguments) {
    sums<T>(arguments, argument<std::size_t>(arguments, 0) / argument<std::size_t>(arguments, 1));
}

template <typename T> void add_kernels(const std::string &type) {
    kernels["ucopy_" + type] = copy<T>;
    kernels["usqr_" + type] = square<T>;
    kernels["cast_" + type + "_f64"] = to_double<T>;
    kernels["affine_" + type] = affine<T>;
    kernels["const_set_" + type] = set<T>;
    kernels["badd_" + type] = sum<T>;
    kernels["bmul_" + type] = product<T>;
    kernels["fast_sum_small_" + type] = short_sums<T>;
    kernels["fast_sum_" + type] = long_sums<T>;
}

const bool added = [] {
    add_kernels<float>("f32");
    add_kernels<double>("f64");
    kernels["ucopy_bf16"] = kernels["ucopy_f16"] = copy<std::uint16_t>;
    return true;
}();

int opened;

}  // namespace

extern "C" {

int curandCreateGenerator(void **generator, int) {
    *generator = &opened;
    return SUCCESS;
}
int curandSetStream(void *, void *) { return SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return SUCCESS; }
int curandDestroyGenerator(void *) { return SUCCESS; }

int cublasCreate_v2(void **handle) {
    *handle = &opened;
    return SUCCESS;
}
int cublasSetStream_v2(void *, void *) { return SUCCESS; }
int cublasDestroy_v2(void *) { return SUCCESS; }

int cuGetErrorString(int, const char **text) {
    *text = "an error of the stub";
    return SUCCESS;
}

// What a program with candle is linked with, and no test calls.
int cublasDgemmStridedBatched() { return mistake(INVALID_VALUE); }
int cublasGemmStridedBatchedEx() { return mistake(INVALID_VALUE); }
int cuMemcpyPeerAsync() { return mistake(INVALID_VALUE); }
int cuModuleLoad() { return mistake(INVALID_VALUE); }

}  // extern "C"
