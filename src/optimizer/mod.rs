//! Level 3, the optimizer: named tensors in groups, the noise that they share, and one call that steps them all.

pub mod config;
mod members;
pub mod registry;
pub mod report;
pub mod schedule;
pub mod state;
pub mod tensor;
pub mod walk;

use std::collections::HashMap;

use crate::dispatch::Backend;
use crate::methods::Method;
use crate::methods::plan::{Measurement, TensorReport};
use crate::optimizer::config::Config;
use crate::optimizer::registry::{Entry, Group};
use crate::optimizer::report::Report;
use crate::optimizer::tensor::Tensor;
use crate::optimizer::walk::{Ordered, Walk, Walked};
use crate::step::Step;
use crate::types::error::{Error, owned};
use crate::types::range::Range;
use crate::types::settings::{Loss, Noise, OnNonFinite, Policy, Scaling};
use crate::types::threads::{Crew, Threads};

/// KOALA++, or another [`Method`], over a model.
///
/// ```
/// use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType, Tensor};
///
/// let mut optimizer = Optimizer::new(Config::default())?;
/// let group = optimizer.add_group(Settings::default())?;
/// optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
///
/// let (mut weight, gradient) = ([1.0_f32, -2.0, 3.0], [0.1_f32, 0.2, -0.3]);
/// let report = optimizer.step(Loss::new(0.7, 0.6), &mut [Tensor::new("weight", &mut weight, &gradient)])?;
/// assert_eq!((report.stepped, report.step), (1, 1));
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Debug)]
pub struct Optimizer {
    /// The one of new groups, with its shared numbers as they are after the last step.
    pub(crate) method: Method,
    /// Whether KOALA-M has predicted since then.
    pub(crate) predicted: bool,
    pub(crate) noise_rule: Noise,
    pub(crate) noise: f64,
    pub(crate) policy: Policy,
    pub(crate) scaling: Scaling,
    pub(crate) clip_norm: Option<f64>,
    backend: Backend,
    threads: Threads,
    crew: Crew,
    pub(crate) keep_details: bool,
    pub(crate) groups: Vec<Group>,
    /// What the tensors of each group are stepped with in the step that runs; kept so that a step does not allocate.
    group_steps: Vec<Step>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) by_name: HashMap<Box<str>, usize>,
    pub(crate) steps: u64,
    /// Distinguishes the calls of `step`, so that a tensor given twice is found without clearing marks.
    calls: u64,
    details: Vec<TensorReport>,
}

impl Optimizer {
    /// An optimizer without tensors.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range, [`Error::Threads`] if they can't be had.
    ///
    /// ```
    /// use koala_optim::{Config, Noise, Optimizer};
    /// assert!(Optimizer::new(Config { noise: Noise::Fixed(-1.0), ..Config::default() }).is_err());
    /// ```
    pub fn new(config: Config) -> Result<Self, Error> {
        config.validate()?;
        Ok(Optimizer {
            method: config.method,
            predicted: false,
            noise_rule: config.noise,
            noise: config.noise.initial(),
            policy: config.policy,
            scaling: config.scaling,
            clip_norm: config.clip_norm,
            backend: config.backend,
            crew: Crew::new(config.threads.clone())?,
            threads: config.threads,
            keep_details: config.details,
            groups: Vec::new(),
            group_steps: Vec::new(),
            entries: Vec::new(),
            by_name: HashMap::new(),
            steps: 0,
            calls: 0,
            details: Vec::new(),
        })
    }

    /// Changes the threads from the next step on; no bit of the results depends on them.
    ///
    /// # Errors
    /// [`Error::Threads`] if they can't be had.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Threads};
    /// Optimizer::new(Config::default())?.set_threads(Threads::One)?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_threads(&mut self, threads: Threads) -> Result<(), Error> {
        self.crew = Crew::new(threads.clone())?;
        self.threads = threads;
        Ok(())
    }

    /// Changes what becomes of gradients, from the next step on.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Scaling};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// optimizer.set_scaling(Scaling { factor: 1.0 / 1024.0, ..Scaling::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_scaling(&mut self, scaling: Scaling) -> Result<(), Error> {
        scaling.validate()?;
        self.scaling = scaling;
        Ok(())
    }

    /// Predicts, which KOALA-M has to before each step, and before the gradient of that step is taken: the parameters
    /// move by their velocities. The tensors are those of the step; their gradients are not read and may be empty. For
    /// another method nothing is predicted.
    ///
    /// Each call predicts anew: one that no step follows is a Kalman filter's prediction without a measurement. After a
    /// step that failed, the prediction still holds, and to try again needs no other; but a step that
    /// [`OnNonFinite::KeepAll`] withheld has used it up, and has kept the parameters where the prediction moved them. A
    /// tensor that is frozen, or whose parameters, or average, are not finite, stays as it is and does not count.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::DuplicateTensor`], [`Error::Length`], [`Error::Type`], and
    /// [`Error::Threads`] in a process that was forked, if they can't be had there. Nothing has changed then.
    ///
    /// ```
    /// use koala_optim::{Config, ElementType, KoalaM, Loss, Method, Optimizer, Settings, StateType, Tensor};
    ///
    /// let mut optimizer = Optimizer::new(Config { method: Method::KoalaM(KoalaM::default()), ..Config::default() })?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
    ///
    /// let mut weight = [1.0_f32, -2.0, 3.0];
    /// optimizer.predict(&mut [Tensor::new("weight", &mut weight, &[])])?;
    /// let gradient = [0.1_f32, 0.2, -0.3]; // Taken where the prediction moved the weight.
    /// optimizer.step(Loss::new(0.7, 0.6), &mut [Tensor::new("weight", &mut weight, &gradient)])?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn predict(&mut self, tensors: &mut [Tensor<'_>]) -> Result<(), Error> {
        self.find(tensors, true)?;
        let Some(velocity_decay) = self.method.velocity_decay() else { return Ok(()) };
        // A prediction needs neither loss nor noise.
        self.prepare_steps(self.method, Measurement { loss: 0.0, noise: 0.0 });
        let elements = tensors.iter().map(Tensor::len).sum();
        let (distance, parameters) = {
            let ordered = Ordered::new(tensors);
            let walk =
                Walk { steps: &self.group_steps, first: 0, entries: &mut self.entries, tensors: ordered.tensors };
            self.crew.run(elements, |parallel| walk.predict(velocity_decay, parallel))?
        };
        self.method.predict(distance, parameters);
        self.predicted = true;
        Ok(())
    }

    /// Steps the given tensors, which may be some or all of those added, in any order: with the same order as the one
    /// in which they were added, finding them is cheapest.
    ///
    /// Allocates nothing, and uses no thread but the calling one unless the optimizer was made with threads.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::DuplicateTensor`], [`Error::Length`], [`Error::Type`], [`Error::Setting`] if
    /// the second moment of the loss is negative, [`Error::NotPredicted`], what the [`Policy`] makes an error, and
    /// [`Error::Threads`] in a process that was forked, if they can't be had there. Nothing has changed then.
    ///
    /// See the [type's example](Self).
    pub fn step(&mut self, loss: Loss, tensors: &mut [Tensor<'_>]) -> Result<Report, Error> {
        if loss.second_moment < 0.0 {
            Range::AT_LEAST_ZERO.check("second moment of the loss", loss.second_moment)?;
        }
        let predicts = self.method.velocity_decay().is_some();
        if predicts && !self.predicted {
            return Err(Error::NotPredicted);
        }
        self.find(tensors, false)?;
        let finite = loss.is_finite(&self.noise_rule);
        if !finite && self.policy.non_finite == OnNonFinite::Error {
            return Err(Error::NonFiniteLoss { mean: loss.mean, second_moment: loss.second_moment });
        }
        let noise = if finite { self.noise_rule.next(self.noise, loss) } else { self.noise };
        // A loss of NaN keeps every tensor as it is.
        let measurement = Measurement { loss: if finite { loss.mean } else { f64::NAN }, noise };
        let mut method = self.method;
        if !predicts {
            method.predict(0.0, 0);
        }

        self.prepare_steps(method, measurement);
        let (policy, clip_norm) = (self.policy, self.clip_norm);
        let elements = tensors.iter().map(Tensor::len).sum();
        let Walked { written, gradient_norm } = {
            let ordered = Ordered::new(tensors);
            let walk =
                Walk { steps: &self.group_steps, first: 0, entries: &mut self.entries, tensors: ordered.tensors };
            self.crew.run(elements, |parallel| walk.step(policy, clip_norm, parallel))??
        };

        let mut report = Report { noise: self.noise, step: self.steps, gradient_norm, ..Report::default() };
        let mut gain: f64 = 0.0;
        self.details.clear();
        for tensor in &*tensors {
            let of_tensor = tensor.plan.report();
            report.count(of_tensor.outcome);
            if of_tensor.outcome.is_step() {
                gain = gain.max(of_tensor.gain);
            }
            if self.keep_details {
                self.details.push(of_tensor);
            }
        }
        self.predicted = false;
        if written && finite {
            method.correct(gain);
            (self.method, self.noise) = (method, noise);
            self.steps += 1;
            (report.noise, report.step) = (noise, self.steps);
        }
        Ok(report)
    }

    /// What the tensors of each group are to be stepped with.
    fn prepare_steps(&mut self, method: Method, measurement: Measurement) {
        let (backend, policy, scaling, norms) = (self.backend, self.policy, self.scaling, self.keep_details);
        self.group_steps.clear();
        self.group_steps.extend(self.groups.iter().map(|&Group { settings, method: own }| Step {
            backend,
            method: if own.is_shared() { method } else { own },
            settings,
            policy,
            measurement,
            scaling,
            norms,
        }));
    }

    /// Finds each tensor's entry, and checks it against that.
    fn find(&mut self, tensors: &mut [Tensor<'_>], predicts: bool) -> Result<(), Error> {
        self.calls += 1;
        for (position, tensor) in tensors.iter_mut().enumerate() {
            let same_place = self.entries.get(position).is_some_and(|entry| *entry.name == *tensor.name);
            let index = if same_place { Some(position) } else { self.by_name.get(tensor.name).copied() };
            let Some(index) = index else { return Err(Error::UnknownTensor { tensor: owned(tensor.name) }) };
            let entry = &mut self.entries[index];
            if entry.given_in_call == self.calls {
                return Err(Error::DuplicateTensor { tensor: owned(tensor.name) });
            }
            entry.given_in_call = self.calls;
            tensor.check(&entry.state, predicts).map_err(|error| error.of_tensor(tensor.name))?;
            (tensor.entry, tensor.position) = (index, position);
        }
        Ok(())
    }

    /// The reports on the tensors of the last successful step, in the order in which they were given; empty unless
    /// [`Config::details`] is set.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert!(Optimizer::new(Config::default())?.details().is_empty());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn details(&self) -> &[TensorReport] {
        &self.details
    }

    /// R, as the last step used it.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert_eq!(Optimizer::new(Config::default())?.noise(), 1.0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The method, with its shared numbers as they are after the last step.
    ///
    /// ```
    /// # use koala_optim::{Config, Method, Optimizer};
    /// assert_eq!(Optimizer::new(Config::default())?.method(), Method::default());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn method(&self) -> Method {
        self.method
    }

    /// What the optimizer was made with, as it is now: [`set_scaling`](Self::set_scaling),
    /// [`set_threads`](Self::set_threads) and a checkpoint change it, and steps change the method's shared numbers. How
    /// far the noise has come is told by [`noise`](Self::noise).
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Scaling};
    /// let mut optimizer = Optimizer::new(Config { clip_norm: Some(1.0), ..Config::default() })?;
    /// let scaling = Scaling { limit: 0.5, ..Scaling::default() };
    /// optimizer.set_scaling(scaling)?;
    /// let config = optimizer.config();
    /// assert_eq!((config.clip_norm, config.scaling), (Some(1.0), scaling));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn config(&self) -> Config {
        Config {
            method: self.method,
            noise: self.noise_rule,
            policy: self.policy,
            scaling: self.scaling,
            clip_norm: self.clip_norm,
            backend: self.backend,
            threads: self.threads.clone(),
            details: self.keep_details,
        }
    }
}
