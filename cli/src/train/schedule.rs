//! How the learning rate changes in the course of a training, by the library's schedules.

use clap::ValueEnum;
use koala_optim::schedule::{constant, cosine, one_cycle, step_decay, warm_up};
use serde::{Deserialize, Serialize};

/// The schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Always the same
    Constant,
    /// A tenth after each 30 % of the epochs, as in the paper of KOALA++
    StepDecay,
    /// Half a cosine, epoch by epoch
    Cosine,
    /// A linear rise over the first tenth of the steps, times half a cosine, step by step
    WarmUp,
    /// One cycle, step by step: up to the learning rate over the first 30 % of the steps, then down to nearly nothing
    OneCycle,
}

impl Schedule {
    /// The factor of the learning rate in this one of all steps, in this one of all epochs, both counted from 0.
    pub fn factor(self, [step, steps]: [u64; 2], [epoch, epochs]: [u64; 2]) -> f64 {
        match self {
            Schedule::Constant => constant(step),
            Schedule::StepDecay => step_decay(epoch, &[3, 6, 9].map(|tenths| (tenths * epochs).div_ceil(10)), 0.1),
            Schedule::Cosine => cosine(epoch, epochs),
            Schedule::WarmUp => warm_up(step, steps / 10) * cosine(step, steps),
            Schedule::OneCycle => one_cycle(step, steps, 0.3, 25.0, 1e4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over 10 epochs of 10 steps.
    #[test]
    fn factors_at_some_steps() {
        let at = |schedule: Schedule| [0, 4, 30, 99].map(|step| schedule.factor([step, 100], [step / 10, 10]));
        assert_eq!(at(Schedule::Constant), [1.0; 4]);
        assert_eq!(at(Schedule::StepDecay), [1.0, 1.0, 0.1, 0.1 * 0.1 * 0.1]);
        assert_eq!(at(Schedule::Cosine), [0, 0, 3, 9].map(|epoch| cosine(epoch, 10)));
        assert_eq!(at(Schedule::WarmUp), [0.1, 0.5 * cosine(4, 100), cosine(30, 100), cosine(99, 100)]);
        assert_eq!(at(Schedule::OneCycle)[..3], [0.04, one_cycle(4, 100, 0.3, 25.0, 1e4), 1.0]);
    }
}
