//! The AVX-512 backend: 512-bit vectors, a whole row of f32 at once (Skylake-X, Ice Lake, Zen 4 and later).

use core::arch::x86_64::{__m256i, __m512, __m512d, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT};

use half::{bf16, f16};

use super::{columns, vectorize};
use crate::simd::vector::{InstructionSet, Lanes, Vector};
use crate::types::contract::LANES;

pulp::simd_type! {
    pub struct Features {
        pub sse2: "sse2",
        pub avx: "avx",
        pub avx512f: "avx512f",
        pub avx512dq: "avx512dq",
    }
}

/// The proof that the processor has AVX-512 F and DQ.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(Features);

impl Avx512 {
    pub fn new() -> Option<Self> {
        Features::try_new().map(Self)
    }
}

impl Vector<f32> for Avx512 {
    columns!(f32, __m512, 16);

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        self.0.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_div_ps(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        self.0.avx512f._mm512_sqrt_ps(a)
    }

    #[inline(always)]
    fn load_part(self, part: &[f32], row: &mut [f32; LANES]) {
        let mask = ((1_u32 << part.len().min(15)) - 1) as u16;
        // SAFETY: the mask has as many bits as the slice has elements; what it leaves out is not read.
        *row = pulp::cast(unsafe { self.0.avx512f._mm512_maskz_loadu_ps(mask, part.as_ptr()) });
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: __m512) {
        let avx512 = self.0.avx512f;
        let lower = avx512._mm512_cvtps_pd(avx512._mm512_castps512_ps256(value));
        let upper = avx512._mm512_cvtps_pd(self.0.avx512dq._mm512_extractf32x8_ps::<1>(value));
        Vector::<f64>::widen_add(self, lanes, 2 * column, lower);
        Vector::<f64>::widen_add(self, lanes, 2 * column + 1, upper);
    }

    #[inline(always)]
    fn sum(self, lanes: &Lanes) -> f64 {
        Vector::<f64>::sum(self, lanes)
    }

    #[inline(always)]
    fn load_bf16(self, row: &[bf16; LANES], _column: usize) -> __m512 {
        let avx512 = self.0.avx512f;
        let halves: __m256i = pulp::cast(*row);
        avx512._mm512_castsi512_ps(avx512._mm512_slli_epi32::<16>(avx512._mm512_cvtepu16_epi32(halves)))
    }

    // Not by AVX-512 BF16's own conversion, which turns denormals into zero.
    #[inline(always)]
    fn store_bf16(self, row: &mut [bf16; LANES], _column: usize, value: __m512) {
        let avx512 = self.0.avx512f;
        let bits = avx512._mm512_castps_si512(value);
        let upper = avx512._mm512_srli_epi32::<16>(bits);
        // To nearest, ties to even: the carry out of the lower half rounds the upper one.
        let odd = avx512._mm512_and_si512(upper, avx512._mm512_set1_epi32(1));
        let bias = avx512._mm512_add_epi32(avx512._mm512_set1_epi32(0x7fff), odd);
        let rounded = avx512._mm512_srli_epi32::<16>(avx512._mm512_add_epi32(bits, bias));
        // A NaN must not be carried into a number.
        let quiet = avx512._mm512_or_si512(upper, avx512._mm512_set1_epi32(0x40));
        let is_nan = avx512._mm512_cmpunord_ps_mask(value, value);
        let words = avx512._mm512_mask_blend_epi32(is_nan, rounded, quiet);
        *row = pulp::cast(avx512._mm512_cvtepi32_epi16(words));
    }

    #[inline(always)]
    fn load_f16(self, row: &[f16; LANES], _column: usize) -> __m512 {
        self.0.avx512f._mm512_cvtph_ps(pulp::cast(*row))
    }

    #[inline(always)]
    fn store_f16(self, row: &mut [f16; LANES], _column: usize, value: __m512) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        *row = pulp::cast(self.0.avx512f._mm512_cvtps_ph::<NEAREST>(value));
    }
}

impl Vector<f64> for Avx512 {
    columns!(f64, __m512d, 8);

    #[inline(always)]
    fn splat(self, value: f64) -> __m512d {
        self.0.avx512f._mm512_set1_pd(value)
    }

    #[inline(always)]
    fn add(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_add_pd(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_sub_pd(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_mul_pd(a, b)
    }

    #[inline(always)]
    fn div(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_div_pd(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: __m512d) -> __m512d {
        self.0.avx512f._mm512_sqrt_pd(a)
    }

    #[inline(always)]
    fn load_part(self, part: &[f64], row: &mut [f64; LANES]) {
        let mask = (1_u32 << part.len().min(15)) - 1;
        let (lower, upper) = part.split_at(part.len().min(8));
        let avx512 = self.0.avx512f;
        // SAFETY: each mask has as many bits as its half has elements; what it leaves out is not read.
        let halves = unsafe {
            [
                avx512._mm512_maskz_loadu_pd(mask as u8, lower.as_ptr()),
                avx512._mm512_maskz_loadu_pd((mask >> 8) as u8, upper.as_ptr()),
            ]
        };
        *row = pulp::cast(halves);
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: __m512d) {
        let lanes = &mut lanes.0.as_chunks_mut::<8>().0[column];
        *lanes = pulp::cast(self.0.avx512f._mm512_add_pd(pulp::cast(*lanes), value));
    }

    #[inline(always)]
    fn sum(self, lanes: &Lanes) -> f64 {
        let Features { sse2, avx, avx512f, .. } = self.0;
        let [a, b] = pulp::cast::<[f64; LANES], [__m512d; 2]>(lanes.0);
        let eight = avx512f._mm512_add_pd(a, b);
        let upper = avx512f._mm512_extractf64x4_pd::<1>(eight);
        let four = avx._mm256_add_pd(avx512f._mm512_castpd512_pd256(eight), upper);
        let pair = sse2._mm_add_pd(avx._mm256_castpd256_pd128(four), avx._mm256_extractf128_pd::<1>(four));
        sse2._mm_cvtsd_f64(sse2._mm_add_sd(pair, sse2._mm_unpackhi_pd(pair, pair)))
    }
}

impl InstructionSet for Avx512 {
    vectorize!();
}
