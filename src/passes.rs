//! The two passes over a tensor, written once for every backend and type.
//!
//! ```text
//! dots(g, θ, h, v):                            update(g, θ, h, v):
//!     for each block, run, lane:                   for each element:
//!         H = g + wd·θ                                 H  = g + wd·θ
//!         a += H·h   b += H·v                          v' = (keep·v + Q·H) + mix·h
//!         c += H·H   t += θ·θ                          θ' = θ − rate·(v' + Q·H)
//!     (the shape of the sums: contract.rs)             h' = H
//! ```
//!
//! On a first step there is no v or h yet: then h = H and v = σ·H stand in for them, `a` and `b` follow from `c`, and
//! nothing of the old state is read. Without weight decay H is g itself and pass 1 does not read θ.

use bytemuck::Zeroable;
use half::{bf16, f16};

use crate::contract::{BLOCK, CHUNK, LANES, RUN_ROWS};
use crate::element::{Element, Real};
use crate::threads::join;
use crate::vector::{Lanes, Operation, Vector, load, store};
use crate::{Backend, HalfCopy};

/// The sums of pass 1 in the order a = H·h, b = H·v, c = H·H, t = θ·θ; those that a variant does not need stay 0.
pub type Sums = [f64; 4];

/// What pass 1 reads. `parameters` is empty without weight decay, `h` and `v` are on a first step.
pub struct DotsInput<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a [P],
    pub h: &'a [S],
    pub v: &'a [S],
}

impl<P, S> Clone for DotsInput<'_, P, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, S> Copy for DotsInput<'_, P, S> {}

impl<P, S> DotsInput<'_, P, S> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        let (gradient, gradient_rest) = self.gradient.split_at(middle);
        let (parameters, parameters_rest) = self.parameters.split_at(middle.min(self.parameters.len()));
        let (h, h_rest) = self.h.split_at(middle.min(self.h.len()));
        let (v, v_rest) = self.v.split_at(middle.min(self.v.len()));
        (
            DotsInput { gradient, parameters, h, v },
            DotsInput { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest },
        )
    }
}

/// Pass 1 over a tensor of any length: the tree over chunks, both halves at once if `parallel`.
pub fn dots<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: P::Arithmetic,
    input: DotsInput<'_, P, S>,
) -> Sums {
    let length = input.gradient.len();
    if length <= CHUNK {
        return match (input.parameters.is_empty(), input.h.is_empty()) {
            (true, true) => backend.run(ChunkDots::<P, S, false, true> { weight_decay, input }),
            (true, false) => backend.run(ChunkDots::<P, S, false, false> { weight_decay, input }),
            (false, true) => backend.run(ChunkDots::<P, S, true, true> { weight_decay, input }),
            (false, false) => backend.run(ChunkDots::<P, S, true, false> { weight_decay, input }),
        };
    }
    let (left, right) = input.split_at(split_point(length));
    let (left, right) =
        join(parallel, || dots(backend, parallel, weight_decay, left), || dots(backend, parallel, weight_decay, right));
    add(left, right)
}

/// Where the contract's tree divides `length` elements: after the largest power of two of chunks below them.
fn split_point(length: usize) -> usize {
    let chunks = length.div_ceil(CHUNK);
    CHUNK << (chunks - 1).ilog2()
}

#[inline(always)]
fn add(mut left: Sums, right: Sums) -> Sums {
    for (left, right) in left.iter_mut().zip(right) {
        *left += right;
    }
    left
}

/// Pass 1 over at most a chunk. `DECAY`: θ is read; `FIRST`: h and v are not.
struct ChunkDots<'a, P: Element, S, const DECAY: bool, const FIRST: bool> {
    weight_decay: P::Arithmetic,
    input: DotsInput<'a, P, S>,
}

impl<P: Element, S: Element, const DECAY: bool, const FIRST: bool> Operation<P::Arithmetic>
    for ChunkDots<'_, P, S, DECAY, FIRST>
{
    type Output = Sums;

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) -> Sums {
        let input = self.input;
        let length = input.gradient.len();
        let streams = Streams::<P, S, V, DECAY, FIRST> {
            vector: v,
            weight_decay: v.splat(self.weight_decay),
            gradient: rows(input.gradient, length),
            parameters: rows(input.parameters, if DECAY { length } else { 0 }),
            h: rows(input.h, if FIRST { 0 } else { length }),
            v: rows(input.v, if FIRST { 0 } else { length }),
        };
        let full_blocks = length / BLOCK;
        if full_blocks == 0 {
            return streams.last_block(0, input);
        }
        let mut tree = Tree::new();
        for block in 0..full_blocks {
            tree.push(streams.full_block(block * BLOCK / LANES));
        }
        if length % BLOCK != 0 {
            tree.push(streams.last_block(full_blocks * BLOCK / LANES, input));
        }
        tree.sum()
    }
}

/// The full rows of the streams, and a row's sixteen lanes as the backend's columns.
struct Streams<'a, P: Element, S, V: Vector<P::Arithmetic>, const DECAY: bool, const FIRST: bool> {
    vector: V,
    weight_decay: V::Column,
    gradient: &'a [[P; LANES]],
    parameters: &'a [[P; LANES]],
    h: &'a [[S; LANES]],
    v: &'a [[S; LANES]],
}

impl<P: Element, S: Element, V: Vector<P::Arithmetic>, const DECAY: bool, const FIRST: bool>
    Streams<'_, P, S, V, DECAY, FIRST>
{
    /// Which of the four sums are taken.
    const TAKEN: [bool; 4] = [!FIRST, !FIRST, true, DECAY];

    #[inline(always)]
    fn full_block(&self, first_row: usize) -> Sums {
        let mut lanes = [Lanes::ZERO; 4];
        // One check here, and none per row.
        let streams = self.rows_from(first_row, BLOCK / LANES);
        for run in 0..BLOCK / LANES / RUN_ROWS {
            for column in 0..LANES / V::WIDTH {
                let mut sums = streams.products(run * RUN_ROWS, column);
                for row in 1..RUN_ROWS {
                    streams.accumulate(&mut sums, row + run * RUN_ROWS, column);
                }
                streams.widen(&mut lanes, sums, column);
            }
        }
        Self::sum_lanes(&lanes)
    }

    /// The block that is not full: its full rows, and a last one filled up with zeros.
    #[inline(always)]
    fn last_block(&self, first_row: usize, input: DotsInput<'_, P, S>) -> Sums {
        let mut lanes = [Lanes::ZERO; 4];
        let full_rows = self.gradient.len() - first_row;
        let streams = self.rows_from(first_row, full_rows);
        let gradient = [padded(input.gradient)];
        let parameters = [if DECAY { padded(input.parameters) } else { [P::zeroed(); LANES] }];
        let (h, v) = if FIRST {
            ([[S::zeroed(); LANES]], [[S::zeroed(); LANES]])
        } else {
            ([padded(input.h)], [padded(input.v)])
        };
        let tail = Streams::<P, S, V, DECAY, FIRST> {
            vector: self.vector,
            weight_decay: self.weight_decay,
            gradient: &gradient,
            parameters: &parameters,
            h: &h,
            v: &v,
        };
        let has_tail = input.gradient.len() % LANES != 0;
        for run in 0..(full_rows + usize::from(has_tail)).div_ceil(RUN_ROWS) {
            let (from, to) = (run * RUN_ROWS, full_rows.min((run + 1) * RUN_ROWS));
            for column in 0..LANES / V::WIDTH {
                // From +0 instead of from the first product: the float64 sums absorb the sign of a zero.
                let mut sums = [self.vector.splat(P::Arithmetic::zeroed()); 4];
                for row in from..to {
                    streams.accumulate(&mut sums, row, column);
                }
                if has_tail && to - from < RUN_ROWS {
                    tail.accumulate(&mut sums, 0, column);
                }
                streams.widen(&mut lanes, sums, column);
            }
        }
        Self::sum_lanes(&lanes)
    }

    #[inline(always)]
    fn rows_from(&self, first: usize, count: usize) -> Self {
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

    #[inline(always)]
    fn products(&self, row: usize, column: usize) -> [V::Column; 4] {
        let v = self.vector;
        let gradient = load(v, &self.gradient[row], column);
        let (measurement, squared) = if DECAY {
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
        [a, b, v.mul(measurement, measurement), squared]
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

    #[inline(always)]
    fn sum_lanes(lanes: &[Lanes; 4]) -> Sums {
        let mut sums = [0.0; 4];
        for k in 0..4 {
            if Self::TAKEN[k] {
                sums[k] = lanes[k].sum();
            }
        }
        sums
    }
}

/// The contract's tree over the blocks of a chunk: subtrees wait at their level until their sibling is there.
struct Tree {
    waiting: [Sums; (CHUNK / BLOCK).ilog2() as usize + 1],
    blocks: usize,
}

impl Tree {
    #[inline(always)]
    fn new() -> Self {
        Tree { waiting: [[0.0; 4]; (CHUNK / BLOCK).ilog2() as usize + 1], blocks: 0 }
    }

    #[inline(always)]
    fn push(&mut self, mut sums: Sums) {
        let mut level = 0;
        while self.blocks >> level & 1 == 1 {
            sums = add(self.waiting[level], sums);
            level += 1;
        }
        self.waiting[level] = sums;
        self.blocks += 1;
    }

    #[inline(always)]
    fn sum(self) -> Sums {
        let mut level = self.blocks.trailing_zeros() as usize;
        let mut sums = self.waiting[level];
        level += 1;
        while self.blocks >> level != 0 {
            if self.blocks >> level & 1 == 1 {
                sums = add(self.waiting[level], sums);
            }
            level += 1;
        }
        sums
    }
}

/// The full rows of the first `length` elements.
#[inline(always)]
fn rows<T>(elements: &[T], length: usize) -> &[[T; LANES]] {
    elements[..length].as_chunks().0
}

/// The elements after the last full row, filled up with zeros.
#[inline(always)]
fn padded<T: Element>(elements: &[T]) -> [T; LANES] {
    let tail = elements.as_chunks::<LANES>().1;
    let mut row = [T::zeroed(); LANES];
    copy_tail(tail, &mut row);
    row
}

/// Copies fewer than sixteen elements, in pieces of fixed size: a copy of variable length is a call, and costs more
/// than a small tensor's whole step.
#[inline(always)]
fn copy_tail<T: Copy>(from: &[T], to: &mut [T]) {
    let length = from.len().min(to.len());
    let mut done = 0;
    for size in [8, 4, 2, 1] {
        if length & size != 0 {
            match size {
                8 => copy_exact::<T, 8>(from, to, done),
                4 => copy_exact::<T, 4>(from, to, done),
                2 => copy_exact::<T, 2>(from, to, done),
                _ => copy_exact::<T, 1>(from, to, done),
            }
            done += size;
        }
    }
}

#[inline(always)]
fn copy_exact<T: Copy, const N: usize>(from: &[T], to: &mut [T], at: usize) {
    if let (Some(from), Some(to)) = (from[at..].first_chunk::<N>(), to[at..].first_chunk_mut::<N>()) {
        *to = *from;
    }
}

/// The numbers that pass 2 multiplies vectors with, in the arithmetic type.
#[derive(Clone, Copy)]
pub struct Coefficients<F> {
    /// wd
    pub weight_decay: F,
    /// α − λ
    pub keep: F,
    /// Q
    pub process_noise: F,
    /// w − Q·λ
    pub mix: F,
    /// η·(L + ½·wd·θ·θ)/s'
    pub rate: F,
    /// σ, on a first step only
    pub initial_variance: Option<F>,
}

/// What pass 2 reads and writes: all of one length, `copy` if present too.
pub struct UpdateInput<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a mut [P],
    pub h: &'a mut [S],
    pub v: &'a mut [S],
    pub copy: Option<HalfCopy<'a>>,
}

impl<P, S> UpdateInput<'_, P, S> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        let (gradient, gradient_rest) = self.gradient.split_at(middle);
        let (parameters, parameters_rest) = self.parameters.split_at_mut(middle);
        let (h, h_rest) = self.h.split_at_mut(middle);
        let (v, v_rest) = self.v.split_at_mut(middle);
        let (copy, copy_rest) = self.copy.map(|copy| copy.split_at(middle)).unzip();
        (
            UpdateInput { gradient, parameters, h, v, copy },
            UpdateInput { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest, copy: copy_rest },
        )
    }
}

/// Pass 2 over a tensor of any length, in chunks, several at once if `parallel`.
pub fn update<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    coefficients: Coefficients<P::Arithmetic>,
    input: UpdateInput<'_, P, S>,
) {
    let length = input.gradient.len();
    if length <= CHUNK {
        let decay = coefficients.weight_decay.to_f64() != 0.0;
        return match (decay, coefficients.initial_variance.is_some()) {
            (false, true) => backend.run(ChunkUpdate::<P, S, false, true> { coefficients, input }),
            (false, false) => backend.run(ChunkUpdate::<P, S, false, false> { coefficients, input }),
            (true, true) => backend.run(ChunkUpdate::<P, S, true, true> { coefficients, input }),
            (true, false) => backend.run(ChunkUpdate::<P, S, true, false> { coefficients, input }),
        };
    }
    let (left, right) = input.split_at(split_point(length));
    join(parallel, || update(backend, parallel, coefficients, left), || update(backend, parallel, coefficients, right));
}

/// Pass 2 over at most a chunk. `DECAY`: H differs from g; `FIRST`: h and v are written, not read.
struct ChunkUpdate<'a, P: Element, S, const DECAY: bool, const FIRST: bool> {
    coefficients: Coefficients<P::Arithmetic>,
    input: UpdateInput<'a, P, S>,
}

impl<P: Element, S: Element, const DECAY: bool, const FIRST: bool> Operation<P::Arithmetic>
    for ChunkUpdate<'_, P, S, DECAY, FIRST>
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) {
        let UpdateInput { gradient, parameters, h, v: product, copy } = self.input;
        let update = RowUpdate::<P::Arithmetic, V, DECAY, FIRST>::new(v, self.coefficients);
        let Some(copy) = copy else { return update.all(gradient, parameters, h, product) };
        // Block by block, so that the new parameters are copied while they are in the first cache.
        let mut rest = Some(copy);
        let blocks = gradient.chunks(BLOCK).zip(parameters.chunks_mut(BLOCK));
        for (((gradient, parameters), h), product) in blocks.zip(h.chunks_mut(BLOCK)).zip(product.chunks_mut(BLOCK)) {
            update.all(gradient, parameters, h, product);
            let Some((block, after)) = rest.take().map(|copy| copy.split_at(gradient.len())) else { return };
            match block {
                HalfCopy::Bf16(copy) => round_copy::<P, bf16, V>(v, parameters, copy),
                HalfCopy::F16(copy) => round_copy::<P, f16, V>(v, parameters, copy),
            }
            rest = Some(after);
        }
    }
}

/// The coefficients in registers.
struct RowUpdate<F: Real, V: Vector<F>, const DECAY: bool, const FIRST: bool> {
    vector: V,
    weight_decay: V::Column,
    keep: V::Column,
    process_noise: V::Column,
    mix: V::Column,
    rate: V::Column,
    initial_variance: V::Column,
}

impl<F: Real, V: Vector<F>, const DECAY: bool, const FIRST: bool> RowUpdate<F, V, DECAY, FIRST> {
    #[inline(always)]
    fn new(v: V, coefficients: Coefficients<F>) -> Self {
        RowUpdate {
            vector: v,
            weight_decay: v.splat(coefficients.weight_decay),
            keep: v.splat(coefficients.keep),
            process_noise: v.splat(coefficients.process_noise),
            mix: v.splat(coefficients.mix),
            rate: v.splat(coefficients.rate),
            initial_variance: v.splat(coefficients.initial_variance.unwrap_or(F::zeroed())),
        }
    }

    #[inline(always)]
    fn all<P: Element<Arithmetic = F>, S: Element>(
        &self,
        gradient: &[P],
        parameters: &mut [P],
        h: &mut [S],
        v: &mut [S],
    ) {
        let (gradient_rows, gradient_tail) = gradient.as_chunks::<LANES>();
        let (parameters_rows, parameters_tail) = parameters.as_chunks_mut::<LANES>();
        let (h_rows, h_tail) = h.as_chunks_mut::<LANES>();
        let (v_rows, v_tail) = v.as_chunks_mut::<LANES>();
        for (((gradient, parameters), h), v) in gradient_rows.iter().zip(parameters_rows).zip(h_rows).zip(v_rows) {
            self.row(gradient, parameters, h, v);
        }
        if !gradient_tail.is_empty() {
            let gradient = padded(gradient_tail);
            let (mut parameters, mut h, mut v) = (padded(parameters_tail), padded(h_tail), padded(v_tail));
            self.row(&gradient, &mut parameters, &mut h, &mut v);
            copy_tail(&parameters, parameters_tail);
            copy_tail(&h, h_tail);
            copy_tail(&v, v_tail);
        }
    }

    #[inline(always)]
    fn row<P: Element<Arithmetic = F>, S: Element>(
        &self,
        gradient_row: &[P; LANES],
        parameters_row: &mut [P; LANES],
        h_row: &mut [S; LANES],
        v_row: &mut [S; LANES],
    ) {
        let v = self.vector;
        for column in 0..LANES / V::WIDTH {
            let gradient = load(v, gradient_row, column);
            let parameters = load(v, parameters_row, column);
            let measurement = if DECAY { v.add(gradient, v.mul(self.weight_decay, parameters)) } else { gradient };
            let (product, h) = if FIRST {
                (v.mul(self.initial_variance, measurement), measurement)
            } else {
                (load(v, v_row, column), load(v, h_row, column))
            };
            let noise = v.mul(self.process_noise, measurement);
            let product = v.add(v.add(v.mul(self.keep, product), noise), v.mul(self.mix, h));
            let parameters = v.sub(parameters, v.mul(self.rate, v.add(product, noise)));
            store(v, v_row, column, product);
            store(v, h_row, column, measurement);
            store(v, parameters_row, column, parameters);
        }
    }
}

/// Rounds the stored parameters to a half-precision copy.
#[inline(always)]
fn round_copy<P: Element, T: Element, V: Vector<P::Arithmetic>>(v: V, parameters: &[P], copy: &mut [T]) {
    let (rows, tail) = parameters.as_chunks::<LANES>();
    let (copy_rows, copy_rest) = copy.as_chunks_mut::<LANES>();
    for (row, copy) in rows.iter().zip(copy_rows) {
        for column in 0..LANES / V::WIDTH {
            store(v, copy, column, load(v, row, column));
        }
    }
    for (value, copy) in tail.iter().zip(copy_rest) {
        *copy = T::from_f64(value.to_f64());
    }
}
