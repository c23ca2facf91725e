//! The backends, one file each. A backend is a token whose existence proves that the processor has the instruction
//! set, and the operations of [`Vector`](crate::simd::vector::Vector) in it; everything else is written once, in `src/`.

pub mod portable;
pub mod prefetch;
pub mod scalar;

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;

/// The parts of an implementation of `Vector` that read the same in every backend built on `pulp`: columns are
/// loaded and stored by casting fixed-size arrays, which is safe and free.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! columns {
    ($type:ty, $column:ty, $width:literal) => {
        type Column = $column;
        const WIDTH: usize = $width;

        #[inline(always)]
        fn load(self, row: &[$type; crate::types::contract::LANES], column: usize) -> $column {
            pulp::cast(row.as_chunks::<$width>().0[column])
        }

        #[inline(always)]
        fn store(self, row: &mut [$type; crate::types::contract::LANES], column: usize, value: $column) {
            row.as_chunks_mut::<$width>().0[column] = pulp::cast(value);
        }
    };
}

/// The operation as a function object, the form in which `pulp` compiles a loop for an instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vectorize {
    () => {
        #[inline(always)]
        fn vectorize<F: crate::simd::vector::Real, O: crate::simd::vector::Operation<F>>(
            self,
            operation: O,
        ) -> O::Output {
            self.0.vectorize(crate::backends::Call {
                operation,
                instruction_set: self,
                arithmetic: std::marker::PhantomData,
            })
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use {columns, vectorize};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
struct Call<F, I, O> {
    operation: O,
    instruction_set: I,
    arithmetic: std::marker::PhantomData<F>,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<F, I, O> pulp::NullaryFnOnce for Call<F, I, O>
where
    F: crate::simd::vector::Real,
    I: crate::simd::vector::InstructionSet,
    O: crate::simd::vector::Operation<F>,
{
    type Output = O::Output;

    #[inline(always)]
    fn call(self) -> O::Output {
        F::run(self.instruction_set, self.operation)
    }
}
