//! The tensors of one call of [`Optimizer::step`](crate::Optimizer::step): what the caller gives, and the walk over them.

use half::{bf16, f16};

use crate::element::{Element, ElementType};
use crate::error::{Error, check_lengths};
use crate::kernel::{HalfCopy, Outcome, Plan, Step};
use crate::optimizer::Entry;
use crate::settings::{OnNonFinite, Policy};
use crate::tensor_state::{ApplyPlan, PlanTensor, Task, TensorState};
use crate::threads::join;

/// Tensors of fewer elements than this together are stepped by one thread, one after the other.
const WORTH_A_TASK: usize = 1 << 16;

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
    element_type: ElementType,
    parameters: &'a mut [u8],
    gradient: &'a [u8],
    copy: Option<HalfCopy<'a>>,
    // What a step keeps here while it runs.
    pub(crate) entry: usize,
    pub(crate) group: usize,
    pub(crate) step: Option<Step>,
    pub(crate) plan: Plan,
    state: TensorState,
}

impl<'a> Tensor<'a> {
    /// The tensor of that name: its parameters, which a step changes, and the gradient of the minibatch's mean loss by
    /// them. Both have the length and the type that the tensor was added with.
    ///
    /// See the [type's example](Self).
    pub fn new<P: Element>(name: &'a str, parameters: &'a mut [P], gradient: &'a [P]) -> Self {
        Tensor {
            name,
            element_type: P::TYPE,
            parameters: bytemuck::cast_slice_mut(parameters),
            gradient: bytemuck::cast_slice(gradient),
            copy: None,
            entry: 0,
            group: 0,
            step: None,
            plan: Plan::default(),
            state: TensorState::empty(),
        }
    }

    /// Also writes the new parameters here, rounded to bf16, when the tensor steps.
    ///
    /// See the [type's example](Self).
    pub fn with_bf16_copy(mut self, copy: &'a mut [bf16]) -> Self {
        self.copy = Some(HalfCopy::Bf16(copy));
        self
    }

    /// Also writes the new parameters here, rounded to f16, when the tensor steps.
    ///
    /// ```
    /// let (mut parameters, mut copy) = ([1.0_f32], [half::f16::ZERO]);
    /// let tensor = koala_optim::Tensor::new("bias", &mut parameters, &[0.1]).with_f16_copy(&mut copy);
    /// ```
    pub fn with_f16_copy(mut self, copy: &'a mut [f16]) -> Self {
        self.copy = Some(HalfCopy::F16(copy));
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.parameters.len() / self.element_type.size()
    }

    pub(crate) fn check(&self, expected: usize, state: &TensorState) -> Result<(), Error> {
        state.check_type(self.element_type)?;
        check_lengths(
            expected,
            [
                ("parameters", self.len()),
                ("gradient", self.gradient.len() / self.element_type.size()),
                ("half-precision copy", self.copy.as_ref().map_or(expected, HalfCopy::len)),
            ],
        )
    }

    /// Calls `task` with the buffers in their own types: the one place where the parameters' type becomes a parameter.
    fn with_buffers<T: Task>(&mut self, task: T) -> T::Output {
        fn call<P: Element, T: Task>(tensor: &mut Tensor<'_>, task: T) -> T::Output {
            let parameters = bytemuck::cast_slice_mut::<u8, P>(tensor.parameters);
            let copy = tensor.copy.as_mut().map(HalfCopy::reborrow);
            tensor.state.with_buffers(parameters, bytemuck::cast_slice(tensor.gradient), copy, task)
        }
        match self.element_type {
            ElementType::F32 => call::<f32, T>(self, task),
            ElementType::F64 => call::<f64, T>(self, task),
            ElementType::Bf16 => call::<bf16, T>(self, task),
            ElementType::F16 => call::<f16, T>(self, task),
        }
    }

    fn plan(&mut self, parallel: bool) -> Result<(), Error> {
        let Some(step) = self.step else { return Ok(()) };
        let (plan, error) = self.with_buffers(PlanTensor { step: &step, parallel });
        self.plan = plan;
        match error {
            Some(error) => Err(error.of_tensor(self.name)),
            None => Ok(()),
        }
    }

    fn apply(&mut self, parallel: bool) {
        if let Some(step) = self.step {
            let plan = self.plan;
            self.with_buffers(ApplyPlan { step: &step, parallel, plan: &plan });
        }
    }
}

/// The states of some tensors, moved from the optimizer to the tensors for the length of a step, so that each can be
/// worked on by itself; moved back when this is dropped, whatever happens.
pub(crate) struct Lent<'l, 'a> {
    entries: &'l mut [Entry],
    tensors: &'l mut [Tensor<'a>],
}

impl<'l, 'a> Lent<'l, 'a> {
    pub fn new(entries: &'l mut [Entry], tensors: &'l mut [Tensor<'a>]) -> Self {
        let mut lent = Lent { entries, tensors };
        lent.exchange();
        lent
    }

    pub fn tensors(&mut self) -> &mut [Tensor<'a>] {
        self.tensors
    }

    fn exchange(&mut self) {
        for tensor in self.tensors.iter_mut() {
            std::mem::swap(&mut tensor.state, &mut self.entries[tensor.entry].state);
        }
    }
}

impl Drop for Lent<'_, '_> {
    fn drop(&mut self) {
        self.exchange();
    }
}

/// Steps the tensors, and says whether anything may have been written. If one tensor's trouble can keep all as they
/// are, pass 1 goes over all of them before anything is written; otherwise a tensor is finished while it is in the
/// cache.
pub(crate) fn step_all(policy: Policy, parallel: bool, tensors: &mut [Tensor<'_>]) -> Result<bool, Error> {
    if !policy.is_atomic() {
        each(parallel, tensors, &|tensor, parallel| {
            tensor.plan(parallel)?;
            tensor.apply(parallel);
            Ok(())
        })?;
        return Ok(true);
    }
    each(parallel, tensors, &Tensor::plan)?;
    let non_finite = tensors.iter().any(|tensor| tensor.plan.report().outcome == Outcome::NonFinite);
    if non_finite && policy.non_finite == OnNonFinite::KeepAll {
        tensors.iter_mut().for_each(|tensor| tensor.plan.withhold());
        return Ok(false);
    }
    each(parallel, tensors, &|tensor, parallel| {
        tensor.apply(parallel);
        Ok(())
    })?;
    Ok(true)
}

/// Does `work` on each tensor. If `parallel`, the list is halved by its elements, so that threads take whole tensors
/// first; what is left of them helps with the chunks of a large one. The error is the first tensor's, in their order.
fn each<'a, W>(parallel: bool, tensors: &mut [Tensor<'a>], work: &W) -> Result<(), Error>
where
    W: Fn(&mut Tensor<'a>, bool) -> Result<(), Error> + Sync,
{
    let total: usize = if parallel { tensors.iter().map(Tensor::len).sum() } else { 0 };
    if tensors.len() <= 1 || total < WORTH_A_TASK {
        let parallel = parallel && total >= WORTH_A_TASK;
        return tensors.iter_mut().try_for_each(|tensor| work(tensor, parallel));
    }
    let mut before = 0;
    let middle = tensors.iter().position(|tensor| {
        before += tensor.len();
        before * 2 >= total
    });
    let middle = middle.unwrap_or(0).clamp(1, tensors.len() - 1);
    let (left, right) = tensors.split_at_mut(middle);
    let (left, right) = join(parallel, || each(parallel, left, work), || each(parallel, right, work));
    left.and(right)
}
