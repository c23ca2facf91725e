//! AdamW (Loshchilov and Hutter, 2019): Adam, with weight decay that acts beside the gradient. The state's h is the mean
//! m of the gradient, its v the mean of its square; both begin at zero. `t` counts this step.
//!
//! ```text
//! m' = β₁·m + (1 − β₁)·g
//! v' = β₂·v + (1 − β₂)·(g·g)
//! θ' = (1 − η·wd)·θ − (η/(1 − β₁ᵗ))·(m'/(√v'·(1/√(1 − β₂ᵗ)) + ε))
//! ```

use crate::methods::number::numbers;
use crate::methods::plan::{Plan, TensorReport, Update, kept_if_not_finite, stepped};
use crate::methods::reach::Reach;
use crate::methods::rule::{Planned, Reaching, Rules, Wanted, numbered, rounded, splat};
use crate::passes::update::{Pass, Rule, Streams};
use crate::simd::vector::{Real, Vector};
use crate::types::settings::Settings;

numbers! {
    /// The numbers of AdamW.
    ///
    /// ```
    /// assert_eq!(koala_optim::AdamW::default().beta2, 0.999);
    /// ```
    AdamW {
        /// β₁, in [0, 1): what a step keeps of the mean of the gradient. Default 0.9.
        beta1("beta1", BELOW_ONE): f64 = 0.9,
        /// β₂, in [0, 1): what a step keeps of the mean of its square. Default 0.999.
        beta2("beta2", BELOW_ONE): f64 = 0.999,
        /// ε ≥ 10⁻³⁷, in units of the gradient: keeps the denominator from zero. Default 10⁻⁸.
        epsilon("epsilon", AT_LEAST_1E_37): f64 = 1e-8,
    }
}

impl Rules for AdamW {
    const NAME: &'static str = "adamw";
    const WANTED: Wanted = Wanted::Decoupled;
    const SHARED: bool = false;

    fn vectors(&self) -> [Option<&'static str>; 2] {
        [Some("mean"), Some("mean of squares")]
    }

    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        let Planned { settings, measurement, dots, scalars, .. } = planned;
        if let Some(plan) = kept_if_not_finite(measurement, dots) {
            return plan;
        }
        let Settings { learning_rate, weight_decay, .. } = *settings;
        let step = scalars.steps + 1;
        let numbers = [
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            1.0 - learning_rate * weight_decay,
            learning_rate / (1.0 - power(self.beta1, step)),
            1.0 / (1.0 - power(self.beta2, step)).sqrt(),
            self.epsilon,
        ]
        .map(rounded::<F>);
        let [_, _, _, _, shrink, rate, root, _] = numbers;
        let names = ["1 − η·wd", "η/(1 − β₁ᵗ)", "1/√(1 − β₂ᵗ)"];
        let update = Update { rule: numbered::<Self>(0), numbers };
        stepped(TensorReport::default(), scalars, update, names, [shrink, rate, root])
    }

    fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>)) {
        work(&Average::new(update));
    }

    fn reach(update: Update, Reaching { state, gradient_squared, .. }: Reaching) -> Reach {
        let Average { one_minus_beta2, shrink, rate, epsilon, .. } = Average::new(update);
        // Where the square is lost, the gradient's element was below √(smallest/(1 − β₂)), and is divided by ε alone.
        let lost = state.smallest().sqrt() / epsilon;
        let step_squared = (rate * rate) * ((1.0 + lost) * (1.0 + lost)) / one_minus_beta2;
        match shrink.abs() <= 1.0 {
            true => Reach { state_squared: gradient_squared.max(gradient_squared * gradient_squared), step_squared },
            false => Reach::UNKNOWN,
        }
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
#[derive(Clone, Copy)]
struct Average {
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
    fn new(update: Update) -> Self {
        let [beta1, one_minus_beta1, beta2, one_minus_beta2, shrink, rate, root, epsilon] = update.numbers;
        Average { beta1, one_minus_beta1, beta2, one_minus_beta2, shrink, rate, root, epsilon }
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
