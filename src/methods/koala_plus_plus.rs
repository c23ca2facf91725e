//! KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432): a Kalman filter that carries v = H·P, the product of the
//! gradient and the covariance.
//!
//! The scalars of a step stand here in float64, in the order in which they are computed. The letters are those of the
//! paper, section 3: h and v are the state's vectors, x = h·h, y = h·v, s the innovation variance of the step before.
//!
//! ```text
//! a = H·h   b = H·v   c = H·H   t = θ·θ                      (by pass 1, with H = g + wd·θ)
//! first step only:  x = c   y = σ·x   s = (y + Q·x) + R   a = x   b = y      (h = H, v = σ·H)
//! λ  = (b + Q·a) / s
//! α  = a / x      w = b/x − (a·y)/(x·x)    keep = α − λ    mix = w − Q·λ          (w = 0 in the vanilla variant)
//! α  = b / y      w = −(γ·a)/x             keep = α − λ    mix = w − Q·λ          (in the definite variant)
//! y' = (keep·b + q·c) + mix·a                                (q is Q, and Q + γ in the definite variant)
//! s' = (y' + Q·c) + R
//! rate = (η·(L + (½·wd)·t)) / s'
//! v' = (keep·v + q·H) + mix·h      θ' = θ − rate·(v' + Q·H)      h' = H                          (by pass 2)
//! ```
//!
//! On a first step h = H and v = σ·H are written before pass 2, rounded to the state's type. The step is then like any
//! other. Without weight decay the gradient's memory can become the new h, and h' is not written.

use crate::dispatch::Backend;
use crate::methods::number::{Numbers, Value, numbers};
use crate::methods::plan::{
    Dots, Outcome, Plan, Scalars, TensorReport, Update, breakdown, first_non_finite, is_skipped, kept,
    kept_for_input,
};
use crate::methods::reach::{Reach, Room};
use crate::methods::rule::{Planned, Reaching, Rules, Wanted, numbered, rounded};
use crate::passes::staging::Staged;
use crate::passes::update::{Input, Pass, Rule, Streams};
use crate::simd::vector::{Operand, Real, Vector};
use crate::types::element::Element;
use crate::types::error::Error;
use crate::types::settings::{OnBreakdown, all_finite};

/// Which covariance P̂ is reconstructed from v.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Variant {
    /// The symmetric one of the least Frobenius norm, the paper's default: P̂ = (hᵀv + vᵀh)/x − (h·v)·hᵀh/x².
    #[default]
    Symmetric,
    /// The one of the least Frobenius norm without that constraint: P̂ = hᵀv/x.
    Vanilla,
    /// A positive semidefinite one with a prior variance γ in all directions: P̂ = γ·(I − hᵀh/x) + vᵀv/y. The innovation
    /// variance stays positive, so that it does not break down. It is this library's own, and not the paper's.
    Definite,
}

impl Value for Variant {
    fn number(self) -> f64 {
        f64::from(self as u8)
    }
}

numbers! {
    /// The numbers of KOALA++.
    ///
    /// ```
    /// use koala_optim::{Config, KoalaPlusPlus, Method, Optimizer};
    /// let method = Method::KoalaPlusPlus(KoalaPlusPlus { process_noise: 1.0, ..KoalaPlusPlus::default() });
    /// let optimizer = Optimizer::new(Config { method, ..Config::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    KoalaPlusPlus {
        /// σ > 0: the variance of a parameter before the first step, in squared units of the parameter. Default 0.1.
        initial_variance("initial variance", ABOVE_ZERO): f64 = 0.1,
        /// Q ≥ 0: what that variance grows by in each step. Default 0.1.
        process_noise("process noise", AT_LEAST_ZERO): f64 = 0.1,
        /// Default [`Variant::Symmetric`].
        variant("variant", CHOICE): Variant = Variant::Symmetric,
        /// γ ≥ 0: the prior variance of the [definite](Variant::Definite) variant, which alone reads it, in squared units
        /// of the parameter. 0, the default, stands for σ.
        prior_variance("prior variance", AT_LEAST_ZERO): f64 = 0.0,
    }
}

impl KoalaPlusPlus {
    /// γ as a step has it: the prior variance, or σ where that is 0; and 0 for a variant that has none.
    ///
    /// ```
    /// use koala_optim::{KoalaPlusPlus, Variant};
    /// let numbers = KoalaPlusPlus { initial_variance: 0.2, variant: Variant::Definite, ..KoalaPlusPlus::default() };
    /// assert_eq!(numbers.gamma(), 0.2);
    /// ```
    #[inline(always)]
    pub fn gamma(&self) -> f64 {
        match self.variant {
            Variant::Definite if self.prior_variance == 0.0 => self.initial_variance,
            Variant::Definite => self.prior_variance,
            Variant::Symmetric | Variant::Vanilla => 0.0,
        }
    }
}

// The rules of pass 2. A first step begins with another one.
const ADVANCE: u8 = 0;
const ADVANCE_FIRST: u8 = 1;
const DEFINITE: u8 = 2;
const DEFINITE_FIRST: u8 = 3;

impl Rules for KoalaPlusPlus {
    const NAME: &'static str = "koala++";
    const WANTED: Wanted = Wanted::Filter;
    const SHARED: bool = false;

    fn vectors(&self) -> [Option<&'static str>; 2] {
        [Some("h"), Some("v")]
    }

    #[inline(always)]
    fn validate(&self) -> Result<(), Error> {
        let KoalaPlusPlus { initial_variance, process_noise, prior_variance, .. } = *self;
        let in_range = initial_variance > 0.0 && process_noise >= 0.0 && prior_variance >= 0.0;
        match in_range && all_finite([initial_variance, process_noise, prior_variance]) {
            true => Ok(()),
            false => self.validate_numbers(),
        }
    }

    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        self.usual::<F>(&planned, Room::ENDLESS).unwrap_or_else(|| self.unusual::<F>(&planned))
    }

    fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>)) {
        match update.rule.kind {
            ADVANCE | ADVANCE_FIRST => work(&CompiledPass::new(update, false)),
            _ => work(&DefinitePass(Advance::new(update))),
        }
    }

    fn reach(update: Update, reaching: Reaching) -> Reach {
        let Reaching { dots, before, .. } = reaching;
        // Before a first step, h is H.
        let begins = Scalars { h_h: dots.c, ..Scalars::default() };
        let is_first = matches!(update.rule.kind, ADVANCE_FIRST | DEFINITE_FIRST);
        reach_from(dots.c, if is_first { begins } else { before }, update)
    }
}

// The decision.
impl KoalaPlusPlus {
    /// The plan of nearly every step, if this is one of them, within that room. It stays in registers: to write it to
    /// memory and to read it again takes longer than the arithmetic.
    #[inline(always)]
    pub(crate) fn usual<F: Real>(&self, planned: &Planned<'_>, room: Room) -> Option<Plan> {
        let Planned { dots, scalars, .. } = *planned;
        if scalars.steps == 0 || is_skipped(dots) {
            return None;
        }
        let plan = self.advance::<F>(Outcome::Stepped, planned);
        is_sound(dots, scalars, &plan, room).then_some(plan)
    }

    /// The first step, or none, or a restart.
    #[cold]
    fn unusual<F: Real>(&self, planned: &Planned<'_>) -> Plan {
        if let Some(plan) = kept_for_input(planned.measurement, planned.dots) {
            return plan;
        }
        if planned.scalars.steps == 0 {
            return self.first_step::<F>(Outcome::FirstStep, planned);
        }
        let plan = examined(self.advance::<F>(Outcome::Stepped, planned));
        if plan.report.outcome == Outcome::Breakdown && planned.on_breakdown == OnBreakdown::Restart {
            return self.first_step::<F>(Outcome::Restarted, planned);
        }
        plan
    }

    /// The filter before its first step, seen with h = H and v = σ·H.
    fn first_step<F: Real>(&self, outcome: Outcome, planned: &Planned<'_>) -> Plan {
        let Planned { measurement, dots, scalars, .. } = *planned;
        let x = dots.c;
        let y = self.initial_variance * x;
        let s = (y + self.process_noise * x) + measurement.noise;
        let dots = Dots { a: x, b: y, ..dots };
        let scalars = Scalars { h_h: x, h_v: y, innovation_variance: s, steps: scalars.steps };
        let mut plan = self.advance::<F>(outcome, &Planned { dots, scalars, ..*planned });
        if let Some(trouble) = first_non_finite(["the initial variance σ"], [plan.update.numbers[5]]) {
            return kept(Outcome::NonFinite, Some(trouble));
        }
        plan.update.rule.kind += 1;
        examined(plan)
    }

    #[inline(always)]
    fn advance<F: Real>(&self, outcome: Outcome, planned: &Planned<'_>) -> Plan {
        let Planned { settings, measurement, dots: Dots { a, b, c, .. }, .. } = *planned;
        let Scalars { h_h: x, h_v: y, innovation_variance: s, steps } = planned.scalars;
        let (q, gamma) = (self.process_noise, self.gamma());

        let lambda = (b + q * a) / s;
        let (alpha, w) = match self.variant {
            Variant::Symmetric => (a / x, b / x - (a * y) / (x * x)),
            Variant::Vanilla => (a / x, 0.0),
            Variant::Definite => (b / y, -((gamma * a) / x)),
        };
        let keep = alpha - lambda;
        let mix = w - q * lambda;
        let gain = q + gamma;
        let h_v = (keep * b + gain * c) + mix * a;
        let innovation_variance = (h_v + q * c) + measurement.noise;
        let rate = (settings.learning_rate * planned.effective_loss()) / innovation_variance;

        let kind = if self.variant == Variant::Definite { DEFINITE } else { ADVANCE };
        let numbers = [settings.weight_decay, keep, q, mix, rate, self.initial_variance, gain, 0.0].map(rounded::<F>);
        Plan {
            report: TensorReport { outcome, innovation_variance, alpha, lambda, w, gain: 0.0, norms: None },
            scalars: Scalars { h_h: c, h_v, innovation_variance, steps: steps + 1 },
            update: Update { rule: numbered::<Self>(kind), numbers },
            scaled: None,
            trouble: None,
        }
    }
}

/// Whether a plan can be carried out, as far as can be seen at once. Every number that is not looked at here is a part of
/// one that is, and would make it NaN or infinite with itself; the coefficients are parts of the reach.
#[inline(always)]
fn is_sound(dots: Dots, before: Scalars, plan: &Plan, room: Room) -> bool {
    let s = plan.report.innovation_variance;
    s > 0.0 && all_finite([s, plan.update.numbers[0]]) && reach_from(dots.c, before, plan.update).is_within(room)
}

/// How far an update can take the elements, given H·H and the scalars before it, or those that stand for none. A sum is
/// bounded by (p + q)² ≤ 2·(p² + q²), and with 4 for up to four parts. The norm of v is at most that of h times a variance
/// that began as σ and has grown by Q + γ in each step.
#[inline(always)]
fn reach_from(c: f64, before: Scalars, update: Update) -> Reach {
    let [_, keep, _, mix, rate, initial_variance, gain, _] = update.numbers;
    let x = before.h_h;
    let variance = initial_variance + gain * (before.steps as i64 as f64);
    let old = (variance * variance) * x;
    let new = ((keep * keep) * old + (mix * mix) * x) + (2.0 * (gain * gain)) * c;
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
        return breakdown(innovation_variance, plan.report);
    }
    let [weight_decay, keep, process_noise, mix, rate, _, gain, _] = plan.update.numbers;
    let names = ["wd", "α − λ", "Q", "w − Q·λ", "η·L/S", "Q + γ"];
    match first_non_finite(names, [weight_decay, keep, process_noise, mix, rate, gain]) {
        Some(trouble) => kept(Outcome::NonFinite, Some(trouble)),
        None => plan,
    }
}

// Pass 2.

/// H = g, and h' = H is written.
const PLAIN: u8 = 0;
/// H = g + wd·θ.
const DECAYED: u8 = 1;
/// H = g, and h' is not written.
const EXCHANGED: u8 = 2;
/// With or without weight decay. Q + γ is not Q.
const DEFINITE_VARIANT: u8 = 3;

/// The numbers that vectors are multiplied with.
#[derive(Clone, Copy, Debug)]
struct Coefficients<F> {
    weight_decay: F,
    keep: F,
    process_noise: F,
    mix: F,
    rate: F,
    initial_variance: F,
    gain: F,
    /// Whether the filter's beginning goes before.
    first: bool,
}

impl<F: Real> Coefficients<F> {
    #[inline(always)]
    fn new(update: Update) -> Self {
        let [weight_decay, keep, process_noise, mix, rate, initial_variance, gain, _] = update.numbers.map(F::rounded);
        let first = matches!(update.rule.kind, ADVANCE_FIRST | DEFINITE_FIRST);
        Coefficients { weight_decay, keep, process_noise, mix, rate, initial_variance, gain, first }
    }

    #[inline(always)]
    fn decays(&self) -> bool {
        self.weight_decay.to_f64() != 0.0
    }

    #[inline(always)]
    fn measurement<V: Vector<F>>(&self, decays: bool, v: V, old: &Streams<V::Column>) -> V::Column {
        match decays {
            true => v.add(old.gradient, v.mul(v.splat(self.weight_decay), old.parameters)),
            false => old.gradient,
        }
    }
}

/// Pass 2 of the paper's variants by one of three kinds, each of which is compiled for every pair of types on its own.
pub(crate) enum CompiledPass<F> {
    Plain(Advance<F, PLAIN>),
    Decayed(Advance<F, DECAYED>),
    Exchanged(Advance<F, EXCHANGED>),
}

impl<F: Real> CompiledPass<F> {
    /// With `exchange`, the gradient's memory becomes h where H is the gradient.
    #[inline(always)]
    pub fn new(update: Update, exchange: bool) -> Self {
        match (update.numbers[0] != 0.0, exchange) {
            (true, _) => CompiledPass::Decayed(Advance::new(update)),
            (false, false) => CompiledPass::Plain(Advance::new(update)),
            (false, true) => CompiledPass::Exchanged(Advance::new(update)),
        }
    }

    /// The pass of an update whose rule is among those that are compiled.
    #[inline(always)]
    pub fn of(update: Update, exchange: bool) -> Option<Self> {
        let is_compiled = [ADVANCE, ADVANCE_FIRST].map(numbered::<KoalaPlusPlus>).contains(&update.rule);
        is_compiled.then(|| Self::new(update, exchange))
    }

    /// Whether the gradient has to take the place of h.
    #[inline(always)]
    pub fn exchanges(&self) -> bool {
        matches!(self, CompiledPass::Exchanged(_))
    }

    #[inline(always)]
    fn coefficients(&self) -> &Coefficients<F> {
        match self {
            CompiledPass::Plain(advance) => &advance.coefficients,
            CompiledPass::Decayed(advance) => &advance.coefficients,
            CompiledPass::Exchanged(advance) => &advance.coefficients,
        }
    }
}

impl<P: Operand, S: Element> Pass<P, S> for CompiledPass<P::Arithmetic> {
    #[inline(always)]
    fn stages(&self) -> usize {
        1 + usize::from(self.coefficients().first)
    }

    #[inline(always)]
    fn run(&self, backend: Backend, stage: usize, input: &mut Input<'_, P, S>) {
        if stage == 0 && self.coefficients().first {
            return begin(backend, *self.coefficients(), input);
        }
        match self {
            CompiledPass::Plain(advance) => advance.run(backend, 0, input),
            CompiledPass::Decayed(advance) => advance.run(backend, 0, input),
            CompiledPass::Exchanged(advance) => advance.run(backend, 0, input),
        }
    }
}

/// Pass 2 of the definite variant.
struct DefinitePass<F>(Advance<F, DEFINITE_VARIANT>);

impl<F: Real> Pass<F, F> for DefinitePass<F> {
    fn stages(&self) -> usize {
        1 + usize::from(self.0.coefficients.first)
    }

    fn run(&self, backend: Backend, stage: usize, input: &mut Input<'_, F, F>) {
        match stage == 0 && self.0.coefficients.first {
            true => begin(backend, self.0.coefficients, input),
            false => self.0.run(backend, 0, input),
        }
    }
}

/// The elements of a step, h and v being there.
#[derive(Clone, Copy)]
pub(crate) struct Advance<F, const KIND: u8> {
    coefficients: Coefficients<F>,
}

impl<F: Real, const KIND: u8> Advance<F, KIND> {
    #[inline(always)]
    fn new(update: Update) -> Self {
        Advance { coefficients: Coefficients::new(update) }
    }
}

/// Staged in every type, as it happens once: to compile its loops for every pair of types would take long.
#[inline(never)]
fn begin<P: Operand, S: Element>(
    backend: Backend,
    coefficients: Coefficients<P::Arithmetic>,
    input: &mut Input<'_, P, S>,
) {
    Staged { pass: &Begin { coefficients }, scaled: None }.run(backend, 0, input);
}

impl<F: Real, const KIND: u8> Rule<F> for Advance<F, KIND> {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: true, v: true };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: KIND != EXCHANGED, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let Coefficients { keep, process_noise, mix, rate, gain, .. } = self.coefficients;
        let is_definite = KIND == DEFINITE_VARIANT;
        let decays = KIND == DECAYED || (is_definite && self.coefficients.decays());
        let measurement = self.coefficients.measurement(decays, v, &old);
        let noise = v.mul(v.splat(process_noise), measurement);
        let gained = if is_definite { v.mul(v.splat(gain), measurement) } else { noise };
        let product = v.add(v.add(v.mul(v.splat(keep), old.v), gained), v.mul(v.splat(mix), old.h));
        let parameters = v.sub(old.parameters, v.mul(v.splat(rate), v.add(product, noise)));
        Streams { gradient: old.gradient, parameters, h: measurement, v: product }
    }
}

/// The filter before its first step.
#[derive(Clone, Copy)]
struct Begin<F> {
    coefficients: Coefficients<F>,
}

impl<F: Real> Rule<F> for Begin<F> {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: false, v: false };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: false, h: true, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let measurement = self.coefficients.measurement(self.coefficients.decays(), v, &old);
        Streams { h: measurement, v: v.mul(v.splat(self.coefficients.initial_variance), measurement), ..old }
    }
}
