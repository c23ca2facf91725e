//! Pass 1 of every method: what of a tensor it reads, the dots that it finds, and the norms for the report.

use crate::dispatch::Backend;
use crate::methods::plan::{Dots, Norms, Scalars};
use crate::passes::dots::squares;
use crate::passes::staging::Scaled;
use crate::passes::{dots, staging};
use crate::simd::vector::Operand;
use crate::step::buffers::Buffers;
use crate::step::clipping::Products;
use crate::step::{Step, clipping};
use crate::types::contract::SKIP_GRADIENT_NORM;
use crate::types::element::{Element, ElementType};

/// What of a tensor pass 1 of KOALA++ reads.
#[inline(always)]
pub(crate) fn filter_input<'a, P: Element, S: Element>(
    weight_decay: f64,
    buffers: &'a Buffers<'_, P, S>,
    scalars: &Scalars,
) -> dots::Input<'a, P, S> {
    let (h, v): (&[S], &[S]) = if scalars.steps == 0 { (&[], &[]) } else { (buffers.h, buffers.v) };
    let parameters: &[P] = if decays::<P>(weight_decay) { buffers.parameters } else { &[] };
    dots::Input { gradient: buffers.gradient, parameters, h, v }
}

/// Pass 1 with the gradient as it is, compiled for these types.
#[inline(always)]
pub(crate) fn measure<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: f64,
    input: &dots::Input<'_, P, S>,
) -> Dots {
    let [a, b, c, t] = dots::dots(backend, parallel, P::Arithmetic::rounded(weight_decay), input);
    let gradient_squared = match is_long(c, weight_decay, t) {
        true => None,
        false if input.parameters.is_empty() => Some(c),
        false => Some(squares(backend, parallel, input.gradient)),
    };
    Dots { a, b, c, t, gradient_squared }
}

/// Whether H differs from g: not where the weight decay is nothing in the arithmetic type.
fn decays<P: Element>(weight_decay: f64) -> bool {
    match P::TYPE {
        ElementType::F64 => weight_decay != 0.0,
        ElementType::F32 | ElementType::Bf16 | ElementType::F16 => weight_decay as f32 != 0.0,
    }
}

/// Whether ‖g‖ ≥ ‖H‖ − wd·‖θ‖ shows that the gradient is not to be skipped, with room for the rounding of all three.
/// Where it does not, which is rare, g·g takes one more pass over g.
#[inline]
fn is_long(c: f64, weight_decay: f64, t: f64) -> bool {
    // Without square roots, by (p + q)² ≤ 2p² + 2q², and exactly where that is not enough.
    let roughly = c > 2.1 * (weight_decay * weight_decay) * t + 9.0 * (SKIP_GRADIENT_NORM * SKIP_GRADIENT_NORM);
    roughly || c.sqrt() > 1.001 * weight_decay * t.sqrt() + 2.0 * SKIP_GRADIENT_NORM
}

/// Pass 1 of any method, with the gradient as it is scaled. Only dots with h and v need to be staged where it is not.
pub(crate) fn staged_dots<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Dots {
    let (backend, input) = (step.backend, input(step, buffers, scalars));
    let weight_decay = step.settings.weight_decay;
    if let Some(scaled) = step.scaled() {
        return staged_measure(backend, parallel, weight_decay, scaled, &input);
    }
    if !input.h.is_empty() {
        return staged_measure(backend, parallel, weight_decay, Scaled::default(), &input);
    }
    let input = dots::Input::<P, P> { gradient: input.gradient, parameters: input.parameters, h: &[], v: &[] };
    if step.method.measures() {
        return measure(backend, parallel, weight_decay, &input);
    }
    let squared = squares(backend, parallel, buffers.gradient);
    let [a, b, c, t] = match input.parameters.is_empty() {
        true => [0.0, 0.0, squared, 0.0],
        false => dots::dots(backend, parallel, P::Arithmetic::rounded(weight_decay), &input),
    };
    Dots { a, b, c, t, gradient_squared: Some(squared) }
}

/// Pass 1 block by block in the arithmetic type, with the gradient scaled.
pub(crate) fn staged_measure<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: f64,
    scaled: Scaled<f64>,
    input: &dots::Input<'_, P, S>,
) -> Dots {
    let weight_decay = P::Arithmetic::rounded(weight_decay);
    let ([a, b, c, t], squared) = staging::dots(backend, parallel, weight_decay, &scaled.cast(), input);
    Dots { a, b, c, t, gradient_squared: Some(squared) }
}

/// What is decided by: a method whose rate does not depend on H·H and θ·θ only looks at the gradient, whatever else was
/// taken for the report.
pub(crate) fn decisive(step: &Step, found: Dots) -> Dots {
    match found.gradient_squared {
        Some(squared) if !step.method.measures() => {
            Dots { c: squared, gradient_squared: Some(squared), ..Dots::default() }
        }
        _ => found,
    }
}

/// What of a tensor pass 1 reads.
fn input<'a, P: Operand, S: Element>(
    step: &Step,
    buffers: &'a Buffers<'_, P, S>,
    scalars: &Scalars,
) -> dots::Input<'a, P, S> {
    let filters = step.method.filters() && scalars.steps > 0;
    dots::Input {
        gradient: buffers.gradient,
        parameters: if reads_parameters::<P>(step) { buffers.parameters } else { &[] },
        h: if filters { buffers.h } else { &[] },
        v: if filters { buffers.v } else { &[] },
    }
}

/// Whether pass 1 forms H = g + wd·θ: for the step, or for the report of a method that does so only in pass 2.
fn reads_parameters<P: Operand>(step: &Step) -> bool {
    let forms = step.method.measures() || (step.norms && step.method.couples());
    forms && decays::<P>(step.settings.weight_decay)
}

/// Pass 1 where the gradient is to be clipped by a norm that is not known yet.
pub(crate) fn products<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Products {
    let (scaled, weight_decay) = (step.scaled().unwrap_or_default(), step.settings.weight_decay);
    let weight_decay = P::Arithmetic::rounded(weight_decay);
    clipping::products(step.backend, parallel, weight_decay, &scaled.cast(), &input(step, buffers, scalars))
}

/// Those norms that pass 1 has taken are not taken again.
#[inline(never)]
pub(crate) fn norms<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    found: Dots,
) -> Norms {
    let squares = |elements| squares(step.backend, parallel, elements);
    let decays = reads_parameters::<P>(step);
    let gradient = match found.gradient_squared {
        Some(squared) => squared,
        None if decays => squares(buffers.gradient),
        None => found.c,
    };
    let parameters = parameters_squared(step, parallel, buffers, found);
    Norms { gradient: gradient.sqrt(), measurement: found.c.sqrt(), parameters: parameters.sqrt() }
}

/// θ·θ, which is not taken again if pass 1 has taken it.
pub(crate) fn parameters_squared<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    found: Dots,
) -> f64 {
    if reads_parameters::<P>(step) { found.t } else { squares(step.backend, parallel, buffers.parameters) }
}
