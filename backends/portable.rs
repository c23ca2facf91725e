//! The portable backend: 128-bit vectors by `wide`, in whatever the build target guarantees (SSE2, NEON, wasm's
//! simd128; plain arithmetic elsewhere). Wider `wide` types were measured slower where the target lacks them.

use wide::{f32x4, f64x2};

use crate::simd::vector::{InstructionSet, Lanes, Operation, Real, Vector};
use crate::types::contract::LANES;

/// Always there: it is chosen when the program is built.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

macro_rules! arithmetic {
    ($type:ident, $column:ident, $width:literal) => {
        type Column = $column;
        const WIDTH: usize = $width;

        #[inline(always)]
        fn splat(self, value: $type) -> $column {
            $column::splat(value)
        }

        #[inline(always)]
        fn add(self, a: $column, b: $column) -> $column {
            a + b
        }

        #[inline(always)]
        fn sub(self, a: $column, b: $column) -> $column {
            a - b
        }

        #[inline(always)]
        fn mul(self, a: $column, b: $column) -> $column {
            a * b
        }

        #[inline(always)]
        fn div(self, a: $column, b: $column) -> $column {
            a / b
        }

        #[inline(always)]
        fn sqrt(self, a: $column) -> $column {
            a.sqrt()
        }

        #[inline(always)]
        fn load(self, row: &[$type; LANES], column: usize) -> $column {
            $column::from(row.as_chunks::<$width>().0[column])
        }

        #[inline(always)]
        fn store(self, row: &mut [$type; LANES], column: usize, value: $column) {
            row.as_chunks_mut::<$width>().0[column] = value.to_array();
        }
    };
}

impl Vector<f32> for Portable {
    arithmetic!(f32, f32x4, 4);

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: f32x4) {
        let lanes = &mut lanes.0.as_chunks_mut::<4>().0[column];
        for (lane, value) in lanes.iter_mut().zip(value.to_array()) {
            *lane += f64::from(value);
        }
    }
}

impl Vector<f64> for Portable {
    arithmetic!(f64, f64x2, 2);

    #[inline(always)]
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: f64x2) {
        let lanes = &mut lanes.0.as_chunks_mut::<2>().0[column];
        *lanes = (f64x2::from(*lanes) + value).to_array();
    }
}

impl InstructionSet for Portable {
    // A function of its own, as every backend's loops are: it is called from many places.
    #[inline(never)]
    fn vectorize<F: Real, O: Operation<F>>(self, operation: O) -> O::Output {
        F::run(self, operation)
    }
}
