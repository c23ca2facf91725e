//! Pass 1, the dot products of a tensor, written once for every backend and type. It reads, and writes nothing.
//!
//! ```text
//! for each block, run, lane:
//!     H = g + wd·θ
//!     a += H·h   b += H·v   c += H·H   t += θ·θ
//! ```
//!
//! The shape of the sums is in [`contract`](crate::contract). Before a first step there is no h and v, and only c and t
//! are taken. Without weight decay H is g itself, and θ is not read.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::dispatch::Backend;
use crate::simd::vector::{Lanes, Operand, Operation, Vector, load, padded, rows};
use crate::types::contract::{BLOCK, CHUNK, LANES, RUN_ROWS};
use crate::types::element::Element;
use crate::types::threads::join;

/// a = H·h, b = H·v, c = H·H, t = θ·θ; those that are not taken stay 0.
pub type Sums = [f64; 4];

/// What is read. `parameters` is empty without weight decay, `h` and `v` are before a first step.
pub struct Input<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a [P],
    pub h: &'a [S],
    pub v: &'a [S],
}

impl<P, S> Input<'_, P, S> {
    fn split_at(&self, middle: usize) -> (Self, Self) {
        let (gradient, gradient_rest) = self.gradient.split_at(middle);
        let (parameters, parameters_rest) = self.parameters.split_at(middle.min(self.parameters.len()));
        let (h, h_rest) = self.h.split_at(middle.min(self.h.len()));
        let (v, v_rest) = self.v.split_at(middle.min(self.v.len()));
        (
            Input { gradient, parameters, h, v },
            Input { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest },
        )
    }
}

/// The dots of a tensor of any length.
#[inline(always)]
pub fn dots<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: P::Arithmetic,
    input: &Input<'_, P, S>,
) -> Sums {
    match input.gradient.len() <= CHUNK {
        true => chunk(backend, weight_decay, input),
        false => divided(backend, parallel, weight_decay, input),
    }
}

/// The contract's tree over chunks, both halves at once if `parallel`.
#[inline(never)]
fn divided<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: P::Arithmetic,
    input: &Input<'_, P, S>,
) -> Sums {
    let (left, right) = input.split_at(split_point(input.gradient.len()));
    let dots = |input: &Input<'_, P, S>| dots(backend, parallel, weight_decay, input);
    let (left, right) = join(parallel, || dots(&left), || dots(&right));
    add(left, right)
}

#[inline(always)]
fn chunk<P: Operand, S: Element>(backend: Backend, weight_decay: P::Arithmetic, input: &Input<'_, P, S>) -> Sums {
    if input.h.is_empty() {
        let Input { gradient, parameters, .. } = *input;
        return first_chunk(backend, weight_decay, &Input { gradient, parameters, h: &[], v: &[] });
    }
    match input.parameters.is_empty() {
        false => backend.run(ChunkDots::<P, S, true, false> { weight_decay, input }),
        true => backend.run(ChunkDots::<P, S, false, false> { weight_decay, input }),
    }
}

#[inline(never)]
fn first_chunk<P: Operand>(backend: Backend, weight_decay: P::Arithmetic, input: &Input<'_, P, P>) -> Sums {
    match input.parameters.is_empty() {
        false => backend.run(ChunkDots::<P, P, true, true> { weight_decay, input }),
        true => backend.run(ChunkDots::<P, P, false, true> { weight_decay, input }),
    }
}

/// The contract's sum of squares.
pub fn squares<P: Operand>(backend: Backend, parallel: bool, elements: &[P]) -> f64 {
    let input = Input::<P, P> { gradient: elements, parameters: &[], h: &[], v: &[] };
    dots(backend, parallel, P::Arithmetic::rounded(0.0), &input)[2]
}

/// Where the contract's tree divides `length` elements: after the largest power of two of chunks below them.
pub fn split_point(length: usize) -> usize {
    let chunks = length.div_ceil(CHUNK);
    CHUNK << (chunks - 1).ilog2()
}

#[inline(always)]
fn add<const N: usize>(mut left: [f64; N], right: [f64; N]) -> [f64; N] {
    for (left, right) in left.iter_mut().zip(right) {
        *left += right;
    }
    left
}

/// The dots of at most a chunk. `DECAY`: θ is read; `FIRST`: h and v are not. The input is lent: a copy of what has just
/// been written would have to wait for it.
struct ChunkDots<'a, P: Operand, S, const DECAY: bool, const FIRST: bool> {
    weight_decay: P::Arithmetic,
    input: &'a Input<'a, P, S>,
}

impl<P: Operand, S: Element, const DECAY: bool, const FIRST: bool> Operation<P::Arithmetic>
    for ChunkDots<'_, P, S, DECAY, FIRST>
{
    type Output = Sums;

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, vector: V) -> Sums {
        let Input { gradient, parameters, h, v } = *self.input;
        let length = gradient.len();
        let streams = Streams::<P, S, V, DECAY, FIRST> {
            vector,
            weight_decay: vector.splat(self.weight_decay),
            gradient: rows(gradient, length),
            parameters: rows(parameters, if DECAY { length } else { 0 }),
            h: rows(h, if FIRST { 0 } else { length }),
            v: rows(v, if FIRST { 0 } else { length }),
        };
        // A last row that is not full, filled up with zeros.
        let last;
        let tail = if length % LANES == 0 {
            None
        } else {
            last = (
                [padded(vector, gradient)],
                [if DECAY { padded(vector, parameters) } else { [P::zeroed(); LANES] }],
                [if FIRST { [S::zeroed(); LANES] } else { padded(vector, h) }],
                [if FIRST { [S::zeroed(); LANES] } else { padded(vector, v) }],
            );
            Some(Streams { gradient: &last.0, parameters: &last.1, h: &last.2, v: &last.3, ..streams })
        };
        // A single block needs none.
        let mut tree = None;
        let blocks = length.div_ceil(BLOCK);
        for block in 0..blocks {
            let first = block * BLOCK / LANES;
            let count = (streams.gradient.len() - first).min(BLOCK / LANES);
            let is_last = block + 1 == blocks;
            // In one place, so that the loops below are compiled once.
            let sums = streams.slice(first, count).block(if is_last { &tail } else { &None });
            if is_last {
                return tree.map_or(sums, |tree: Tree<4>| tree.finish(sums));
            }
            tree.get_or_insert_with(Tree::new).push(sums);
        }
        [0.0; 4]
    }
}

/// Rows of the streams, and what is made of them. Those that are not read have no rows.
struct Streams<'a, P: Operand, S, V: Vector<P::Arithmetic>, const DECAY: bool, const FIRST: bool> {
    vector: V,
    weight_decay: V::Column,
    gradient: &'a [[P; LANES]],
    parameters: &'a [[P; LANES]],
    h: &'a [[S; LANES]],
    v: &'a [[S; LANES]],
}

impl<'a, P: Operand, S: Element, V: Vector<P::Arithmetic>, const DECAY: bool, const FIRST: bool>
    Streams<'a, P, S, V, DECAY, FIRST>
{
    /// Which of the four sums are taken.
    const TAKEN: [bool; 4] = [!FIRST, !FIRST, true, DECAY];

    #[inline(always)]
    fn slice(&self, first: usize, count: usize) -> Self {
        let range = first..first + count;
        Streams {
            vector: self.vector,
            weight_decay: self.weight_decay,
            gradient: &self.gradient[range.clone()],
            parameters: if DECAY { &self.parameters[range.clone()] } else { &[] },
            h: if FIRST { &[] } else { &self.h[range.clone()] },
            v: if FIRST { &[] } else { &self.v[range] },
        }
    }

    /// The sums over at most a block: full runs, then what is left with the tail.
    #[inline(always)]
    fn block(&self, tail: &Option<Self>) -> Sums {
        let mut lanes = [Lanes::ZERO; 4];
        let count = self.gradient.len();
        for run in 0..count / RUN_ROWS {
            let run = self.slice(run * RUN_ROWS, RUN_ROWS);
            for column in 0..LANES / V::WIDTH {
                let mut sums = run.products(0, column);
                for row in 1..RUN_ROWS {
                    run.accumulate(&mut sums, row, column);
                }
                self.widen(&mut lanes, sums, column);
            }
        }
        let left = count % RUN_ROWS;
        if left != 0 || tail.is_some() {
            let run = self.slice(count - left, left);
            for column in 0..LANES / V::WIDTH {
                // From +0 instead of from the first product: the float64 sums absorb the sign of a zero.
                let mut sums = [self.vector.splat(P::Arithmetic::zeroed()); 4];
                for row in 0..left {
                    run.accumulate(&mut sums, row, column);
                }
                if let Some(tail) = tail {
                    tail.accumulate(&mut sums, 0, column);
                }
                self.widen(&mut lanes, sums, column);
            }
        }
        let mut sums = [0.0; 4];
        for k in 0..4 {
            if Self::TAKEN[k] {
                sums[k] = self.vector.sum(&lanes[k]);
            }
        }
        sums
    }

    #[inline(always)]
    fn products(&self, row: usize, column: usize) -> [V::Column; 4] {
        let v = self.vector;
        let gradient = load(v, &self.gradient[row], column);
        let (measurement, t) = if DECAY {
            let parameters = load(v, &self.parameters[row], column);
            (v.add(gradient, v.mul(self.weight_decay, parameters)), v.mul(parameters, parameters))
        } else {
            (gradient, gradient)
        };
        let (a, b) = if FIRST {
            (gradient, gradient)
        } else {
            let h = load(v, &self.h[row], column);
            let product = load(v, &self.v[row], column);
            (v.mul(measurement, h), v.mul(measurement, product))
        };
        [a, b, v.mul(measurement, measurement), t]
    }

    #[inline(always)]
    fn accumulate(&self, sums: &mut [V::Column; 4], row: usize, column: usize) {
        let products = self.products(row, column);
        for k in 0..4 {
            if Self::TAKEN[k] {
                sums[k] = self.vector.add(sums[k], products[k]);
            }
        }
    }

    #[inline(always)]
    fn widen(&self, lanes: &mut [Lanes; 4], sums: [V::Column; 4], column: usize) {
        for k in 0..4 {
            if Self::TAKEN[k] {
                self.vector.widen_add(&mut lanes[k], column, sums[k]);
            }
        }
    }
}

/// The contract's tree over the blocks of a chunk: subtrees wait at their level until their sibling is there.
struct Tree<const N: usize> {
    waiting: [[f64; N]; (CHUNK / BLOCK).ilog2() as usize + 1],
    blocks: usize,
}

impl<const N: usize> Tree<N> {
    #[inline(always)]
    fn new() -> Self {
        Tree { waiting: [[0.0; N]; (CHUNK / BLOCK).ilog2() as usize + 1], blocks: 0 }
    }

    #[inline(always)]
    fn push(&mut self, mut sums: [f64; N]) {
        let mut level = 0;
        while self.blocks >> level & 1 == 1 {
            sums = add(self.waiting[level], sums);
            level += 1;
        }
        self.waiting[level] = sums;
        self.blocks += 1;
    }

    /// The sum with the last block.
    #[inline(always)]
    fn finish(self, last: [f64; N]) -> [f64; N] {
        let levels = (0..self.waiting.len()).filter(|level| self.blocks >> level & 1 == 1);
        levels.fold(last, |sums, level| add(self.waiting[level], sums))
    }
}

/// What is taken of each block, with memory of many kilobytes.
type OfBlock<'a, M, const N: usize> = &'a (dyn Fn(Range<usize>, &mut M) -> [f64; N] + Sync);

/// The contract's tree over whatever sums are taken of each block, with memory that is made but once for many blocks.
pub fn by_blocks<M: Zeroable, const N: usize>(
    range: Range<usize>,
    parallel: bool,
    block: OfBlock<'_, M, N>,
) -> [f64; N] {
    if range.len() > CHUNK {
        let middle = range.start + split_point(range.len());
        let (left, right) = join(
            parallel,
            || by_blocks(range.start..middle, parallel, block),
            || by_blocks(middle..range.end, parallel, block),
        );
        return add(left, right);
    }
    chunk_by_blocks(range, block)
}

/// At most a chunk. A function of its own, so that the memory is not in the frame of each level of the tree.
#[inline(never)]
fn chunk_by_blocks<M: Zeroable, const N: usize>(range: Range<usize>, block: OfBlock<'_, M, N>) -> [f64; N] {
    let (mut tree, mut memory) = (Tree::new(), M::zeroed());
    let mut first = range.start;
    while first + BLOCK < range.end {
        tree.push(block(first..first + BLOCK, &mut memory));
        first += BLOCK;
    }
    tree.finish(block(first..range.end, &mut memory))
}
