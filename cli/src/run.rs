//! One training run: a network, an optimizer, and what came of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use koala_optim::{Backend, Threads};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::images::{CLASSES, Data, Images};
use crate::method::{Method, Settings, Stepper};
use crate::network::{Model, Network};

/// What all runs of a comparison share.
pub struct Plan {
    /// The images.
    pub data: Data,
    /// The kind of network.
    pub model: Model,
    /// How often all images are gone through.
    pub epochs: usize,
    /// The images per step.
    pub batch: usize,
    /// Draws the first weights and the order of the images.
    pub seed: u64,
    /// Where KOALA++ steps.
    pub backend: Backend,
    /// On how many threads it does.
    pub threads: usize,
}

/// Where a run stood after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// The mean loss over the epoch, of each image when its batch was taken.
    pub train_loss: f64,
    /// The mean loss over the test part.
    pub test_loss: f64,
    /// The part of it that the network classified rightly.
    pub test_accuracy: f64,
}

/// The record of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The optimizer.
    pub optimizer: Method,
    /// Its settings.
    pub settings: Settings,
    /// The steps taken.
    pub steps: usize,
    /// Whether a loss was not finite, which ends a run, or the network ended hardly better than guessing.
    pub diverged: bool,
    /// Where it stood after each epoch.
    pub epochs: Vec<Epoch>,
    /// The mean time that a step took in the optimizer alone. The one figure here that differs between two runs.
    pub microseconds_per_step: f64,
}

impl Run {
    /// Where the run ended, unless it diverged.
    pub fn result(&self) -> Option<&Epoch> {
        self.epochs.last().filter(|_| !self.diverged)
    }
}

impl Plan {
    /// The steps that a run takes.
    pub fn steps(&self) -> usize {
        self.epochs * self.data.train.count().div_ceil(self.batch)
    }

    /// Trains a fresh network. `progress` is called after every step.
    pub fn run(&self, method: Method, settings: Settings, mut progress: impl FnMut(&Run)) -> Result<Run> {
        let Data { train, test, .. } = &self.data;
        let mut network = Network::new(self.model, train.height, train.width, self.seed)?;
        let mut stepper =
            Stepper::new(method, &settings, &network.parameters, self.backend, Threads::Count(self.threads))?;
        // A stream of its own, so that the order does not depend on how many weights were drawn.
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(1);

        let mut run = Run {
            optimizer: method,
            settings,
            steps: 0,
            diverged: false,
            epochs: Vec::with_capacity(self.epochs),
            microseconds_per_step: 0.0,
        };
        let mut spent = Duration::ZERO;
        let mut order: Vec<usize> = (0..train.count()).collect();
        for epoch in 0..self.epochs {
            let rate = method.scheduled(settings.learning_rate, epoch as f64 / self.epochs as f64);
            order.shuffle(&mut random);
            let mut loss_sum = 0.0;
            for batch in order.chunks(self.batch) {
                let losses = network.differentiate(&train.select(batch))?.losses;
                let batch_sum: f64 = losses.iter().copied().map(f64::from).sum();
                if !batch_sum.is_finite() {
                    run.diverged = true;
                    return Ok(run);
                }
                loss_sum += batch_sum;
                let start = Instant::now();
                stepper.step(rate, &losses, &mut network.parameters)?;
                spent += start.elapsed();
                run.steps += 1;
                run.microseconds_per_step = spent.as_secs_f64() * 1e6 / run.steps as f64;
                progress(&run);
            }
            let (test_loss, test_accuracy) = judge(&network, test)?;
            let train_loss = loss_sum / train.count() as f64;
            run.epochs.push(Epoch { train_loss, test_loss, test_accuracy });
        }
        let guessing = 1.0 / CLASSES as f64;
        let lost = |last: &Epoch| !last.test_loss.is_finite() || last.test_accuracy < 2.0 * guessing;
        run.diverged = run.epochs.last().is_some_and(lost);
        Ok(run)
    }
}

/// The mean loss and the accuracy, taken in parts so that a large test set needs little memory.
fn judge(network: &Network, images: &Images) -> Result<(f64, f64)> {
    let (mut loss_sum, mut correct) = (0.0, 0);
    let indices: Vec<usize> = (0..images.count()).collect();
    for part in indices.chunks(500) {
        let outcome = network.evaluate(&images.select(part))?;
        loss_sum += outcome.losses.iter().copied().map(f64::from).sum::<f64>();
        correct += outcome.correct;
    }
    let count = images.count() as f64;
    Ok((loss_sum / count, correct as f64 / count))
}
