//! A tensor of one call of [`Optimizer::step`](crate::Optimizer::step): what the caller gives.

use half::{bf16, f16};

use crate::backends::prefetch::prefetch;
use crate::methods::plan::{Plan, TensorReport};
use crate::optimizer::state::TensorState;
use crate::passes::update::HalfCopy;
use crate::step::buffers::Task;
use crate::step::clipping::Products;
use crate::step::tasks::{ApplyPlan, PlanClipped, PlanTensor, PredictTensor, TakeProducts};
use crate::step::{Manner, Step};
use crate::types::element::{Element, ElementType};
use crate::types::error::{Error, check_lengths};
use crate::types::storage::{Gradient, Storage};

/// The parameters and the gradient of one tensor, for one step.
///
/// ```
/// use koala_optim::Tensor;
///
/// let mut parameters = [1.0_f32, 2.0];
/// let mut copy = [half::bf16::ZERO; 2];
/// let tensor = Tensor::new("weight", &mut parameters, &[0.1, 0.2]).with_bf16_copy(&mut copy);
/// ```
#[derive(Debug)]
pub struct Tensor<'a> {
    pub(crate) name: &'a str,
    given: Given<'a>,
    // What a step keeps here while it runs: its place in the optimizer and in the caller's list, and its plan.
    pub(crate) entry: usize,
    pub(crate) position: usize,
    pub(crate) plan: Plan,
    /// What of pass 1 is kept until the norm is known by which gradients are clipped.
    pub(crate) products: Products,
}

/// The caller's buffers, their type a value.
#[derive(Debug)]
struct Given<'a> {
    element_type: ElementType,
    parameters: &'a mut [u8],
    gradient: Source<'a>,
    copy: Option<HalfCopy<'a>>,
}

/// Where a gradient is.
#[derive(Debug)]
enum Source<'a> {
    /// In the caller's memory, which stays as it is.
    Lent(&'a [u8]),
    /// In memory that the filter may keep, for that of its h.
    Exchanged(&'a mut Storage),
}

impl Source<'_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Source::Lent(bytes) => bytes,
            Source::Exchanged(storage) => storage.bytes(),
        }
    }
}

impl<'a> Tensor<'a> {
    /// The tensor of that name: its parameters, which a step changes, and the gradient of the minibatch's mean loss by
    /// them. Both have the length and the type that the tensor was added with.
    ///
    /// See the [type's example](Self).
    pub fn new<P: Element>(name: &'a str, parameters: &'a mut [P], gradient: &'a [P]) -> Self {
        Self::with_source(name, parameters, Source::Lent(bytemuck::cast_slice(gradient)))
    }

    /// As [`new`](Self::new), with a gradient whose memory the filter may take in exchange for that of its h, which then
    /// need not be written: without weight decay, and with the state in the parameters' type. The gradient's elements
    /// are of no use after the step.
    ///
    /// ```
    /// use koala_optim::{Gradient, Tensor};
    /// let (mut parameters, mut gradient) = ([1.0_f32, 2.0], Gradient::zeroed(2)?);
    /// let tensor = Tensor::exchanging("weight", &mut parameters, &mut gradient);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn exchanging<P: Element>(name: &'a str, parameters: &'a mut [P], gradient: &'a mut Gradient<P>) -> Self {
        Self::with_source(name, parameters, Source::Exchanged(&mut gradient.storage))
    }

    fn with_source<P: Element>(name: &'a str, parameters: &'a mut [P], gradient: Source<'a>) -> Self {
        let parameters = bytemuck::cast_slice_mut(parameters);
        let given = Given { element_type: P::TYPE, parameters, gradient, copy: None };
        Tensor { name, given, entry: 0, position: 0, plan: Plan::default(), products: Products::default() }
    }

    /// Also writes the new parameters here, rounded to bf16, when the tensor steps.
    ///
    /// See the [type's example](Self).
    pub fn with_bf16_copy(mut self, copy: &'a mut [bf16]) -> Self {
        self.given.copy = Some(HalfCopy::Bf16(copy));
        self
    }

    /// Also writes the new parameters here, rounded to f16, when the tensor steps.
    ///
    /// ```
    /// let (mut parameters, mut copy) = ([1.0_f32], [half::f16::ZERO]);
    /// let tensor = koala_optim::Tensor::new("bias", &mut parameters, &[0.1]).with_f16_copy(&mut copy);
    /// ```
    pub fn with_f16_copy(mut self, copy: &'a mut [f16]) -> Self {
        self.given.copy = Some(HalfCopy::F16(copy));
        self
    }

    /// The tensor's name.
    ///
    /// ```
    /// assert_eq!(koala_optim::Tensor::new("bias", &mut [1.0_f32], &[0.1]).name(), "bias");
    /// ```
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What the last step did with the tensor, if that step succeeded; as if skipped before one. The norms are there if
    /// [`Config::details`](crate::Config::details) is set.
    ///
    /// ```
    /// # use koala_optim::{Outcome, Tensor};
    /// assert_eq!(Tensor::new("bias", &mut [1.0_f32], &[0.1]).report().outcome, Outcome::Skipped);
    /// ```
    pub fn report(&self) -> TensorReport {
        self.plan.report()
    }

    pub(crate) fn len(&self) -> usize {
        self.given.parameters.len() / self.given.element_type.size()
    }

    /// Whether this has the type and the lengths that it should have. A prediction does not need the gradient.
    pub(crate) fn check(&self, state: &TensorState, predicts: bool) -> Result<(), Error> {
        state.check_type(self.given.element_type)?;
        let expected = state.len();
        let gradient = self.given.gradient.bytes().len() / self.given.element_type.size();
        check_lengths([
            ("parameters", self.len(), expected),
            ("gradient", if predicts { expected } else { gradient }, expected),
            ("half-precision copy", self.given.copy.as_ref().map_or(expected, HalfCopy::len), expected),
        ])
    }

    /// Asks for the beginnings of the buffers to be brought into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, state: &TensorState) {
        let [v, h] = state.bytes();
        for buffer in [&*self.given.parameters, self.given.gradient.bytes(), v, h] {
            prefetch(buffer);
        }
    }

    /// Pass 1 and the recursion: nothing is written but the plan.
    pub(crate) fn plan(&mut self, state: &mut TensorState, step: &Step, parallel: bool) -> Result<(), Error> {
        match self.given.with_buffers(state, PlanTensor { step, parallel, plan: &mut self.plan }) {
            Some(error) => Err(error.of_tensor(self.name)),
            None => Ok(()),
        }
    }

    /// Pass 1 where the gradient is to be clipped by a norm that is not known yet.
    pub(crate) fn take_products(&mut self, state: &mut TensorState, step: &Step, parallel: bool) {
        self.products = self.given.with_buffers(state, TakeProducts { step, parallel });
    }

    /// The decision, once that norm is known.
    pub(crate) fn plan_clipped(
        &mut self,
        state: &mut TensorState,
        step: &Step,
        parallel: bool,
        clip: f64,
    ) -> Result<(), Error> {
        let task = PlanClipped { step, parallel, products: &self.products, clip, plan: &mut self.plan };
        match self.given.with_buffers(state, task) {
            Some(error) => Err(error.of_tensor(self.name)),
            None => Ok(()),
        }
    }

    /// KOALA-M's prediction.
    pub(crate) fn predict(&mut self, state: &mut TensorState, step: &Step, parallel: bool, velocity_decay: f64) -> f64 {
        self.given.with_buffers(state, PredictTensor { step, parallel, velocity_decay })
    }

    /// Pass 2.
    pub(crate) fn apply(&mut self, state: &mut TensorState, step: &Step, parallel: bool) {
        let manner = Manner { parallel, exchange: matches!(self.given.gradient, Source::Exchanged(_)) };
        let exchanges = self.given.with_buffers(state, ApplyPlan { backend: step.backend, manner, plan: &self.plan });
        if let Source::Exchanged(gradient) = &mut self.given.gradient
            && exchanges
        {
            state.exchange(gradient);
        }
    }
}

impl Given<'_> {
    /// Calls `task` with the buffers in their own types.
    #[inline(always)]
    fn with_buffers<T: Task>(&mut self, state: &mut TensorState, task: T) -> T::Output {
        let copy = self.copy.as_mut().map(HalfCopy::reborrow);
        let (buffers, scalars) = state.buffers_of_bytes(self.parameters, self.gradient.bytes(), copy);
        buffers.with(scalars, task)
    }
}
