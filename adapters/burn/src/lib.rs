#![doc = include_str!("../README.md")]
//!
//! # How it steps
//!
//! A step looks like that of burn's [`ModuleOptimizer`](burn_optim::ModuleOptimizer), and takes the loss too, which the
//! KOALA family needs. It is not an `Optimizer` of burn's, which sees one parameter at a time and returns no errors:
//! the methods here share numbers over all parameters, and clip by the norm of all gradients. Learning rates are in the
//! settings of groups.
//!
//! The parameters move out of the module, and back into it when they have been stepped. On the CPU device of burn-flex
//! that copies neither parameters nor gradients, as long as nobody else holds them: burn copies what is shared or not
//! contiguous. On another device both are copied to the CPU, and the parameters back.
//!
//! Parameters are f32, f64, bf16 or f16; those without a gradient stay as they are.
//!
//! With koala-optim's feature `checkpoint`, [`Koala::optimizer`] saves a run. The parameters are saved with it or by
//! burn. To go on from there, make the same groups, [`register`](Koala::register) the module, and load the file into
//! [`Koala::optimizer_mut`].
//!
//! Tested with burn 0.22.1, which is the least version that this takes; it takes those before 0.23.

#![deny(unsafe_code)]

mod error;
mod parameters;

use std::collections::VecDeque;

use burn::module::{Module, ParamGroup};
use burn_core as burn;
use burn_optim::GradientsParams;

pub use error::Error;
use koala_optim::{GroupId, Loss, Optimizer, Report, Settings, StateType, Tensor};
use parameters::{Description, Taken};

/// What a [`Koala`] is made with.
///
/// ```
/// use koala_burn::Config;
/// use koala_optim::{AdamW, Method, Settings};
/// let config = Config {
///     optimizer: koala_optim::Config { method: Method::AdamW(AdamW::default()), ..Default::default() },
///     settings: Settings { learning_rate: 1e-3, weight_decay: 0.01, ..Settings::default() },
///     ..Config::default()
/// };
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The method, and all that holds for every parameter.
    pub optimizer: koala_optim::Config,
    /// The settings of the parameters that are in no group of their own.
    pub settings: Settings,
    /// What the state is stored in.
    pub state: StateType,
}

/// KOALA++, or another [`Method`](koala_optim::Method), over a module of burn: see the [crate]. The parameters
/// that require a gradient become known at the first step, or by [`register`](Self::register). Their names are their
/// paths, such as `"encoder.weight"`. If parameters of a module share a path, the second's name has `#2` after it, and
/// so on.
#[derive(Debug)]
pub struct Koala {
    optimizer: Optimizer,
    state: StateType,
    groups: Vec<(ParamGroup, GroupId)>,
}

impl Koala {
    /// An optimizer whose only group so far has every parameter.
    ///
    /// # Errors
    /// A number out of range, or threads that can't be had.
    ///
    /// See the [crate's example](crate).
    pub fn new(config: Config) -> Result<Self, koala_optim::Error> {
        let optimizer = Optimizer::new(config.optimizer)?;
        let mut koala = Koala { optimizer, state: config.state, groups: Vec::new() };
        koala.add_group(ParamGroup::all(), config.settings)?;
        Ok(koala)
    }

    /// A new group, for parameters with settings of their own: of the groups that a parameter matches, the last one
    /// counts. It is for parameters that are not known yet.
    ///
    /// # Errors
    /// A number out of range.
    ///
    /// ```
    /// use burn_core::module::ParamGroup;
    /// use koala_burn::{Config, Koala};
    /// use koala_optim::Settings;
    ///
    /// let mut optimizer = Koala::new(Config::default())?;
    /// let decayed = Settings { weight_decay: 5e-4, ..Settings::default() };
    /// let decayed = optimizer.add_group(ParamGroup::from_predicate("weight"), decayed)?;
    /// optimizer.optimizer_mut().set_learning_rate(decayed, 0.5)?; // Its own; the first group's stays.
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn add_group(&mut self, parameters: ParamGroup, settings: Settings) -> Result<GroupId, koala_optim::Error> {
        let group = self.optimizer.add_group(settings)?;
        self.groups.push((parameters, group));
        Ok(group)
    }

    /// The groups, in the order in which they were added. The first is that of the settings in [`Config`].
    ///
    /// ```
    /// use koala_burn::{Config, Koala};
    /// use koala_optim::Settings;
    /// let optimizer = Koala::new(Config::default())?;
    /// assert!(optimizer.groups().all(|group| optimizer.optimizer().settings(group) == Ok(Settings::default())));
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.optimizer.groups()
    }

    /// The learning rate of every group, from the next step on: one for all of them, whatever they had. A group's own
    /// is set by its id with [`Optimizer::set_learning_rate`] of
    /// [`optimizer_mut`](Self::optimizer_mut).
    ///
    /// # Errors
    /// A number out of range.
    ///
    /// ```
    /// use koala_burn::{Config, Koala};
    /// Koala::new(Config::default())?.set_learning_rate(0.5)?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<(), koala_optim::Error> {
        self.optimizer.groups().try_for_each(|group| self.optimizer.set_learning_rate(group, learning_rate))
    }

    /// Makes the parameters known that require a gradient, as the first step does: then a checkpoint has a place to be
    /// loaded into. Those that are known stay as they are.
    ///
    /// # Errors
    /// [`Error::ElementType`], and those of [`Optimizer::add_tensor`].
    ///
    /// ```
    /// # use burn_core as burn;
    /// # use burn::{module::{Module, Param}, tensor::{Device, Tensor}};
    /// # use koala_burn::{Config, Koala};
    /// # #[derive(Module, Debug)]
    /// # struct Model { weight: Param<Tensor<1>> }
    /// # let device = Device::flex().autodiff();
    /// # let model = Model { weight: Param::from_tensor(Tensor::from_floats([1.0, -2.0], &device)) };
    /// let mut optimizer = Koala::new(Config::default())?;
    /// optimizer.register(&model)?;
    /// assert_eq!(optimizer.optimizer().shape("weight"), Some(&[2][..]));
    /// # use koala_optim::checkpoint::Loading;
    /// # let folder = std::env::temp_dir().join(format!("koala-burn-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let file = folder.join("run.safetensors");
    /// # optimizer.optimizer().save(&file)?;
    /// optimizer.optimizer_mut().load(&file, Loading::Exact)?; // With koala-optim's feature `checkpoint`.
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register<M: Module>(&mut self, module: &M) -> Result<(), Error> {
        parameters::described(module).iter().try_for_each(|parameter| self.add(parameter))
    }

    /// Steps every parameter of the module that has a gradient. The module comes back even if there is an error; it is
    /// then as it was.
    ///
    /// # Errors
    /// [`Error`], whose [`Error::Optimizer`] has those of [`Optimizer::step`].
    ///
    /// See the [crate's example](crate).
    pub fn step<M: Module>(&mut self, loss: Loss, module: M, gradients: GradientsParams) -> (M, Result<Report, Error>) {
        self.with_parameters(module, Some(gradients), |optimizer, tensors| optimizer.step(loss, tensors))
    }

    /// As [`Optimizer::predict`], which KOALA-M needs before the loss is computed; nothing for another method.
    ///
    /// # Errors
    /// As those of [`step`](Self::step).
    ///
    /// ```
    /// # use burn_core as burn;
    /// # use burn::{module::{Module, Param}, tensor::{Device, Tensor}};
    /// # use koala_burn::{Config, Koala};
    /// # #[derive(Module, Debug)]
    /// # struct Model { weight: Param<Tensor<1>> }
    /// # let device = Device::flex().autodiff();
    /// # let mut model = Model { weight: Param::from_tensor(Tensor::from_floats([1.0, -2.0], &device)) };
    /// # let mut optimizer = Koala::new(Config::default())?;
    /// let result;
    /// (model, result) = optimizer.predict(model);
    /// result?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn predict<M: Module>(&mut self, module: M) -> (M, Result<(), Error>) {
        self.with_parameters(module, None, |optimizer, tensors| optimizer.predict(tensors))
    }

    /// The optimizer below: the state, the noise, details.
    ///
    /// ```
    /// use koala_burn::{Config, Koala};
    /// assert_eq!(Koala::new(Config::default())?.optimizer().noise(), 1.0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The same, to change scaling and threads from the next step on.
    ///
    /// ```
    /// use koala_burn::{Config, Koala};
    /// use koala_optim::Scaling;
    /// let mut optimizer = Koala::new(Config::default())?;
    /// optimizer.optimizer_mut().set_scaling(Scaling { limit: 1.0, ..Scaling::default() })?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// Moves the parameters out of the module, calls `task` with them, and moves them back.
    fn with_parameters<M: Module, T>(
        &mut self,
        module: M,
        gradients: Option<GradientsParams>,
        task: impl FnOnce(&mut Optimizer, &mut [Tensor<'_>]) -> Result<T, koala_optim::Error>,
    ) -> (M, Result<T, Error>) {
        if let Err(error) = self.register(&module) {
            return (module, Err(error));
        }
        let (module, mut taken) = parameters::take(module, gradients);
        let result = self.lent(&mut taken).and_then(|mut tensors| Ok(task(&mut self.optimizer, &mut tensors)?));
        (parameters::put_back(module, taken), result)
    }

    fn lent<'a>(&mut self, taken: &'a mut VecDeque<Taken>) -> Result<Vec<Tensor<'a>>, Error> {
        // Those too that have a gradient and require none.
        taken.iter().try_for_each(|taken| self.add(&taken.description))?;
        taken.iter_mut().map(Taken::lend).collect()
    }

    /// Makes a parameter known, if it is not yet.
    fn add(&mut self, parameter: &Description) -> Result<(), Error> {
        let Description { name, path, id, shape, .. } = parameter;
        let element_type = parameter.element_type()?;
        let matches = |(parameters, _): &&(ParamGroup, GroupId)| parameters.matches(id, Some(path));
        let group = self.groups.iter().rev().find(matches);
        if let (None, Some((_, group))) = (self.optimizer.state(name), group) {
            let length = shape.iter().product();
            self.optimizer.add_tensor(name, length, element_type, self.state, *group)?;
            self.optimizer.set_shape(name, shape)?;
        }
        Ok(())
    }
}
