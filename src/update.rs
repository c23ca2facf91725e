//! Pass 2, the update of a tensor, written once for every backend and type.
//!
//! ```text
//! for each element:
//!     H  = g + wd·θ                          (g itself without weight decay)
//!     v' = (keep·v + Q·H) + mix·h
//!     θ' = θ − rate·(v' + Q·H)
//!     h' = H
//! ```
//!
//! On a first step h = H and v = σ·H are written before it, rounded to the state's type; it is then like any other.
//! Where the gradient's memory becomes the new h, which it can without weight decay, h' is not written.

use half::{bf16, f16};

use crate::contract::{BLOCK, CHUNK, LANES};
use crate::dots::split_point;
use crate::element::{Element, Real};
use crate::rows::{copy_tail, padded};
use crate::threads::join;
use crate::vector::{Operation, Vector, load, store};
use crate::{Backend, HalfCopy};

/// Elements from which on it pays to begin at a cache line.
const WORTH_PEELING: usize = 256;

/// The numbers that vectors are multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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

impl<F> Coefficients<F> {
    /// The same numbers in another type.
    pub fn map<G>(self, convert: impl Fn(F) -> G) -> Coefficients<G> {
        Coefficients {
            weight_decay: convert(self.weight_decay),
            keep: convert(self.keep),
            process_noise: convert(self.process_noise),
            mix: convert(self.mix),
            rate: convert(self.rate),
            initial_variance: self.initial_variance.map(convert),
        }
    }
}

/// What is read and written: all of one length. With `exchange`, h is only read.
pub struct Input<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a mut [P],
    pub h: &'a mut [S],
    pub v: &'a mut [S],
    pub exchange: bool,
}

impl<P, S> Input<'_, P, S> {
    fn split_at(&mut self, middle: usize) -> (Input<'_, P, S>, Input<'_, P, S>) {
        let exchange = self.exchange;
        let (gradient, gradient_rest) = self.gradient.split_at(middle);
        let (parameters, parameters_rest) = self.parameters.split_at_mut(middle);
        let (h, h_rest) = self.h.split_at_mut(middle);
        let (v, v_rest) = self.v.split_at_mut(middle);
        (
            Input { gradient, parameters, h, v, exchange },
            Input { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest, exchange },
        )
    }
}

/// Updates a tensor of any length, in chunks, several at once if `parallel`. `copy`, if there is one, has its length too.
#[inline(always)]
pub fn update<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    match input.gradient.len() <= CHUNK {
        true => chunk(backend, coefficients, input, copy),
        false => divided(backend, parallel, parallel, coefficients, input, copy),
    }
}

/// The end first: pass 1 has just been there, so it is what the cache holds of a tensor that is larger than it. But of
/// several threads each first gets its own half, as in pass 1: that half may be in its cache.
#[inline(never)]
fn divided<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    among_threads: bool,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    let middle = split_point(input.gradient.len());
    let (mut left, mut right) = input.split_at(middle);
    let (copy, copy_rest) = copy.map(|copy| copy.split_at(middle)).unzip();
    let part = |input: &mut Input<'_, P, S>, copy: Option<HalfCopy<'_>>| match input.gradient.len() <= CHUNK {
        true => chunk(backend, coefficients, input, copy),
        false => divided(backend, parallel, false, coefficients, input, copy),
    };
    match among_threads {
        true => join(parallel, || part(&mut left, copy), || part(&mut right, copy_rest)),
        false => join(parallel, || part(&mut right, copy_rest), || part(&mut left, copy)),
    };
}

#[inline(always)]
fn chunk<P: Element, S: Element>(
    backend: Backend,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
    copy: Option<HalfCopy<'_>>,
) {
    match copy {
        None => update_part(backend, coefficients, input),
        Some(copy) => update_and_copy(backend, coefficients, input, copy),
    }
}

/// Block by block, so that the new parameters are copied while they are in the first cache.
#[inline(never)]
fn update_and_copy<P: Element, S: Element>(
    backend: Backend,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
    copy: HalfCopy<'_>,
) {
    let middle = input.gradient.len().min(BLOCK);
    let (mut block, mut rest) = input.split_at(middle);
    let (copy, copy_rest) = copy.split_at(middle);
    update_part(backend, coefficients, &mut block);
    let parameters = &*block.parameters;
    match copy {
        HalfCopy::Bf16(copy) => backend.run(RoundedCopy::<P, bf16> { parameters, copy }),
        HalfCopy::F16(copy) => backend.run(RoundedCopy::<P, f16> { parameters, copy }),
    }
    if !rest.gradient.is_empty() {
        update_and_copy(backend, coefficients, &mut rest, copy_rest);
    }
}

#[inline(always)]
fn update_part<P: Element, S: Element>(
    backend: Backend,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
) {
    if coefficients.initial_variance.is_some() {
        begin(backend, coefficients, input);
    }
    match (coefficients.weight_decay.to_f64() != 0.0, input.exchange) {
        (true, _) => backend.run(Update::<P, S, DECAYED> { coefficients, input }),
        (false, false) => backend.run(Update::<P, S, PLAIN> { coefficients, input }),
        (false, true) => backend.run(Update::<P, S, EXCHANGED> { coefficients, input }),
    }
}

#[inline(never)]
fn begin<P: Element, S: Element>(
    backend: Backend,
    coefficients: &Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
) {
    match coefficients.weight_decay.to_f64() != 0.0 {
        true => backend.run(Update::<P, S, BEGINNING_DECAYED> { coefficients, input }),
        false => backend.run(Update::<P, S, BEGINNING> { coefficients, input }),
    }
}

// The kinds of pass 2, each compiled on its own.
/// H = g, and h' = H is written.
const PLAIN: u8 = 0;
/// H = g + wd·θ.
const DECAYED: u8 = 1;
/// H = g, and h' is not written.
const EXCHANGED: u8 = 2;
/// H = g, and only h = H and v = σ·H are written.
const BEGINNING: u8 = 3;
/// H = g + wd·θ, and only h = H and v = σ·H are written.
const BEGINNING_DECAYED: u8 = 4;

/// Pass 2 over a part of a tensor.
struct Update<'a, 'b, P: Element, S, const KIND: u8> {
    coefficients: &'a Coefficients<P::Arithmetic>,
    input: &'a mut Input<'b, P, S>,
}

impl<P: Element, S: Element, const KIND: u8> Operation<P::Arithmetic> for Update<'_, '_, P, S, KIND> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) {
        let update = RowUpdate::<P::Arithmetic, V, KIND>::new(v, self.coefficients);
        let Input { gradient, parameters, h, v, .. } = self.input;
        let peeled = misalignment(gradient, parameters, h, v);
        let (gradient_head, gradient) = gradient.split_at(peeled);
        let (parameters_head, parameters) = parameters.split_at_mut(peeled);
        let (h_head, h) = h.split_at_mut(peeled);
        let (v_head, v) = v.split_at_mut(peeled);
        if peeled > 0 {
            update.part_of_row(gradient_head, parameters_head, h_head, v_head);
        }
        let (gradient_rows, gradient_tail) = gradient.as_chunks::<LANES>();
        let (parameters_rows, parameters_tail) = parameters.as_chunks_mut::<LANES>();
        let (h_rows, h_tail) = h.as_chunks_mut::<LANES>();
        let (v_rows, v_tail) = v.as_chunks_mut::<LANES>();
        for (((gradient, parameters), h), v) in gradient_rows.iter().zip(parameters_rows).zip(h_rows).zip(v_rows) {
            update.row(gradient, parameters, h, v);
        }
        if !gradient_tail.is_empty() {
            update.part_of_row(gradient_tail, parameters_tail, h_tail, v_tail);
        }
    }
}

/// How many elements lie before the first cache line that begins with one, if that is the same in all four vectors: rows
/// that begin there cross no line, which pays from some length on. (Pass 1 can't begin there: its sums are by index.)
#[inline(always)]
fn misalignment<P, S>(gradient: &[P], parameters: &[P], h: &[S], v: &[S]) -> usize {
    let row = size_of::<[P; LANES]>().min(64);
    let before = |address: usize| address.wrapping_neg() % row;
    let bytes = before(parameters.as_ptr().addr());
    let all = [gradient.as_ptr().addr(), h.as_ptr().addr(), v.as_ptr().addr()];
    let in_step = size_of::<P>() == size_of::<S>() && all.into_iter().all(|address| before(address) == bytes);
    if bytes != 0 && in_step && parameters.len() >= WORTH_PEELING { bytes / size_of::<P>() } else { 0 }
}

/// The coefficients in registers.
struct RowUpdate<F: Real, V: Vector<F>, const KIND: u8> {
    vector: V,
    weight_decay: V::Column,
    keep: V::Column,
    process_noise: V::Column,
    mix: V::Column,
    rate: V::Column,
    initial_variance: V::Column,
}

impl<F: Real, V: Vector<F>, const KIND: u8> RowUpdate<F, V, KIND> {
    const DECAY: bool = matches!(KIND, DECAYED | BEGINNING_DECAYED);
    const BEGINNING: bool = matches!(KIND, BEGINNING | BEGINNING_DECAYED);

    #[inline(always)]
    fn new(v: V, coefficients: &Coefficients<F>) -> Self {
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

    /// Fewer elements than a row.
    #[inline(always)]
    fn part_of_row<P: Element<Arithmetic = F>, S: Element>(
        &self,
        gradient_part: &[P],
        parameters_part: &mut [P],
        h_part: &mut [S],
        v_part: &mut [S],
    ) {
        let vector = self.vector;
        let gradient = padded(vector, gradient_part);
        let mut parameters = padded(vector, parameters_part);
        let (mut h, mut v) = (padded(vector, h_part), padded(vector, v_part));
        self.row(&gradient, &mut parameters, &mut h, &mut v);
        copy_tail(&parameters, parameters_part);
        copy_tail(&h, h_part);
        copy_tail(&v, v_part);
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
            let measurement =
                if Self::DECAY { v.add(gradient, v.mul(self.weight_decay, parameters)) } else { gradient };
            if Self::BEGINNING {
                store(v, h_row, column, measurement);
                store(v, v_row, column, v.mul(self.initial_variance, measurement));
                continue;
            }
            let (product, h) = (load(v, v_row, column), load(v, h_row, column));
            let noise = v.mul(self.process_noise, measurement);
            let product = v.add(v.add(v.mul(self.keep, product), noise), v.mul(self.mix, h));
            let parameters = v.sub(parameters, v.mul(self.rate, v.add(product, noise)));
            store(v, v_row, column, product);
            if KIND != EXCHANGED {
                store(v, h_row, column, measurement);
            }
            store(v, parameters_row, column, parameters);
        }
    }
}

/// The stored parameters, rounded to half precision.
struct RoundedCopy<'a, P, T> {
    parameters: &'a [P],
    copy: &'a mut [T],
}

impl<P: Element, T: Element> Operation<P::Arithmetic> for RoundedCopy<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) {
        let (rows, _) = self.parameters.as_chunks::<LANES>();
        let (copy_rows, copy_tail_elements) = self.copy.as_chunks_mut::<LANES>();
        for (row, copy) in rows.iter().zip(copy_rows) {
            for column in 0..LANES / V::WIDTH {
                store(v, copy, column, load(v, row, column));
            }
        }
        let (row, mut copy) = (padded(v, self.parameters), [T::zeroed(); LANES]);
        for column in 0..LANES / V::WIDTH {
            store(v, &mut copy, column, load(v, &row, column));
        }
        copy_tail(&copy, copy_tail_elements);
    }
}
