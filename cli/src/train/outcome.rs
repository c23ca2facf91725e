//! What came of a training run.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::train::method::{Method, Settings};
use crate::train::plan::Plan;
use crate::train::reports::Reports;

/// Where a run stood after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The mean loss over the epoch, of each sample when its batch was taken, in nats.
    pub train_loss: f64,
    /// The mean loss over the held-out part.
    pub test_loss: f64,
    /// The part of it that the network answered rightly.
    pub test_accuracy: f64,
}

/// The record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The optimizer.
    pub optimizer: Method,
    /// It with all its numbers before the first step, as the library writes them.
    pub method: String,
    /// Its settings.
    pub settings: Settings,
    /// Draws the first weights and the order of the samples.
    pub seed: u64,
    /// The steps taken.
    pub steps: usize,
    /// Whether the training went out of hand: a loss was not finite, which ends a run; or the network ended hardly better
    /// than guessing, having been worse than it began; or its last steps threw it far beyond that.
    pub diverged: bool,
    /// Whether it was stopped before its last epoch, to go on later.
    pub stopped: bool,
    /// The mean loss of the first batch, before any step.
    pub first_loss: Option<f64>,
    /// Where it stood after each epoch.
    pub epochs: Vec<Epoch>,
    /// What the reports of its steps came to.
    pub reports: Reports,
    /// The mean time that a step took in the optimizer alone. The one figure here that differs between two runs.
    pub microseconds_per_step: f64,
}

impl Run {
    /// Whether it is the record of a run under way that a file can hold: its numbers are trusted afterwards.
    pub(super) fn check(&self, plan: &Plan, tensors: usize) -> Result<()> {
        let (epochs, steps) = (self.epochs.len(), self.steps);
        ensure!((1..=plan.epochs).contains(&epochs), "it says that the run has had {epochs} epochs of {}", plan.epochs);
        let expected = plan.steps() / plan.epochs * epochs;
        ensure!(steps == expected, "it says that {epochs} epochs took {steps} steps, and not {expected}");
        ensure!(!self.diverged && !self.stopped, "it says that the run has ended");
        ensure!(self.first_loss.is_some(), "it does not say what the loss was before the first step");
        // A network's losses are f32, and so is none of their means greater.
        let check_loss = |what: &str, loss: f64| {
            ensure!(loss.abs() <= f64::from(f32::MAX), "it says that the {what} was {loss:e}");
            Ok(())
        };
        self.first_loss.map_or(Ok(()), |loss| check_loss("first loss", loss))?;
        for Epoch { train_loss, test_loss, test_accuracy } in &self.epochs {
            check_loss("training loss", *train_loss)?;
            check_loss("loss on the held-out part", *test_loss)?;
            ensure!((0.0..=1.0).contains(test_accuracy), "it says that {test_accuracy} of the answers were right");
        }
        let microseconds = self.microseconds_per_step;
        ensure!(self.time().is_some(), "it says that a step took {microseconds} microseconds");
        let Reports { restarts, non_finite, breakdowns, skipped, largest_gradient_norm: norm } = self.reports;
        let most = steps.saturating_mul(tensors);
        let counted = [restarts, non_finite, breakdowns, skipped].into_iter().try_fold(0_usize, usize::checked_add);
        ensure!(
            counted.is_some_and(|counted| counted <= most),
            "it says more of its tensors than that they took {most} steps"
        );
        ensure!(norm.is_none_or(|norm| norm >= 0.0), "it says that the greatest norm was {norm:?}");
        Ok(())
    }

    /// The time that all steps took.
    pub(super) fn time(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.microseconds_per_step * 1e-6 * self.steps as f64).ok()
    }

    /// Where the run ended, unless it diverged.
    pub fn result(&self) -> Option<&Epoch> {
        self.epochs.last().filter(|_| !self.diverged)
    }

    /// That in words.
    pub fn result_text(&self) -> String {
        let text = |last: &Epoch| format!("accuracy {:.2} %, loss {:.4}", last.test_accuracy * 100.0, last.test_loss);
        self.result().map_or("diverged".to_owned(), text)
    }
}

/// What the reports of all these runs come to.
pub fn reports_of(runs: &[Run]) -> Reports {
    runs.iter().fold(Reports::default(), |sum, run| sum.and(run.reports))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::task::Network;

    /// A run whose epochs had these losses; it diverged if the last is not finite, or there is none.
    pub fn run_with(method: Method, losses: &[f64]) -> Run {
        let epoch = |&loss: &f64| Epoch { train_loss: loss, test_loss: loss, test_accuracy: (-loss).exp() };
        Run {
            optimizer: method,
            method: String::new(),
            settings: method.defaults(Network::Mlp),
            seed: 0,
            steps: losses.len(),
            diverged: !losses.last().is_some_and(|loss| loss.is_finite()),
            stopped: false,
            first_loss: Some(2.6),
            epochs: losses.iter().map(epoch).collect(),
            reports: Reports::default(),
            microseconds_per_step: 1.0,
        }
    }
}
