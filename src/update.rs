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

use half::{bf16, f16};

use crate::contract::{BLOCK, CHUNK, LANES};
use crate::dots::split_point;
use crate::element::{Element, Real};
use crate::rows::{copy_tail, padded};
use crate::threads::join;
use crate::vector::{Operation, Vector, load, store};
use crate::{Backend, HalfCopy};

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

/// What is read and written: all of one length, `copy` if present too.
pub struct Input<'a, P, S> {
    pub gradient: &'a [P],
    pub parameters: &'a mut [P],
    pub h: &'a mut [S],
    pub v: &'a mut [S],
    pub copy: Option<HalfCopy<'a>>,
}

impl<P, S> Input<'_, P, S> {
    /// The same, without the copy.
    fn reborrow(&mut self) -> Input<'_, P, S> {
        Input { gradient: self.gradient, parameters: self.parameters, h: self.h, v: self.v, copy: None }
    }

    fn split_at(self, middle: usize) -> (Self, Self) {
        let (gradient, gradient_rest) = self.gradient.split_at(middle);
        let (parameters, parameters_rest) = self.parameters.split_at_mut(middle);
        let (h, h_rest) = self.h.split_at_mut(middle);
        let (v, v_rest) = self.v.split_at_mut(middle);
        let (copy, copy_rest) = self.copy.map(|copy| copy.split_at(middle)).unzip();
        (
            Input { gradient, parameters, h, v, copy },
            Input { gradient: gradient_rest, parameters: parameters_rest, h: h_rest, v: v_rest, copy: copy_rest },
        )
    }
}

/// Updates a tensor of any length, in chunks, several at once if `parallel`.
pub fn update<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    coefficients: Coefficients<P::Arithmetic>,
    input: Input<'_, P, S>,
) {
    let length = input.gradient.len();
    if length > CHUNK {
        let (left, right) = input.split_at(split_point(length));
        join(
            parallel,
            || update(backend, parallel, coefficients, left),
            || update(backend, parallel, coefficients, right),
        );
        return;
    }
    if input.copy.is_none() {
        return update_part(backend, coefficients, input);
    }
    // Block by block, so that the new parameters are copied while they are in the first cache.
    let mut rest = input;
    while !rest.gradient.is_empty() {
        let middle = rest.gradient.len().min(BLOCK);
        let (mut block, after) = rest.split_at(middle);
        update_part(backend, coefficients, block.reborrow());
        let parameters = &*block.parameters;
        match block.copy {
            Some(HalfCopy::Bf16(copy)) => backend.run(RoundedCopy::<P, bf16> { parameters, copy }),
            Some(HalfCopy::F16(copy)) => backend.run(RoundedCopy::<P, f16> { parameters, copy }),
            None => {}
        }
        rest = after;
    }
}

fn update_part<P: Element, S: Element>(
    backend: Backend,
    coefficients: Coefficients<P::Arithmetic>,
    mut input: Input<'_, P, S>,
) {
    let decay = coefficients.weight_decay.to_f64() != 0.0;
    if coefficients.initial_variance.is_some() {
        let input = input.reborrow();
        match decay {
            true => backend.run(Update::<P, S, true, true> { coefficients, input }),
            false => backend.run(Update::<P, S, false, true> { coefficients, input }),
        }
    }
    match decay {
        true => backend.run(Update::<P, S, true, false> { coefficients, input }),
        false => backend.run(Update::<P, S, false, false> { coefficients, input }),
    }
}

/// Pass 2 over a part of a tensor. `DECAY`: H differs from g. `BEGINNING`: only h = H and v = σ·H are written.
struct Update<'a, P: Element, S, const DECAY: bool, const BEGINNING: bool> {
    coefficients: Coefficients<P::Arithmetic>,
    input: Input<'a, P, S>,
}

impl<P: Element, S: Element, const DECAY: bool, const BEGINNING: bool> Operation<P::Arithmetic>
    for Update<'_, P, S, DECAY, BEGINNING>
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector<P::Arithmetic>>(self, v: V) {
        let update = RowUpdate::<P::Arithmetic, V, DECAY, BEGINNING>::new(v, self.coefficients);
        let (gradient_rows, gradient_tail) = self.input.gradient.as_chunks::<LANES>();
        let (parameters_rows, parameters_tail) = self.input.parameters.as_chunks_mut::<LANES>();
        let (h_rows, h_tail) = self.input.h.as_chunks_mut::<LANES>();
        let (v_rows, v_tail) = self.input.v.as_chunks_mut::<LANES>();
        for (((gradient, parameters), h), v) in gradient_rows.iter().zip(parameters_rows).zip(h_rows).zip(v_rows) {
            update.row(gradient, parameters, h, v);
        }
        if !gradient_tail.is_empty() {
            let gradient = padded(gradient_tail);
            let (mut parameters, mut h, mut v) = (padded(parameters_tail), padded(h_tail), padded(v_tail));
            update.row(&gradient, &mut parameters, &mut h, &mut v);
            copy_tail(&parameters, parameters_tail);
            copy_tail(&h, h_tail);
            copy_tail(&v, v_tail);
        }
    }
}

/// The coefficients in registers.
struct RowUpdate<F: Real, V: Vector<F>, const DECAY: bool, const BEGINNING: bool> {
    vector: V,
    weight_decay: V::Column,
    keep: V::Column,
    process_noise: V::Column,
    mix: V::Column,
    rate: V::Column,
    initial_variance: V::Column,
}

impl<F: Real, V: Vector<F>, const DECAY: bool, const BEGINNING: bool> RowUpdate<F, V, DECAY, BEGINNING> {
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
            if BEGINNING {
                store(v, h_row, column, measurement);
                store(v, v_row, column, v.mul(self.initial_variance, measurement));
                continue;
            }
            let (product, h) = (load(v, v_row, column), load(v, h_row, column));
            let noise = v.mul(self.process_noise, measurement);
            let product = v.add(v.add(v.mul(self.keep, product), noise), v.mul(self.mix, h));
            let parameters = v.sub(parameters, v.mul(self.rate, v.add(product, noise)));
            store(v, v_row, column, product);
            store(v, h_row, column, measurement);
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
        let (row, mut copy) = (padded(self.parameters), [T::zeroed(); LANES]);
        for column in 0..LANES / V::WIDTH {
            store(v, &mut copy, column, load(v, &row, column));
        }
        copy_tail(&copy, copy_tail_elements);
    }
}
