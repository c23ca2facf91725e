//! What a step of an optimizer reports.

use crate::methods::plan::Outcome;

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Calls to [`Optimizer::step`](crate::Optimizer::step) that took this optimizer's noise forward, this one
    /// included.
    pub step: u64,
    /// R of this step.
    pub noise: f64,
    /// The Euclidean norm of all gradients together, scaled but not yet clipped by it, if
    /// [`Config::clip_norm`](crate::Config::clip_norm) is set. What is frozen or not finite is left out.
    pub gradient_norm: Option<f64>,
    /// Tensors that stepped, first steps and restarts included. Under [`OnNonFinite::Unchecked`](crate::OnNonFinite)
    /// those of AdamW and SGD whose gradients nobody looked at are among them, finite or not.
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
