//! Level 3, the optimizer: named tensors in groups, the noise that they share, and one call that steps them all.

pub mod config;
pub mod registry;
pub mod report;
pub mod schedule;
pub mod state;
pub mod tensor;
pub mod walk;

use std::collections::HashMap;

use crate::dispatch::Backend;
use crate::methods::Method;
use crate::methods::plan::{Measurement, Scalars, TensorReport};
use crate::optimizer::config::Config;
use crate::optimizer::registry::{Entry, Group, GroupId, count_elements};
use crate::optimizer::report::Report;
use crate::optimizer::state::{StateType, TensorState};
use crate::optimizer::tensor::Tensor;
use crate::optimizer::walk::{Ordered, Walk, Walked};
use crate::step::Step;
use crate::types::element::ElementType;
use crate::types::error::{Error, check_lengths, owned};
use crate::types::settings::{Loss, Noise, OnNonFinite, Policy, Scaling, Settings, at_least_zero};
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

    /// A new group, whose method has the numbers of [`Config::method`].
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range, [`Error::Memory`] if there is none for it.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let no_decay = optimizer.add_group(Settings { weight_decay: 0.0, ..Settings::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_group(&mut self, settings: Settings) -> Result<GroupId, Error> {
        settings.validate()?;
        // So that a step does not allocate.
        let steps = (self.groups.len() + 1).saturating_sub(self.group_steps.len());
        let room = self.groups.try_reserve(1).and_then(|()| self.group_steps.try_reserve(steps));
        room.map_err(|_| Error::Memory { tensor: String::new(), elements: 0 })?;
        self.groups.push(Group { settings, method: self.method });
        Ok(GroupId(self.groups.len() - 1))
    }

    /// A new group, whose method has numbers of its own.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group) and [`set_method`](Self::set_method); there is no new group then.
    ///
    /// ```
    /// # use koala_optim::{AdamW, Config, Method, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config { method: Method::AdamW(AdamW::default()), ..Config::default() })?;
    /// let embeddings = optimizer.add_group_with(Settings::default(), AdamW { beta2: 0.95, ..AdamW::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_group_with(&mut self, settings: Settings, method: impl Into<Method>) -> Result<GroupId, Error> {
        let group = self.add_group(settings)?;
        self.set_method(group, method).inspect_err(|_| self.groups.truncate(group.0))?;
        Ok(group)
    }

    /// Changes the numbers of a group's method from the next step on.
    ///
    /// # Errors
    /// [`Error::Method`] for another method than the optimizer's, for one whose numbers all tensors share (KOALA-V and
    /// KOALA-M), and where tensors of the group have other state vectors than it; [`Error::Setting`] for a number out of
    /// range; [`Error::UnknownGroup`].
    ///
    /// ```
    /// # use koala_optim::{AdamW, Config, Error, KoalaPlusPlus, Method, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_method(group, KoalaPlusPlus { process_noise: 1.0, ..KoalaPlusPlus::default() })?;
    /// let error = optimizer.set_method(group, AdamW::default()).unwrap_err();
    /// assert_eq!(error, Error::Method { found: "adamw", expected: "koala++" });
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_method(&mut self, group: GroupId, method: impl Into<Method>) -> Result<(), Error> {
        let method = method.into();
        method.validate()?;
        let own = self.group_method(group)?;
        let has_tensors = self.entries.iter().any(|entry| entry.group == group.0);
        let (found, expected) = (method.name(), own.name());
        match () {
            _ if found == expected && own.is_shared() && method != own => {
                Err(Error::Method { found: "numbers of a group", expected: "numbers that all tensors share" })
            }
            _ if found == expected && (method.is_like(&own) || !has_tensors) => {
                self.groups[group.0].method = method;
                Ok(())
            }
            _ if found == expected => {
                Err(Error::Method { found: "other state vectors", expected: "those that the group's tensors have" })
            }
            _ => Err(Error::Method { found, expected }),
        }
    }

    /// The method of a group, with its numbers as they are after the last step.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`] if the optimizer has not so many groups.
    ///
    /// See [`set_method`](Self::set_method).
    pub fn group_method(&self, group: GroupId) -> Result<Method, Error> {
        let own = self.groups.get(group.0).ok_or_else(|| self.unknown_group(group))?.method;
        Ok(if own.is_shared() { self.method } else { own })
    }

    /// The groups, in the order in which they were added.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let (first, second) = (optimizer.add_group(Settings::default())?, optimizer.add_group(Settings::default())?);
    /// assert!(optimizer.groups().eq([first, second]));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups.len()).map(GroupId)
    }

    /// The settings of a group.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`] for another optimizer's group.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// assert_eq!(optimizer.settings(group)?, Settings::default());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn settings(&self, group: GroupId) -> Result<Settings, Error> {
        self.groups.get(group.0).map(|group| group.settings).ok_or_else(|| self.unknown_group(group))
    }

    /// Changes the settings of a group from the next step on.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range, [`Error::UnknownGroup`] for another optimizer's group.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_settings(group, Settings { frozen: true, ..optimizer.settings(group)? })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_settings(&mut self, group: GroupId, settings: Settings) -> Result<(), Error> {
        settings.validate()?;
        let error = self.unknown_group(group);
        self.groups.get_mut(group.0).ok_or(error)?.settings = settings;
        Ok(())
    }

    /// Changes the learning rate of a group from the next step on.
    ///
    /// # Errors
    /// As [`set_settings`](Self::set_settings).
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer, Settings};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_learning_rate(group, 0.1)?;
    /// assert!(optimizer.set_learning_rate(group, f64::NAN).is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_learning_rate(&mut self, group: GroupId, learning_rate: f64) -> Result<(), Error> {
        self.set_settings(group, Settings { learning_rate, ..self.settings(group)? })
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

    fn unknown_group(&self, group: GroupId) -> Error {
        Error::UnknownGroup { group: group.0, groups: self.groups.len() }
    }

    /// Makes a tensor known, and allocates its state. A tensor may be added at any time.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`], [`Error::UnknownGroup`], or [`Error::Memory`].
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group)?;
    /// assert!(optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group).is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_tensor(
        &mut self,
        name: &str,
        length: usize,
        parameters: ElementType,
        state: StateType,
        group: GroupId,
    ) -> Result<(), Error> {
        if self.by_name.contains_key(name) {
            return Err(Error::DuplicateTensor { tensor: owned(name) });
        }
        let method = self.group_method(group)?;
        let state =
            TensorState::with_types(&method, length, parameters, state).map_err(|error| error.of_tensor(name))?;
        let [known, name] = self
            .make_room(name)
            .ok_or_else(|| Error::Memory { tensor: String::new(), elements: length }.of_tensor(name))?;
        self.by_name.insert(known, self.entries.len());
        let group = group.0;
        self.entries.push(Entry { name, is_nameless: false, group, shape: None, given_in_call: 0, state });
        Ok(())
    }

    /// All the memory that one more tensor of that name needs, its state apart: its name twice, and room in the
    /// lists. `None` where there is none for it.
    fn make_room(&mut self, name: &str) -> Option<[Box<str>; 2]> {
        let copied = || Some(owned(name).into_boxed_str()).filter(|copy| copy.len() == name.len());
        self.by_name.try_reserve(1).ok()?;
        self.entries.try_reserve(1).ok()?;
        // So that a step with details does not allocate.
        self.details.try_reserve(self.entries.len() + 1 - self.details.len()).ok()?;
        Some([copied()?, copied()?])
    }

    /// Tells the shape of a tensor. No step reads it: a checkpoint keeps it, and is not loaded into a tensor of another
    /// shape. A tensor whose shape was not told has one dimension there, and any shape with as many elements fits.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Length`] if the shape's lengths do not make the tensor's number of elements
    /// together.
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("weight", 6, ElementType::F32, StateType::Same, group)?;
    /// optimizer.set_shape("weight", &[2, 3])?;
    /// assert!(optimizer.set_shape("weight", &[3, 3]).is_err());
    /// assert_eq!(optimizer.shape("weight"), Some(&[2, 3][..]));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_shape(&mut self, name: &str, shape: &[usize]) -> Result<(), Error> {
        let index = *self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        let entry = &mut self.entries[index];
        let (found, expected) = (count_elements(shape).unwrap_or(usize::MAX), entry.state.len());
        check_lengths([("shape", found, expected)]).map_err(|error| error.of_tensor(name))?;
        entry.shape = Some(shape.into());
        Ok(())
    }

    /// The shape of a tensor, if there is one of that name and its shape was told.
    ///
    /// See [`set_shape`](Self::set_shape).
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries[*self.by_name.get(name)?].shape.as_deref()
    }

    /// Tells that the name of a tensor is only its place in a list. In the next run the list may be in another order,
    /// so that the name would be another tensor's: an optimizer with such a tensor is neither saved to a checkpoint nor
    /// loaded from one.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    ///
    /// ```
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("0", 6, ElementType::F32, StateType::Same, group)?;
    /// optimizer.set_nameless("0")?;
    /// # #[cfg(feature = "checkpoint")]
    /// assert!(optimizer.save("run.safetensors").is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_nameless(&mut self, name: &str) -> Result<(), Error> {
        let index = self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        self.entries[*index].is_nameless = true;
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
            at_least_zero("second moment of the loss", loss.second_moment)?;
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
    /// assert_eq!(Optimizer::new(Config::default())?.method(), Method::KoalaPlusPlus);
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

    /// The filter of a tensor, if there is one of that name.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert!(Optimizer::new(Config::default())?.state("weight").is_none());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn state(&self, name: &str) -> Option<&TensorState> {
        Some(&self.entries[*self.by_name.get(name)?].state)
    }

    /// Restarts the filter of a tensor: its next step will be a first step.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert!(Optimizer::new(Config::default())?.restart("weight").is_err());
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let index = self.by_name.get(name).ok_or_else(|| Error::UnknownTensor { tensor: owned(name) })?;
        self.entries[*index].state.restart();
        Ok(())
    }

    /// The names of the tensors and their scalars, in the order in which they were added.
    ///
    /// ```
    /// # use koala_optim::{Config, Optimizer};
    /// assert_eq!(Optimizer::new(Config::default())?.scalars().count(), 0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn scalars(&self) -> impl Iterator<Item = (&str, Scalars)> {
        self.entries.iter().map(|entry| (&*entry.name, entry.state.scalars()))
    }
}
