//! What an optimizer is made with, and what its steps report.

use crate::backend::Backend;
use crate::error::Error;
use crate::kernel::Outcome;
use crate::methods::Method;
use crate::settings::{Noise, Policy, Scaling, above_zero};
use crate::threads::Threads;

/// What an optimizer is made with.
///
/// ```
/// use koala_optim::{Config, Noise, Threads};
/// let config = Config { noise: Noise::Fixed(1.0), threads: Threads::One, ..Config::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Which optimizer steps. Default: KOALA++.
    pub method: Method,
    /// R. Default: averaged with a decay of 0.9 from 1.
    pub noise: Noise,
    /// What to do when a tensor's step can't be taken.
    pub policy: Policy,
    /// What becomes of gradients as they are loaded. Default: nothing.
    pub scaling: Scaling,
    /// Above 0: the Euclidean norm of all gradients of a step together, scaled, above which they are shrunk to that norm.
    /// Pass 1 then goes over all tensors before any is written. Where it is not reached, no bit of finite gradients' results
    /// depends on it. Default: no limit.
    pub clip_norm: Option<f64>,
    /// Where steps run. Default: the fastest.
    pub backend: Backend,
    /// Default: the calling thread only.
    pub threads: Threads,
    /// Whether to keep each tensor's report, with its norms, for [`Optimizer::details`](crate::Optimizer::details). The
    /// norms may cost a pass more over gradient and parameters; what is written does not depend on it. Default: no.
    pub details: bool,
}

impl Config {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// use koala_optim::Config;
    /// assert!(Config { clip_norm: Some(0.0), ..Config::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        self.method.validate()?;
        self.noise.validate()?;
        self.scaling.validate()?;
        self.clip_norm.map_or(Ok(()), |norm| above_zero("norm to clip by", norm))
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Calls to [`Optimizer::step`](crate::Optimizer::step) that took this optimizer's noise forward, this one included.
    pub step: u64,
    /// R of this step.
    pub noise: f64,
    /// The Euclidean norm of all gradients together, scaled but not yet clipped by it, if [`Config::clip_norm`] is set. What
    /// is frozen or not finite is left out.
    pub gradient_norm: Option<f64>,
    /// Tensors that stepped, first steps and restarts included. Under [`OnNonFinite::Unchecked`](crate::OnNonFinite) those
    /// of AdamW and SGD whose gradients nobody looked at are among them, finite or not.
    pub stepped: usize,
    /// Those of them that stepped for the first time.
    pub first_steps: usize,
    /// Those of them whose filter restarted, S having come out as zero or less.
    pub restarts: usize,
    /// Tensors kept because their gradient is (nearly) zero.
    pub skipped: usize,
    /// Tensors kept because they are frozen.
    pub frozen: usize,
    /// Tensors kept because something was NaN or infinite.
    pub non_finite: usize,
    /// Tensors kept because S came out as zero or less.
    pub breakdowns: usize,
    /// Tensors kept because another one is not finite, under [`OnNonFinite::KeepAll`](crate::OnNonFinite).
    pub withheld: usize,
}

impl Report {
    /// Counts one more tensor, of that outcome.
    ///
    /// ```
    /// use koala_optim::{Outcome, Report};
    /// let mut report = Report::default();
    /// report.count(Outcome::Restarted);
    /// assert_eq!((report.stepped, report.restarts), (1, 1));
    /// ```
    pub fn count(&mut self, outcome: Outcome) {
        self.stepped += usize::from(outcome.is_step());
        match outcome {
            Outcome::Stepped => {}
            Outcome::FirstStep => self.first_steps += 1,
            Outcome::Restarted => self.restarts += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Frozen => self.frozen += 1,
            Outcome::NonFinite => self.non_finite += 1,
            Outcome::Breakdown => self.breakdowns += 1,
            Outcome::Withheld => self.withheld += 1,
        }
    }
}
