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

use crate::backend::Backend;
use crate::contract::SKIP_GRADIENT_NORM;
use crate::dots::{self, squares};
use crate::element::Element;
use crate::error::{Error, check_lengths};
use crate::recursion::{self, Trouble, kept};
use crate::settings::{OnBreakdown, OnNonFinite, Policy, Settings, at_least_zero};
use crate::update;

/// Everything about a step but the tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where it runs.
    pub backend: Backend,
    /// The filter's settings.
    pub settings: Settings,
    /// What to do when it can't be taken.
    pub policy: Policy,
    /// The loss and the noise.
    pub measurement: Measurement,
    /// Whether the report is to have the norms, which may cost a pass more.
    pub norms: bool,
}

impl Step {
    /// A step with the default settings and policy on the fastest backend.
    ///
    /// ```
    /// use koala_optim::kernel::{Measurement, Step};
    /// let step = Step { norms: true, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
    /// ```
    pub fn new(measurement: Measurement) -> Self {
        Step {
            backend: Backend::detect(),
            settings: Settings::default(),
            policy: Policy::default(),
            measurement,
            norms: false,
        }
    }

    #[inline(always)]
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.settings.validate()?;
        // A noise of NaN or infinity is for the policy to judge.
        if self.measurement.noise < 0.0 { at_least_zero("measurement noise", self.measurement.noise) } else { Ok(()) }
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
/// in, `S` the state: the same type, f32 or bf16.
#[derive(Debug)]
pub struct Buffers<'a, P, S> {
    /// θ: read and written.
    pub parameters: &'a mut [P],
    /// g = ∂L/∂θ of the minibatch's mean loss: read.
    pub gradient: &'a [P],
    /// v = H·P, the product of gradient and covariance: read (but for a first step) and written.
    pub v: &'a mut [S],
    /// h, the measurement row of the step before: read (but for a first step) and written.
    pub h: &'a mut [S],
    /// Written with the new parameters, where there is one and the step is taken.
    pub copy: Option<HalfCopy<'a>>,
}

impl<P: Element, S: Element> Buffers<'_, P, S> {
    #[inline(always)]
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let length = self.parameters.len();
        check_lengths(
            length,
            [
                ("gradient", self.gradient.len()),
                ("state v", self.v.len()),
                ("state h", self.h.len()),
                ("half-precision copy", self.copy.as_ref().map_or(length, HalfCopy::len)),
            ],
        )
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
    step_in_manner(step, Manner::default(), buffers, scalars)
}

/// How a step is to be taken, which no bit of its results depends on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manner {
    /// By several threads.
    pub parallel: bool,
    /// Without writing h where the gradient is to take its place: see [`exchanges`].
    pub exchange: bool,
}

/// Whether a step lets the gradient take the place of h, if it may: where H is the gradient.
#[inline(always)]
pub(crate) fn exchanges<P: Element, S: Element>(weight_decay: f64, outcome: Outcome) -> bool {
    P::TYPE == S::TYPE && !decays::<P>(weight_decay) && outcome.is_step()
}

#[inline(always)]
pub(crate) fn step_in_manner<P: Element, S: Element>(
    step: &Step,
    manner: Manner,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> Result<TensorReport, Error> {
    let mut report = TensorReport::default();
    step_with_report(step, manner, buffers, scalars, &mut report)?;
    Ok(report)
}

/// The report is written where it is to be: to copy it takes as long as a good part of a small step.
#[inline(always)]
pub(crate) fn step_with_report<P: Element, S: Element>(
    step: &Step,
    manner: Manner,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
    report: &mut TensorReport,
) -> Result<(), Error> {
    step.validate()?;
    buffers.validate()?;
    if step.settings.frozen {
        *report = kept(Outcome::Frozen, None).report;
        return Ok(());
    }
    let dots = pass_1(step.backend, manner.parallel, step.settings.weight_decay, &buffers, scalars);
    match recursion::usual::<P::Arithmetic>(&step.settings, step.measurement, dots, *scalars) {
        Some(plan) if !step.norms => {
            apply_plan(step.backend, manner, &plan, buffers, scalars);
            *report = plan.report;
        }
        _ => *report = finish(step, manner, dots, buffers, scalars)?,
    }
    Ok(())
}

/// The rest of a step after pass 1, whatever it is.
#[cold]
fn finish<P: Element, S: Element>(
    step: &Step,
    manner: Manner,
    dots: Dots,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) -> Result<TensorReport, Error> {
    let plan = decide(step, manner.parallel, dots, &buffers, scalars);
    match error_of(step.policy, &plan, &buffers) {
        Some(error) => Err(error),
        None => {
            apply_plan(step.backend, manner, &plan, buffers, scalars);
            Ok(plan.report)
        }
    }
}

/// Pass 1: the dot products, of a whole tensor or of a part of one. Reads only. The dots of the parts of a tensor may be
/// added up, with what error float64 makes; only a whole tensor has the contract's bits.
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
    buffers.validate()?;
    Ok(pass_1(backend, false, weight_decay, buffers, scalars))
}

/// The scalar recursion, from the dots of a whole tensor of type `P`: what [`apply`] will do.
///
/// # Errors
/// [`Error::Setting`] if a setting or the noise is out of range, and what the policy makes an error.
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
    if step.settings.frozen {
        return Ok(kept(Outcome::Frozen, None));
    }
    let Step { settings, policy, measurement, .. } = step;
    let plan = recursion::plan::<P::Arithmetic>(settings, policy.breakdown, *measurement, *dots, *scalars);
    let no_buffers = Buffers::<P, P> { parameters: &mut [], gradient: &[], v: &mut [], h: &mut [], copy: None };
    match error_of(step.policy, &plan, &no_buffers) {
        Some(error) => Err(error),
        None => Ok(plan),
    }
}

/// Pass 2: writes what the plan says, to a whole tensor or a part of one, and the scalars.
///
/// # Errors
/// [`Error::Length`] if the lengths differ; nothing has been written then.
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
    buffers.validate()?;
    apply_plan(backend, Manner::default(), plan, buffers, scalars);
    Ok(())
}

/// Pass 1 and the recursion, whose plan is written where it is to be: it is large for a result. The lengths and the
/// settings are known to be good.
#[inline(always)]
pub(crate) fn plan_tensor<P: Element, S: Element>(
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
    let dots = pass_1(step.backend, parallel, step.settings.weight_decay, buffers, scalars);
    match recursion::usual::<P::Arithmetic>(&step.settings, step.measurement, dots, *scalars) {
        Some(usual) if !step.norms => *plan = usual,
        _ => *plan = decide(step, parallel, dots, buffers, scalars),
    }
}

/// The recursion, and what the report is to have besides, in any case.
#[cold]
fn decide<P: Element, S: Element>(
    step: &Step,
    parallel: bool,
    dots: Dots,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Plan {
    let Step { settings, policy, measurement, .. } = step;
    let mut plan = recursion::plan::<P::Arithmetic>(settings, policy.breakdown, *measurement, dots, *scalars);
    if step.norms {
        plan.report.norms = Some(norms(step, parallel, buffers, dots));
    }
    plan
}

/// Those norms that pass 1 has taken are not taken again.
#[inline(never)]
fn norms<P: Element, S: Element>(step: &Step, parallel: bool, buffers: &Buffers<'_, P, S>, dots: Dots) -> Norms {
    let decays = decays::<P>(step.settings.weight_decay);
    let squares = |elements| squares(step.backend, parallel, elements);
    let gradient = match dots.gradient_squared {
        Some(squared) => squared,
        None if decays => squares(buffers.gradient),
        None => dots.c,
    };
    let parameters = if decays { dots.t } else { squares(buffers.parameters) };
    Norms { gradient: gradient.sqrt(), measurement: dots.c.sqrt(), parameters: parameters.sqrt() }
}

/// Pass 2. The lengths are known to be good.
#[inline(always)]
pub(crate) fn apply_plan<P: Element, S: Element>(
    backend: Backend,
    manner: Manner,
    plan: &Plan,
    buffers: Buffers<'_, P, S>,
    scalars: &mut Scalars,
) {
    if !plan.report.outcome.is_step() {
        return;
    }
    let coefficients = plan.coefficients.map(P::Arithmetic::rounded);
    let exchange = manner.exchange && exchanges::<P, S>(plan.coefficients.weight_decay, plan.report.outcome);
    let Buffers { parameters, gradient, v, h, copy } = buffers;
    let mut input = update::Input { gradient, parameters, h, v, exchange };
    update::update(backend, manner.parallel, &coefficients, &mut input, copy);
    *scalars = plan.scalars;
}

/// The error that the policy makes of a plan, if it does.
#[inline(always)]
pub(crate) fn error_of<P: Element, S: Element>(
    policy: Policy,
    plan: &Plan,
    buffers: &Buffers<'_, P, S>,
) -> Option<Error> {
    plan.trouble.and_then(|trouble| error_of_trouble(policy, plan.report.outcome, trouble, buffers))
}

#[cold]
fn error_of_trouble<P: Element, S: Element>(
    policy: Policy,
    outcome: Outcome,
    trouble: Trouble,
    buffers: &Buffers<'_, P, S>,
) -> Option<Error> {
    let tensor = String::new();
    match outcome {
        Outcome::NonFinite if policy.non_finite == OnNonFinite::Error => {
            let culprit = |elements: &[P]| elements.iter().map(|x| x.to_f64()).find(|x| !x.is_finite());
            let (quantity, value) = match (culprit(buffers.gradient), culprit(buffers.parameters)) {
                (Some(value), _) => ("an element of the gradient", value),
                (None, Some(value)) => ("an element of the parameters", value),
                (None, None) => (trouble.quantity, trouble.value),
            };
            Some(Error::NonFinite { tensor, quantity, value })
        }
        Outcome::Breakdown if policy.breakdown == OnBreakdown::Error => {
            Some(Error::Breakdown { tensor, innovation_variance: trouble.value })
        }
        _ => None,
    }
}

#[inline(always)]
fn pass_1<P: Element, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: f64,
    buffers: &Buffers<'_, P, S>,
    scalars: &Scalars,
) -> Dots {
    let decays = decays::<P>(weight_decay);
    let (h, v): (&[S], &[S]) = if scalars.steps == 0 { (&[], &[]) } else { (buffers.h, buffers.v) };
    let parameters: &[P] = if decays { buffers.parameters } else { &[] };
    let input = dots::Input { gradient: buffers.gradient, parameters, h, v };
    let [a, b, c, t] = dots::dots(backend, parallel, P::Arithmetic::rounded(weight_decay), &input);
    let gradient_squared = match is_long(c, weight_decay, t) {
        true => None,
        false if decays => Some(squares(backend, parallel, buffers.gradient)),
        false => Some(c),
    };
    Dots { a, b, c, t, gradient_squared }
}

/// Whether H differs from g: not where the weight decay is nothing in the arithmetic type.
fn decays<P: Element>(weight_decay: f64) -> bool {
    P::Arithmetic::rounded(weight_decay).to_f64() != 0.0
}

/// Whether ‖g‖ ≥ ‖H‖ − wd·‖θ‖ shows that the gradient is not to be skipped, with room for the rounding of all three.
/// Where it does not, which is rare, g·g takes one more pass over g.
#[inline]
fn is_long(c: f64, weight_decay: f64, t: f64) -> bool {
    // Without square roots, by (p + q)² ≤ 2p² + 2q², and exactly where that is not enough.
    let roughly = c > 2.1 * (weight_decay * weight_decay) * t + 9.0 * (SKIP_GRADIENT_NORM * SKIP_GRADIENT_NORM);
    roughly || c.sqrt() > 1.001 * weight_decay * t.sqrt() + 2.0 * SKIP_GRADIENT_NORM
}
