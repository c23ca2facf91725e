//! One training run: a network, an optimizer, and what came of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use koala_optim::Threads;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::task::{self, Parameter, Part, Task};
use crate::train::divergence::has_diverged;
use crate::train::method::{Method, Settings, Stepper};
use crate::train::outcome::{Epoch, Run};
use crate::train::plan::Plan;
use crate::train::reports::Reports;

/// A run under way.
pub struct Training<'a> {
    pub(super) plan: &'a Plan,
    pub(super) parameters: Vec<Parameter>,
    pub(super) stepper: Stepper,
    random: ChaCha8Rng,
    order: Vec<usize>,
    spent: Duration,
    /// Its record so far.
    pub run: Run,
}

impl<'a> Training<'a> {
    /// Before the first step.
    pub fn new(plan: &'a Plan, method: Method, settings: Settings, seed: u64) -> Result<Training<'a>> {
        let parameters = plan.task.parameters(seed);
        let stepper = Stepper::new(method, &settings, &parameters, plan.backend, Threads::Count(plan.threads))?;
        // A stream of its own, so that the order does not depend on how many weights were drawn.
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(1);
        let run = Run {
            optimizer: method,
            method: format!("{:?}", method.with(&settings)),
            settings,
            seed,
            steps: 0,
            diverged: false,
            stopped: false,
            first_loss: None,
            epochs: Vec::new(),
            reports: Reports::default(),
            microseconds_per_step: 0.0,
        };
        let order = (0..plan.task.count(Part::Train)).collect();
        Ok(Training { plan, parameters, stepper, random, order, spent: Duration::ZERO, run })
    }

    /// Sets the record, and with it the order of the samples, to where another training of the same stood.
    pub(super) fn go_on_from(&mut self, run: Run) {
        // Each epoch's order is made of the one before it.
        for _ in &run.epochs {
            self.order.shuffle(&mut self.random);
        }
        self.spent = run.time().unwrap_or_default();
        self.run = run;
    }

    /// Trains for one epoch, if any is left. Whether it did.
    pub fn epoch(&mut self, mut progress: impl FnMut(&Run)) -> Result<bool> {
        let (plan, run) = (self.plan, &mut self.run);
        let done = run.epochs.len();
        if run.diverged || done == plan.epochs {
            return Ok(false);
        }
        let Settings { learning_rate, schedule, .. } = run.settings;
        let (steps, epochs) = (plan.steps() as u64, [done as u64, plan.epochs as u64]);
        self.order.shuffle(&mut self.random);
        let samples = &self.order[..plan.samples_of_epoch()];
        let mut loss_sum = 0.0;
        for batch in samples.chunks(plan.batch) {
            self.stepper.predict(&mut self.parameters)?;
            let losses = task::differentiate(&*plan.task, &mut self.parameters, batch)?.losses;
            let batch_sum: f64 = losses.iter().copied().map(f64::from).sum();
            if !batch_sum.is_finite() {
                run.diverged = true;
                return Ok(true);
            }
            run.first_loss.get_or_insert(batch_sum / batch.len() as f64);
            loss_sum += batch_sum;
            let rate = learning_rate * schedule.factor([run.steps as u64, steps], epochs);
            let start = Instant::now();
            let report = self.stepper.step(rate, &losses, &mut self.parameters)?;
            self.spent += start.elapsed();
            run.reports = run.reports.and(Reports::of_step(&report));
            run.steps += 1;
            run.microseconds_per_step = self.spent.as_secs_f64() * 1e6 / run.steps as f64;
            progress(run);
        }
        let (test_loss, test_accuracy) = judge(&*plan.task, &self.parameters)?;
        let train_loss = loss_sum / samples.len() as f64;
        run.epochs.push(Epoch { train_loss, test_loss, test_accuracy });
        if !test_loss.is_finite() || run.epochs.len() == plan.epochs {
            run.diverged = has_diverged(run, plan.task.guessing());
        }
        Ok(true)
    }
}

/// The mean loss and the accuracy, taken in parts so that a large held-out part needs little memory.
fn judge(task: &dyn Task, parameters: &[Parameter]) -> Result<(f64, f64)> {
    let (mut loss_sum, mut right) = (0.0, 0.0);
    let samples: Vec<usize> = (0..task.count(Part::HeldOut)).collect();
    for part in samples.chunks(if task.is_text() { 50 } else { 500 }) {
        let outcome = task::evaluate(task, parameters, Part::HeldOut, part)?;
        loss_sum += outcome.losses.iter().copied().map(f64::from).sum::<f64>();
        right += outcome.right;
    }
    let count = samples.len() as f64;
    Ok((loss_sum / count, right / count))
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use koala_optim::Backend;

    use super::*;
    use crate::task::{Forward, HeldOut, Network};

    /// A loss of √p where p is 0: it is finite, and its gradient is not.
    struct Root;

    impl Task for Root {
        fn data(&self) -> &str {
            "root"
        }

        fn checksum(&self) -> u64 {
            0
        }

        fn network(&self) -> Network {
            Network::Mlp
        }

        fn describe(&self) -> String {
            String::new()
        }

        fn held_out(&self) -> HeldOut {
            HeldOut::Test
        }

        fn count(&self, _: Part) -> usize {
            3
        }

        fn parameters(&self, _: u64) -> Vec<Parameter> {
            vec![Parameter { name: "p".to_owned(), shape: vec![1], values: vec![0.0], gradient: vec![0.0] }]
        }

        fn forward(&self, parameters: &[Tensor], _: Part, samples: &[usize]) -> Result<Forward> {
            Ok(Forward { losses: parameters[0].sqrt()?.repeat(samples.len())?, right: 0.0 })
        }

        fn guessing(&self) -> f64 {
            1.0
        }

        fn is_text(&self) -> bool {
            false
        }

        fn validation(&self) -> Result<Box<dyn Task>> {
            Ok(Box::new(Root))
        }
    }

    #[test]
    fn gradients_that_are_not_finite_are_counted() -> Result<()> {
        let (task, backend) = (Box::new(Root), Backend::scalar());
        let plan = Plan { task, epochs: 2, samples_per_epoch: usize::MAX, batch: 1, backend, threads: 1 };
        for method in Method::ALL {
            let mut training = Training::new(&plan, method, method.defaults(Network::Mlp), 0)?;
            while training.epoch(|_| ())? {}
            let run = &training.run;
            assert_eq!((run.diverged, run.steps), (false, 6), "{method:?}");
            assert_eq!(run.reports, Reports { non_finite: 6, ..Reports::default() }, "{method:?}");
        }
        Ok(())
    }
}
