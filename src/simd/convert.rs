//! Elements from one type to another, and scaled: by the backends' own conversions, each rounded once.

use crate::simd::vector::{Operation, Real, Vector, copy_tail, load, padded, store};
use crate::types::contract::LANES;
use crate::types::element::Element;

/// `to` becomes `factor` times `from`, computed in `F`; both of one length.
pub struct Convert<'a, F, A, B> {
    from: &'a [A],
    to: &'a mut [B],
    factor: Option<F>,
}

impl<'a, F: Real, A: Element, B: Element> Convert<'a, F, A, B> {
    pub fn new(from: &'a [A], to: &'a mut [B]) -> Self {
        Convert { from, to, factor: None }
    }

    pub fn times(from: &'a [A], factor: F, to: &'a mut [B]) -> Self {
        Convert { from, to, factor: Some(factor) }
    }
}

impl<F: Real, A: Element, B: Element> Operation<F> for Convert<'_, F, A, B> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<F>>(self, v: V) {
        let Convert { from, to, factor } = self;
        let row = |from: &[A; LANES], to: &mut [B; LANES]| {
            for column in 0..LANES / V::WIDTH {
                let value = load(v, from, column);
                let value = factor.map_or(value, |factor| v.mul(v.splat(factor), value));
                store(v, to, column, value);
            }
        };
        let (to_rows, to_tail) = to.as_chunks_mut::<LANES>();
        for (from, to) in from.as_chunks::<LANES>().0.iter().zip(to_rows) {
            row(from, to);
        }
        let mut last = [B::zeroed(); LANES];
        row(&padded(v, from), &mut last);
        copy_tail(&last, to_tail);
    }
}
