//! Stochastic gradient descent with momentum (Polyak, 1964), Nesterov's too, as PyTorch has it. The state's h is the
//! momentum u, which begins at zero.
//!
//! ```text
//! H  = g + wd·θ
//! u' = μ·u + H
//! θ' = θ − η·u'                 or, by Nesterov: θ − η·(H + μ·u')
//! ```
//!
//! Without momentum there is no state: θ' = θ − η·H.

use super::{Update, rounded, splat, stepped};
use crate::methods::plan::{Dots, Measurement, Plan, Scalars, TensorReport, kept_if_not_finite};
use crate::methods::reach::Reach;
use crate::passes::update::{Rule, Streams};
use crate::simd::operand::Real;
use crate::simd::vector::Vector;
use crate::types::error::Error;
use crate::types::settings::{Settings, below_one};

/// The numbers of stochastic gradient descent.
///
/// ```
/// use koala_optim::{Method, Sgd};
/// let method = Method::Sgd(Sgd { nesterov: true, ..Sgd::default() });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct Sgd {
    /// μ, in [0, 1): what a step keeps of the momentum. Default 0.9.
    pub momentum: f64,
    /// Whether a step follows the gradient and the new momentum, as Nesterov has it. It needs a momentum above 0, as in
    /// PyTorch. Default false.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { momentum: 0.9, nesterov: false }
    }
}

impl Sgd {
    pub(super) fn validate(&self) -> Result<(), Error> {
        below_one("momentum", self.momentum)?;
        if self.nesterov && self.momentum == 0.0 {
            let expected = "a number above 0 beside Nesterov's";
            return Err(Error::Setting { setting: "momentum", value: self.momentum, expected });
        }
        Ok(())
    }

    pub(super) fn plan<F: Real>(
        &self,
        settings: &Settings,
        measurement: Measurement,
        dots: Dots,
        scalars: Scalars,
    ) -> Plan {
        if let Some(plan) = kept_if_not_finite(measurement, dots) {
            return plan;
        }
        let (weight_decay, rate) = (rounded::<F>(settings.weight_decay), rounded::<F>(settings.learning_rate));
        let momentum = rounded::<F>(self.momentum);
        let update = match momentum == 0.0 {
            true => Update::Descend(Descend { weight_decay, rate }),
            false => Update::Momentum(Momentum { weight_decay, rate, momentum, nesterov: self.nesterov }),
        };
        stepped(TensorReport::default(), scalars, update, ["wd", "η"], [weight_decay, rate])
    }
}

/// θ' = θ − rate·(g + wd·θ).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descend {
    pub weight_decay: f64,
    pub rate: f64,
}

impl<F: Real> Rule<F> for Descend {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: false, v: false };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: false, v: false };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let gradient = v.add(old.gradient, v.mul(splat(v, self.weight_decay), old.parameters));
        Streams { parameters: v.sub(old.parameters, v.mul(splat(v, self.rate), gradient)), ..old }
    }
}

impl Descend {
    pub(super) fn reach(&self, gradient_squared: f64) -> Reach {
        let Descend { weight_decay, rate } = *self;
        match decays_gently(weight_decay, rate) {
            true => Reach { state_squared: 0.0, step_squared: (rate * rate) * gradient_squared },
            false => Reach::UNKNOWN,
        }
    }
}

/// Whether the weight decay of a parameter stays below an eighth of the largest number, if the parameter is below a
/// 1024th.
fn decays_gently(weight_decay: f64, rate: f64) -> bool {
    weight_decay * rate.max(1.0) <= 128.0
}

/// A step with momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    weight_decay: f64,
    rate: f64,
    momentum: f64,
    nesterov: bool,
}

impl Momentum {
    /// Whether θ becomes a part of the state.
    pub(super) fn takes_parameters(&self) -> bool {
        self.weight_decay != 0.0
    }

    /// With θ·θ where the state might not hold θ.
    pub(super) fn reach(&self, gradient_squared: f64, parameters_squared: Option<f64>) -> Reach {
        let Momentum { weight_decay, rate, momentum, .. } = *self;
        let left = 1.0 - momentum;
        if !decays_gently(weight_decay / left, rate) {
            return Reach::UNKNOWN;
        }
        let measurement_squared = match parameters_squared {
            None => gradient_squared,
            Some(squared) => 2.0 * (gradient_squared + (weight_decay * weight_decay) * squared),
        };
        let velocity_squared = measurement_squared / (left * left);
        // With Nesterov's, the gradient is added once more.
        Reach { state_squared: velocity_squared, step_squared: (4.0 * (rate * rate)) * velocity_squared }
    }
}

impl<F: Real> Rule<F> for Momentum {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: true, v: false };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: true, v: false };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let (rate, momentum) = (splat(v, self.rate), splat(v, self.momentum));
        let gradient = v.add(old.gradient, v.mul(splat(v, self.weight_decay), old.parameters));
        let velocity = v.add(v.mul(momentum, old.h), gradient);
        let direction = if self.nesterov { v.add(gradient, v.mul(momentum, velocity)) } else { velocity };
        Streams { parameters: v.sub(old.parameters, v.mul(rate, direction)), h: velocity, ..old }
    }
}
