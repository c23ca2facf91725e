//! The optimizers that share this crate's kernels: KOALA++, its predecessors KOALA-V and KOALA-M, AdamW, and stochastic
//! gradient descent. What differs between them stands here, a file each: the scalars of a step, and the rule for single
//! elements. How tensors are divided, in which types they are stored, what backends do and what the
//! [contract](crate::contract) promises is the same for all.

mod adamw;
mod koala_m;
pub(crate) mod koala_plus_plus;
mod koala_v;
pub(crate) mod plan;
pub(crate) mod reach;
mod sgd;

pub use adamw::AdamW;
pub use koala_m::KoalaM;
pub use koala_v::KoalaV;
pub use sgd::Sgd;

pub(crate) use koala_m::Predict;

use crate::methods::plan::{Dots, Outcome, Plan, Scalars, TensorReport, first_non_finite, kept};
use crate::methods::reach::Reach;
use crate::simd::operand::Real;
use crate::simd::vector::Vector;
use crate::step::Step;
use crate::types::element::ElementType;
use crate::types::error::Error;

/// Which optimizer steps, and those of its numbers that all tensors share. For [`KoalaV`] and [`KoalaM`] these move with
/// each step: they are the variance of all parameters.
///
/// ```
/// use koala_optim::{AdamW, Config, Method, Optimizer};
/// let optimizer = Optimizer::new(Config { method: Method::AdamW(AdamW::default()), ..Config::default() })?;
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Method {
    /// KOALA++ (Xia, Davtyan, Favaro, 2025). Its numbers are in [`Settings`](crate::Settings).
    #[default]
    KoalaPlusPlus,
    /// KOALA-V (Davtyan et al., 2022): one variance for all parameters.
    KoalaV(KoalaV),
    /// KOALA-M (Davtyan et al., 2022): one covariance for all parameters and their velocities.
    KoalaM(KoalaM),
    /// AdamW (Loshchilov and Hutter, 2019).
    AdamW(AdamW),
    /// Stochastic gradient descent, with momentum.
    Sgd(Sgd),
}

impl Method {
    /// The name by which commands and other languages know it: `koala++`, `koala-v`, `koala-m`, `adamw` or `sgd`.
    ///
    /// ```
    /// assert_eq!(koala_optim::Method::KoalaPlusPlus.name(), "koala++");
    /// ```
    pub const fn name(&self) -> &'static str {
        match self {
            Method::KoalaPlusPlus => "koala++",
            Method::KoalaV(_) => "koala-v",
            Method::KoalaM(_) => "koala-m",
            Method::AdamW(_) => "adamw",
            Method::Sgd(_) => "sgd",
        }
    }

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// use koala_optim::{KoalaV, Method};
    /// assert!(Method::KoalaV(KoalaV { variance: -1.0, ..KoalaV::default() }).validate().is_err());
    /// ```
    #[inline]
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Method::KoalaPlusPlus => Ok(()),
            Method::KoalaV(koala_v) => koala_v.validate(),
            Method::KoalaM(koala_m) => koala_m.validate(),
            Method::AdamW(adamw) => adamw.validate(),
            Method::Sgd(sgd) => sgd.validate(),
        }
    }

    /// What the state's two vectors hold, h first, or `None` where there is no such vector, and its slice is empty.
    ///
    /// ```
    /// use koala_optim::{AdamW, KoalaV, Method};
    /// assert_eq!(Method::AdamW(AdamW::default()).state_vectors(), [Some("mean"), Some("mean of squares")]);
    /// assert_eq!(Method::KoalaV(KoalaV::default()).state_vectors(), [None, None]);
    /// ```
    pub const fn state_vectors(&self) -> [Option<&'static str>; 2] {
        match self {
            Method::KoalaPlusPlus => [Some("h"), Some("v")],
            Method::KoalaV(_) => [None, None],
            Method::KoalaM(_) => [Some("velocity"), Some("average")],
            Method::AdamW(_) => [Some("mean"), Some("mean of squares")],
            Method::Sgd(sgd) => [if sgd.momentum == 0.0 { None } else { Some("momentum") }, None],
        }
    }

    /// The lengths of h and v beside parameters of that length.
    #[inline(always)]
    pub(crate) const fn state_lengths(&self, length: usize) -> [usize; 2] {
        match self {
            Method::KoalaPlusPlus => [length; 2],
            _ => match self.state_vectors() {
                [Some(_), Some(_)] => [length; 2],
                [Some(_), None] => [length, 0],
                _ => [0; 2],
            },
        }
    }

    /// Moves the shared numbers to the time of the next measurement, before its gradient is taken: paper of KOALA,
    /// section 3. `distance_squared` is Σ‖m − θ‖² over that many parameters, which KOALA-M alone reads: see
    /// [`kernel::predict`](crate::kernel::predict). [`Optimizer`](crate::Optimizer) does this by itself.
    ///
    /// ```
    /// use koala_optim::{KoalaV, Method};
    /// let mut method = Method::KoalaV(KoalaV { variance: 0.5, process_noise: 0.25 });
    /// method.predict(0.0, 10);
    /// assert_eq!(method, Method::KoalaV(KoalaV { variance: 0.75, process_noise: 0.25 }));
    /// ```
    pub fn predict(&mut self, distance_squared: f64, parameters: usize) {
        match self {
            Method::KoalaV(koala_v) => koala_v.predict(),
            Method::KoalaM(koala_m) => koala_m.predict(distance_squared, parameters),
            _ => {}
        }
    }

    /// Lets the shared numbers learn from a step: `gain` is the largest [`TensorReport::gain`] among the tensors that
    /// stepped, 0 if none did. [`Optimizer`](crate::Optimizer) does this by itself.
    ///
    /// ```
    /// use koala_optim::{KoalaV, Method};
    /// let mut method = Method::KoalaV(KoalaV { variance: 0.5, process_noise: 0.25 });
    /// method.correct(1.0);
    /// assert_eq!(method, Method::KoalaV(KoalaV { variance: 0.25, process_noise: 0.25 }));
    /// ```
    pub fn correct(&mut self, gain: f64) {
        match self {
            Method::KoalaV(koala_v) => koala_v.correct(gain),
            Method::KoalaM(koala_m) => koala_m.correct(gain),
            _ => {}
        }
    }

    /// Whether a step's rate depends on H·H and θ·θ; otherwise pass 1 only looks whether the gradient is finite.
    pub(crate) const fn measures(&self) -> bool {
        !matches!(self, Method::AdamW(_) | Method::Sgd(_))
    }
}

/// Pass 2 of a method: its numbers, each rounded to the arithmetic type already, and kept as f64, which holds them
/// exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Update {
    KoalaPlusPlus(koala_plus_plus::Coefficients<f64>),
    Descend(sgd::Descend),
    Momentum(sgd::Momentum),
    KoalaM(koala_m::Correct),
    AdamW(adamw::Average),
}

impl Update {
    /// Whether θ, which no dot bounds, becomes a part of the state.
    pub fn takes_parameters(&self) -> bool {
        match self {
            Update::Momentum(momentum) => momentum.takes_parameters(),
            Update::KoalaM(_) => true,
            Update::KoalaPlusPlus(_) | Update::Descend(_) | Update::AdamW(_) => false,
        }
    }
}

impl Default for Update {
    fn default() -> Self {
        Update::KoalaPlusPlus(Default::default())
    }
}

/// Decides about one tensor, for arithmetic in `F`.
pub(crate) fn decide<F: Real>(step: &Step, dots: Dots, scalars: Scalars) -> Plan {
    let Step { method, settings, policy, measurement, .. } = step;
    match method {
        Method::KoalaPlusPlus => plan::plan::<F>(settings, policy.breakdown, *measurement, dots, scalars),
        Method::KoalaV(koala_v) => koala_v.plan::<F>(settings, *measurement, dots, scalars),
        Method::KoalaM(koala_m) => koala_m.plan::<F>(settings, *measurement, dots, scalars),
        Method::AdamW(adamw) => adamw.plan::<F>(settings, *measurement, dots, scalars),
        Method::Sgd(sgd) => sgd.plan::<F>(settings, *measurement, dots, scalars),
    }
}

/// How far an update can take the elements of a tensor whose state is of that type, given the scalars before it, and θ·θ
/// where the state might not hold θ.
pub(crate) fn reach(
    step: &Step,
    state: ElementType,
    dots: Dots,
    parameters_squared: Option<f64>,
    before: Scalars,
    update: &Update,
) -> Reach {
    let settings = &step.settings;
    // ‖g‖ ≤ ‖H‖ + wd·‖θ‖, where g·g was not taken.
    let decayed = (settings.weight_decay * settings.weight_decay) * dots.t;
    let gradient_squared = dots.gradient_squared.unwrap_or(2.0 * (dots.c + decayed));
    match update {
        // Before a first step, h is H.
        Update::KoalaPlusPlus(coefficients) => {
            let begins = Scalars { h_h: dots.c, ..Scalars::default() };
            let before = if coefficients.initial_variance.is_some() { begins } else { before };
            plan::reach(settings, dots.c, before, *coefficients)
        }
        Update::Descend(descend) => descend.reach(gradient_squared),
        Update::Momentum(momentum) => momentum.reach(gradient_squared, parameters_squared),
        Update::KoalaM(correct) => correct.reach(dots.c, parameters_squared),
        Update::AdamW(average) => average.reach(gradient_squared, state),
    }
}

/// A step with that update, if its numbers are finite.
fn stepped<const N: usize>(
    report: TensorReport,
    scalars: Scalars,
    update: Update,
    names: [&'static str; N],
    numbers: [f64; N],
) -> Plan {
    if let Some(trouble) = first_non_finite(names, numbers) {
        return kept(Outcome::NonFinite, Some(trouble));
    }
    let outcome = if scalars.steps == 0 { Outcome::FirstStep } else { Outcome::Stepped };
    let scalars = Scalars { steps: scalars.steps + 1, ..scalars };
    Plan { report: TensorReport { outcome, ..report }, scalars, update, ..Plan::default() }
}

/// A number of a rule, which is of the arithmetic type, in every element of a column.
#[inline(always)]
fn splat<F: Real, V: Vector<F>>(v: V, number: f64) -> V::Column {
    v.splat(F::rounded(number))
}

/// `value` rounded to the arithmetic type.
fn rounded<F: Real>(value: f64) -> f64 {
    F::rounded(value).to_f64()
}
