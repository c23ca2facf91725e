//! An optimizer of the framework candle that steps its variables where they are: the feature `candle`.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use candle_nn::Optimizer;
//! use koala_optim::candle::{Config, Koala};
//!
//! let weight = Var::new(&[1.0_f32, -2.0, 3.0], &Device::Cpu)?;
//! let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
//!
//! let samples = Tensor::new(&[[0.5_f32, 0.1, 0.2], [1.0, 0.3, -0.4]], &Device::Cpu)?;
//! let losses = samples.broadcast_mul(weight.as_tensor())?.sum(1)?.sqr()?; // One for each sample.
//! optimizer.backward_step(&losses)?;
//! assert_eq!(optimizer.report().stepped, 1);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! The loss: a step of the KOALA family needs it, beside the gradient.
//! [`backward_step`](candle_nn::Optimizer::backward_step) takes it from the tensor that it differentiates: best the
//! losses of the samples, of whose mean the gradient then is. A loss of one element is taken for a single sample, so
//! the mean of the squares is its square, which is too small where it is the mean of several: KOALA++ then trusts it
//! more. Who calls `backward` by hand gives the loss to [`Koala::step_with`], or, for `step`, to [`Koala::set_loss`].
//!
//! Copies: none of parameters. While a step runs, their vectors are moved out of the variables, which are empty until
//! it ends: as always, nobody else may use the model meanwhile. A gradient is copied only if it is not contiguous.
//!
//! Variables are f32, f64, bf16 or f16, and on the CPU or, with the feature `cuda`, all on one NVIDIA GPU: see below.
//! What is wrong with a call is an error; then, nothing has changed.
//!
//! With the feature `checkpoint`, a run on the CPU is saved by [`Koala::optimizer`], and loaded into the
//! [`Koala::optimizer_mut`] of one that was made with variables of the same names and shapes. The variables are saved
//! with it or by candle. Names are given by [`Koala::of_map`] or [`Koala::add_variable`]: of variables that were given
//! to `new`, only the place is known, and there the next run may have another one, as
//! [`VarMap::all_vars`](candle_nn::VarMap::all_vars) has them in a new order each time. To save or load their state is
//! an error.
//!
//! # On a GPU
//!
//! candle itself is built for CUDA by its feature `cuda`, `candle-core/cuda` seen from here, for which NVIDIA's
//! toolkit has to be there; with our own `cuda`, nothing else is needed. Both features are on cudarc 0.19, which then
//! links the driver, as candle wants it, and takes it for that of CUDA 12.8.
//!
//! - A step is put on the stream on which candle does everything with the device, by `koala_optim::cuda::Optimizer`:
//!   parameters and gradients stay where they are, and `backward_step` and `step` return before it has run. The host
//!   waits where other variables have gradients than in the step before, and where another thread steps than did
//!   before.
//! - What a step has done is told by [`Koala::wait_for_report`]; [`Koala::step_with`] waits for it too.
//! - `backward_step` has candle compute the mean of the losses, and that of their squares, on the device, in float64.
//!   Their last bits may differ from those on the CPU, as candle adds in another order; of the same loss and the same
//!   gradients, the results have the same bits.
//! - It is KOALA++ only, gradients are not clipped by their norm, and no policy makes an error of what a step meets.
//!   Another configuration is an error where a variable is added or, if it has changed since, where it steps.
//! - Groups, settings and learning rates are those of [`Koala::optimizer`], as on the CPU. The state is on the device,
//!   where `Koala::cuda_optimizer_mut` reads it, and is not saved.
//!
//! This is tested on a driver of our own, which runs the kernels on the CPU, and has not been run on a GPU yet.
//!
//! Tested with candle 0.11.1, which is the least version that the feature takes; it takes those before 0.12.

mod given;
mod lending;
#[cfg(feature = "cuda")]
mod on_cuda;

use std::collections::BTreeMap;

use ::candle_core::backprop::GradStore;
use ::candle_core::{self as candle, Var};

pub use super::Config;
use crate::Error;
use crate::optimizer::{GroupId, Optimizer};
use crate::report::Report;
use crate::settings::{Loss, Settings};
use crate::tensor_state::StateType;
pub use given::measured;
use given::{StepLoss, element_type, elements, given};
use lending::{Taken, lent, lent_alone};

/// KOALA++, or another [`Method`](crate::Method), over variables of candle: see the [module](self).
#[derive(Debug)]
pub struct Koala {
    optimizer: Optimizer,
    state: StateType,
    groups: Vec<GroupId>,
    variables: Vec<(String, Var)>,
    /// What `set_learning_rate` was given last, if that is out of range: it cannot return an error, so the step does.
    refused_rate: Option<f64>,
    loss: Option<Loss>,
    report: Report,
    /// What has their state if the variables are on a CUDA device; `optimizer` then has groups and settings only.
    #[cfg(feature = "cuda")]
    on_cuda: Option<on_cuda::OnCuda>,
}

impl candle_nn::Optimizer for Koala {
    type Config = Config;

    /// Of these variables those that are of floating-point numbers, named by their place: `"0"`, `"1"` and so on.
    /// By such names nothing is saved or loaded: see [`of_map`](Koala::of_map).
    fn new(vars: Vec<Var>, config: Config) -> candle::Result<Self> {
        let mut koala = Koala {
            optimizer: Optimizer::new(config.optimizer).map_err(candle::Error::wrap)?,
            state: config.state,
            groups: Vec::new(),
            variables: Vec::new(),
            refused_rate: None,
            loss: None,
            report: Report::default(),
            #[cfg(feature = "cuda")]
            on_cuda: None,
        };
        let group = koala.add_group(config.settings)?;
        for (place, variable) in vars.into_iter().enumerate().filter(|(_, variable)| variable.dtype().is_float()) {
            koala.add_variable(&place.to_string(), variable, group)?;
        }
        koala.optimizer.entries.iter_mut().for_each(|entry| entry.is_nameless = true);
        Ok(koala)
    }

    /// Takes the loss from [`Koala::set_loss`], once: a method that needs one has to be given one for each step.
    fn step(&mut self, gradients: &GradStore) -> candle::Result<()> {
        let loss = match self.loss.take() {
            Some(loss) => loss,
            None if self.optimizer.method().measures() => {
                let name = self.optimizer.method().name();
                candle::bail!(
                    "{name} needs the loss of these gradients: set_loss before step, step_with or backward_step"
                )
            }
            None => Loss::new(0.0, 0.0),
        };
        self.put(StepLoss::Known(loss), gradients)
    }

    /// That of the first group.
    fn learning_rate(&self) -> f64 {
        let of_group = self.optimizer.settings(self.groups[0]).map_or(f64::NAN, |settings| settings.learning_rate);
        self.refused_rate.unwrap_or(of_group)
    }

    /// For every group: one rate for all of them, whatever they had. A group's own is set by its id with
    /// [`Optimizer::set_learning_rate`](crate::Optimizer::set_learning_rate) of [`Koala::optimizer_mut`]. A rate out of
    /// range is the next step's error.
    fn set_learning_rate(&mut self, learning_rate: f64) {
        let mut groups = self.groups.iter();
        let refused = groups.any(|group| self.optimizer.set_learning_rate(*group, learning_rate).is_err());
        self.refused_rate = refused.then_some(learning_rate);
    }

    fn backward_step(&mut self, loss: &candle::Tensor) -> candle::Result<()> {
        let gradients = match loss.elem_count() {
            0 => return Err(candle::Error::wrap(Error::NoSamples)),
            1 => loss.backward()?,
            _ => loss.mean_all()?.backward()?,
        };
        self.put(StepLoss::OfSamples(loss), &gradients)
    }
}

impl Koala {
    /// Over the variables of a map, by their names and in the order of those, so that two runs give the same bits: the
    /// order of [`VarMap::all_vars`](candle_nn::VarMap::all_vars) differs from run to run.
    ///
    /// # Errors
    /// Those of [`add_variable`](Self::add_variable), and settings out of range.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use koala_optim::candle::{Config, Koala};
    ///
    /// let map = VarMap::new();
    /// let layer = candle_nn::linear(3, 2, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu).pp("layer"))?;
    /// let optimizer = Koala::of_map(&map, Config::default())?;
    /// assert!(optimizer.optimizer().state("layer.weight").is_some());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn of_map(map: &candle_nn::VarMap, config: Config) -> candle::Result<Self> {
        let mut koala = <Koala as candle_nn::Optimizer>::new(Vec::new(), config)?;
        let Ok(variables) = map.data().lock() else {
            candle::bail!("another thread panicked with the map in its hands")
        };
        let named: BTreeMap<_, _> = variables.iter().collect();
        for (name, variable) in named {
            koala.add_variable(name, variable.clone(), koala.groups[0])?;
        }
        Ok(koala)
    }

    /// A new group, for variables with settings of their own.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range.
    ///
    /// ```
    /// use candle_core::{DType, Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::{Settings, candle::{Config, Koala}};
    ///
    /// let mut optimizer = Koala::empty(Config::default())?;
    /// let decayed = optimizer.add_group(Settings { weight_decay: 5e-4, ..Settings::default() })?;
    /// optimizer.add_variable("weight", Var::zeros((2, 3), DType::F32, &Device::Cpu)?, decayed)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn add_group(&mut self, settings: Settings) -> candle::Result<GroupId> {
        let group = self.optimizer.add_group(settings).map_err(candle::Error::wrap)?;
        self.groups.push(group);
        Ok(group)
    }

    /// The groups, in the order in which they were added. The first is that of the settings in [`Config`].
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_optim::{Settings, candle::{Config, Koala}};
    /// let optimizer = Koala::empty(Config::default())?;
    /// assert!(optimizer.groups().all(|group| optimizer.optimizer().settings(group) == Ok(Settings::default())));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().copied()
    }

    /// One more variable, by a name.
    ///
    /// # Errors
    /// A variable of another type than f32, f64, bf16 and f16, or on another device than those before it, or one that
    /// there are no steps for; and those of [`Optimizer::add_tensor`](crate::Optimizer::add_tensor), a variable that
    /// was added before among them. On a GPU, also what the [module](self#on-a-gpu) says that there is not, and those
    /// of `cuda::Optimizer::add_tensor` and, for the first, of `cuda::Device::new`.
    ///
    /// See [`add_group`](Self::add_group).
    pub fn add_variable(&mut self, name: &str, variable: Var, group: GroupId) -> candle::Result<()> {
        let Some(element_type) = element_type(&variable) else {
            candle::bail!("tensor {name:?}: expected f32, f64, bf16 or f16, found {:?}", variable.dtype())
        };
        let device = variable.device();
        let is_supported = device.is_cpu() || cfg!(feature = "cuda") && device.is_cuda();
        if !is_supported {
            let location = device.location();
            candle::bail!("tensor {name:?}: expected the CPU, or a GPU with the feature cuda, found {location:?}");
        }
        if let Some((_, first)) = self.variables.first().filter(|(_, first)| !first.device().same_device(device)) {
            let [expected, found] = [first.device(), device].map(candle::Device::location);
            candle::bail!("tensor {name:?}: expected the device of the others, {expected:?}, found another, {found:?}");
        }
        if self.variables.iter().any(|(_, known)| known.id() == variable.id()) {
            return Err(candle::Error::wrap(Error::DuplicateTensor { tensor: name.into() }));
        }
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let settings = &self.optimizer;
            match &mut self.on_cuda {
                Some(on_cuda) => on_cuda.add_variable(name, &variable, element_type, self.state, group, settings)?,
                none => {
                    let mut on_cuda = on_cuda::OnCuda::of(&variable, settings)?;
                    on_cuda.add_variable(name, &variable, element_type, self.state, group, settings)?;
                    *none = Some(on_cuda);
                }
            }
            self.variables.push((name.into(), variable));
            return Ok(());
        }
        self.optimizer
            .add_tensor(name, variable.elem_count(), element_type, self.state, group)
            .and_then(|()| self.optimizer.set_shape(name, variable.dims()))
            .map_err(candle::Error::wrap)?;
        self.variables.push((name.into(), variable));
        Ok(())
    }

    /// The loss of the next step's gradients, for a training loop that calls candle's `step`.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::candle::{Config, Koala, measured};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// let loss = weight.sqr()?.sum_all()?;
    /// let gradients = loss.backward()?;
    /// optimizer.set_loss(measured(&loss)?);
    /// optimizer.step(&gradients)?;
    /// assert!(optimizer.step(&gradients).is_err());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn set_loss(&mut self, loss: Loss) {
        self.loss = Some(loss);
    }

    /// Steps every variable that has a gradient, with this loss. On a GPU, the host waits for it.
    ///
    /// # Errors
    /// A gradient of another shape or type, or one that is the memory of a variable; and those of
    /// [`Optimizer::step`](crate::Optimizer::step), on a GPU `cuda::Optimizer::step`. Nothing has changed then.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::candle::{Config, Koala, measured};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// let losses = weight.sqr()?;
    /// let report = optimizer.step_with(measured(&losses)?, &losses.mean_all()?.backward()?)?;
    /// assert_eq!(report.first_steps, 1);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn step_with(&mut self, loss: Loss, gradients: &GradStore) -> candle::Result<Report> {
        self.put(StepLoss::Known(loss), gradients)?;
        self.wait_for_report()
    }

    /// A step, which on a GPU has not run when this returns.
    fn put(&mut self, loss: StepLoss<'_>, gradients: &GradStore) -> candle::Result<()> {
        if let Some(learning_rate) = self.refused_rate {
            self.optimizer.set_learning_rate(self.groups[0], learning_rate).map_err(candle::Error::wrap)?;
        }
        let given = given(&self.variables, gradients)?;
        #[cfg(feature = "cuda")]
        if let Some(on_cuda) = &mut self.on_cuda {
            return on_cuda.step(&self.optimizer, loss, &given);
        }
        let loss = match loss {
            StepLoss::Known(loss) => loss,
            StepLoss::OfSamples(losses) => measured(losses)?,
        };
        let mut taken = given.iter().map(|one| Taken::from_cpu(one.variable)).collect::<Result<Vec<_>, _>>()?;
        let read: Vec<_> = given.iter().map(|one| one.gradient.storage_and_layout()).collect();
        let mut tensors = Vec::with_capacity(taken.len());
        for ((one, taken), (storage, layout)) in given.iter().zip(&mut taken).zip(&read) {
            let tensor = lent(one.name, &mut taken.memory, storage, elements(layout));
            tensors.push(tensor.ok_or_else(|| one.is_of_a_variable())?);
        }
        self.report = self.optimizer.step(loss, &mut tensors).map_err(candle::Error::wrap)?;
        Ok(())
    }

    /// As [`Optimizer::predict`](crate::Optimizer::predict), which KOALA-M needs before the loss is computed; nothing
    /// for another method.
    ///
    /// # Errors
    /// Those of [`Optimizer::predict`](crate::Optimizer::predict). Nothing has changed then.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::{KoalaM, Method, candle::{Config, Koala}};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::Cpu)?;
    /// let method = Method::KoalaM(KoalaM::default());
    /// let config = Config { optimizer: koala_optim::Config { method, ..Default::default() }, ..Config::default() };
    /// let mut optimizer = Koala::new(vec![weight.clone()], config)?;
    /// optimizer.predict()?;
    /// optimizer.backward_step(&weight.sqr()?)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn predict(&mut self) -> candle::Result<()> {
        #[cfg(feature = "cuda")]
        if self.on_cuda.is_some() {
            return Ok(());
        }
        let mut taken =
            self.variables.iter().map(|(_, variable)| Taken::from_cpu(variable)).collect::<Result<Vec<_>, _>>()?;
        let named = self.variables.iter().zip(&mut taken);
        let mut tensors: Vec<_> = named.filter_map(|((name, _), taken)| lent_alone(name, &mut taken.memory)).collect();
        self.optimizer.predict(&mut tensors).map_err(candle::Error::wrap)
    }

    /// What the last step did; all zeros before one. On a GPU it is the last of those whose report was
    /// [waited for](Self::wait_for_report).
    ///
    /// See the [module's example](self).
    pub fn report(&self) -> Report {
        self.report
    }

    /// What the last step did: on a GPU, the host waits for it.
    ///
    /// # Errors
    /// Those of `cuda::Optimizer::report`; none on the CPU.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::candle::{Config, Koala};
    ///
    /// let weight = Var::new(&[1.0_f32, -2.0], &Device::cuda_if_available(0)?)?;
    /// let mut optimizer = Koala::new(vec![weight.clone()], Config::default())?;
    /// optimizer.backward_step(&weight.sqr()?)?;
    /// assert_eq!(optimizer.wait_for_report()?.first_steps, 1);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn wait_for_report(&mut self) -> candle::Result<Report> {
        #[cfg(feature = "cuda")]
        if let Some(on_cuda) = &mut self.on_cuda {
            self.report = on_cuda.report()?;
        }
        Ok(self.report)
    }

    /// The optimizer below, for what candle's interface does not have: the state, the noise, details.
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_optim::candle::{Config, Koala};
    /// assert_eq!(Koala::empty(Config::default())?.optimizer().noise(), 1.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The same, to change settings, scaling and threads from the next step on.
    ///
    /// ```
    /// use candle_nn::Optimizer;
    /// use koala_optim::{Scaling, candle::{Config, Koala}};
    /// let mut optimizer = Koala::empty(Config::default())?;
    /// optimizer.optimizer_mut().set_scaling(Scaling { limit: 1.0, ..Scaling::default() })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The optimizer of variables on a GPU, if these are: for their state, which is on the device, and details. Groups
    /// and settings are those of [`optimizer`](Self::optimizer) at each step.
    ///
    /// ```no_run
    /// use candle_core::{Device, Var};
    /// use candle_nn::Optimizer;
    /// use koala_optim::{cuda::Stream, candle::{Config, Koala}};
    ///
    /// let device = Device::new_cuda(0)?;
    /// let mut optimizer = Koala::new(vec![Var::new(&[1.0_f32, -2.0], &device)?], Config::default())?;
    /// device.synchronize()?; // What has been put on candle's stream is done, so that any stream will do here:
    /// println!("{:?}", optimizer.cuda_optimizer_mut().unwrap().state(Stream::DEFAULT, "0"));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[cfg(feature = "cuda")]
    pub fn cuda_optimizer_mut(&mut self) -> Option<&mut crate::cuda::Optimizer> {
        self.on_cuda.as_mut().map(on_cuda::OnCuda::optimizer_mut)
    }
}
