//! The small trait that the two passes are written against: what a backend has to be able to do, in which types, and
//! slices as the rows that it works on.
//!
//! A tensor is walked in rows of sixteen elements (see [`contract`](crate::contract)); a backend works on a row in
//! `LANES / WIDTH` columns at its own register width.

use std::ops::{Mul, Neg};

use half::{bf16, f16};

use crate::types::contract::LANES;
use crate::types::element::{Element, ElementType};

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

/// The sixteen float64 sums that a block's runs are added to. Aligned: AVX2 keeps them in memory and pays for a split.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub struct Lanes(pub [f64; LANES]);

impl Lanes {
    pub const ZERO: Lanes = Lanes([0.0; LANES]);
}

/// The first half of some lanes plus the second, lane by lane.
#[inline(always)]
fn halved<const N: usize>(lanes: &[f64]) -> [f64; N] {
    let (left, right) = lanes.split_at(N);
    let mut sums = [0.0; N];
    for lane in 0..N {
        sums[lane] = left[lane] + right[lane];
    }
    sums
}

/// Arithmetic in `F` on columns of `WIDTH` elements. Every operation rounds once, as IEEE 754 says; none is fused.
pub trait Vector<F: Real>: Copy {
    /// `WIDTH` elements in registers.
    type Column: Copy;
    /// A divisor of sixteen.
    const WIDTH: usize;

    fn splat(self, value: F) -> Self::Column;
    fn add(self, a: Self::Column, b: Self::Column) -> Self::Column;
    fn sub(self, a: Self::Column, b: Self::Column) -> Self::Column;
    fn mul(self, a: Self::Column, b: Self::Column) -> Self::Column;
    fn div(self, a: Self::Column, b: Self::Column) -> Self::Column;
    fn sqrt(self, a: Self::Column) -> Self::Column;

    fn load(self, row: &[F; LANES], column: usize) -> Self::Column;
    fn store(self, row: &mut [F; LANES], column: usize, value: Self::Column);

    /// Copies fewer than sixteen elements into a row of zeros. A backend that can load them at once should: a row that is
    /// written in pieces and read as a whole has to wait until the pieces have left the processor.
    #[inline(always)]
    fn load_part(self, part: &[F], row: &mut [F; LANES]) {
        copy_tail(part, row);
    }

    /// Adds a column to its float64 lanes.
    fn widen_add(self, lanes: &mut Lanes, column: usize, value: Self::Column);

    /// The contract's tree over lanes.
    #[inline(always)]
    fn sum(self, lanes: &Lanes) -> f64 {
        let lanes = halved::<8>(&lanes.0);
        let lanes = halved::<4>(&lanes);
        let [left, right] = halved::<2>(&lanes);
        left + right
    }

    #[inline(always)]
    fn load_bf16(self, row: &[bf16; LANES], column: usize) -> Self::Column {
        self.load(&widen(row, column, Self::WIDTH), column)
    }

    #[inline(always)]
    fn load_f16(self, row: &[f16; LANES], column: usize) -> Self::Column {
        self.load(&widen(row, column, Self::WIDTH), column)
    }

    #[inline(always)]
    fn store_bf16(self, row: &mut [bf16; LANES], column: usize, value: Self::Column) {
        narrow(self, row, column, value);
    }

    #[inline(always)]
    fn store_f16(self, row: &mut [f16; LANES], column: usize, value: Self::Column) {
        narrow(self, row, column, value);
    }
}

/// A backend: both arithmetic types, and a way to compile a whole loop for its instruction set.
pub trait InstructionSet: Vector<f32> + Vector<f64> {
    /// Runs `operation` in a function that is compiled for this instruction set. Everything that it calls has to be
    /// `#[inline(always)]`: what is not inlined is compiled for the build target, and costs a factor of forty.
    fn vectorize<F: Real, O: Operation<F>>(self, operation: O) -> O::Output;
}

/// A loop over vectors in `F`, for any backend.
pub trait Operation<F: Real> {
    type Output;
    fn run<V: Vector<F>>(self, v: V) -> Self::Output;
}

/// Loads a column from a row stored in any type.
#[inline(always)]
pub fn load<F: Real, V: Vector<F>, T: Element>(v: V, row: &[T; LANES], column: usize) -> V::Column {
    match T::TYPE {
        same if same == F::TYPE => v.load(bytemuck::cast_ref(row), column),
        ElementType::Bf16 => v.load_bf16(bytemuck::cast_ref(row), column),
        ElementType::F16 => v.load_f16(bytemuck::cast_ref(row), column),
        ElementType::F32 | ElementType::F64 => v.load(&widen(row, column, V::WIDTH), column),
    }
}

/// Rounds a column once to the type that the row is stored in, and stores it.
#[inline(always)]
pub fn store<F: Real, V: Vector<F>, T: Element>(v: V, row: &mut [T; LANES], column: usize, value: V::Column) {
    match T::TYPE {
        same if same == F::TYPE => v.store(bytemuck::cast_mut(row), column, value),
        ElementType::Bf16 => v.store_bf16(bytemuck::cast_mut(row), column, value),
        ElementType::F16 => v.store_f16(bytemuck::cast_mut(row), column, value),
        ElementType::F32 | ElementType::F64 => narrow(v, row, column, value),
    }
}

/// One column of a row, element by element, in the arithmetic type.
#[inline(always)]
fn widen<F: Real, T: Element>(row: &[T; LANES], column: usize, width: usize) -> [F; LANES] {
    let mut wide = [F::zeroed(); LANES];
    for lane in column * width..(column + 1) * width {
        wide[lane] = F::rounded(row[lane].to_f64());
    }
    wide
}

/// The inverse of [`widen`], rounding once.
#[inline(always)]
fn narrow<F: Real, V: Vector<F>, T: Element>(v: V, row: &mut [T; LANES], column: usize, value: V::Column) {
    let mut wide = [F::zeroed(); LANES];
    v.store(&mut wide, column, value);
    for lane in column * V::WIDTH..(column + 1) * V::WIDTH {
        row[lane] = match F::TYPE {
            ElementType::F32 => T::rounded_f32(wide[lane].to_f64() as f32),
            _ => T::rounded(wide[lane].to_f64()),
        };
    }
}

/// The full rows of the first `length` elements.
#[inline(always)]
pub fn rows<T>(elements: &[T], length: usize) -> &[[T; LANES]] {
    elements[..length].as_chunks().0
}

/// The elements after the last full row, filled up with zeros.
#[inline(always)]
pub fn padded<F: Real, V: Vector<F>, T: Element>(v: V, elements: &[T]) -> [T; LANES] {
    let part = elements.as_chunks::<LANES>().1;
    let mut row = [T::zeroed(); LANES];
    if T::TYPE == F::TYPE {
        v.load_part(bytemuck::cast_slice(part), bytemuck::cast_mut(&mut row));
    } else {
        copy_tail(part, &mut row);
    }
    row
}

/// Copies fewer than sixteen elements, in pieces of fixed size: a copy of variable length is a call, and costs more
/// than a small tensor's whole step.
#[inline(always)]
pub fn copy_tail<T: Copy>(from: &[T], to: &mut [T]) {
    let length = from.len().min(to.len());
    let mut done = 0;
    done += copy_piece::<T, 8>(from, to, length, done);
    done += copy_piece::<T, 4>(from, to, length, done);
    done += copy_piece::<T, 2>(from, to, length, done);
    copy_piece::<T, 1>(from, to, length, done);
}

/// Copies `N` elements if the length has that bit.
#[inline(always)]
fn copy_piece<T: Copy, const N: usize>(from: &[T], to: &mut [T], length: usize, done: usize) -> usize {
    if length & N == 0 {
        return 0;
    }
    if let (Some(from), Some(to)) = (from[done..].first_chunk::<N>(), to[done..].first_chunk_mut::<N>()) {
        *to = *from;
    }
    N
}
