//! Level 2: the filter of one tensor, which owns v, h and the scalars, and steps the parameters that it is given.

use half::bf16;

use crate::element::{Element, ElementType};
use crate::error::Error;
use crate::exchange::Gradient;
use crate::kernel::{self, Buffers, HalfCopy, Manner, Plan, Scalars, Step, TensorReport};
use crate::storage::Storage;

/// What v and h are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateType {
    /// The parameters' own type.
    #[default]
    Same,
    /// f32: for parameters in half precision.
    F32,
    /// bf16: half the memory and less traffic, for some accuracy.
    Bf16,
}

impl StateType {
    /// The state's type beside parameters of that type.
    ///
    /// ```
    /// use koala_optim::{ElementType, StateType};
    /// assert_eq!(StateType::Same.beside(ElementType::F64), ElementType::F64);
    /// assert_eq!(StateType::Bf16.beside(ElementType::F64), ElementType::Bf16);
    /// ```
    pub const fn beside(self, parameters: ElementType) -> ElementType {
        match self {
            StateType::Same => parameters,
            StateType::F32 => ElementType::F32,
            StateType::Bf16 => ElementType::Bf16,
        }
    }
}

/// The filter of one tensor.
///
/// ```
/// use koala_optim::kernel::{Measurement, Step};
/// use koala_optim::{StateType, TensorState};
///
/// let (mut parameters, gradient) = ([1.0_f32, -2.0, 3.0], [0.1_f32, 0.2, -0.3]);
/// let mut state = TensorState::new::<f32>(3, StateType::Same)?;
/// let report = state.step(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), &mut parameters, &gradient, None)?;
/// assert!(report.outcome.is_step() && state.scalars().steps == 1);
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorState {
    pub(crate) scalars: Scalars,
    v: Storage,
    h: Storage,
    parameters_type: ElementType,
}

impl TensorState {
    /// The filter of `length` parameters of type `P` before the first step.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none for v and h.
    ///
    /// ```
    /// use koala_optim::{Error, StateType, TensorState};
    /// assert!(TensorState::new::<f32>(10, StateType::Bf16).is_ok());
    /// assert!(matches!(TensorState::new::<f32>(usize::MAX, StateType::Same), Err(Error::Memory { .. })));
    /// ```
    pub fn new<P: Element>(length: usize, state: StateType) -> Result<Self, Error> {
        Self::with_types(length, P::TYPE, state)
    }

    pub(crate) fn with_types(length: usize, parameters_type: ElementType, state: StateType) -> Result<Self, Error> {
        let zeroed = || {
            Storage::zeroed(length, state.beside(parameters_type))
                .ok_or(Error::Memory { tensor: String::new(), elements: length })
        };
        Ok(TensorState { scalars: Scalars::default(), v: zeroed()?, h: zeroed()?, parameters_type })
    }

    /// Steps the parameters, and writes `copy` too if there is one. All of one length, that of the state.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Type`], [`Error::Setting`], and what the policy makes an error. Nothing has been
    /// written then.
    ///
    /// See the [type's example](Self).
    pub fn step<P: Element>(
        &mut self,
        step: &Step,
        parameters: &mut [P],
        gradient: &[P],
        copy: Option<HalfCopy<'_>>,
    ) -> Result<TensorReport, Error> {
        self.check_type(P::TYPE)?;
        Ok(self.with_buffers(parameters, gradient, copy, WholeStep { step, manner: Manner::default() })?.0)
    }

    /// As [`step`](Self::step), and may take the gradient's memory in exchange for that of h, which then need not be
    /// written: without weight decay, and with the state in the parameters' type. The gradient's elements are of no use
    /// afterwards.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// ```
    /// use koala_optim::kernel::{Measurement, Step};
    /// use koala_optim::{Gradient, StateType, TensorState};
    ///
    /// let (mut parameters, mut gradient) = ([1.0_f32, -2.0], Gradient::zeroed(2)?);
    /// let mut state = TensorState::new::<f32>(2, StateType::Same)?;
    /// gradient.copy_from_slice(&[0.25, 0.5]);
    /// let step = Step::new(Measurement { loss: 0.7, noise: 1.0 });
    /// state.step_exchanging(&step, &mut parameters, &mut gradient, None)?;
    /// assert_eq!(state.h(), [0.25, 0.5]);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn step_exchanging<P: Element>(
        &mut self,
        step: &Step,
        parameters: &mut [P],
        gradient: &mut Gradient<P>,
        copy: Option<HalfCopy<'_>>,
    ) -> Result<TensorReport, Error> {
        self.check_type(P::TYPE)?;
        let manner = Manner { exchange: true, ..Manner::default() };
        let (report, exchanges) = self.with_buffers(parameters, gradient, copy, WholeStep { step, manner })?;
        if exchanges {
            self.exchange(&mut gradient.storage);
        }
        Ok(report)
    }

    /// Lets a gradient take the place of h.
    #[inline]
    pub(crate) fn exchange(&mut self, gradient: &mut Storage) {
        std::mem::swap(&mut self.h, gradient);
    }

    /// The next step will be a first step.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// let mut state = TensorState::new::<f32>(3, StateType::Same)?;
    /// state.restart();
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn restart(&mut self) {
        self.scalars = Scalars::default();
    }

    /// The scalars after the last step.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert_eq!(TensorState::new::<f32>(3, StateType::Same)?.scalars().steps, 0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn scalars(&self) -> Scalars {
        self.scalars
    }

    /// v = H·P, the product of gradient and covariance after the last step, widened to float64.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert_eq!(TensorState::new::<f32>(2, StateType::Same)?.v(), [0.0, 0.0]);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn v(&self) -> Vec<f64> {
        self.v.to_f64()
    }

    /// h, the measurement row H of the last step, widened to float64.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert_eq!(TensorState::new::<f32>(2, StateType::Same)?.h(), [0.0, 0.0]);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn h(&self) -> Vec<f64> {
        self.h.to_f64()
    }

    /// The bytes of v, then those of h, as they are stored.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// let [v, h] = TensorState::new::<f32>(2, StateType::Same)?.bytes().map(<[u8]>::len);
    /// assert_eq!((v, h), (8, 8));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn bytes(&self) -> [&[u8]; 2] {
        [self.v.bytes(), self.h.bytes()]
    }

    /// The state's vectors and their names, as a checkpoint has them.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn vectors(&self) -> impl Iterator<Item = (&'static str, &Storage)> {
        [("v", &self.v), ("h", &self.h)].into_iter()
    }

    /// The same, to write to.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn vectors_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Storage)> {
        [("v", &mut self.v), ("h", &mut self.h)].into_iter()
    }

    /// The type of the parameters that this is the state of.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn parameters_type(&self) -> ElementType {
        self.parameters_type
    }

    /// The number of parameters.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert_eq!(TensorState::new::<f32>(2, StateType::Same)?.len(), 2);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.v.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert!(TensorState::new::<f32>(0, StateType::Same)?.is_empty());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn check_type(&self, found: ElementType) -> Result<(), Error> {
        let expected = self.parameters_type;
        if found == expected { Ok(()) } else { Err(Error::Type { tensor: String::new(), found, expected }) }
    }

    /// Calls `task` with the buffers in their own types: the one place where the state's type becomes a parameter.
    /// Inlined, as all on this way is: arguments that are written to memory have to be waited for.
    #[inline(always)]
    pub(crate) fn with_buffers<P: Element, T: Task>(
        &mut self,
        parameters: &mut [P],
        gradient: &[P],
        copy: Option<HalfCopy<'_>>,
        task: T,
    ) -> T::Output {
        match self.v.element_type() {
            same if same == P::TYPE => self.call::<P, P, T>(parameters, gradient, copy, task),
            ElementType::Bf16 => self.call::<P, bf16, T>(parameters, gradient, copy, task),
            _ => self.call::<P, f32, T>(parameters, gradient, copy, task),
        }
    }

    #[inline(always)]
    fn call<P: Element, S: Element, T: Task>(
        &mut self,
        parameters: &mut [P],
        gradient: &[P],
        copy: Option<HalfCopy<'_>>,
        task: T,
    ) -> T::Output {
        let (v, h) = (self.v.elements_mut::<S>(), self.h.elements_mut::<S>());
        task.run(Buffers { parameters, gradient, v, h, copy }, &mut self.scalars)
    }
}

/// Something to do with a tensor's buffers, whatever their types.
pub(crate) trait Task {
    type Output;
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output;
}

/// A whole step. The output says too whether the gradient has to take the place of h, if that was offered.
struct WholeStep<'a> {
    step: &'a Step,
    manner: Manner,
}

impl Task for WholeStep<'_> {
    type Output = Result<(TensorReport, bool), Error>;

    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        let report = kernel::step_in_manner(self.step, self.manner, buffers, scalars)?;
        Ok((report, kernel::exchanges::<P, S>(self.step.settings.weight_decay, report.outcome)))
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
        kernel::plan_tensor(self.step, self.parallel, &buffers, scalars, self.plan);
        kernel::error_of(self.step.policy, self.plan, &buffers)
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
        kernel::apply_plan(step.backend, manner, plan, buffers, scalars);
        kernel::exchanges::<P, S>(step.settings.weight_decay, plan.report().outcome)
    }
}
