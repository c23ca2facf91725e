//! Pass 2, the update of a tensor of any length: how it is divided among chunks and threads, and how the rule of a
//! [method](crate::methods) for single elements is carried over rows, on every backend and in every type.

use bytemuck::Zeroable;
use half::{bf16, f16};

use crate::dispatch::Backend;
use crate::passes::dots::split_point;
use crate::simd::convert::Convert;
use crate::simd::vector::{Operand, Operation, Real, Vector, copy_tail, load, padded, store};
use crate::types::contract::{BLOCK, CHUNK, LANES};
use crate::types::element::Element;
use crate::types::threads::join;

/// Elements from which on it pays to begin at a cache line.
const WORTH_PEELING: usize = 256;

/// Something of each of the four vectors of a tensor: a column, or whether it is used.
#[derive(Clone, Copy)]
pub struct Streams<T> {
    pub gradient: T,
    pub parameters: T,
    pub h: T,
    pub v: T,
}

/// What is done with every element, in the arithmetic type.
pub trait Rule<F: Real>: Copy {
    /// What is read. The others come as zeros.
    const READS: Streams<bool>;
    /// What is written. The gradient never is.
    const WRITES: Streams<bool>;

    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column>;
}

/// What is done with a tensor, part by part, in one stage or more.
pub trait Pass<P, S>: Sync {
    /// Stages that each part goes through; what one writes, rounded to the types that it is stored in, the next one reads.
    #[inline(always)]
    fn stages(&self) -> usize {
        1
    }

    fn run(&self, backend: Backend, stage: usize, input: &mut Input<'_, P, S>);
}

/// Every rule is a pass of one stage.
impl<P: Operand, S: Element, R: Rule<P::Arithmetic> + Sync> Pass<P, S> for R {
    #[inline(always)]
    fn run(&self, backend: Backend, _: usize, input: &mut Input<'_, P, S>) {
        backend.run(Elementwise { rule: self, input });
    }
}

/// What is read and written: all of the parameters' length, or empty where the rule does not use it.
pub struct Input<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a mut [P],
    pub h: &'a mut [S],
    pub v: &'a mut [S],
}

impl<P, S> Input<'_, P, S> {
    pub fn split_at(&mut self, middle: usize) -> (Input<'_, P, S>, Input<'_, P, S>) {
        let (gradient, gradient_rest) = self.gradient.split_at(middle.min(self.gradient.len()));
        let (parameters, parameters_rest) = self.parameters.split_at_mut(middle);
        let (h, h_rest) = self.h.split_at_mut(middle.min(self.h.len()));
        let (v, v_rest) = self.v.split_at_mut(middle.min(self.v.len()));
        (
            Input { gradient, parameters, h, v },
            Input { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest },
        )
    }
}

/// Updates a tensor of any length, in chunks, several at once if `parallel`. `copy`, if there is one, has its length too.
#[inline(always)]
pub fn update<P: Operand, S: Element, U: Pass<P, S>>(
    backend: Backend,
    parallel: bool,
    pass: &U,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    match input.parameters.len() <= CHUNK {
        true => chunk(backend, pass, input, copy),
        false => divided(backend, parallel, parallel, pass, input, copy),
    }
}

/// The end first: pass 1 has just been there, so it is what the cache holds of a tensor that is larger than it. But of
/// several threads each first gets its own half, as in pass 1: that half may be in its cache.
#[inline(never)]
fn divided<P: Operand, S: Element, U: Pass<P, S>>(
    backend: Backend,
    parallel: bool,
    among_threads: bool,
    pass: &U,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    let middle = split_point(input.parameters.len());
    let (mut left, mut right) = input.split_at(middle);
    let (copy, copy_rest) = copy.map(|copy| copy.split_at(middle)).unzip();
    let part = |input: &mut Input<'_, P, S>, copy: Option<HalfCopy<'_>>| match input.parameters.len() <= CHUNK {
        true => chunk(backend, pass, input, copy),
        false => divided(backend, parallel, false, pass, input, copy),
    };
    match among_threads {
        true => join(parallel, || part(&mut left, copy), || part(&mut right, copy_rest)),
        false => join(parallel, || part(&mut right, copy_rest), || part(&mut left, copy)),
    };
}

#[inline(always)]
fn chunk<P: Operand, S: Element, U: Pass<P, S>>(
    backend: Backend,
    pass: &U,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    match copy {
        None => every_stage(backend, pass, input),
        Some(copy) => update_and_copy(backend, pass, input, copy),
    }
}

#[inline(always)]
fn every_stage<P: Operand, S: Element, U: Pass<P, S>>(backend: Backend, pass: &U, input: &mut Input<'_, P, S>) {
    for stage in 0..pass.stages() {
        pass.run(backend, stage, input);
    }
}

/// Block by block, so that the new parameters are copied while they are in the first cache.
#[inline(never)]
fn update_and_copy<P: Operand, S: Element, U: Pass<P, S>>(
    backend: Backend,
    pass: &U,
    input: &mut Input<'_, P, S>,
    copy: HalfCopy<'_>,
) {
    let middle = input.parameters.len().min(BLOCK);
    let (mut block, mut rest) = input.split_at(middle);
    let (copy, copy_rest) = copy.split_at(middle);
    every_stage(backend, pass, &mut block);
    let from = &*block.parameters;
    match copy {
        HalfCopy::Bf16(to) => backend.run(Convert::<P::Arithmetic, P, bf16>::new(from, to)),
        HalfCopy::F16(to) => backend.run(Convert::<P::Arithmetic, P, f16>::new(from, to)),
    }
    if !rest.parameters.is_empty() {
        update_and_copy(backend, pass, &mut rest, copy_rest);
    }
}

/// A rule, carried over a part of a tensor. It is lent: a copy of numbers that have just been written one by one would
/// have to wait for them.
struct Elementwise<'a, 'b, R, P, S> {
    rule: &'a R,
    input: &'a mut Input<'b, P, S>,
}

impl<P: Operand, S: Element, R: Rule<P::Arithmetic>> Operation<P::Arithmetic> for Elementwise<'_, '_, R, P, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) {
        let (rule, input) = (*self.rule, self.input);
        let Input { gradient, parameters, h, v: product, .. } = input;
        let used = used::<P::Arithmetic, R>();
        let peeled = misalignment(used, gradient, parameters, h, product);
        let (gradient_head, gradient) = gradient.split_at(if used.gradient { peeled } else { 0 });
        let (parameters_head, parameters) = parameters.split_at_mut(peeled);
        let (h_head, h) = h.split_at_mut(if used.h { peeled } else { 0 });
        let (v_head, product) = product.split_at_mut(if used.v { peeled } else { 0 });
        if peeled > 0 {
            part_of_row(v, rule, gradient_head, parameters_head, h_head, v_head);
        }
        let (gradient_rows, gradient_tail) = gradient.as_chunks::<LANES>();
        let (parameters_rows, parameters_tail) = parameters.as_chunks_mut::<LANES>();
        let (h_rows, h_tail) = h.as_chunks_mut::<LANES>();
        let (v_rows, v_tail) = product.as_chunks_mut::<LANES>();

        if used.gradient && used.h && used.v {
            // One count for all, which is the shortest loop.
            for (((gradient, parameters), h), v_row) in
                gradient_rows.iter().zip(parameters_rows).zip(h_rows).zip(v_rows)
            {
                row(v, rule, gradient, parameters, h, v_row);
            }
        } else {
            let (no_gradient, mut no_h, mut no_v) = ([P::zeroed(); LANES], [S::zeroed(); LANES], [S::zeroed(); LANES]);
            for (index, parameters) in parameters_rows.iter_mut().enumerate() {
                let gradient = if used.gradient { &gradient_rows[index] } else { &no_gradient };
                let h = if used.h { &mut h_rows[index] } else { &mut no_h };
                let v_row = if used.v { &mut v_rows[index] } else { &mut no_v };
                row(v, rule, gradient, parameters, h, v_row);
            }
        }
        if !parameters_tail.is_empty() {
            part_of_row(v, rule, gradient_tail, parameters_tail, h_tail, v_tail);
        }
    }
}

/// The vectors that a rule reads or writes.
const fn used<F: Real, R: Rule<F>>() -> Streams<bool> {
    Streams {
        gradient: R::READS.gradient,
        parameters: true,
        h: R::READS.h || R::WRITES.h,
        v: R::READS.v || R::WRITES.v,
    }
}

/// Fewer elements than a row.
#[inline(always)]
fn part_of_row<P: Operand, S: Element, V: Vector<P::Arithmetic>, R: Rule<P::Arithmetic>>(
    vector: V,
    rule: R,
    gradient_part: &[P],
    parameters_part: &mut [P],
    h_part: &mut [S],
    v_part: &mut [S],
) {
    let gradient = padded(vector, gradient_part);
    let mut parameters = padded(vector, parameters_part);
    let (mut h, mut v) = (padded(vector, h_part), padded(vector, v_part));
    row(vector, rule, &gradient, &mut parameters, &mut h, &mut v);
    copy_tail(&parameters, parameters_part);
    copy_tail(&h, h_part);
    copy_tail(&v, v_part);
}

#[inline(always)]
fn row<P: Operand, S: Element, V: Vector<P::Arithmetic>, R: Rule<P::Arithmetic>>(
    v: V,
    rule: R,
    gradient: &[P; LANES],
    parameters: &mut [P; LANES],
    h: &mut [S; LANES],
    product: &mut [S; LANES],
) {
    let zero = || v.splat(P::Arithmetic::zeroed());
    for column in 0..LANES / V::WIDTH {
        let new = rule.column(
            v,
            Streams {
                gradient: if R::READS.gradient { load(v, gradient, column) } else { zero() },
                parameters: if R::READS.parameters { load(v, parameters, column) } else { zero() },
                h: if R::READS.h { load(v, h, column) } else { zero() },
                v: if R::READS.v { load(v, product, column) } else { zero() },
            },
        );
        if R::WRITES.v {
            store(v, product, column, new.v);
        }
        if R::WRITES.h {
            store(v, h, column, new.h);
        }
        if R::WRITES.parameters {
            store(v, parameters, column, new.parameters);
        }
    }
}

/// How many elements lie before the first cache line that begins with one, if that is the same in all vectors: rows that
/// begin there cross no line, which pays from some length on. (Pass 1 can't begin there: its sums are by index.)
#[inline(always)]
fn misalignment<P, S>(used: Streams<bool>, gradient: &[P], parameters: &[P], h: &[S], v: &[S]) -> usize {
    if parameters.len() < WORTH_PEELING {
        return 0;
    }
    let row = size_of::<[P; LANES]>().min(64);
    let before = |address: usize| address.wrapping_neg() % row;
    let bytes = before(parameters.as_ptr().addr());
    let same = |used: bool, address: usize| !used || before(address) == bytes;
    let in_step = (size_of::<P>() == size_of::<S>() || !(used.h || used.v))
        && same(used.gradient, gradient.as_ptr().addr())
        && same(used.h, h.as_ptr().addr())
        && same(used.v, v.as_ptr().addr());
    if in_step { bytes / size_of::<P>() } else { 0 }
}

/// A second place for the new parameters, rounded: for networks that compute in half precision.
#[derive(Debug)]
pub enum HalfCopy<'a> {
    /// In bf16.
    Bf16(&'a mut [bf16]),
    /// In f16.
    F16(&'a mut [f16]),
}

impl<'a> HalfCopy<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            HalfCopy::Bf16(copy) => copy.len(),
            HalfCopy::F16(copy) => copy.len(),
        }
    }

    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            HalfCopy::Bf16(copy) => {
                let (left, right) = copy.split_at_mut(middle);
                (HalfCopy::Bf16(left), HalfCopy::Bf16(right))
            }
            HalfCopy::F16(copy) => {
                let (left, right) = copy.split_at_mut(middle);
                (HalfCopy::F16(left), HalfCopy::F16(right))
            }
        }
    }

    pub(crate) fn reborrow(&mut self) -> HalfCopy<'_> {
        match self {
            HalfCopy::Bf16(copy) => HalfCopy::Bf16(copy),
            HalfCopy::F16(copy) => HalfCopy::F16(copy),
        }
    }
}
