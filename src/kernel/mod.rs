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

pub(crate) mod batches;
mod exchange;
mod list;

use bytemuck::cast_slice;
use half::{bf16, f16};

use crate::dispatch::Backend;
use crate::methods;
use crate::methods::plan::kept;
use crate::passes::dots::Input;
use crate::passes::staging::Scaled;
use crate::simd::vector::Operand;
use crate::step::Manner;
use crate::step::apply::{compiled_apply, staged_apply};
use crate::step::buffers::{Look, Task, check_pair, pairs_of_types};
use crate::step::measure::{filter_input, measure, staged_measure};
use crate::step::tasks::{Predict, WholeStep};
use crate::step::trouble::error_without_elements;
use crate::types::element::{Element, ElementType};
use crate::types::error::Error;

pub use crate::kernel::exchange::{ExchangeBuffers, step_exchanging};
pub use crate::kernel::list::{Lender, Lent, step_tensors};
pub use crate::methods::plan::{Dots, Measurement, Norms, Outcome, Plan, Scalars, TensorReport};
pub use crate::passes::update::HalfCopy;
pub use crate::step::Step;
pub use crate::step::buffers::{AnyBuffers, Buffers};

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
/// empty. Returns ‖m − θ‖² as it was before, for [`Method::predict`](crate::Method::predict); where that is not finite,
/// nothing has been written. Other methods have nothing to predict here, and get 0.
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
    buffers.validate_filter()?;
    Ok(compiled_dots(backend, weight_decay, buffers, scalars))
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
    plan_in(P::TYPE, step, dots, scalars)
}

fn plan_in(parameters: ElementType, step: &Step, dots: &Dots, scalars: &Scalars) -> Result<Plan, Error> {
    step.validate()?;
    if !step.method.filters() || step.scaled().is_some() {
        return Err(Error::Halves);
    }
    let (method, planned) = (step.method, step.planned(*dots, *scalars));
    let plan = match parameters {
        _ if step.settings.frozen => kept(Outcome::Frozen, None),
        ElementType::F64 => method.plan::<f64>(planned),
        ElementType::F32 | ElementType::Bf16 | ElementType::F16 => method.plan::<f32>(planned),
    };
    error_without_elements(step.policy, &plan).map_or(Ok(plan), Err)
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

macro_rules! steps_of_pairs {
    ($($variant:ident: $parameters:ty, $state:ty, $way:ident;)*) => {
        impl AnyBuffers<'_> {
            /// As [`step_exchanging`], if `exchange` is true; but it leaves to the caller to let the gradient and h change
            /// places: where the result is true, h has not been written, and the gradient is the new h. The report is
            /// written where it is to be, since it is large for a result.
            ///
            /// # Errors
            /// As [`step`].
            ///
            /// See the [type's example](Self).
            #[inline(always)]
            pub fn step_exchanging(
                self,
                step: &Step,
                exchange: bool,
                scalars: &mut Scalars,
                report: &mut TensorReport,
            ) -> Result<bool, Error> {
                match self {
                    $(AnyBuffers::$variant(buffers) => {
                        /// Each pair of types has a step of its own, compiled in this crate. Its arguments come one by one:
                        /// a struct of them would be written to memory and read again.
                        #[inline(never)]
                        fn compiled(
                            buffers: Buffers<'_, $parameters, $state>,
                            step: &Step,
                            exchange: bool,
                            scalars: &mut Scalars,
                            report: &mut TensorReport,
                        ) -> Result<bool, Error> {
                            WholeStep { step, exchange, report }.$way(buffers, scalars)
                        }
                        compiled(buffers, step, exchange, scalars, report)
                    })*
                }
            }
        }
    };
}

pairs_of_types!(steps_of_pairs);

macro_rules! dots_by {
    (compiled, $backend:expr, $weight_decay:expr, $input:expr) => {
        measure($backend, false, $weight_decay, $input)
    };
    (staged, $backend:expr, $weight_decay:expr, $input:expr) => {
        staged_measure($backend, false, $weight_decay, Scaled::default(), $input)
    };
}

macro_rules! dots_of_pairs {
    ($($variant:ident: $parameters:ty, $state:ty, $way:ident;)*) => {
        /// Pass 1 of KOALA++. Which pair of types it is, is known when this is compiled; the pass is compiled in this crate.
        #[inline(always)]
        fn compiled_dots<P: Element, S: Element>(
            backend: Backend,
            weight_decay: f64,
            buffers: &Buffers<'_, P, S>,
            scalars: &Scalars,
        ) -> Dots {
            const { check_pair(P::TYPE, S::TYPE) };
            let Input { gradient, parameters, h, v } = filter_input(weight_decay, buffers, scalars);
            $(if P::TYPE == <$parameters>::TYPE && S::TYPE == <$state>::TYPE {
                #[inline(never)]
                fn compiled(backend: Backend, weight_decay: f64, input: &Input<'_, $parameters, $state>) -> Dots {
                    dots_by!($way, backend, weight_decay, input)
                }
                let (gradient, parameters) = (cast_slice(gradient), cast_slice(parameters));
                let input = Input { gradient, parameters, h: cast_slice(h), v: cast_slice(v) };
                return compiled(backend, weight_decay, &input);
            })*
            unreachable!("there are no other pairs");
        }
    };
}

pairs_of_types!(dots_of_pairs);

impl AnyBuffers<'_> {
    /// As [`step`].
    ///
    /// # Errors
    /// As [`step`].
    ///
    /// See the [type's example](Self).
    #[inline(always)]
    pub fn step(self, step: &Step, scalars: &mut Scalars) -> Result<TensorReport, Error> {
        let mut report = TensorReport::default();
        self.step_exchanging(step, false, scalars, &mut report)?;
        Ok(report)
    }

    /// As [`predict`].
    ///
    /// # Errors
    /// As [`predict`].
    ///
    /// See the [type's example](Self).
    pub fn predict(self, step: &Step) -> Result<f64, Error> {
        self.with(&mut Scalars::default(), Predict { step })
    }

    /// As [`dots`].
    ///
    /// # Errors
    /// As [`dots`].
    ///
    /// See the [type's example](Self).
    pub fn dots(&self, backend: Backend, weight_decay: f64, scalars: &Scalars) -> Result<Dots, Error> {
        self.look(TakeDots { backend, weight_decay, scalars })
    }

    /// As [`plan`].
    ///
    /// # Errors
    /// As [`plan`].
    ///
    /// See the [type's example](Self).
    pub fn plan(&self, step: &Step, dots: &Dots, scalars: &Scalars) -> Result<Plan, Error> {
        self.look(Decide { step, dots, scalars })
    }

    /// As [`apply`].
    ///
    /// # Errors
    /// As [`apply`].
    ///
    /// See the [type's example](Self).
    pub fn apply(self, backend: Backend, plan: &Plan, scalars: &mut Scalars) -> Result<(), Error> {
        self.with(scalars, Apply { backend, plan })
    }
}

struct TakeDots<'a> {
    backend: Backend,
    weight_decay: f64,
    scalars: &'a Scalars,
}

impl Look for TakeDots<'_> {
    type Output = Result<Dots, Error>;

    #[inline(always)]
    fn at<P: Operand, S: Operand>(self, buffers: &Buffers<'_, P, S>) -> Self::Output {
        dots(self.backend, self.weight_decay, buffers, self.scalars)
    }
}

struct Decide<'a> {
    step: &'a Step,
    dots: &'a Dots,
    scalars: &'a Scalars,
}

impl Look for Decide<'_> {
    type Output = Result<Plan, Error>;

    #[inline(always)]
    fn at<P: Operand, S: Operand>(self, _: &Buffers<'_, P, S>) -> Self::Output {
        plan_in(P::TYPE, self.step, self.dots, self.scalars)
    }
}

struct Apply<'a> {
    backend: Backend,
    plan: &'a Plan,
}

impl Apply<'_> {
    fn validate<P: Operand, S: Operand>(&self, buffers: &Buffers<'_, P, S>) -> Result<(), Error> {
        buffers.validate_filter()?;
        match methods::filters(self.plan.update) && self.plan.scaled.is_none() {
            true => Ok(()),
            false => Err(Error::Halves),
        }
    }
}

impl Task for Apply<'_> {
    type Output = Result<(), Error>;

    fn compiled<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        self.validate(&buffers)?;
        compiled_apply(self.backend, Manner::default(), self.plan, buffers, scalars);
        Ok(())
    }

    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        self.validate(&buffers)?;
        staged_apply(self.backend, false, self.plan, buffers, scalars);
        Ok(())
    }
}
