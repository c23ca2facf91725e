//! Level 2: the filter of one tensor, which owns v, h and the scalars, and steps the parameters that it is given.

use bytemuck::{cast_slice, cast_slice_mut};

use crate::methods::Method;
use crate::methods::plan::{Scalars, TensorReport};
use crate::passes::update::HalfCopy;
use crate::step::Step;
use crate::step::buffers::AnyBuffers;
use crate::types::element::{Element, ElementType};
use crate::types::error::Error;
use crate::types::storage::{Gradient, Storage};

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
    length: usize,
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
        Self::of_method::<P>(&Method::default(), length, state)
    }

    /// What that method keeps of a tensor, before the first step: [`Method::state_vectors`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use koala_optim::{Method, Sgd, StateType, TensorState};
    /// let state = TensorState::of_method::<f32>(&Method::Sgd(Sgd::default()), 3, StateType::Same)?;
    /// assert_eq!(state.h(), [0.0; 3]);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn of_method<P: Element>(method: &Method, length: usize, state: StateType) -> Result<Self, Error> {
        Self::with_types(method, length, P::TYPE, state)
    }

    pub(crate) fn with_types(
        method: &Method,
        length: usize,
        parameters_type: ElementType,
        state: StateType,
    ) -> Result<Self, Error> {
        let zeroed = |of_vector| {
            Storage::zeroed(of_vector, state.beside(parameters_type))
                .ok_or(Error::Memory { tensor: String::new(), elements: length })
        };
        let [h, v] = method.state_lengths(length);
        Ok(TensorState { scalars: Scalars::default(), v: zeroed(v)?, h: zeroed(h)?, length, parameters_type })
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
        let mut report = TensorReport::default();
        let (buffers, scalars) = self.buffers(parameters, gradient, copy)?;
        buffers.step_exchanging(step, false, scalars, &mut report)?;
        Ok(report)
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
        let mut report = TensorReport::default();
        let (buffers, scalars) = self.buffers(parameters, gradient, copy)?;
        if buffers.step_exchanging(step, true, scalars, &mut report)? {
            self.exchange(&mut gradient.storage);
        }
        Ok(report)
    }

    /// KOALA-M's prediction, which each of its steps needs before the gradient is taken: moves the parameters by their
    /// velocities. Returns ‖m − θ‖² as it was before, for [`Method::predict`]; see
    /// [`kernel::predict`](crate::kernel::predict).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// ```
    /// use koala_optim::kernel::{Measurement, Step};
    /// use koala_optim::{KoalaM, Method, StateType, TensorState};
    ///
    /// let method = Method::KoalaM(KoalaM::default());
    /// let step = Step { method, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
    /// let mut state = TensorState::of_method::<f32>(&method, 2, StateType::Same)?;
    /// assert_eq!(state.predict(&step, &mut [3.0_f32, 4.0], None)?, 25.0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn predict<P: Element>(
        &mut self,
        step: &Step,
        parameters: &mut [P],
        copy: Option<HalfCopy<'_>>,
    ) -> Result<f64, Error> {
        self.buffers(parameters, &[], copy)?.0.predict(step)
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
        self.v.clear();
        self.h.clear();
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

    /// v = H·P, the product of gradient and covariance after the last step, widened to float64; with another method than
    /// KOALA++, what [`Method::state_vectors`] says.
    ///
    /// ```
    /// # use koala_optim::{StateType, TensorState};
    /// assert_eq!(TensorState::new::<f32>(2, StateType::Same)?.v(), [0.0, 0.0]);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn v(&self) -> Vec<f64> {
        self.v.to_f64()
    }

    /// h, the measurement row H of the last step, widened to float64; with another method than
    /// KOALA++, what [`Method::state_vectors`] says.
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
        self.length
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

    /// Parameters of type `P` and their gradient, with the state.
    fn buffers<'b, P: Element>(
        &'b mut self,
        parameters: &'b mut [P],
        gradient: &'b [P],
        copy: Option<HalfCopy<'b>>,
    ) -> Result<(AnyBuffers<'b>, &'b mut Scalars), Error> {
        self.check_type(P::TYPE)?;
        Ok(self.buffers_of_bytes(cast_slice_mut(parameters), cast_slice(gradient), copy))
    }

    /// Parameters and their gradient, whose bytes are those of elements of the type that they were added with, with the
    /// state. Inlined, as all on this way is: arguments that are written to memory have to be waited for.
    #[inline(always)]
    pub(crate) fn buffers_of_bytes<'b>(
        &'b mut self,
        parameters: &'b mut [u8],
        gradient: &'b [u8],
        copy: Option<HalfCopy<'b>>,
    ) -> (AnyBuffers<'b>, &'b mut Scalars) {
        let types = [self.parameters_type, self.v.element_type()];
        let state = [self.v.bytes_mut(), self.h.bytes_mut()];
        (AnyBuffers::of_bytes(types, parameters, gradient, state, copy), &mut self.scalars)
    }
}
