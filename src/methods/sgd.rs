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

use crate::methods::number::{Numbers, numbers};
use crate::methods::plan::{Plan, TensorReport, Update, kept_if_not_finite, stepped};
use crate::methods::reach::Reach;
use crate::methods::rule::{Planned, Reaching, Rules, Wanted, numbered, rounded, splat};
use crate::passes::update::{Pass, Rule, Streams};
use crate::simd::vector::{Real, Vector};
use crate::types::error::Error;

numbers! {
    /// The numbers of stochastic gradient descent.
    ///
    /// ```
    /// use koala_optim::{Method, Sgd};
    /// let method = Method::Sgd(Sgd { nesterov: true, ..Sgd::default() });
    /// ```
    Sgd {
        /// μ, in [0, 1): what a step keeps of the momentum. Default 0.9.
        momentum("momentum", BELOW_ONE): f64 = 0.9,
        /// Whether a step follows the gradient and the new momentum, as Nesterov has it. It needs a momentum above 0, as
        /// in PyTorch. Default false.
        nesterov("Nesterov's momentum", CHOICE): bool = false,
    }
}

// The rules.
const DESCEND: u8 = 0;
const MOMENTUM: u8 = 1;
const NESTEROV: u8 = 2;

/// θ' = θ − rate·(g + wd·θ), with numbers of the arithmetic type.
pub(super) fn descent(weight_decay: f64, rate: f64) -> Update {
    update(DESCEND, weight_decay, rate, 0.0)
}

fn update(kind: u8, weight_decay: f64, rate: f64, momentum: f64) -> Update {
    Update { rule: numbered::<Sgd>(kind), numbers: [weight_decay, rate, momentum, 0.0, 0.0, 0.0, 0.0, 0.0] }
}

impl Rules for Sgd {
    const NAME: &'static str = "sgd";
    const WANTED: Wanted = Wanted::Coupled;
    const SHARED: bool = false;

    fn vectors(&self) -> [Option<&'static str>; 2] {
        [if self.momentum == 0.0 { None } else { Some("momentum") }, None]
    }

    fn validate(&self) -> Result<(), Error> {
        self.validate_numbers()?;
        if self.nesterov && self.momentum == 0.0 {
            let expected = "a number above 0 beside Nesterov's";
            return Err(Error::Setting { setting: "momentum", value: self.momentum, expected });
        }
        Ok(())
    }

    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        let Planned { settings, measurement, dots, scalars, .. } = planned;
        if let Some(plan) = kept_if_not_finite(measurement, dots) {
            return plan;
        }
        let [weight_decay, rate, momentum] =
            [settings.weight_decay, settings.learning_rate, self.momentum].map(rounded::<F>);
        let kind = match (momentum == 0.0, self.nesterov) {
            (true, _) => DESCEND,
            (false, false) => MOMENTUM,
            (false, true) => NESTEROV,
        };
        let update = update(kind, weight_decay, rate, momentum);
        stepped(TensorReport::default(), scalars, update, ["wd", "η"], [weight_decay, rate])
    }

    fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>)) {
        match update.rule.kind {
            DESCEND => work(&Descend::new(update)),
            _ => work(&Momentum::new(update)),
        }
    }

    fn reach(update: Update, reaching: Reaching) -> Reach {
        match update.rule.kind {
            DESCEND => Descend::new(update).reach(reaching.gradient_squared),
            _ => Momentum::new(update).reach(reaching.gradient_squared, reaching.parameters_squared),
        }
    }

    fn takes_parameters(update: Update) -> bool {
        let [weight_decay, ..] = update.numbers;
        update.rule.kind != DESCEND && weight_decay != 0.0
    }
}

/// A step without momentum.
#[derive(Clone, Copy)]
struct Descend {
    weight_decay: f64,
    rate: f64,
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
    fn new(update: Update) -> Self {
        let [weight_decay, rate, ..] = update.numbers;
        Descend { weight_decay, rate }
    }

    fn reach(&self, gradient_squared: f64) -> Reach {
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
#[derive(Clone, Copy)]
struct Momentum {
    weight_decay: f64,
    rate: f64,
    momentum: f64,
    nesterov: bool,
}

impl Momentum {
    fn new(update: Update) -> Self {
        let [weight_decay, rate, momentum, ..] = update.numbers;
        Momentum { weight_decay, rate, momentum, nesterov: update.rule.kind == NESTEROV }
    }

    /// With θ·θ where the state might not hold θ.
    fn reach(&self, gradient_squared: f64, parameters_squared: Option<f64>) -> Reach {
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
