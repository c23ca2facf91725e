//! What is done with a tensor's buffers once their types are known: each a [`Task`], which an optimizer's tensors and those
//! of lists are given alike.

use crate::any_buffers::AnyBuffers;
use crate::clipping::Products;
use crate::element::Element;
use crate::error::{Error, check_lengths};
use crate::kernel::{Buffers, HalfCopy, Plan, Scalars, Step, TensorReport};
use crate::methods::Method;
use crate::pass_1;
use crate::passes::{self, Manner};

/// Something to do with a tensor's buffers, whatever their types.
pub(crate) trait Task {
    type Output;
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output;
}

/// A whole step. The output says whether the gradient has to take the place of h, if that was offered.
pub(crate) struct WholeStep<'a> {
    pub step: &'a Step,
    pub exchange: bool,
    pub report: &'a mut TensorReport,
}

impl Task for WholeStep<'_> {
    type Output = Result<bool, Error>;

    #[inline(always)]
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        // The kernel's own, so that it is compiled but once.
        AnyBuffers::of(buffers).step_exchanging(self.step, self.exchange, scalars, self.report)
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
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        passes::plan_tensor(self.step, self.parallel, &buffers, scalars, self.plan);
        passes::error_of(self.step.policy, self.plan, &buffers)
    }
}

/// Pass 2. The output says whether the gradient has to take the place of h, if that was offered.
pub(crate) struct ApplyPlan<'a> {
    pub step: &'a Step,
    pub manner: Manner,
    pub plan: &'a Plan,
}

impl Task for ApplyPlan<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> bool {
        let ApplyPlan { step, manner, plan } = self;
        passes::apply_plan(step.backend, manner, plan, buffers, scalars)
    }
}

/// Pass 1 where the gradient is to be clipped by a norm that is not known yet.
pub(crate) struct TakeProducts<'a> {
    pub step: &'a Step,
    pub parallel: bool,
}

impl Task for TakeProducts<'_> {
    type Output = Products;

    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Products {
        pass_1::products(self.step, self.parallel, &buffers, scalars)
    }
}

/// The decision, once that norm is known.
pub(crate) struct PlanClipped<'a> {
    pub step: &'a Step,
    pub parallel: bool,
    pub products: &'a Products,
    pub clip: f64,
    pub plan: &'a mut Plan,
}

impl Task for PlanClipped<'_> {
    type Output = Option<Error>;

    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        let PlanClipped { step, parallel, products, clip, plan } = self;
        *plan = passes::plan_of_products(step, parallel, products, clip, &buffers, scalars);
        passes::error_of(step.policy, plan, &buffers)
    }
}

/// The prediction of a tensor by itself.
pub(crate) struct Predict<'a> {
    pub step: &'a Step,
}

impl Task for Predict<'_> {
    type Output = Result<f64, Error>;

    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, _: &mut Scalars) -> Self::Output {
        let step = self.step;
        step.validate()?;
        let length = buffers.parameters.len();
        let [h, v] = step.method.state_lengths(length);
        check_lengths([
            ("state v", buffers.v.len(), v),
            ("state h", buffers.h.len(), h),
            ("half-precision copy", buffers.copy.as_ref().map_or(length, HalfCopy::len), length),
        ])?;
        match step.method {
            Method::KoalaM(koala_m) if !step.settings.frozen => {
                Ok(passes::predict(step.backend, false, koala_m.velocity_decay, buffers))
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

    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, _: &mut Scalars) -> f64 {
        passes::predict(self.step.backend, self.parallel, self.velocity_decay, buffers)
    }
}
