//! The NEON backend: 128-bit vectors on every 64-bit Arm processor. f16 is converted by `half`, element by element.

use core::arch::aarch64::{float32x4_t, float64x2_t, uint16x4_t};

use half::bf16;

use super::{columns, vectorize};
use crate::simd::vector::{InstructionSet, Lanes, Vector};
use crate::types::contract::LANES;

/// The proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(pulp::aarch64::Neon);

impl Neon {
    pub fn new() -> Option<Self> {
        pulp::aarch64::Neon::try_new().map(Self)
    }
}

impl Vector<f32> for Neon {
    columns!(f32, float32x4_t, 4);

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        self.0.neon.vdupq_n_f32(value)
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.0.neon.vaddq_f32(a, b)
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.0.neon.vsubq_f32(a, b)
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.0.neon.vmulq_f32(a, b)
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.0.neon.vdivq_f32(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        self.0.neon.vsqrtq_f32(a)
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: float32x4_t) {
        let neon = self.0.neon;
        let lower = neon.vcvt_f64_f32(neon.vget_low_f32(value));
        let upper = neon.vcvt_high_f64_f32(value);
        Vector::<f64>::widen_add(self, lanes, 2 * column, lower);
        Vector::<f64>::widen_add(self, lanes, 2 * column + 1, upper);
    }

    #[inline(always)]
    fn load_bf16(self, row: &[bf16; LANES], column: usize) -> float32x4_t {
        let neon = self.0.neon;
        let halves: uint16x4_t = pulp::cast(row.as_chunks::<4>().0[column]);
        neon.vreinterpretq_f32_u32(neon.vshll_n_u16::<16>(halves))
    }

    #[inline(always)]
    fn store_bf16(self, row: &mut [bf16; LANES], column: usize, value: float32x4_t) {
        let neon = self.0.neon;
        let bits = neon.vreinterpretq_u32_f32(value);
        let upper = neon.vshrq_n_u32::<16>(bits);
        // To nearest, ties to even: the carry out of the lower half rounds the upper one.
        let bias = neon.vaddq_u32(neon.vdupq_n_u32(0x7fff), neon.vandq_u32(upper, neon.vdupq_n_u32(1)));
        let rounded = neon.vshrq_n_u32::<16>(neon.vaddq_u32(bits, bias));
        // A NaN must not be carried into a number.
        let quiet = neon.vorrq_u32(upper, neon.vdupq_n_u32(0x40));
        let words = neon.vbslq_u32(neon.vceqq_f32(value, value), rounded, quiet);
        row.as_chunks_mut::<4>().0[column] = pulp::cast(neon.vmovn_u32(words));
    }
}

impl Vector<f64> for Neon {
    columns!(f64, float64x2_t, 2);

    #[inline(always)]
    fn splat(self, value: f64) -> float64x2_t {
        self.0.neon.vdupq_n_f64(value)
    }

    #[inline(always)]
    fn add(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        self.0.neon.vaddq_f64(a, b)
    }

    #[inline(always)]
    fn sub(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        self.0.neon.vsubq_f64(a, b)
    }

    #[inline(always)]
    fn mul(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        self.0.neon.vmulq_f64(a, b)
    }

    #[inline(always)]
    fn div(self, a: float64x2_t, b: float64x2_t) -> float64x2_t {
        self.0.neon.vdivq_f64(a, b)
    }

    #[inline(always)]
    fn sqrt(self, a: float64x2_t) -> float64x2_t {
        self.0.neon.vsqrtq_f64(a)
    }

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: float64x2_t) {
        let lanes = &mut lanes.0.as_chunks_mut::<2>().0[column];
        *lanes = pulp::cast(self.0.neon.vaddq_f64(pulp::cast(*lanes), value));
    }
}

impl InstructionSet for Neon {
    vectorize!();
}
