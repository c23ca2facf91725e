//! What a step is decided by and what is decided: dots and scalars in, a plan and a report out. A plan names no method.

use crate::passes::staging::Scaled;
use crate::types::contract::SKIP_GRADIENT_NORM;
use crate::types::settings::{OnNonFinite, Policy};

/// The scalars of one tensor's filter between two steps. All zero before the first one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scalars {
    /// x = h·h, with h the measurement row of the step before.
    pub h_h: f64,
    /// y = h·v.
    pub h_v: f64,
    /// s, the innovation variance S of the step before.
    pub innovation_variance: f64,
    /// Steps taken. At 0, v and h are not read: the next step is a first step.
    pub steps: u64,
}

/// What pass 1 finds. H = g + wd·θ is the measurement row of this step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dots {
    /// a = H·h; 0 on a first step.
    pub a: f64,
    /// b = H·v; 0 on a first step.
    pub b: f64,
    /// c = H·H.
    pub c: f64,
    /// t = θ·θ; 0 without weight decay.
    pub t: f64,
    /// g·g, or `None` where c and t alone show that the gradient's norm is above the bound below which a tensor is
    /// skipped.
    pub gradient_squared: Option<f64>,
}

impl std::ops::Add for Dots {
    type Output = Dots;

    /// The dots of two parts of a tensor as those of both.
    fn add(self, other: Dots) -> Dots {
        let squared = self.gradient_squared.zip(other.gradient_squared);
        Dots {
            a: self.a + other.a,
            b: self.b + other.b,
            c: self.c + other.c,
            t: self.t + other.t,
            // Where one part's gradient is long enough, the whole one is.
            gradient_squared: squared.map(|(left, right)| left + right),
        }
    }
}

/// What a step did with one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Stepped, with the filter's memory of the steps before. Not even whether the gradient was finite is known from this
    /// where nobody looked: see [`OnNonFinite::Unchecked`].
    Stepped,
    /// Stepped, for the first time. It says as little about the gradient as `Stepped`.
    FirstStep,
    /// Stepped as for the first time, because the innovation variance would not have been positive.
    Restarted,
    /// Kept: the gradient's norm is below 10⁻⁹, or H = g + wd·θ is zero and there is nothing to learn. AdamW and SGD
    /// know no such bound and step, as PyTorch's do.
    #[default]
    Skipped,
    /// Kept: the settings say frozen.
    Frozen,
    /// Kept: the gradient, the loss or a scalar is NaN or infinite, or an element of the new parameters or state would be.
    NonFinite,
    /// Kept: the innovation variance would not have been positive.
    Breakdown,
    /// Kept: it could have stepped, but another tensor's trouble keeps all of them
    /// ([`OnNonFinite::KeepAll`](crate::OnNonFinite)).
    Withheld,
}

impl Outcome {
    /// Whether the parameters and the state were written.
    ///
    /// ```
    /// use koala_optim::Outcome;
    /// assert!(Outcome::Restarted.is_step() && !Outcome::Skipped.is_step());
    /// ```
    pub const fn is_step(self) -> bool {
        matches!(self, Outcome::Stepped | Outcome::FirstStep | Outcome::Restarted)
    }
}

/// The scalars of one tensor's step: zero where the step did not come that far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TensorReport {
    /// What was done.
    pub outcome: Outcome,
    /// S, the innovation variance of this step: s'.
    pub innovation_variance: f64,
    /// α = (H·h)/(h·h).
    pub alpha: f64,
    /// λ = (b + Q·a)/s, the Kalman gain seen from H.
    pub lambda: f64,
    /// w, the weight of the symmetric correction.
    pub w: f64,
    /// (H·H)/S, from which the shared variances of KOALA-V and KOALA-M learn; 0 for other methods.
    pub gain: f64,
    /// The tensor's norms, where they were asked for.
    pub norms: Option<Norms>,
}

/// Euclidean norms of one tensor, before the step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// ‖g‖.
    pub gradient: f64,
    /// ‖H‖ = ‖g + wd·θ‖; ‖g‖ for AdamW, whose weight decay acts beside the gradient.
    pub measurement: f64,
    /// ‖θ‖.
    pub parameters: f64,
}

/// The measurement of one step, as one tensor sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// L, the minibatch's mean loss.
    pub loss: f64,
    /// R, the variance of the measurement noise.
    pub noise: f64,
}

/// What pass 2 does with the elements of a tensor: a rule, and the numbers that it computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Update {
    pub rule: RuleNumber,
    /// Each is rounded to the arithmetic type already, and kept as f64, which holds it exactly.
    pub numbers: [f64; 8],
}

/// A rule: the method in whose file it stands, by its place in the list of methods, and which of the rules there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleNumber {
    pub method: u8,
    pub kind: u8,
}

/// The decision about one tensor: what pass 2 will do, once and exactly. It writes nothing by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    pub(crate) report: TensorReport,
    pub(crate) scalars: Scalars,
    pub(crate) update: Update,
    /// What becomes of the gradient first, if anything.
    pub(crate) scaled: Option<Scaled<f64>>,
    pub(crate) trouble: Option<Trouble>,
}

impl Plan {
    /// What the step will have done with the tensor.
    ///
    /// ```
    /// use koala_optim::{Outcome, kernel::Plan};
    /// assert_eq!(Plan::default().report().outcome, Outcome::Skipped);
    /// ```
    pub fn report(&self) -> TensorReport {
        self.report
    }

    /// Whether this tensor's trouble keeps every other tensor as it is, without being an error.
    ///
    /// ```
    /// use koala_optim::{Policy, kernel::Plan};
    /// assert!(!Plan::default().keeps_others(Policy::default()));
    /// ```
    pub fn keeps_others(&self, policy: Policy) -> bool {
        self.report.outcome == Outcome::NonFinite && policy.non_finite == OnNonFinite::KeepAll
    }

    /// Leaves the tensor as it is after all: another one's trouble keeps it.
    ///
    /// ```
    /// use koala_optim::{Outcome, kernel::Plan};
    /// let mut plan = Plan::default();
    /// plan.withhold();
    /// assert_eq!(plan.report().outcome, Outcome::Skipped); // It would not have stepped anyway.
    /// ```
    pub fn withhold(&mut self) {
        if self.report.outcome.is_step() {
            self.report.outcome = Outcome::Withheld;
        }
    }
}

/// The scalar that kept a tensor from its step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub quantity: &'static str,
    pub value: f64,
}

/// The plan for an input that no step can be taken with.
pub(crate) fn kept_for_input(measurement: Measurement, dots: Dots) -> Option<Plan> {
    kept_if_not_finite(measurement, dots).or_else(|| is_skipped(dots).then(|| kept(Outcome::Skipped, None)))
}

/// The plan for an input that is NaN or infinite.
pub(crate) fn kept_if_not_finite(measurement: Measurement, dots: Dots) -> Option<Plan> {
    let names = ["the loss", "the measurement noise R", "H·H", "θ·θ", "H·h", "H·v"];
    let values = [measurement.loss, measurement.noise, dots.c, dots.t, dots.a, dots.b];
    first_non_finite(names, values).map(|trouble| kept(Outcome::NonFinite, Some(trouble)))
}

#[inline(always)]
pub(crate) fn is_skipped(dots: Dots) -> bool {
    dots.c == 0.0 || dots.gradient_squared.is_some_and(|squared| squared.sqrt() < SKIP_GRADIENT_NORM)
}

/// The plan to leave a tensor as it is.
pub(crate) fn kept(outcome: Outcome, trouble: Option<Trouble>) -> Plan {
    Plan { report: TensorReport { outcome, ..TensorReport::default() }, trouble, ..Plan::default() }
}

/// What rounding has taken below zero and must not be there is zero; NaN stays.
pub(crate) fn not_below_zero(value: f64) -> f64 {
    if value < 0.0 { 0.0 } else { value }
}

/// The first of some scalars that is NaN or infinite.
pub(crate) fn first_non_finite<const N: usize>(names: [&'static str; N], values: [f64; N]) -> Option<Trouble> {
    let trouble = names.into_iter().zip(values).find(|(_, value)| !value.is_finite());
    trouble.map(|(quantity, value)| Trouble { quantity, value })
}

/// A step with that update, if its numbers are finite.
pub(crate) fn stepped<const N: usize>(
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

/// The plan where the innovation variance is not positive, with what is to be reported of it.
pub(crate) fn breakdown(innovation_variance: f64, report: TensorReport) -> Plan {
    let trouble = Trouble { quantity: "the innovation variance S", value: innovation_variance };
    let report = TensorReport { outcome: Outcome::Breakdown, ..report };
    Plan { report, trouble: Some(trouble), ..Plan::default() }
}
