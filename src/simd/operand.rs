//! The types that arithmetic is done in, and which of them the elements of a tensor are computed in.

use std::ops::{Mul, Neg};

use half::{bf16, f16};

use crate::simd::vector::{InstructionSet, Operation};
use crate::types::element::Element;

/// An element type as the passes see it.
pub trait Operand: Element {
    /// The type in which arithmetic on parameters of this type is done: f64 for f64, f32 for all others.
    type Arithmetic: Real;
}

/// A type that arithmetic is done in: f32 or f64.
pub trait Real: Operand<Arithmetic = Self> + PartialOrd + Mul<Output = Self> + Neg<Output = Self> {
    /// Runs `operation` with a proof that the instruction set computes in this type.
    fn run<I: InstructionSet, O: Operation<Self>>(instruction_set: I, operation: O) -> O::Output;
}

macro_rules! real {
    ($type:ident) => {
        impl Operand for $type {
            type Arithmetic = $type;
        }

        impl Real for $type {
            #[inline(always)]
            fn run<I: InstructionSet, O: Operation<Self>>(instruction_set: I, operation: O) -> O::Output {
                operation.run(instruction_set)
            }
        }
    };
}

real!(f32);
real!(f64);

impl Operand for bf16 {
    type Arithmetic = f32;
}

impl Operand for f16 {
    type Arithmetic = f32;
}
