//! What a step does with one tensor: pass 1 finds the dots, the method decides, pass 2 writes. For every method and every
//! way to scale gradients; KOALA++ with the gradient as it is, which nearly every step is, goes the shortest way.

use crate::dispatch::Backend;
use crate::methods;
use crate::methods::plan::{Dots, Outcome, Plan, Scalars, TensorReport, kept};
use crate::methods::reach::Room;
use crate::methods::{Method, Predict, Update, koala_plus_plus, plan};
use crate::passes::staging::{Scaled, Staged};
use crate::passes::update::{Pass, update};
use crate::passes::{staging, update};
use crate::simd::operand::{Operand, Real};
use crate::step::{Manner, Step};
use crate::step::overflow::overflow;
use crate::step::trouble::error_of;
use crate::step::buffers::Buffers;
use crate::step::clipping::Products;
use crate::step::measure::{decisive, filter_input, measure, norms, other_dots, parameters_squared};
use crate::types::element::Element;
use crate::types::error::Error;

/// A whole step. The result says whether the gradient has to take the place of h. The report is written where it is to
/// be: to copy it takes as long as a good part of a small step.
#[inline(always)]
pub(crate) fn step_with_report<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    if step.settings.frozen || !step.is_plain() {
        return other_step(step, manner, buffers, scalars, report);
    }
    step.validate_numbers()?;
    buffers.validate(&Method::KoalaPlusPlus)?;
    match usual_plan(step, manner.parallel, &buffers, scalars) {
        Ok(plan) => {
            *report = plan.report;
            Ok(apply_plan(step.backend, manner, &plan, buffers, scalars))
        }
        Err(dots) => finish(step, manner, dots, buffers, scalars, report),
    }
}

#[inline(never)]
fn other_step<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    step.validate()?;
    buffers.validate(&step.method)?;
    let mut plan = Plan::default();
    plan_tensor(step, manner.parallel, &buffers, scalars, &mut plan);
    carry_out(step, manner, &plan, buffers, scalars, report)
}

/// The rest of a step of KOALA++ after pass 1, whatever it is.
#[cold]
fn finish<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    dots: Dots,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    let plan = decide(step, manner.parallel, None, [dots; 2], &buffers, scalars);
    carry_out(step, manner, &plan, buffers, scalars, report)
}

fn carry_out<P: Operand, S: Element>(
    step: &Step,
    manner: Manner,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<bool, Error> {
    match error_of(step.policy, plan, &buffers) {
        Some(error) => Err(error),
        None => {
            *report = plan.report;
            Ok(apply_plan(step.backend, manner, plan, buffers, scalars))
        }
    }
}

/// Pass 1 and the decision, which is written where it is to be: it is large for a result. The lengths and the settings
/// are known to be good.
#[inline(always)]
pub(crate) fn plan_tensor<P: Operand, S: Element>(
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
    if !step.is_plain() {
        *plan = other_plan(step, parallel, buffers, scalars);
        return;
    }
    *plan = match usual_plan(step, parallel, buffers, scalars) {
        Ok(usual) => usual,
        Err(dots) => decide(step, parallel, None, [dots; 2], buffers, scalars),
    };
}

/// Pass 1 of KOALA++ and the plan of nearly every step; the dots where there is more to decide.
#[inline(always)]
fn usual_plan<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Result<Plan, Dots> {
    let weight_decay = step.settings.weight_decay;
    let dots = measure(step.backend, parallel, weight_decay, &filter_input(weight_decay, buffers, scalars));
    let room = Room::of::<P, S>();
    match plan::usual::<P::Arithmetic>(&step.settings, step.measurement, dots, *scalars, room) {
        Some(plan) if !step.norms => Ok(plan),
        _ => Err(dots),
    }
}

#[inline(never)]
fn other_plan<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Plan {
    let looks = step.looks();
    let found = if looks || step.norms { other_dots(step, parallel, buffers, scalars) } else { Dots::default() };
    let dots = if looks { decisive(step, found) } else { Dots::default() };
    decide(step, parallel, step.scaled(), [dots, found], buffers, scalars)
}

/// The decision, once that norm is known.
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

/// The decision by the first dots about a gradient that is scaled so, and what the report is to have besides, from the
/// second, which are all that was found.
#[cold]
fn decide<P: Operand, S: Element>(
    step: &Step,
    parallel: bool,
    scaled: Option<Scaled<f64>>,
    [dots, found]: [Dots; 2],
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Plan {
    let mut plan = Plan { scaled, ..methods::decide::<P::Arithmetic>(step, dots, *scalars) };
    if plan.report.outcome.is_step() && step.looks() {
        let squared = (S::TYPE.is_far_below(P::TYPE) && plan.update.takes_parameters())
            .then(|| parameters_squared(step, parallel, buffers, found));
        let reach = methods::reach(step, S::TYPE, dots, squared, *scalars, &plan.update);
        let overflow = if reach.is_within(Room::of::<P, S>()) { None } else { overflow(step.backend, &plan, buffers) };
        plan = overflow.map_or(plan, |trouble| kept(Outcome::NonFinite, Some(trouble)));
    }
    if step.norms {
        plan.report.norms = Some(norms(step, parallel, buffers, found));
    }
    plan
}

/// Pass 2. The lengths are known to be good. The result says whether the gradient has to take the place of h, if that was
/// offered.
#[inline(always)]
pub(crate) fn apply_plan<P: Operand, S: Element>(
    backend: Backend,
    manner: Manner,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> bool {
    if !plan.report.outcome.is_step() {
        return false;
    }
    let (Update::KoalaPlusPlus(coefficients), None) = (plan.update, plan.scaled) else {
        other_pass_2(backend, manner.parallel, plan, buffers);
        *scalars = plan.scalars;
        return false;
    };
    let exchange = manner.exchange && P::TYPE == S::TYPE && coefficients.weight_decay == 0.0;
    let coefficients = coefficients.map(P::Arithmetic::rounded);
    let Buffers { parameters, gradient, v, h, copy } = buffers;
    let mut input = update::Input { gradient, parameters, h, v };
    update(backend, manner.parallel, &koala_plus_plus::Update::new(coefficients, exchange), &mut input, copy);
    *scalars = plan.scalars;
    exchange
}

/// Pass 2 in the arithmetic type, whatever the types are: one of its own for every type would be long to compile.
#[inline(never)]
pub(crate) fn other_pass_2<P: Operand, S: Element>(backend: Backend, parallel: bool, plan: &Plan, buffers: Buffers<'_, P, S>) {
    let Buffers { parameters, gradient, v, h, copy } = buffers;
    let mut input = update::Input { gradient, parameters, h, v };
    let scaled = plan.scaled.map(|scaled| scaled.cast());
    with_pass::<P::Arithmetic>(plan.update, |pass| {
        update(backend, parallel, &Staged { pass, scaled }, &mut input, copy);
    });
}

/// Calls `work` with the pass 2 of a plan.
fn with_pass<F: Real>(planned: Update, work: impl FnOnce(&dyn Pass<F, F>)) {
    match planned {
        Update::KoalaPlusPlus(coefficients) => {
            work(&koala_plus_plus::Update::new(coefficients.map(F::rounded), false));
        }
        Update::Descend(descend) => work(&descend),
        Update::Momentum(momentum) => work(&momentum),
        Update::KoalaM(correct) => work(&correct),
        Update::AdamW(average) => work(&average),
    }
}

/// KOALA-M's prediction of one tensor: Σ‖m − θ‖² before it. Where that is not finite, nothing is written.
pub(crate) fn predict<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    velocity_decay: f64,
    buffers: Buffers<'_, P, S>,
) -> f64 {
    let Buffers { parameters, v: average, h: velocity, copy, .. } = buffers;
    let distance = staging::distance_squared(backend, parallel, average, parameters);
    if distance.is_finite() {
        let pass = &Predict { velocity_decay };
        let mut input = update::Input { gradient: &[], parameters, h: velocity, v: &mut [] };
        update(backend, parallel, &Staged { pass, scaled: None }, &mut input, copy);
    }
    distance
}
