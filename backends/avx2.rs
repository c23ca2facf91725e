//! The AVX2 backend: 256-bit vectors on x86-64 processors since about 2013 (Haswell, Zen).

use core::arch::x86_64::{__m128i, __m256, __m256d, __m256i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT};
use core::arch::x86_64::{_mm256_cvtph_ps, _mm256_cvtps_ph};

use half::{bf16, f16};

use super::{columns, vectorize};
use crate::simd::vector::{InstructionSet, Lanes, Vector};
use crate::types::contract::LANES;

pulp::simd_type! {
    pub struct Features {
        pub sse2: "sse2",
        pub avx: "avx",
        pub avx2: "avx2",
        pub f16c: "f16c",
    }
}

/// The proof that the processor has AVX2 and F16C (every processor that has the one has the other).
#[derive(Clone, Copy, Debug)]
pub struct Avx2(Features);

impl Avx2 {
    pub fn new() -> Option<Self> {
        Features::try_new().map(Self)
    }
}

impl Vector<f32> for Avx2 {
    columns!(f32, __m256, 8);

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        self.0.avx._mm256_set1_ps(value)
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        self.0.avx._mm256_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        self.0.avx._mm256_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        self.0.avx._mm256_mul_ps(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        self.0.avx._mm256_div_ps(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        self.0.avx._mm256_sqrt_ps(a)
    }

    #[inline(always)]
    fn load_part(self, part: &[f32], row: &mut [f32; LANES]) {
        let (avx, avx2) = (self.0.avx, self.0.avx2);
        let (lower, upper) = part.split_at(part.len().min(8));
        *row = pulp::cast([lower, upper].map(|half| {
            let length = avx._mm256_set1_epi32(half.len().min(8) as i32);
            let mask = avx2._mm256_cmpgt_epi32(length, pulp::cast([0, 1, 2, 3, 4, 5, 6, 7]));
            // SAFETY: the mask has as many ones as the slice has elements; what it leaves out is not read.
            unsafe { avx._mm256_maskload_ps(half.as_ptr(), mask) }
        }));
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: __m256) {
        let avx = self.0.avx;
        let lower = avx._mm256_cvtps_pd(avx._mm256_castps256_ps128(value));
        let upper = avx._mm256_cvtps_pd(avx._mm256_extractf128_ps::<1>(value));
        Vector::<f64>::widen_add(self, lanes, 2 * column, lower);
        Vector::<f64>::widen_add(self, lanes, 2 * column + 1, upper);
    }

    #[inline(always)]
    fn sum(self, lanes: &Lanes) -> f64 {
        Vector::<f64>::sum(self, lanes)
    }

    #[inline(always)]
    fn load_bf16(self, row: &[bf16; LANES], column: usize) -> __m256 {
        let (avx, avx2) = (self.0.avx, self.0.avx2);
        let halves: __m128i = pulp::cast(row.as_chunks::<8>().0[column]);
        avx._mm256_castsi256_ps(avx2._mm256_slli_epi32::<16>(avx2._mm256_cvtepu16_epi32(halves)))
    }

    #[inline(always)]
    fn store_bf16(self, row: &mut [bf16; LANES], column: usize, value: __m256) {
        let (avx, avx2) = (self.0.avx, self.0.avx2);
        let bits = avx._mm256_castps_si256(value);
        let upper = avx2._mm256_srli_epi32::<16>(bits);
        // To nearest, ties to even: the carry out of the lower half rounds the upper one.
        let bias = avx2
            ._mm256_add_epi32(avx._mm256_set1_epi32(0x7fff), avx2._mm256_and_si256(upper, avx._mm256_set1_epi32(1)));
        let rounded = avx2._mm256_srli_epi32::<16>(avx2._mm256_add_epi32(bits, bias));
        // A NaN must not be carried into a number.
        let quiet = avx2._mm256_or_si256(upper, avx._mm256_set1_epi32(0x40));
        let is_nan = avx._mm256_castps_si256(avx._mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let words: __m256i = avx2._mm256_blendv_epi8(rounded, quiet, is_nan);
        let packed = avx2._mm256_permute4x64_epi64::<0b1000>(avx2._mm256_packus_epi32(words, words));
        row.as_chunks_mut::<8>().0[column] = pulp::cast(avx._mm256_castsi256_si128(packed));
    }

    #[inline(always)]
    fn load_f16(self, row: &[f16; LANES], column: usize) -> __m256 {
        let halves: __m128i = pulp::cast(row.as_chunks::<8>().0[column]);
        // SAFETY: `Features` proves that the processor has F16C.
        unsafe { _mm256_cvtph_ps(halves) }
    }

    #[inline(always)]
    fn store_f16(self, row: &mut [f16; LANES], column: usize, value: __m256) {
        // SAFETY: `Features` proves that the processor has F16C.
        let halves = unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value) };
        row.as_chunks_mut::<8>().0[column] = pulp::cast(halves);
    }
}

impl Vector<f64> for Avx2 {
    columns!(f64, __m256d, 4);

    #[inline(always)]
    fn splat(self, value: f64) -> __m256d {
        self.0.avx._mm256_set1_pd(value)
    }

    #[inline(always)]
    fn add(self, a: __m256d, b: __m256d) -> __m256d {
        self.0.avx._mm256_add_pd(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m256d, b: __m256d) -> __m256d {
        self.0.avx._mm256_sub_pd(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m256d, b: __m256d) -> __m256d {
        self.0.avx._mm256_mul_pd(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m256d, b: __m256d) -> __m256d {
        self.0.avx._mm256_div_pd(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: __m256d) -> __m256d {
        self.0.avx._mm256_sqrt_pd(a)
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: __m256d) {
        let lanes = &mut lanes.0.as_chunks_mut::<4>().0[column];
        *lanes = pulp::cast(self.0.avx._mm256_add_pd(pulp::cast(*lanes), value));
    }

    #[inline(always)]
    fn sum(self, lanes: &Lanes) -> f64 {
        let avx = self.0.avx;
        let [a, b, c, d] = pulp::cast::<[f64; LANES], [__m256d; 4]>(lanes.0);
        sum_of_four(self.0, avx._mm256_add_pd(avx._mm256_add_pd(a, c), avx._mm256_add_pd(b, d)))
    }
}

/// (0 + 2) + (1 + 3): the last two levels of the contract's tree over lanes.
#[inline(always)]
fn sum_of_four(features: Features, lanes: __m256d) -> f64 {
    let Features { sse2, avx, .. } = features;
    let pair = sse2._mm_add_pd(avx._mm256_castpd256_pd128(lanes), avx._mm256_extractf128_pd::<1>(lanes));
    sse2._mm_cvtsd_f64(sse2._mm_add_sd(pair, sse2._mm_unpackhi_pd(pair, pair)))
}

impl InstructionSet for Avx2 {
    vectorize!();
}
