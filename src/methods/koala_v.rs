//! KOALA-V (Davtyan, Sameni, Cerkezi, Meishvili, Bielski, Favaro, AAAI 2022): one variance σ, shared by all parameters.
//! A step is that of gradient descent, at a rate which depends on σ.

use crate::methods::number::numbers;
use crate::methods::plan::{Plan, TensorReport, Update, breakdown, kept_for_input, not_below_zero, stepped};
use crate::methods::reach::Reach;
use crate::methods::rule::{Planned, Reaching, Rules, Wanted, rounded};
use crate::methods::sgd;
use crate::passes::update::Pass;
use crate::simd::vector::Real;

numbers! {
    /// The numbers of KOALA-V.
    ///
    /// ```
    /// use koala_optim::{Config, KoalaV, Method, Optimizer};
    /// let method = Method::KoalaV(KoalaV { variance: 0.5, ..KoalaV::default() });
    /// let optimizer = Optimizer::new(Config { method, ..Config::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    KoalaV {
        /// σ ≥ 0, the variance of every parameter, in squared units of the parameters: as it is now. Default 0.1.
        variance("variance", AT_LEAST_ZERO): f64 = 0.1,
        /// Q ≥ 0, what the variance grows by in each step. Default 0.1.
        process_noise("process noise", AT_LEAST_ZERO): f64 = 0.1,
    }
}

impl Rules for KoalaV {
    const NAME: &'static str = "koala-v";
    const WANTED: Wanted = Wanted::Measurement;
    const SHARED: bool = true;

    fn vectors(&self) -> [Option<&'static str>; 2] {
        [None, None]
    }

    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        let Planned { settings, measurement, dots, scalars, .. } = planned;
        if let Some(plan) = kept_for_input(measurement, dots) {
            return plan;
        }
        let s = self.variance * dots.c + measurement.noise;
        if s <= 0.0 {
            return breakdown(s, TensorReport::default());
        }
        let rate = ((settings.learning_rate * planned.effective_loss()) * self.variance) / s;
        let rate = rounded::<F>(rate);
        let report = TensorReport { innovation_variance: s, gain: dots.c / s, ..TensorReport::default() };
        let update = sgd::descent(0.0, rate);
        stepped(report, scalars, update, ["the innovation variance S", "c/S", "η·L·σ/S"], [s, report.gain, rate])
    }

    fn with_pass<F: Real>(_: Update, _: &mut dyn FnMut(&dyn Pass<F, F>)) {
        unreachable!("the rule is that of gradient descent");
    }

    fn reach(_: Update, _: Reaching) -> Reach {
        Reach::UNKNOWN
    }

    fn predict(&mut self, _: f64, _: usize) {
        self.variance += self.process_noise;
    }

    fn correct(&mut self, gain: f64) {
        // Below zero it would be no variance. Not by σ², which overflows long before σ does.
        self.variance = not_below_zero(self.variance - self.variance * (self.variance * gain));
    }
}
