//! Pass 2 of KOALA++. Its scalars are in [`plan`](crate::methods::plan).
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

use crate::dispatch::Backend;
use crate::passes::update::{Input, Pass, Rule, Streams};
use crate::simd::operand::{Operand, Real};
use crate::simd::vector::Vector;
use crate::types::element::Element;

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
    #[inline(always)]
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

/// Pass 2, by one of the kinds of a step.
pub enum Update<F> {
    Plain(Advance<F, PLAIN>),
    Decayed(Advance<F, DECAYED>),
    Exchanged(Advance<F, EXCHANGED>),
}

impl<F: Real> Update<F> {
    /// With `exchange`, which is for steps without weight decay, the gradient's memory becomes h.
    #[inline(always)]
    pub fn new(coefficients: Coefficients<F>, exchange: bool) -> Self {
        match (coefficients.weight_decay.to_f64() != 0.0, exchange) {
            (true, _) => Update::Decayed(Advance { coefficients }),
            (false, false) => Update::Plain(Advance { coefficients }),
            (false, true) => Update::Exchanged(Advance { coefficients }),
        }
    }

    #[inline(always)]
    fn coefficients(&self) -> &Coefficients<F> {
        match self {
            Update::Plain(advance) => &advance.coefficients,
            Update::Decayed(advance) => &advance.coefficients,
            Update::Exchanged(advance) => &advance.coefficients,
        }
    }
}

impl<P: Operand, S: Element> Pass<P, S> for Update<P::Arithmetic> {
    #[inline(always)]
    fn stages(&self) -> usize {
        1 + usize::from(self.coefficients().initial_variance.is_some())
    }

    #[inline(always)]
    fn run(&self, backend: Backend, stage: usize, input: &mut Input<'_, P, S>) {
        if stage == 0 && self.coefficients().initial_variance.is_some() {
            return begin(backend, *self.coefficients(), input);
        }
        match self {
            Update::Plain(advance) => advance.run(backend, 0, input),
            Update::Decayed(advance) => advance.run(backend, 0, input),
            Update::Exchanged(advance) => advance.run(backend, 0, input),
        }
    }
}

#[inline(never)]
fn begin<P: Operand, S: Element>(
    backend: Backend,
    coefficients: Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
) {
    match coefficients.weight_decay.to_f64() != 0.0 {
        true => Begin::<P::Arithmetic, true> { coefficients }.run(backend, 0, input),
        false => Begin::<P::Arithmetic, false> { coefficients }.run(backend, 0, input),
    }
}

// The kinds of a step, each compiled on its own.
/// H = g, and h' = H is written.
pub const PLAIN: u8 = 0;
/// H = g + wd·θ.
pub const DECAYED: u8 = 1;
/// H = g, and h' is not written.
pub const EXCHANGED: u8 = 2;

#[inline(always)]
fn measurement<F: Real, V: Vector<F>>(v: V, decay: Option<F>, old: Streams<V::Column>) -> V::Column {
    match decay {
        Some(weight_decay) => v.add(old.gradient, v.mul(v.splat(weight_decay), old.parameters)),
        None => old.gradient,
    }
}

/// A step, h and v being there.
#[derive(Clone, Copy)]
pub struct Advance<F, const KIND: u8> {
    coefficients: Coefficients<F>,
}

impl<F: Real, const KIND: u8> Rule<F> for Advance<F, KIND> {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: true, v: true };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: KIND != EXCHANGED, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let Coefficients { weight_decay, keep, process_noise, mix, rate, .. } = self.coefficients;
        let measurement = measurement(v, (KIND == DECAYED).then_some(weight_decay), old);
        let noise = v.mul(v.splat(process_noise), measurement);
        let product = v.add(v.add(v.mul(v.splat(keep), old.v), noise), v.mul(v.splat(mix), old.h));
        let parameters = v.sub(old.parameters, v.mul(v.splat(rate), v.add(product, noise)));
        Streams { gradient: old.gradient, parameters, h: measurement, v: product }
    }
}

/// The filter before its first step.
#[derive(Clone, Copy)]
struct Begin<F, const DECAY: bool> {
    coefficients: Coefficients<F>,
}

impl<F: Real, const DECAY: bool> Rule<F> for Begin<F, DECAY> {
    const READS: Streams<bool> = Streams { gradient: true, parameters: DECAY, h: false, v: false };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: false, h: true, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let Coefficients { weight_decay, initial_variance, .. } = self.coefficients;
        let measurement = measurement(v, DECAY.then_some(weight_decay), old);
        let variance = v.splat(initial_variance.unwrap_or(F::zeroed()));
        Streams { h: measurement, v: v.mul(variance, measurement), ..old }
    }
}
