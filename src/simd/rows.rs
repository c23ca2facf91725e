//! Slices as rows of sixteen elements, and the last row that is not full.

use crate::simd::operand::Real;
use crate::simd::vector::Vector;
use crate::types::contract::LANES;
use crate::types::element::Element;

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
