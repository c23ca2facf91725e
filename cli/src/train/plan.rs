//! What all runs of a comparison share.

use anyhow::{Result, ensure};
use koala_optim::Backend;
use serde_json::Value;

use crate::task::{Part, Task};

/// Far more steps than anyone can wait for: up to here a number of steps is exact as a float too.
const MOST_STEPS: usize = 1 << 53;

/// What is learnt, and how the samples are gone through.
pub struct Plan {
    /// What is learnt.
    pub task: Box<dyn Task>,
    /// How often the samples are gone through.
    pub epochs: usize,
    /// How many samples make an epoch, if not all: each epoch draws others.
    pub samples_per_epoch: usize,
    /// The samples per step.
    pub batch: usize,
    /// Where steps run.
    pub backend: Backend,
    /// On how many threads they do.
    pub threads: usize,
}

impl Plan {
    /// Whether so many steps can be counted. To be asked first.
    pub fn check(&self) -> Result<()> {
        let steps = self.epochs.checked_mul(self.steps_of_epoch()).filter(|&steps| steps <= MOST_STEPS);
        ensure!(
            steps.is_some(),
            "{} epochs of {} steps are more than {MOST_STEPS} steps",
            self.epochs,
            self.steps_of_epoch()
        );
        Ok(())
    }

    /// The steps that a run takes.
    pub fn steps(&self) -> usize {
        self.epochs * self.steps_of_epoch()
    }

    fn steps_of_epoch(&self) -> usize {
        self.samples_of_epoch().div_ceil(self.batch)
    }

    /// The samples that an epoch goes through.
    pub fn samples_of_epoch(&self) -> usize {
        self.samples_per_epoch.min(self.task.count(Part::Train))
    }

    /// The same on what there is to train on, a part of it held out for validation.
    pub fn validation(&self) -> Result<Plan> {
        Ok(Plan { task: self.task.validation()?, backend: self.backend, ..*self })
    }

    /// The checksum of the data, as it is written.
    pub fn checksum(&self) -> String {
        format!("{:016x}", self.task.checksum())
    }

    /// What decides the bits of a run, but for its optimizer, its settings and its seed.
    pub fn identity(&self) -> Value {
        serde_json::json!({
            "data": self.task.data(),
            "checksum": self.checksum(),
            "network": self.task.network().name(),
            "held-out part": self.task.held_out().title(),
            "training samples": self.task.count(Part::Train),
            "epochs": self.epochs,
            "samples per epoch": self.samples_of_epoch(),
            "batch": self.batch,
        })
    }
}
