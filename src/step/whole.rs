//! What a step does with one tensor: pass 1 finds the dots, the method decides, pass 2 writes.
//!
//! There are two ways. The *staged* one serves every method, every way to scale gradients and every pair of types: it
//! brings block after block into the first cache in the arithmetic type. The *compiled* one is for KOALA++ with the
//! gradient as it is, which nearly every step is: its loops are compiled for the pair of types. Both give the same bits.

use crate::methods::plan::{Dots, Outcome, Plan, Scalars, TensorReport, kept};
use crate::methods::reach::Room;
use crate::methods::rule::Reaching;
use crate::methods::{self, Compiled};
use crate::passes::staging::Scaled;
use crate::simd::vector::Operand;
use crate::step::apply::{compiled_apply, staged_apply};
use crate::step::buffers::Buffers;
use crate::step::clipping::Products;
use crate::step::measure::{decisive, filter_input, measure, norms, parameters_squared, staged_dots};
use crate::step::overflow::overflow;
use crate::step::trouble::error_of;
use crate::step::{Manner, Step};
use crate::types::element::Element;
use crate::types::error::Error;

/// A whole step, by passes that are compiled for these types. The result says whether the gradient has to take the place
/// of h. The report is written where it is to be: to copy it takes as long as a good part of a small step.
#[inline(always)]
pub(crate) fn compiled_step<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    let Some(method) = step.compiled() else {
        staged_step(step, manner.parallel, buffers, scalars, report)?;
        return Ok(false);
    };
    step.validate_compiled(method)?;
    buffers.validate_filter()?;
    match usual_plan(step, method, manner.parallel, &buffers, scalars) {
        Ok(plan) => {
            *report = plan.report;
            Ok(compiled_apply(step.backend, manner, &plan, buffers, scalars))
        }
        Err(dots) => compiled_finish(step, manner, dots, buffers, scalars, report),
    }
}

/// What is left of a compiled step where its plan is not the usual one.
#[cold]
fn compiled_finish<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    dots: Dots,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    let plan = decide(step, manner.parallel, None, [dots; 2], &buffers, scalars);
    error_of(step.policy, &plan, &buffers).map_or(Ok(()), Err)?;
    *report = plan.report;
    Ok(compiled_apply(step.backend, manner, &plan, buffers, scalars))
}

/// A whole step of any method, block by block in the arithmetic type.
#[inline(never)]
pub(crate) fn staged_step<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<(), Error> {
    step.validate()?;
    buffers.validate(&step.method)?;
    let mut plan = Plan::default();
    staged_plan(step, parallel, &buffers, scalars, &mut plan);
    error_of(step.policy, &plan, &buffers).map_or(Ok(()), Err)?;
    *report = plan.report;
    staged_apply(step.backend, parallel, &plan, buffers, scalars);
    Ok(())
}

/// Pass 1 and the decision, which is written where it is to be: it is large for a result. The lengths and the settings
/// are known to be good.
#[inline(always)]
pub(crate) fn compiled_plan<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
    plan: &mut Plan,
) {
    let Some(method) = step.compiled() else {
        staged_plan(step, parallel, buffers, scalars, plan);
        return;
    };
    *plan = match usual_plan(step, method, parallel, buffers, scalars) {
        Ok(usual) => usual,
        Err(dots) => decide(step, parallel, None, [dots; 2], buffers, scalars),
    };
}

/// Pass 1 of KOALA++ and the plan of nearly every step; the dots where there is more to decide.
#[inline(always)]
fn usual_plan<P: Operand, S: Element>(
    step: &Step,
    method: &Compiled,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Result<Plan, Dots> {
    let weight_decay = step.settings.weight_decay;
    let dots = measure(step.backend, parallel, weight_decay, &filter_input(weight_decay, buffers, scalars));
    let room = Room::of::<P, S>();
    match method.usual::<P::Arithmetic>(&step.planned(dots, *scalars), room) {
        Some(plan) if !step.norms => Ok(plan),
        _ => Err(dots),
    }
}

/// Pass 1 and the decision for any method and any way to scale the gradient.
#[inline(never)]
pub(crate) fn staged_plan<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
    plan: &mut Plan,
) {
    if step.settings.frozen {
        *plan = kept(Outcome::Frozen, None);
        return;
    }
    let looks = step.looks();
    let found = if looks || step.norms { staged_dots(step, parallel, buffers, scalars) } else { Dots::default() };
    let dots = if looks { decisive(step, found) } else { Dots::default() };
    *plan = decide(step, parallel, step.scaled(), [dots, found], buffers, scalars);
}

/// The decision about a gradient that is clipped, once the norm of all gradients is known.
pub(crate) fn plan_of_products<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    products: &Products,
    clip: f64,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Plan {
    if step.settings.frozen {
        return kept(Outcome::Frozen, None);
    }
    let clip = P::Arithmetic::rounded(clip).to_f64();
    let weight_decay = P::Arithmetic::rounded(step.settings.weight_decay).to_f64();
    let found = products.dots(clip, weight_decay);
    // A gradient without a norm can't be clipped by it.
    let without = found.gradient_squared.filter(|squared| !squared.is_finite());
    let found = Dots { c: without.unwrap_or(found.c), ..found };
    let scaled = match clip == 1.0 {
        true => step.scaled(),
        false => Some(Scaled { clip, ..step.scaled().unwrap_or_default() }),
    };
    decide(step, parallel, scaled, [decisive(step, found), found], buffers, scalars)
}

/// The decision about a gradient that is scaled so. The first dots decide. The second ones are all that pass 1 found, and
/// give the report its norms.
#[cold]
fn decide<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    scaled: Option<Scaled<f64>>,
    [dots, found]: [Dots; 2],
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Plan {
    let mut plan = Plan { scaled, ..step.method.plan::<P::Arithmetic>(step.planned(dots, *scalars)) };
    if plan.report.outcome.is_step() && step.looks() {
        let reach = methods::reach(plan.update, reaching(step, parallel, [dots, found], &plan, buffers, scalars));
        let overflow = if reach.is_within(Room::of::<P, S>()) { None } else { overflow(step.backend, &plan, buffers) };
        plan = overflow.map_or(plan, |trouble| kept(Outcome::NonFinite, Some(trouble)));
    }
    if step.norms {
        plan.report.norms = Some(norms(step, parallel, buffers, found));
    }
    plan
}

/// What is known about how far a plan may take the elements.
fn reaching<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    [dots, found]: [Dots; 2],
    plan: &Plan,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Reaching {
    let weight_decay = step.settings.weight_decay;
    let might_not_hold = S::TYPE.is_far_below(P::TYPE) && methods::takes_parameters(plan.update);
    Reaching {
        state: S::TYPE,
        dots,
        // ‖g‖ ≤ ‖H‖ + wd·‖θ‖, where g·g was not taken.
        gradient_squared: dots.gradient_squared.unwrap_or(2.0 * (dots.c + (weight_decay * weight_decay) * dots.t)),
        parameters_squared: might_not_hold.then(|| parameters_squared(step, parallel, buffers, found)),
        before: *scalars,
    }
}
