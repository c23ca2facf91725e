//! The scalar recursion: what a step does between its two passes, in float64, in the order in which it stands here.
//!
//! Paper (arXiv 2506.04432), section 3; the letters are the ones of this crate's documentation.
//!
//! ```text
//! first step only:  x = c   y = σ·x   s = (y + Q·x) + R   a = x   b = y      (h = H, v = σ·H)
//! α  = a / x
//! λ  = (b + Q·a) / s
//! w  = b/x − (a·y)/(x·x)                       (0 in the vanilla variant)
//! y' = ((α − λ)·b + Q·c) + (w − Q·λ)·a         ( = H·v' )
//! s' = (y' + Q·c) + R
//! rate = (η·(L + (½·wd)·t)) / s'
//! then  x ← c,  y ← y',  s ← s'
//! ```

use crate::methods::Update;
use crate::methods::koala_plus_plus::Coefficients;
use crate::methods::reach::{Reach, Room};
use crate::passes::staging::Scaled;
use crate::simd::operand::Real;
use crate::types::contract::SKIP_GRADIENT_NORM;
use crate::types::settings::{OnBreakdown, OnNonFinite, Policy, Settings, Variant, all_finite};

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
    /// Stepped, for the first time; likewise.
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

/// Decides about one tensor, for arithmetic in `F`.
#[inline(always)]
pub(crate) fn plan<F: Real>(
    settings: &Settings,
    on_breakdown: OnBreakdown,
    measurement: Measurement,
    dots: Dots,
    scalars: Scalars,
) -> Plan {
    usual::<F>(settings, measurement, dots, scalars, Room::ENDLESS)
        .unwrap_or_else(|| unusual::<F>(settings, on_breakdown, measurement, dots, scalars))
}

/// The plan of nearly every step, if this is one of them, within that room. It stays in registers: to write it to
/// memory and to read it again takes longer than the arithmetic.
#[inline(always)]
pub(crate) fn usual<F: Real>(
    settings: &Settings,
    measurement: Measurement,
    dots: Dots,
    scalars: Scalars,
    room: Room,
) -> Option<Plan> {
    if scalars.steps == 0 || is_skipped(dots) {
        return None;
    }
    let plan = advance::<F>(settings, Outcome::Stepped, measurement, dots, scalars);
    is_sound(settings, dots, scalars, &plan, room).then_some(plan)
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
fn is_skipped(dots: Dots) -> bool {
    dots.c == 0.0 || dots.gradient_squared.is_some_and(|squared| squared.sqrt() < SKIP_GRADIENT_NORM)
}

/// The first step, or none, or a restart.
#[cold]
fn unusual<F: Real>(
    settings: &Settings,
    on_breakdown: OnBreakdown,
    measurement: Measurement,
    dots: Dots,
    scalars: Scalars,
) -> Plan {
    if let Some(plan) = kept_for_input(measurement, dots) {
        return plan;
    }
    if scalars.steps == 0 {
        return first_step::<F>(settings, Outcome::FirstStep, measurement, dots, scalars);
    }
    let plan = examined(advance::<F>(settings, Outcome::Stepped, measurement, dots, scalars));
    if plan.report.outcome == Outcome::Breakdown && on_breakdown == OnBreakdown::Restart {
        return first_step::<F>(settings, Outcome::Restarted, measurement, dots, scalars);
    }
    plan
}

/// The filter before its first step, seen with h = H and v = σ·H.
fn first_step<F: Real>(
    settings: &Settings,
    outcome: Outcome,
    measurement: Measurement,
    dots: Dots,
    scalars: Scalars,
) -> Plan {
    let x = dots.c;
    let y = settings.initial_variance * x;
    let s = (y + settings.process_noise * x) + measurement.noise;
    let dots = Dots { a: x, b: y, ..dots };
    let scalars = Scalars { h_h: x, h_v: y, innovation_variance: s, steps: scalars.steps };
    let plan = advance::<F>(settings, outcome, measurement, dots, scalars);
    let initial_variance = F::rounded(settings.initial_variance).to_f64();
    if let Some(trouble) = first_non_finite(["the initial variance σ"], [initial_variance]) {
        return kept(Outcome::NonFinite, Some(trouble));
    }
    let mut plan = examined(plan);
    if let Update::KoalaPlusPlus(coefficients) = &mut plan.update {
        coefficients.initial_variance = Some(initial_variance);
    }
    plan
}

#[inline(always)]
fn advance<F: Real>(
    settings: &Settings,
    outcome: Outcome,
    measurement: Measurement,
    dots: Dots,
    scalars: Scalars,
) -> Plan {
    let Dots { a, b, c, t, .. } = dots;
    let Scalars { h_h: x, h_v: y, innovation_variance: s, steps } = scalars;
    let q = settings.process_noise;

    let alpha = a / x;
    let lambda = (b + q * a) / s;
    let w = match settings.variant {
        Variant::Symmetric => b / x - (a * y) / (x * x),
        Variant::Vanilla => 0.0,
    };
    let keep = alpha - lambda;
    let mix = w - q * lambda;
    let h_v = (keep * b + q * c) + mix * a;
    let innovation_variance = (h_v + q * c) + measurement.noise;
    let rate = (settings.learning_rate * (measurement.loss + (0.5 * settings.weight_decay) * t)) / innovation_variance;

    let coefficients =
        Coefficients { weight_decay: settings.weight_decay, keep, process_noise: q, mix, rate, initial_variance: None };
    Plan {
        report: TensorReport { outcome, innovation_variance, alpha, lambda, w, gain: 0.0, norms: None },
        scalars: Scalars { h_h: c, h_v, innovation_variance, steps: steps + 1 },
        update: Update::KoalaPlusPlus(coefficients.map(|value| F::rounded(value).to_f64())),
        scaled: None,
        trouble: None,
    }
}

/// Whether a plan can be carried out, as far as can be seen at once. Every number that is not looked at here is a part of
/// one that is, and would make it NaN or infinite with itself; the coefficients are parts of the reach.
#[inline(always)]
fn is_sound(settings: &Settings, dots: Dots, before: Scalars, plan: &Plan, room: Room) -> bool {
    let Update::KoalaPlusPlus(coefficients) = plan.update else { return false };
    let s = plan.report.innovation_variance;
    s > 0.0
        && all_finite([s, coefficients.weight_decay])
        && reach(settings, dots.c, before, coefficients).is_within(room)
}

/// How far a step with those coefficients can take the elements, given H·H and the scalars before it, or those that stand
/// for none: by (p + q)² ≤ 2·(p² + q²), and the same for three and four.
#[inline(always)]
pub(crate) fn reach(settings: &Settings, c: f64, before: Scalars, coefficients: Coefficients<f64>) -> Reach {
    let Coefficients { keep, process_noise, mix, rate, .. } = coefficients;
    let x = before.h_h;
    let variance = settings.initial_variance + settings.process_noise * (before.steps as i64 as f64);
    let old = (variance * variance) * x;
    let new = ((keep * keep) * old + (mix * mix) * x) + (2.0 * (process_noise * process_noise)) * c;
    Reach { state_squared: (c + old) + 4.0 * new, step_squared: (4.0 * (rate * rate)) * new }
}

/// A plan with its soundness looked at closely: one that can't be carried out becomes one that leaves the tensor as it
/// is, and says why.
fn examined(plan: Plan) -> Plan {
    let TensorReport { innovation_variance, alpha, lambda, w, .. } = plan.report;
    let names = ["α", "λ", "w", "H·v'", "the innovation variance S"];
    let values = [alpha, lambda, w, plan.scalars.h_v, innovation_variance];
    if let Some(trouble) = first_non_finite(names, values) {
        return kept(Outcome::NonFinite, Some(trouble));
    }
    if innovation_variance <= 0.0 {
        let report = TensorReport { outcome: Outcome::Breakdown, ..plan.report };
        let trouble = Some(Trouble { quantity: "the innovation variance S", value: innovation_variance });
        return Plan { report, trouble, ..Plan::default() };
    }
    let Update::KoalaPlusPlus(Coefficients { weight_decay, keep, process_noise, mix, rate, .. }) = plan.update else {
        return plan;
    };
    let names = ["wd", "α − λ", "Q", "w − Q·λ", "η·L/S"];
    match first_non_finite(names, [weight_decay, keep, process_noise, mix, rate]) {
        Some(trouble) => kept(Outcome::NonFinite, Some(trouble)),
        None => plan,
    }
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
