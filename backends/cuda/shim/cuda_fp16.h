// What kernels.cu needs of CUDA, in host C++: qualifiers, intrinsics with the same rounding, and a scheduler of threads
// under which barriers and shuffles do what they do on a GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(threads)
// One thread block runs at a time. What is shared is in a section of its own, so that it can be spoilt before each.
#define __shared__ static __attribute__((section("shared_memory")))

struct Index { unsigned x; };
extern Index threadIdx, blockIdx;

// Waits until every thread of the block has come here.
void __syncthreads();
// Exchanges values within a segment of the warp; every thread of the warp takes part.
double __shfl_down_sync(unsigned mask, double value, unsigned distance, unsigned width);

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

template <typename To, typename From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float a) { return same_bits<unsigned>(a); }
inline float __uint_as_float(unsigned a) { return same_bits<float>(a); }
inline double __longlong_as_double(long long a) { return same_bits<double>(a); }
using std::fabs;
using std::fmin;

inline unsigned atomicAdd(unsigned *place, unsigned value) { return __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST); }

struct __half { std::uint16_t bits; };
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half half) { return half.bits; }

inline float __half2float(__half half) {
    const int exponent = half.bits >> 10 & 31, mantissa = half.bits & 1023;
    const float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                            : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                            : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    return half.bits >> 15 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float value) {
    const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float magnitude = std::fabs(value);
    if (value != value) return {static_cast<std::uint16_t>(sign | 0x7e00)};
    // From the middle between the largest finite number and the next on.
    if (magnitude >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7c00)};
    // The exponent of the last place: 2^-24 below the normal numbers. rint rounds to nearest, ties to even.
    int exponent = 0;
    std::frexp(magnitude, &exponent);
    const int last_place = magnitude < 6.103515625e-5f ? -24 : exponent - 11;
    const int digits = static_cast<int>(std::rint(std::ldexp(magnitude, -last_place)));
    // Without the hidden bit; a carry out of the digits is one into the exponent.
    const int bits = last_place == -24 && digits < 2048 ? digits : ((last_place + 25) << 10) + digits - 1024;
    return {static_cast<std::uint16_t>(sign | bits)};
}
