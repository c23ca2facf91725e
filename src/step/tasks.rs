//! What is done with a tensor's buffers once their types are known. Each is a [`Task`], for the tensors of an optimizer and
//! for those of lists.

use crate::dispatch::Backend;
use crate::methods::plan::{Plan, Scalars, TensorReport};
use crate::passes::update::HalfCopy;
use crate::simd::vector::Operand;
use crate::step::buffers::{Buffers, Task};
use crate::step::clipping::Products;
use crate::step::trouble::error_of;
use crate::step::{Manner, Step, apply, measure, whole};
use crate::types::error::{Error, check_lengths};

/// A whole step. The output says whether the gradient has to take the place of h, if that was offered.
pub(crate) struct WholeStep<'a> {
    pub step: &'a Step,
    pub exchange: bool,
    pub report: &'a mut TensorReport,
}

impl Task for WholeStep<'_> {
    type Output = Result<bool, Error>;

    #[inline(always)]
    fn compiled<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        let WholeStep { step, exchange, report } = self;
        whole::compiled_step(step, Manner { exchange, ..Manner::default() }, buffers, scalars, report)
    }

    #[inline(always)]
    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        whole::staged_step(self.step, false, buffers, scalars, self.report).map(|()| false)
    }
}

/// Pass 1 and the recursion: nothing is written but the plan.
pub(crate) struct PlanTensor<'a> {
    pub step: &'a Step,
    pub parallel: bool,
    pub plan: &'a mut Plan,
}

impl Task for PlanTensor<'_> {
    type Output = Option<Error>;

    #[inline(always)]
    fn compiled<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        whole::compiled_plan(self.step, self.parallel, &buffers, scalars, self.plan);
        error_of(self.step.policy, self.plan, &buffers)
    }

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        whole::staged_plan(self.step, self.parallel, &buffers, scalars, self.plan);
        error_of(self.step.policy, self.plan, &buffers)
    }
}

/// Pass 2. The output says whether the gradient has to take the place of h, if that was offered.
pub(crate) struct ApplyPlan<'a> {
    pub backend: Backend,
    pub manner: Manner,
    pub plan: &'a Plan,
}

impl Task for ApplyPlan<'_> {
    type Output = bool;

    #[inline(always)]
    fn compiled<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> bool {
        apply::compiled_apply(self.backend, self.manner, self.plan, buffers, scalars)
    }

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> bool {
        apply::staged_apply(self.backend, self.manner.parallel, self.plan, buffers, scalars);
        false
    }
}

/// Pass 1 where the gradient is to be clipped by a norm that is not known yet.
pub(crate) struct TakeProducts<'a> {
    pub step: &'a Step,
    pub parallel: bool,
}

impl Task for TakeProducts<'_> {
    type Output = Products;

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Products {
        measure::products(self.step, self.parallel, &buffers, scalars)
    }
}

/// The decision about a gradient that is clipped, once the norm of all gradients is known.
pub(crate) struct PlanClipped<'a> {
    pub step: &'a Step,
    pub parallel: bool,
    pub products: &'a Products,
    pub clip: f64,
    pub plan: &'a mut Plan,
}

impl Task for PlanClipped<'_> {
    type Output = Option<Error>;

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        let PlanClipped { step, parallel, products, clip, plan } = self;
        *plan = whole::plan_of_products(step, parallel, products, clip, &buffers, scalars);
        error_of(step.policy, plan, &buffers)
    }
}

/// The prediction of a tensor by itself.
pub(crate) struct Predict<'a> {
    pub step: &'a Step,
}

impl Task for Predict<'_> {
    type Output = Result<f64, Error>;

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, _: &mut Scalars) -> Self::Output {
        let step = self.step;
        step.validate()?;
        let length = buffers.parameters.len();
        let [h, v] = step.method.state_lengths(length);
        check_lengths([
            ("state v", buffers.v.len(), v),
            ("state h", buffers.h.len(), h),
            ("half-precision copy", buffers.copy.as_ref().map_or(length, HalfCopy::len), length),
        ])?;
        match step.method.velocity_decay() {
            Some(velocity_decay) if !step.settings.frozen => {
                Ok(apply::predict(step.backend, false, velocity_decay, buffers))
            }
            _ => Ok(0.0),
        }
    }
}

/// KOALA-M's prediction among others.
pub(crate) struct PredictTensor<'a> {
    pub step: &'a Step,
    pub parallel: bool,
    pub velocity_decay: f64,
}

impl Task for PredictTensor<'_> {
    type Output = f64;

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, _: &mut Scalars) -> f64 {
        apply::predict(self.step.backend, self.parallel, self.velocity_decay, buffers)
    }
}
