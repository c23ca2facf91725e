//! The scalar backend: plain Rust, one element at a time. Slow, present everywhere, and the one to read first.

use crate::simd::vector::{InstructionSet, Lanes, Operation, Real, Vector};
use crate::types::contract::LANES;

/// Always there: it needs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

macro_rules! vector {
    ($type:ident) => {
        impl Vector<$type> for Scalar {
            // Not an array: rustc 1.95 with LLVM 22 compiles array arithmetic wrongly where AVX-512 is a build target.
            type Column = $type;
            const WIDTH: usize = 1;

            #[inline(always)]
            fn splat(self, value: $type) -> $type {
                value
            }

            #[inline(always)]
            fn add(self, a: $type, b: $type) -> $type {
                a + b
            }

            #[inline(always)]
            fn sub(self, a: $type, b: $type) -> $type {
                a - b
            }

            #[inline(always)]
            fn mul(self, a: $type, b: $type) -> $type {
                a * b
            }

            #[inline(always)]
            fn div(self, a: $type, b: $type) -> $type {
                a / b
            }

            #[inline(always)]
            fn sqrt(self, a: $type) -> $type {
                a.sqrt()
            }

            #[inline(always)]
            fn load(self, row: &[$type; LANES], column: usize) -> $type {
                row[column]
            }

            #[inline(always)]
            fn store(self, row: &mut [$type; LANES], column: usize, value: $type) {
                row[column] = value;
            }

            #[inline(always)]
            fn widen_add(self, lanes: &mut Lanes, column: usize, value: $type) {
                lanes.0[column] += f64::from(value);
            }
        }
    };
}

vector!(f32);
vector!(f64);

impl InstructionSet for Scalar {
    // A function of its own, as every backend's loops are: it is called from many places.
    #[inline(never)]
    fn vectorize<F: Real, O: Operation<F>>(self, operation: O) -> O::Output {
        F::run(self, operation)
    }
}
