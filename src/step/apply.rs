//! What a step writes: pass 2 of a plan, the [compiled or the staged](crate::step::whole) way, and a prediction.

use crate::dispatch::Backend;
use crate::methods::plan::{Plan, Scalars};
use crate::methods::{self, CompiledPass, Predict};
use crate::passes::staging::{self, Staged};
use crate::passes::update::{self, update};
use crate::simd::vector::Operand;
use crate::step::Manner;
use crate::step::buffers::Buffers;
use crate::types::element::Element;

/// Pass 2, compiled for these types where it can be. The lengths are known to be good. The result says whether the gradient
/// has to take the place of h, if that was offered.
#[inline(always)]
pub(crate) fn compiled_apply<P: Operand, S: Element>(
    backend: Backend,
    manner: Manner,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> bool {
    let goes = plan.report.outcome.is_step() && plan.scaled.is_none();
    let pass = CompiledPass::<P::Arithmetic>::of(plan.update, manner.exchange && P::TYPE == S::TYPE);
    let Some(pass) = pass.filter(|_| goes) else {
        staged_apply(backend, manner.parallel, plan, buffers, scalars);
        return false;
    };
    let Buffers { parameters, gradient, v, h, copy } = buffers;
    let mut input = update::Input { gradient, parameters, h, v };
    update(backend, manner.parallel, &pass, &mut input, copy);
    *scalars = plan.scalars;
    pass.exchanges()
}

/// Pass 2 of any method, in the arithmetic type. The lengths are known to be good.
#[inline(never)]
pub(crate) fn staged_apply<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) {
    if plan.report.outcome.is_step() {
        staged_update(backend, parallel, plan, buffers);
        *scalars = plan.scalars;
    }
}

/// The elements of pass 2 in the arithmetic type. A pass of its own for every type would take long to compile.
#[inline(never)]
pub(crate) fn staged_update<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
) {
    let Buffers { parameters, gradient, v, h, copy } = buffers;
    let mut input = update::Input { gradient, parameters, h, v };
    let scaled = plan.scaled.map(|scaled| scaled.cast());
    let mut copy = copy;
    methods::with_pass::<P::Arithmetic>(plan.update, &mut |pass| {
        update(backend, parallel, &Staged { pass, scaled }, &mut input, copy.take());
    });
}

/// The prediction of one tensor, whose parameters move by their velocities: Σ‖m − θ‖² before it, with m the running average.
/// Where that is not finite, nothing is written.
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
