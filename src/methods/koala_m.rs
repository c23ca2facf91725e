//! KOALA-M (Davtyan, Sameni, Cerkezi, Meishvili, Bielski, Favaro, AAAI 2022): parameters with velocities u, and one
//! covariance P = [[sw, sc], [sc, sv]] for all of them. The state's h is u, its v is the running average m of θ; both
//! begin at zero.
//!
//! ```text
//! predict, before the gradient is taken:
//!     d = Σ‖m − θ‖² over all tensors
//!     θ ← θ + u   u ← a·u
//!     qw ← 0.9·qw + (0.1·√d)/(number of parameters)
//!     P ← F·P·Fᵀ + diag(qw, qv), F = [[1, 1], [0, a]]:
//!         sw ← ((sw + sc) + (sc + sv)) + qw   sc ← a·(sc + sv)   sv ← (a·a)·sv + qv
//! of each tensor:
//!     c = H·H   s = c·sw + R   k = (η·(L + (½·wd)·θ·θ))/s
//!     θ' = θ − (k·sw)·H   u' = u − (k·sc)·H   m' = 0.9·m + 0.1·θ'
//! after all tensors, with z = max(c/s):
//!     P ← P − z·(P₀₀, P₁₀)ᵀ(P₀₀, P₁₀):
//!         sw ← sw − sw·(sw·z)   sc ← sc − sc·(sw·z)   sv ← sv − sc·(sc·z)
//! ```

use crate::methods::number::numbers;
use crate::methods::plan::{Plan, TensorReport, Update, breakdown, kept_for_input, not_below_zero, stepped};
use crate::methods::reach::Reach;
use crate::methods::rule::{Planned, Reaching, Rules, Wanted, numbered, rounded, splat};
use crate::passes::update::{Pass, Rule, Streams};
use crate::simd::vector::{Real, Vector};

/// How much of the running average and of the noise of the parameters a step keeps.
const KEPT: f64 = 0.9;
const LEARNED: f64 = 0.1;

numbers! {
    /// The numbers of KOALA-M, as they are now.
    ///
    /// ```
    /// assert_eq!(koala_optim::KoalaM::default().velocity_decay, 0.9);
    /// ```
    KoalaM {
        /// sw ≥ 0, the variance of a parameter. Default 0.1.
        variance("variance", AT_LEAST_ZERO): f64 = 0.1,
        /// sc, the covariance of a parameter and its velocity. Default 0.
        covariance("covariance", FINITE): f64 = 0.0,
        /// sv ≥ 0, the variance of a velocity. Default 0.1.
        velocity_variance("variance of a velocity", AT_LEAST_ZERO): f64 = 0.1,
        /// a, in [0, 1]: what a prediction leaves of a velocity. Default 0.9.
        velocity_decay("velocity decay", UP_TO_ONE): f64 = 0.9,
        /// qw ≥ 0, the process noise of a parameter, which adapts. Default 0.01.
        process_noise("process noise", AT_LEAST_ZERO): f64 = 0.01,
        /// qv ≥ 0, the process noise of a velocity. Default 0.01.
        velocity_noise("process noise of a velocity", AT_LEAST_ZERO): f64 = 0.01,
    }
}

impl Rules for KoalaM {
    const NAME: &'static str = "koala-m";
    const WANTED: Wanted = Wanted::Measurement;
    const SHARED: bool = true;

    fn vectors(&self) -> [Option<&'static str>; 2] {
        [Some("velocity"), Some("average")]
    }

    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        let Planned { settings, measurement, dots, scalars, .. } = planned;
        if let Some(plan) = kept_for_input(measurement, dots) {
            return plan;
        }
        let s = dots.c * self.variance + measurement.noise;
        if s <= 0.0 {
            return breakdown(s, TensorReport::default());
        }
        let k = (settings.learning_rate * planned.effective_loss()) / s;
        let [weight_decay, rate, velocity_rate] =
            [settings.weight_decay, k * self.variance, k * self.covariance].map(rounded::<F>);
        let report = TensorReport { innovation_variance: s, gain: dots.c / s, ..TensorReport::default() };
        let names = ["the innovation variance S", "c/S", "wd", "η·L·P₀₀/S", "η·L·P₁₀/S"];
        let numbers = [weight_decay, rate, velocity_rate, 0.0, 0.0, 0.0, 0.0, 0.0];
        let update = Update { rule: numbered::<Self>(0), numbers };
        stepped(report, scalars, update, names, [s, report.gain, weight_decay, rate, velocity_rate])
    }

    fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>)) {
        work(&Correct::new(update));
    }

    /// With θ·θ where the state might not hold θ: the running average lies between its old value and θ'.
    fn reach(update: Update, reaching: Reaching) -> Reach {
        let (Correct { rate, velocity_rate, .. }, measurement_squared) = (Correct::new(update), reaching.dots.c);
        let velocity_squared = (velocity_rate * velocity_rate) * measurement_squared;
        let step_squared = (rate * rate) * measurement_squared;
        let average_squared = reaching.parameters_squared.map_or(0.0, |squared| 2.0 * (squared + step_squared));
        Reach { state_squared: velocity_squared + average_squared, step_squared }
    }

    fn takes_parameters(_: Update) -> bool {
        true
    }

    fn predict(&mut self, distance_squared: f64, parameters: usize) {
        let KoalaM { variance: sw, covariance: sc, velocity_variance: sv, velocity_decay: a, .. } = *self;
        if parameters > 0 {
            let learned = (LEARNED * distance_squared.sqrt()) / parameters as f64;
            self.process_noise = KEPT * self.process_noise + learned;
        }
        self.variance = ((sw + sc) + (sc + sv)) + self.process_noise;
        self.covariance = a * (sc + sv);
        self.velocity_variance = (a * a) * sv + self.velocity_noise;
    }

    fn correct(&mut self, gain: f64) {
        let KoalaM { variance: sw, covariance: sc, velocity_variance: sv, .. } = *self;
        // Rounding must not take a variance below zero. Not by squares, which overflow long before a variance does.
        self.variance = not_below_zero(sw - sw * (sw * gain));
        self.covariance = sc - sc * (sw * gain);
        self.velocity_variance = not_below_zero(sv - sc * (sc * gain));
    }

    fn velocity_decay(&self) -> Option<f64> {
        Some(self.velocity_decay)
    }
}

/// What a step does with the elements.
#[derive(Clone, Copy)]
struct Correct {
    weight_decay: f64,
    rate: f64,
    velocity_rate: f64,
}

impl Correct {
    fn new(update: Update) -> Self {
        let [weight_decay, rate, velocity_rate, ..] = update.numbers;
        Correct { weight_decay, rate, velocity_rate }
    }
}

impl<F: Real> Rule<F> for Correct {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: true, v: true };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: true, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let measurement = v.add(old.gradient, v.mul(splat(v, self.weight_decay), old.parameters));
        let parameters = v.sub(old.parameters, v.mul(splat(v, self.rate), measurement));
        let velocity = v.sub(old.h, v.mul(splat(v, self.velocity_rate), measurement));
        let average = v.add(v.mul(splat(v, KEPT), old.v), v.mul(splat(v, LEARNED), parameters));
        Streams { gradient: old.gradient, parameters, h: velocity, v: average }
    }
}

/// What a prediction does with the elements: θ ← θ + u, u ← a·u.
#[derive(Clone, Copy)]
pub(crate) struct Predict {
    pub velocity_decay: f64,
}

impl<F: Real> Rule<F> for Predict {
    const READS: Streams<bool> = Streams { gradient: false, parameters: true, h: true, v: false };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: true, v: false };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let parameters = v.add(old.parameters, old.h);
        Streams { parameters, h: v.mul(splat(v, self.velocity_decay), old.h), ..old }
    }
}
