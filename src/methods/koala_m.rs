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

use super::koala_v::{breakdown, effective_loss};
use super::{Update, rounded, splat, stepped};
use crate::methods::plan::{Dots, Measurement, Plan, Scalars, TensorReport, kept_for_input, not_below_zero};
use crate::methods::reach::Reach;
use crate::passes::update::{Rule, Streams};
use crate::simd::operand::Real;
use crate::simd::vector::Vector;
use crate::types::error::Error;
use crate::types::settings::{Settings, at_least_zero, finite};

/// How much of the running average and of the noise of the parameters a step keeps.
const KEPT: f64 = 0.9;
const LEARNED: f64 = 0.1;

/// The numbers of KOALA-M, as they are now.
///
/// ```
/// assert_eq!(koala_optim::KoalaM::default().velocity_decay, 0.9);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct KoalaM {
    /// sw ≥ 0, the variance of a parameter. Default 0.1.
    pub variance: f64,
    /// sc, the covariance of a parameter and its velocity. Default 0.
    pub covariance: f64,
    /// sv ≥ 0, the variance of a velocity. Default 0.1.
    pub velocity_variance: f64,
    /// a, in [0, 1]: what a prediction leaves of a velocity. Default 0.9.
    pub velocity_decay: f64,
    /// qw ≥ 0, the process noise of a parameter, which adapts. Default 0.01.
    pub process_noise: f64,
    /// qv ≥ 0, the process noise of a velocity. Default 0.01.
    pub velocity_noise: f64,
}

impl Default for KoalaM {
    fn default() -> Self {
        KoalaM {
            variance: 0.1,
            covariance: 0.0,
            velocity_variance: 0.1,
            velocity_decay: 0.9,
            process_noise: 0.01,
            velocity_noise: 0.01,
        }
    }
}

impl KoalaM {
    pub(super) fn validate(&self) -> Result<(), Error> {
        at_least_zero("variance", self.variance)?;
        finite("covariance", self.covariance)?;
        at_least_zero("variance of a velocity", self.velocity_variance)?;
        let (setting, value) = ("velocity decay", self.velocity_decay);
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::Setting { setting, value, expected: "a number from 0 to 1" });
        }
        at_least_zero("process noise", self.process_noise)?;
        at_least_zero("process noise of a velocity", self.velocity_noise)
    }

    pub(super) fn predict(&mut self, distance_squared: f64, parameters: usize) {
        let KoalaM { variance: sw, covariance: sc, velocity_variance: sv, velocity_decay: a, .. } = *self;
        if parameters > 0 {
            let learned = (LEARNED * distance_squared.sqrt()) / parameters as f64;
            self.process_noise = KEPT * self.process_noise + learned;
        }
        self.variance = ((sw + sc) + (sc + sv)) + self.process_noise;
        self.covariance = a * (sc + sv);
        self.velocity_variance = (a * a) * sv + self.velocity_noise;
    }

    pub(super) fn correct(&mut self, gain: f64) {
        let KoalaM { variance: sw, covariance: sc, velocity_variance: sv, .. } = *self;
        // Rounding must not take a variance below zero. Not by squares, which overflow long before a variance does.
        self.variance = not_below_zero(sw - sw * (sw * gain));
        self.covariance = sc - sc * (sw * gain);
        self.velocity_variance = not_below_zero(sv - sc * (sc * gain));
    }

    pub(super) fn plan<F: Real>(
        &self,
        settings: &Settings,
        measurement: Measurement,
        dots: Dots,
        scalars: Scalars,
    ) -> Plan {
        if let Some(plan) = kept_for_input(measurement, dots) {
            return plan;
        }
        let s = dots.c * self.variance + measurement.noise;
        if s <= 0.0 {
            return breakdown(s);
        }
        let k = (settings.learning_rate * effective_loss(settings, measurement, dots)) / s;
        let correct = Correct {
            weight_decay: rounded::<F>(settings.weight_decay),
            rate: rounded::<F>(k * self.variance),
            velocity_rate: rounded::<F>(k * self.covariance),
            kept: rounded::<F>(KEPT),
            learned: rounded::<F>(LEARNED),
        };
        let report = TensorReport { innovation_variance: s, gain: dots.c / s, ..TensorReport::default() };
        let names = ["the innovation variance S", "c/S", "wd", "η·L·P₀₀/S", "η·L·P₁₀/S"];
        let numbers = [s, report.gain, correct.weight_decay, correct.rate, correct.velocity_rate];
        stepped(report, scalars, Update::KoalaM(correct), names, numbers)
    }
}

/// What a step does with the elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correct {
    weight_decay: f64,
    rate: f64,
    velocity_rate: f64,
    kept: f64,
    learned: f64,
}

impl Correct {
    /// With θ·θ where the state might not hold θ: the running average lies between its old value and θ'.
    pub(super) fn reach(&self, measurement_squared: f64, parameters_squared: Option<f64>) -> Reach {
        let Correct { rate, velocity_rate, .. } = *self;
        let velocity_squared = (velocity_rate * velocity_rate) * measurement_squared;
        let step_squared = (rate * rate) * measurement_squared;
        let average_squared = parameters_squared.map_or(0.0, |squared| 2.0 * (squared + step_squared));
        Reach { state_squared: velocity_squared + average_squared, step_squared }
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
        let average = v.add(v.mul(splat(v, self.kept), old.v), v.mul(splat(v, self.learned), parameters));
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
