//! The passes over a tensor block by block, each block brought into the first cache in the arithmetic type: for gradients
//! that are scaled or clipped as they are loaded, and for the types that a method has no pass of its own for. It costs
//! arithmetic and no traffic.
//!
//! ```text
//! x = factor·g   where there is a limit:  x = min(max(x, −limit), limit)   x = clip·x
//! ```
//!
//! The clip is that of the global norm: see [`clipping`](crate::clipping).

use std::ops::Range;

use crate::dispatch::Backend;
use crate::passes::dots::{Sums, by_blocks};
use crate::passes::update::Pass;
use crate::passes::{dots, update};
use crate::simd::convert::Convert;
use crate::simd::vector::{Operand, Operation, Real, Vector};
use crate::types::contract::BLOCK;
use crate::types::element::Element;

/// What becomes of a gradient's elements, in the arithmetic type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled<F> {
    pub factor: F,
    /// Infinite where there is none.
    pub limit: F,
    pub clip: F,
}

impl Default for Scaled<f64> {
    /// The gradient as it is.
    fn default() -> Self {
        Scaled { factor: 1.0, limit: f64::INFINITY, clip: 1.0 }
    }
}

impl Scaled<f64> {
    pub fn cast<F: Real>(self) -> Scaled<F> {
        Scaled { factor: F::rounded(self.factor), limit: F::rounded(self.limit), clip: F::rounded(self.clip) }
    }
}

/// A block in the arithmetic type.
type Block<F> = [F; BLOCK];

impl<F: Real> Scaled<F> {
    fn has_limit(&self) -> bool {
        self.limit.to_f64().is_finite()
    }

    /// The gradient as the step sees it.
    fn load<'b, P: Operand<Arithmetic = F>>(
        &self,
        backend: Backend,
        gradient: &'b [P],
        block: &'b mut Block<F>,
    ) -> &'b [F] {
        let one = F::rounded(1.0);
        if self.has_limit() || self.factor != one {
            let block = &mut block[..gradient.len()];
            backend.run(Convert::times(gradient, self.factor, block));
            if self.has_limit() || self.clip != one {
                backend.run(LimitAndClip { block, limit: self.limit, clip: self.clip });
            }
            block
        } else if self.clip != one {
            let block = &mut block[..gradient.len()];
            backend.run(Convert::times(gradient, self.clip, block));
            block
        } else {
            widened(backend, gradient, block)
        }
    }

    /// The sum of squares of what `load` would make of a block without a limit, where it is not finite and there is one,
    /// which would hide that.
    fn hidden<P: Operand<Arithmetic = F>>(
        &self,
        backend: Backend,
        gradient: &[P],
        block: &mut Block<F>,
    ) -> Option<f64> {
        if !self.has_limit() {
            return None;
        }
        let unlimited = Scaled { limit: F::rounded(f64::INFINITY), ..*self };
        let squares = dots::squares(backend, false, unlimited.load(backend, gradient, block));
        (!squares.is_finite()).then_some(squares)
    }
}

/// x = clip·min(max(x, −limit), limit), in loops that become vectors of whatever backend runs them.
struct LimitAndClip<'a, F> {
    block: &'a mut [F],
    limit: F,
    clip: F,
}

impl<F: Real> Operation<F> for LimitAndClip<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<F>>(self, _: V) {
        let LimitAndClip { block, limit, clip } = self;
        for x in block {
            // A NaN is neither, and stays.
            let limited = if *x > limit { limit } else { *x };
            let limited = if limited < -limit { -limit } else { limited };
            *x = clip * limited;
        }
    }
}

/// The elements in the arithmetic type: themselves if they are in it.
fn widened<'b, F: Real, T: Element>(backend: Backend, elements: &'b [T], block: &'b mut Block<F>) -> &'b [F] {
    if T::TYPE == F::TYPE {
        return bytemuck::cast_slice(elements);
    }
    let block = &mut block[..elements.len()];
    backend.run(Convert::<F, T, F>::new(elements, block));
    block
}

/// The dots of at most a block, compiled once for each arithmetic type.
#[inline(never)]
pub fn dots_of_block<F: Real>(backend: Backend, weight_decay: F, input: &dots::Input<'_, F, F>) -> Sums {
    dots::dots(backend, false, weight_decay, input)
}

/// The dots of a tensor with its gradient scaled, bit by bit those of a gradient that has been scaled before; and the
/// sum of its squares. That and H·H are not finite where a limit hides what is not.
pub fn dots<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: P::Arithmetic,
    scaled: &Scaled<P::Arithmetic>,
    input: &dots::Input<'_, P, S>,
) -> (Sums, f64) {
    let [a, b, c, t, squares] = by_blocks(0..input.gradient.len(), parallel, &|range, blocks| {
        let (block, hidden) = load_block(backend, scaled, input, &range, blocks);
        let ([a, b, c, t], squares) = dots_and_squares(backend, weight_decay, &block);
        [a, b, hidden.unwrap_or(c), t, hidden.unwrap_or(squares)]
    });
    ([a, b, c, t], squares)
}

/// The dots of a block, and the sum of the gradient's squares.
pub fn dots_and_squares<F: Real>(backend: Backend, weight_decay: F, block: &dots::Input<'_, F, F>) -> (Sums, f64) {
    let sums = dots_of_block(backend, weight_decay, block);
    let squares = if block.parameters.is_empty() { sums[2] } else { dots::squares(backend, false, block.gradient) };
    (sums, squares)
}

/// One block of what pass 1 reads, and a sum of the gradient's squares that is not finite, if there is one and a limit
/// hides it.
pub fn load_block<'b, P: Operand, S: Element>(
    backend: Backend,
    scaled: &Scaled<P::Arithmetic>,
    input: &'b dots::Input<'_, P, S>,
    range: &Range<usize>,
    blocks: &'b mut [Block<P::Arithmetic>; 4],
) -> (dots::Input<'b, P::Arithmetic, P::Arithmetic>, Option<f64>) {
    let [x, parameters, h, v] = blocks;
    let gradient = &input.gradient[range.clone()];
    let hidden = scaled.hidden(backend, gradient, x);
    let block = dots::Input {
        gradient: scaled.load(backend, gradient, x),
        parameters: widened(backend, part(input.parameters, range), parameters),
        h: widened(backend, part(input.h, range), h),
        v: widened(backend, part(input.v, range), v),
    };
    (block, hidden)
}

/// ‖a − b‖², by the contract's sum of squares, in the arithmetic type of `b`.
pub fn distance_squared<P: Operand, S: Element>(backend: Backend, parallel: bool, a: &[S], b: &[P]) -> f64 {
    let minus_one = P::Arithmetic::rounded(-1.0);
    let [distance] = by_blocks(0..b.len(), parallel, &|range, [of_a, of_b]: &mut [Block<P::Arithmetic>; 2]| {
        // H·H, with a for a gradient and a weight decay of −1.
        let input = dots::Input {
            gradient: widened(backend, &a[range.clone()], of_a),
            parameters: widened(backend, &b[range], of_b),
            h: &[],
            v: &[],
        };
        [dots_of_block(backend, minus_one, &input)[2]]
    });
    distance
}

/// A pass 2 in the arithmetic type, for tensors of any type and for gradients that are scaled: bit by bit the pass itself
/// over a gradient that has been scaled before.
pub struct Staged<'a, F> {
    pub pass: &'a dyn Pass<F, F>,
    pub scaled: Option<Scaled<F>>,
}

impl<P: Operand, S: Element> Pass<P, S> for Staged<'_, P::Arithmetic> {
    fn stages(&self) -> usize {
        self.pass.stages()
    }

    fn run(&self, backend: Backend, stage: usize, input: &mut update::Input<'_, P, S>) {
        let arithmetic = P::Arithmetic::TYPE;
        if self.scaled.is_none() && (P::TYPE, S::TYPE) == (arithmetic, arithmetic) {
            let update::Input { gradient, parameters, h, v } = input;
            let [h, v] = [h, v].map(|vector| bytemuck::cast_slice_mut(vector));
            let (gradient, parameters) = (bytemuck::cast_slice(gradient), bytemuck::cast_slice_mut(parameters));
            return self.pass.run(backend, stage, &mut update::Input { gradient, parameters, h, v });
        }
        self.run_staged(backend, stage, input);
    }
}

impl<F: Real> Staged<'_, F> {
    /// Block by block. The blocks' memory is not to be in the frame of a function that calls itself.
    #[inline(never)]
    fn run_staged<P: Operand<Arithmetic = F>, S: Element>(
        &self,
        backend: Backend,
        stage: usize,
        input: &mut update::Input<'_, P, S>,
    ) {
        let update::Input { gradient, parameters, h, v } = input;
        let mut blocks = [[F::zeroed(); BLOCK]; 4];
        let length = parameters.len();
        for start in (0..length).step_by(BLOCK) {
            let range = start..(start + BLOCK).min(length);
            let [x, parameters_block, h_block, v_block] = &mut blocks;
            let gradient = part(gradient, &range);
            let gradient = match &self.scaled {
                Some(scaled) => scaled.load(backend, gradient, x),
                None => widened(backend, gradient, x),
            };
            let mut parameters = Written::new(backend, part_mut(parameters, &range), parameters_block);
            let mut h = Written::new(backend, part_mut(h, &range), h_block);
            let mut v = Written::new(backend, part_mut(v, &range), v_block);
            let (parameters_row, h_row, v_row) = (parameters.elements(), h.elements(), v.elements());
            let mut input = update::Input { gradient, parameters: parameters_row, h: h_row, v: v_row };
            self.pass.run(backend, stage, &mut input);
            parameters.write_back(backend);
            h.write_back(backend);
            v.write_back(backend);
        }
    }
}

/// A block that is read and written in the arithmetic type, and stored in its own.
struct Written<'b, F, T> {
    stored: &'b mut [T],
    block: &'b mut [F],
}

impl<'b, F: Real, T: Element> Written<'b, F, T> {
    fn new(backend: Backend, stored: &'b mut [T], block: &'b mut Block<F>) -> Self {
        let block = &mut block[..stored.len()];
        if T::TYPE != F::TYPE {
            backend.run(Convert::<F, T, F>::new(stored, block));
        }
        Written { stored, block }
    }

    fn elements(&mut self) -> &mut [F] {
        if T::TYPE == F::TYPE { bytemuck::cast_slice_mut(self.stored) } else { self.block }
    }

    fn write_back(self, backend: Backend) {
        if T::TYPE != F::TYPE {
            backend.run(Convert::<F, F, T>::new(self.block, self.stored));
        }
    }
}

/// A range of a vector, or nothing of one that is empty because it is not used.
pub(crate) fn part<'a, T>(elements: &'a [T], range: &Range<usize>) -> &'a [T] {
    if elements.is_empty() { elements } else { &elements[range.clone()] }
}

fn part_mut<'a, T>(elements: &'a mut [T], range: &Range<usize>) -> &'a mut [T] {
    if elements.is_empty() { elements } else { &mut elements[range.clone()] }
}
