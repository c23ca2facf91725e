//! Level 1, the kernel: slices in, slices out, the state in the caller's hands. No allocation, no threads.
//!
//! [`step`] is the whole step of one tensor, [`step_tensors`] that of many. Its three parts stand alone too, for a caller
//! who has something to do between them: [`dots`] reads, [`plan`] decides, [`apply`] writes.
//!
//! ```
//! use koala_optim::kernel::{Buffers, Measurement, Scalars, Step, step};
//!
//! let (mut parameters, gradient) = ([1.0_f32, -2.0, 3.0], [0.1_f32, 0.2, -0.3]);
//! let (mut v, mut h, mut scalars) = ([0.0_f32; 3], [0.0_f32; 3], Scalars::default());
//! let report = step(
//!     &Step::new(Measurement { loss: 0.7, noise: 1.0 }),
//!     Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy: None },
//!     &mut scalars,
//! )?;
//! assert!(report.outcome.is_step() && parameters[0] < 1.0);
//! # Ok::<(), koala_optim::Error>(())
//! ```

use half::{bf16, f16};

pub use crate::any_buffers::AnyBuffers;
pub use crate::exchange::{ExchangeBuffers, step_exchanging};
pub use crate::lending::{Lender, Lent, step_tensors};
pub use crate::recursion::{Dots, Measurement, Norms, Outcome, Plan, Scalars, TensorReport};

use crate::any_buffers;
use crate::backend::Backend;
use crate::element::Element;
use crate::error::{Error, check_lengths};
use crate::methods::{self, Method};
use crate::pass_1::filter_input;
use crate::passes::error_of;
use crate::recursion::kept;
use crate::settings::{OnNonFinite, Policy, Scaling, Settings, at_least_zero};
use crate::staging::Scaled;

/// Everything about a step but the tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where it runs.
    pub backend: Backend,
    /// Which optimizer steps, with its shared numbers as they are now.
    pub method: Method,
    /// The tensor's settings.
    pub settings: Settings,
    /// What to do when it can't be taken.
    pub policy: Policy,
    /// The loss and the noise.
    pub measurement: Measurement,
    /// What becomes of the gradient as it is loaded.
    pub scaling: Scaling,
    /// Whether the report is to have the norms, which may cost a pass more. What is written does not depend on it.
    pub norms: bool,
}

impl Step {
    /// A step of KOALA++ with the default settings and policy on the fastest backend.
    ///
    /// ```
    /// use koala_optim::kernel::{Measurement, Step};
    /// let step = Step { norms: true, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
    /// ```
    pub fn new(measurement: Measurement) -> Self {
        Step {
            backend: Backend::detect(),
            method: Method::KoalaPlusPlus,
            settings: Settings::default(),
            policy: Policy::default(),
            measurement,
            scaling: Scaling::default(),
            norms: false,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.method.validate()?;
        self.scaling.validate()?;
        self.validate_numbers()
    }

    /// All that there is to validate of a plain step.
    #[inline(always)]
    pub(crate) fn validate_numbers(&self) -> Result<(), Error> {
        self.settings.validate()?;
        // A noise of NaN or infinity is for the policy to judge.
        if self.measurement.noise < 0.0 { at_least_zero("measurement noise", self.measurement.noise) } else { Ok(()) }
    }

    /// Whether this is KOALA++, with the gradient as it is.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        let Scaling { factor, limit } = self.scaling;
        matches!(self.method, Method::KoalaPlusPlus) && factor == 1.0 && limit == f64::INFINITY
    }

    /// Whether there is something to find out about the gradient before it is used. A limit would hide what is infinite.
    pub(crate) fn looks(&self) -> bool {
        self.method.measures()
            || self.policy.non_finite != OnNonFinite::Unchecked
            || self.scaling.limit != f64::INFINITY
    }

    /// What becomes of the gradient, if anything.
    pub(crate) fn scaled(&self) -> Option<Scaled<f64>> {
        let Scaling { factor, limit } = self.scaling;
        (self.scaling != Scaling::default()).then_some(Scaled { factor, limit, clip: 1.0 })
    }
}

/// A second place for the new parameters, rounded: for networks that compute in half precision.
#[derive(Debug)]
pub enum HalfCopy<'a> {
    /// In bf16.
    Bf16(&'a mut [bf16]),
    /// In f16.
    F16(&'a mut [f16]),
}

impl<'a> HalfCopy<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            HalfCopy::Bf16(copy) => copy.len(),
            HalfCopy::F16(copy) => copy.len(),
        }
    }

    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            HalfCopy::Bf16(copy) => {
                let (left, right) = copy.split_at_mut(middle);
                (HalfCopy::Bf16(left), HalfCopy::Bf16(right))
            }
            HalfCopy::F16(copy) => {
                let (left, right) = copy.split_at_mut(middle);
                (HalfCopy::F16(left), HalfCopy::F16(right))
            }
        }
    }

    pub(crate) fn reborrow(&mut self) -> HalfCopy<'_> {
        match self {
            HalfCopy::Bf16(copy) => HalfCopy::Bf16(copy),
            HalfCopy::F16(copy) => HalfCopy::F16(copy),
        }
    }
}

/// The buffers of one tensor, all of one length n; 0 is legal and does nothing. `P` is what the parameters are stored
/// in, `S` the state: the same type, f32 or bf16. With any other state, what takes the buffers does not compile:
///
/// ```compile_fail,E0080
/// use koala_optim::kernel::{Buffers, Measurement, Scalars, Step, step};
///
/// let (mut v, mut h) = ([0.0_f64], [0.0_f64]); // Of f32 it compiles.
/// let buffers = Buffers { parameters: &mut [1.0_f32], gradient: &[0.1_f32], v: &mut v, h: &mut h, copy: None };
/// step(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), buffers, &mut Scalars::default())?;
/// # Ok::<(), koala_optim::Error>(())
/// ```
///
/// ```compile_fail,E0080
/// use koala_optim::{Backend, f16, kernel::{Buffers, Scalars, dots}};
///
/// let (mut v, mut h) = ([f16::ZERO], [f16::ZERO]); // Of f32 it compiles.
/// let buffers = Buffers { parameters: &mut [1.0_f32], gradient: &[0.1_f32], v: &mut v, h: &mut h, copy: None };
/// dots(Backend::detect(), 0.5, &buffers, &Scalars::default())?;
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Debug)]
pub struct Buffers<'a, P, S> {
    /// θ: read and written.
    pub parameters: &'a mut [P],
    /// g = ∂L/∂θ of the minibatch's mean loss: read.
    pub gradient: &'a [P],
    /// v = H·P, the product of gradient and covariance: read (but for a first step) and written. What other methods keep
    /// here, and whether it is empty, [`Method::state_vectors`] says; theirs is all zeros before a first step.
    pub v: &'a mut [S],
    /// h, the measurement row of the step before: likewise.
    pub h: &'a mut [S],
    /// Written with the new parameters, rounded, where there is one and the step is taken. What is too large for it
    /// becomes infinite.
    pub copy: Option<HalfCopy<'a>>,
}

impl<P: Element, S: Element> Buffers<'_, P, S> {
    #[inline(always)]
    pub(crate) fn validate(&self, method: &Method) -> Result<(), Error> {
        let length = self.parameters.len();
        let [h, v] = method.state_lengths(length);
        check_lengths([
            ("gradient", self.gradient.len(), length),
            ("state v", self.v.len(), v),
            ("state h", self.h.len(), h),
            ("half-precision copy", self.copy.as_ref().map_or(length, HalfCopy::len), length),
        ])
    }
}

/// One whole step of one tensor: two passes over its buffers, or one read-only pass where it is skipped.
///
/// # Errors
/// [`Error::Length`] if the lengths differ, [`Error::Setting`] if a setting or the noise is out of range, and what the
/// policy makes an error. Nothing has been written then.
///
/// See the [module's example](self).
#[inline]
pub fn step<P: Element, S: Element>(
    step: &Step,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> Result<TensorReport, Error> {
    AnyBuffers::of(buffers).step(step, scalars)
}

/// KOALA-M's prediction of one tensor, before its gradient is taken: θ ← θ + u, u ← a·u. The gradient's slice may be
/// empty. Returns ‖m − θ‖² as it was before, for [`Method::predict`]; where that is not finite, nothing has been written.
/// Other methods have nothing to predict here, and get 0.
///
/// # Errors
/// As [`step`]; nothing has been written then.
///
/// ```
/// use koala_optim::{KoalaM, Method, kernel::{Buffers, Measurement, Step, predict}};
///
/// let method = Method::KoalaM(KoalaM { velocity_decay: 0.5, ..KoalaM::default() });
/// let step = Step { method, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
/// let (mut parameters, mut velocity, mut average) = ([1.0_f64], [0.25], [0.5]);
/// let buffers = Buffers { parameters: &mut parameters, gradient: &[], v: &mut average, h: &mut velocity, copy: None };
/// assert_eq!(predict(&step, buffers)?, 0.25);
/// assert_eq!((parameters, velocity), ([1.25], [0.125]));
/// # Ok::<(), koala_optim::Error>(())
/// ```
pub fn predict<P: Element, S: Element>(step: &Step, buffers: Buffers<'_, P, S>) -> Result<f64, Error> {
    AnyBuffers::of(buffers).predict(step)
}

/// Pass 1 of KOALA++: the dot products, of a whole tensor or of a part of one. Reads only. The dots of the parts of a
/// tensor may be added up, with what error float64 makes; only a whole tensor has the contract's bits.
///
/// # Errors
/// [`Error::Length`] if the lengths differ.
///
/// ```
/// use koala_optim::{Backend, kernel::{Buffers, Scalars, dots}};
///
/// let buffers = Buffers { parameters: &mut [1.0], gradient: &[3.0], v: &mut [0.0], h: &mut [0.0], copy: None };
/// let found = dots(Backend::detect(), 0.5, &buffers, &Scalars::default())?;
/// assert_eq!((found.c, found.t), (3.5 * 3.5, 1.0));
/// # Ok::<(), koala_optim::Error>(())
/// ```
pub fn dots<P: Element, S: Element>(
    backend: Backend,
    weight_decay: f64,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Result<Dots, Error> {
    buffers.validate(&Method::KoalaPlusPlus)?;
    Ok(any_buffers::dots(backend, weight_decay, &filter_input(weight_decay, buffers, scalars)))
}

/// The scalar recursion, from the dots of a whole tensor of type `P`: what [`apply`] will do. Whether an element
/// overflows by it, nobody looks.
///
/// # Errors
/// [`Error::Setting`] if a setting or the noise is out of range, [`Error::Halves`] for another method than KOALA++ and for
/// scaled gradients, and what the policy makes an error.
///
/// ```
/// use koala_optim::kernel::{Dots, Measurement, Outcome, Scalars, Step, plan};
///
/// let dots = Dots { c: 4.0, gradient_squared: Some(4.0), ..Dots::default() };
/// let plan = plan::<f32>(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), &dots, &Scalars::default())?;
/// assert_eq!(plan.report().outcome, Outcome::FirstStep);
/// # Ok::<(), koala_optim::Error>(())
/// ```
pub fn plan<P: Element>(step: &Step, dots: &Dots, scalars: &Scalars) -> Result<Plan, Error> {
    step.validate()?;
    if !step.is_plain() {
        return Err(Error::Halves);
    }
    if step.settings.frozen {
        return Ok(kept(Outcome::Frozen, None));
    }
    let plan = methods::plan::<P::Arithmetic>(step, *dots, *scalars);
    let no_buffers = Buffers::<P, P> { parameters: &mut [], gradient: &[], v: &mut [], h: &mut [], copy: None };
    match error_of(step.policy, &plan, &no_buffers) {
        Some(error) => Err(error),
        None => Ok(plan),
    }
}

/// Pass 2: writes what the plan says, to a whole tensor or a part of one, and the scalars.
///
/// # Errors
/// [`Error::Length`] if the lengths differ, [`Error::Halves`] for a plan of another method than KOALA++ or with a scaled
/// gradient; nothing has been written then.
///
/// ```
/// use koala_optim::{Backend, kernel::*};
///
/// let step = Step::new(Measurement { loss: 0.7, noise: 1.0 });
/// let mut parameters = [1.0_f64, 2.0];
/// let (mut v, mut h, mut scalars) = ([0.0_f64; 2], [0.0_f64; 2], Scalars::default());
/// let buffers = Buffers { parameters: &mut parameters, gradient: &[0.3, 0.4], v: &mut v, h: &mut h, copy: None };
/// let found = dots(step.backend, step.settings.weight_decay, &buffers, &scalars)?;
/// apply(step.backend, &plan::<f64>(&step, &found, &scalars)?, buffers, &mut scalars)?;
/// assert_eq!((scalars.steps, h), (1, [0.3, 0.4]));
/// # Ok::<(), koala_optim::Error>(())
/// ```
pub fn apply<P: Element, S: Element>(
    backend: Backend,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> Result<(), Error> {
    AnyBuffers::of(buffers).apply(backend, plan, scalars)
}
