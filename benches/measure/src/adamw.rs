//! What a step of KOALA++ is compared with: AdamW over a whole model of f32, in the widest vectors, with fused
//! multiply-adds, and as one flat walk, as if the model were a single tensor. So it is as fast as an AdamW can be that
//! takes real square roots and quotients: four streams are read, three written, and no tensor costs anything by itself.

use pulp::{Simd, WithSimd};

use crate::limit::{Width, widths};
use crate::stream::{Stream, saw_tooth};

/// Where a large model is walked through a smaller memory again and again. The processor's caches are small beside it.
const MOST: usize = 1 << 27;

/// Fewer elements than this are not worth a task of their own.
const WORTH_A_TASK: usize = 1 << 16;

/// The parameters, their gradient and the state.
pub struct AdamW {
    count: usize,
    gradient: Stream<f32>,
    parameters: Stream<f32>,
    m: Stream<f32>,
    v: Stream<f32>,
    width: Width,
}

impl AdamW {
    /// For a model of so many parameters.
    pub fn new(count: usize) -> Self {
        let held = count.min(MOST).next_multiple_of(16);
        let (gradient, parameters) = (saw_tooth(1e-4, 251), saw_tooth(1e-3, 241));
        AdamW {
            count,
            gradient: Stream::new(0, held, |i| gradient(i) as f32),
            parameters: Stream::new(1, held, |i| parameters(i) as f32),
            m: Stream::new(2, held, |_| 0.0),
            v: Stream::new(3, held, |_| 1e-6),
            width: *widths().last().expect("there is at least one"),
        }
    }

    /// The memory that it takes for a model of so many parameters.
    pub fn bytes(count: usize) -> usize {
        4 * size_of::<f32>() * count.min(MOST)
    }

    /// One step; by several threads of the rayon pool that this is called in, if it is to be in several parts.
    pub fn step(&mut self, parts: usize) {
        let mut left = self.count;
        while left > 0 {
            let now = left.next_multiple_of(16).min(self.gradient.get().len());
            let streams = Streams {
                gradient: &self.gradient.get()[..now],
                parameters: &mut self.parameters.get_mut()[..now],
                m: &mut self.m.get_mut()[..now],
                v: &mut self.v.get_mut()[..now],
            };
            // Four times as many tasks as threads, so that none waits for long for the slowest.
            let smallest = if parts > 1 { (now / (4 * parts)).max(WORTH_A_TASK) } else { now };
            walk(self.width, smallest, streams);
            left = left.saturating_sub(now);
        }
    }
}

struct Streams<'a> {
    gradient: &'a [f32],
    parameters: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

fn walk(width: Width, smallest: usize, streams: Streams<'_>) {
    if streams.gradient.len() <= smallest {
        return width.0.dispatch(streams);
    }
    let middle = (streams.gradient.len() / 2).next_multiple_of(16);
    let (gradient, parameters) = (streams.gradient.split_at(middle), streams.parameters.split_at_mut(middle));
    let (m, v) = (streams.m.split_at_mut(middle), streams.v.split_at_mut(middle));
    rayon::join(
        || walk(width, smallest, Streams { gradient: gradient.0, parameters: parameters.0, m: m.0, v: v.0 }),
        || walk(width, smallest, Streams { gradient: gradient.1, parameters: parameters.1, m: m.1, v: v.1 }),
    );
}

impl WithSimd for Streams<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<I: Simd>(self, simd: I) {
        let number = |value: f64| simd.splat_f32s(value as f32);
        let (learning_rate, weight_decay) = (1e-9, 1e-2);
        let (new_m, old_v, new_v, epsilon) = (number(0.1), number(0.999), number(0.001), number(1e-8));
        // The corrections of the moments' beginning from zero, after a thousand steps.
        let unbias_v = number((1.0 - 0.999_f64.powi(1000)).sqrt().recip());
        let rate = number(-learning_rate / (1.0 - 0.9_f64.powi(1000)));
        let kept = number(1.0 - learning_rate * weight_decay);

        let (gradient, m, v) = (I::as_simd_f32s(self.gradient).0, self.m, self.v);
        let (parameters, m) = (I::as_mut_simd_f32s(self.parameters).0, I::as_mut_simd_f32s(m).0);
        for (((&g, t), m), v) in gradient.iter().zip(parameters).zip(m).zip(I::as_mut_simd_f32s(v).0) {
            *m = simd.mul_add_f32s(new_m, simd.sub_f32s(g, *m), *m);
            *v = simd.mul_add_f32s(new_v, simd.mul_f32s(g, g), simd.mul_f32s(old_v, *v));
            let divisor = simd.mul_add_f32s(simd.sqrt_f32s(*v), unbias_v, epsilon);
            *t = simd.mul_add_f32s(rate, simd.div_f32s(*m, divisor), simd.mul_f32s(kept, *t));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the equations in f64, and in parts against the whole.
    #[test]
    fn it_is_adamw() {
        let length = (1 << 17) + 5;
        let (mut whole, mut parts) = (AdamW::new(length), AdamW::new(length));
        let (g, t) = (f64::from(whole.gradient.get()[7]), f64::from(whole.parameters.get()[7]));
        whole.step(1);
        parts.step(3);
        let (m, v) = (0.1 * g, 0.999 * 1e-6 + 0.001 * g * g);
        let divisor = (v / (1.0 - 0.999_f64.powi(1000))).sqrt() + 1e-8;
        let expected = t * (1.0 - 1e-9 * 1e-2) - 1e-9 * m / (1.0 - 0.9_f64.powi(1000)) / divisor;
        for (found, expected) in [(whole.m.get()[7], m), (whole.v.get()[7], v), (whole.parameters.get()[7], expected)] {
            assert!((f64::from(found) - expected).abs() < 1e-6 * expected.abs(), "{found} {expected}");
        }
        for (a, b) in [(&whole.m, &parts.m), (&whole.v, &parts.v), (&whole.parameters, &parts.parameters)] {
            assert_eq!(a.get(), b.get());
        }
    }
}
