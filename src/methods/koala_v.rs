//! KOALA-V (Davtyan, Sameni, Cerkezi, Meishvili, Bielski, Favaro, AAAI 2022): one variance σ, shared by all parameters.
//!
//! ```text
//! before a step:       σ ← σ + Q
//! of each tensor:      c = H·H   s = σ·c + R   rate = ((η·(L + (½·wd)·θ·θ))·σ)/s
//!                      θ' = θ − rate·g
//! after all tensors:   σ ← σ − σ·(σ·max(c/s))
//! ```

use super::{Update, rounded, sgd::Descend, stepped};
use crate::methods::plan::{
    Dots, Measurement, Outcome, Plan, Scalars, TensorReport, kept, kept_for_input, not_below_zero,
};
use crate::simd::operand::Real;
use crate::types::error::Error;
use crate::types::settings::{Settings, at_least_zero};

/// The numbers of KOALA-V.
///
/// ```
/// assert_eq!(koala_optim::KoalaV::default().variance, 0.1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct KoalaV {
    /// σ ≥ 0, the variance of every parameter, in squared units of the parameters: as it is now. Default 0.1.
    pub variance: f64,
    /// Q ≥ 0, what the variance grows by in each step. Default 0.1.
    pub process_noise: f64,
}

impl Default for KoalaV {
    fn default() -> Self {
        KoalaV { variance: 0.1, process_noise: 0.1 }
    }
}

impl KoalaV {
    pub(super) fn validate(&self) -> Result<(), Error> {
        at_least_zero("variance", self.variance)?;
        at_least_zero("process noise", self.process_noise)
    }

    pub(super) fn predict(&mut self) {
        self.variance += self.process_noise;
    }

    pub(super) fn correct(&mut self, gain: f64) {
        // Below zero it would be no variance. Not by σ², which overflows long before σ does.
        self.variance = not_below_zero(self.variance - self.variance * (self.variance * gain));
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
        let s = self.variance * dots.c + measurement.noise;
        if s <= 0.0 {
            return breakdown(s);
        }
        let rate = ((settings.learning_rate * effective_loss(settings, measurement, dots)) * self.variance) / s;
        let rate = rounded::<F>(rate);
        let report = TensorReport { innovation_variance: s, gain: dots.c / s, ..TensorReport::default() };
        let update = Update::Descend(Descend { weight_decay: 0.0, rate });
        stepped(report, scalars, update, ["the innovation variance S", "c/S", "η·L·σ/S"], [s, report.gain, rate])
    }
}

/// The loss with this tensor's part of the penalty: L + (½·wd)·θ·θ.
pub(super) fn effective_loss(settings: &Settings, measurement: Measurement, dots: Dots) -> f64 {
    measurement.loss + (0.5 * settings.weight_decay) * dots.t
}

/// The plan where the innovation variance is not positive.
pub(super) fn breakdown(innovation_variance: f64) -> Plan {
    let trouble = crate::methods::plan::Trouble { quantity: "the innovation variance S", value: innovation_variance };
    kept(Outcome::Breakdown, Some(trouble))
}
