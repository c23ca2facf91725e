//! AdamW (Loshchilov and Hutter, 2019): Adam, with weight decay that acts beside the gradient. The state's h is the mean
//! m of the gradient, its v the mean of its square; both begin at zero. `t` counts this step.
//!
//! ```text
//! m' = β₁·m + (1 − β₁)·g
//! v' = β₂·v + (1 − β₂)·(g·g)
//! θ' = (1 − η·wd)·θ − (η/(1 − β₁ᵗ))·(m'/(√v'·(1/√(1 − β₂ᵗ)) + ε))
//! ```

use super::{Update, rounded, splat, stepped};
use crate::methods::plan::{Dots, Measurement, Plan, Scalars, TensorReport, kept_if_not_finite};
use crate::methods::reach::Reach;
use crate::passes::update::{Rule, Streams};
use crate::simd::operand::Real;
use crate::simd::vector::Vector;
use crate::types::element::ElementType;
use crate::types::error::Error;
use crate::types::settings::{Settings, below_one};

/// The numbers of AdamW.
///
/// ```
/// assert_eq!(koala_optim::AdamW::default().beta2, 0.999);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct AdamW {
    /// β₁, in [0, 1): what a step keeps of the mean of the gradient. Default 0.9.
    pub beta1: f64,
    /// β₂, in [0, 1): what a step keeps of the mean of its square. Default 0.999.
    pub beta2: f64,
    /// ε ≥ 10⁻³⁷, in units of the gradient: keeps the denominator from zero. Default 10⁻⁸.
    pub epsilon: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamW {
    pub(super) fn validate(&self) -> Result<(), Error> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        // Below that, an f32 loses it.
        let (setting, value) = ("epsilon", self.epsilon);
        let good = value.is_finite() && value >= 1e-37;
        if good { Ok(()) } else { Err(Error::Setting { setting, value, expected: "a finite number, at least 1e-37" }) }
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
        let Settings { learning_rate, weight_decay, .. } = *settings;
        let step = scalars.steps + 1;
        let average = Average {
            beta1: rounded::<F>(self.beta1),
            one_minus_beta1: rounded::<F>(1.0 - self.beta1),
            beta2: rounded::<F>(self.beta2),
            one_minus_beta2: rounded::<F>(1.0 - self.beta2),
            shrink: rounded::<F>(1.0 - learning_rate * weight_decay),
            rate: rounded::<F>(learning_rate / (1.0 - power(self.beta1, step))),
            root: rounded::<F>(1.0 / (1.0 - power(self.beta2, step)).sqrt()),
            epsilon: rounded::<F>(self.epsilon),
        };
        let names = ["1 − η·wd", "η/(1 − β₁ᵗ)", "1/√(1 − β₂ᵗ)"];
        let numbers = [average.shrink, average.rate, average.root];
        stepped(TensorReport::default(), scalars, Update::AdamW(average), names, numbers)
    }
}

/// `base` to that power, by multiplications in a fixed order, as the contract wants it.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result *= square;
        }
        square *= square;
        left >>= 1;
    }
    result
}

/// What a step does with the elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    beta1: f64,
    one_minus_beta1: f64,
    beta2: f64,
    one_minus_beta2: f64,
    shrink: f64,
    rate: f64,
    root: f64,
    epsilon: f64,
}

impl Average {
    pub(super) fn reach(&self, gradient_squared: f64, state: ElementType) -> Reach {
        let Average { one_minus_beta2, shrink, rate, epsilon, .. } = *self;
        // Where the square is lost, the gradient's element was below √(smallest/(1 − β₂)), and is divided by ε alone.
        let lost = state.smallest().sqrt() / epsilon;
        let step_squared = (rate * rate) * ((1.0 + lost) * (1.0 + lost)) / one_minus_beta2;
        match shrink.abs() <= 1.0 {
            true => Reach { state_squared: gradient_squared.max(gradient_squared * gradient_squared), step_squared },
            false => Reach::UNKNOWN,
        }
    }
}

impl<F: Real> Rule<F> for Average {
    const READS: Streams<bool> = Streams { gradient: true, parameters: true, h: true, v: true };
    const WRITES: Streams<bool> = Streams { gradient: false, parameters: true, h: true, v: true };

    #[inline(always)]
    fn column<V: Vector<F>>(self, v: V, old: Streams<V::Column>) -> Streams<V::Column> {
        let gradient = old.gradient;
        let mean = v.add(v.mul(splat(v, self.beta1), old.h), v.mul(splat(v, self.one_minus_beta1), gradient));
        let square = v.mul(splat(v, self.one_minus_beta2), v.mul(gradient, gradient));
        let square = v.add(v.mul(splat(v, self.beta2), old.v), square);
        let denominator = v.add(v.mul(v.sqrt(square), splat(v, self.root)), splat(v, self.epsilon));
        let direction = v.mul(splat(v, self.rate), v.div(mean, denominator));
        let parameters = v.sub(v.mul(splat(v, self.shrink), old.parameters), direction);
        Streams { gradient, parameters, h: mean, v: square }
    }
}
