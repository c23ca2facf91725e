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
//! Variables are on the CPU, and f32, f64, bf16 or f16. What is on a GPU is an error, as is what is wrong with a
//! call otherwise; then, nothing has changed.
//!
//! Why not on a GPU: candle compiles kernels of its own for that, and neither could its memory be had in our tests nor
//! its code be run. Who trains on one with candle can step the device addresses of its variables by
//! `koala_optim::cuda::Optimizer`, on candle's stream. The features `cuda` and `candle-core/cuda` go together in one
//! build: both are on cudarc 0.19, which then links the driver, as candle wants it, and does not load it.
//!
//! With the feature `checkpoint`, a run is saved by [`Koala::optimizer`], and loaded into the
//! [`Koala::optimizer_mut`] of one that was made with variables of the same names and shapes. The variables are saved
//! with it or by candle.
//!
//! Tested with candle 0.11.1, which is the least version that the feature takes; it takes those before 0.12.

mod lending;

use std::collections::BTreeMap;

use ::candle_core::backprop::GradStore;
use ::candle_core::{self as candle, DType, Var};

pub use super::Config;
use crate::optimizer::{GroupId, Optimizer};
use crate::report::Report;
use crate::settings::{Loss, Settings};
use crate::tensor_state::StateType;
use crate::{ElementType, Error};
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
}

impl candle_nn::Optimizer for Koala {
    type Config = Config;

    /// Of these variables those that are of floating-point numbers, named by their place: `"0"`, `"1"` and so on.
    fn new(vars: Vec<Var>, config: Config) -> candle::Result<Self> {
        let mut koala = Koala {
            optimizer: Optimizer::new(config.optimizer).map_err(candle::Error::wrap)?,
            state: config.state,
            groups: Vec::new(),
            variables: Vec::new(),
            refused_rate: None,
            loss: None,
            report: Report::default(),
        };
        let group = koala.add_group(config.settings)?;
        for (place, variable) in vars.into_iter().enumerate().filter(|(_, variable)| variable.dtype().is_float()) {
            koala.add_variable(&place.to_string(), variable, group)?;
        }
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
        self.step_with(loss, gradients).map(|_| ())
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
        let gradients = if loss.elem_count() == 1 { loss.backward()? } else { loss.mean_all()?.backward()? };
        self.step_with(measured(loss)?, &gradients).map(|_| ())
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
    /// A variable that is not on the CPU, or of another type than f32, f64, bf16 and f16; and those of
    /// [`Optimizer::add_tensor`](crate::Optimizer::add_tensor), a variable that was added before among them.
    ///
    /// See [`add_group`](Self::add_group).
    pub fn add_variable(&mut self, name: &str, variable: Var, group: GroupId) -> candle::Result<()> {
        let element_type = match variable.dtype() {
            DType::F32 => ElementType::F32,
            DType::F64 => ElementType::F64,
            DType::BF16 => ElementType::Bf16,
            DType::F16 => ElementType::F16,
            other => candle::bail!("tensor {name:?}: expected f32, f64, bf16 or f16, found {other:?}"),
        };
        if !variable.device().is_cpu() {
            candle::bail!("tensor {name:?}: expected the CPU, found {:?}", variable.device().location());
        }
        if self.variables.iter().any(|(_, known)| known.id() == variable.id()) {
            return Err(candle::Error::wrap(Error::DuplicateTensor { tensor: name.into() }));
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

    /// Steps every variable that has a gradient, with this loss.
    ///
    /// # Errors
    /// A gradient of another shape or type, or one that is the memory of a variable; and those of
    /// [`Optimizer::step`](crate::Optimizer::step). Nothing has changed then.
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
        if let Some(learning_rate) = self.refused_rate {
            self.optimizer.set_learning_rate(self.groups[0], learning_rate).map_err(candle::Error::wrap)?;
        }
        let mut contiguous = Vec::with_capacity(self.variables.len());
        for (name, variable) in &self.variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            if gradient.shape() != variable.shape() {
                let [parameters, gradient] = [variable, gradient].map(|tensor| tensor.dims().to_vec());
                return Err(candle::Error::wrap(Error::Shape { tensor: name.clone(), parameters, gradient }));
            }
            if gradient.dtype() != variable.dtype() || !gradient.device().same_device(variable.device()) {
                let [of_parameters, of_gradient] = [variable, gradient].map(described);
                candle::bail!("tensor {name:?}: the parameters are {of_parameters}, the gradient {of_gradient}");
            }
            contiguous.push((&**name, variable, gradient.contiguous()?));
        }
        let mut taken =
            contiguous.iter().map(|(_, variable, _)| Taken::from(variable)).collect::<Result<Vec<_>, _>>()?;
        let read: Vec<_> = contiguous.iter().map(|(_, _, gradient)| gradient.storage_and_layout()).collect();
        let mut tensors = Vec::with_capacity(taken.len());
        for (((name, _, gradient), taken), (storage, layout)) in contiguous.iter().zip(&mut taken).zip(&read) {
            let start = layout.start_offset();
            let Some(tensor) = lent(name, &mut taken.elements, storage, start..start + layout.shape().elem_count())
            else {
                let of_gradient = described(gradient);
                candle::bail!(
                    "tensor {name:?}: the gradient, {of_gradient}, or the parameters are a variable's memory"
                );
            };
            tensors.push(tensor);
        }
        self.report = self.optimizer.step(loss, &mut tensors).map_err(candle::Error::wrap)?;
        Ok(self.report)
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
        let mut taken =
            self.variables.iter().map(|(_, variable)| Taken::from(variable)).collect::<Result<Vec<_>, _>>()?;
        let named = self.variables.iter().zip(&mut taken);
        let mut tensors: Vec<_> =
            named.filter_map(|((name, _), taken)| lent_alone(name, &mut taken.elements)).collect();
        self.optimizer.predict(&mut tensors).map_err(candle::Error::wrap)
    }

    /// What the last step did; all zeros before one.
    ///
    /// See the [module's example](self).
    pub fn report(&self) -> Report {
        self.report
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
}

/// The loss that a tensor of per-sample losses of any shape holds: their mean, and the mean of their squares, in
/// float64. One element counts as one sample.
///
/// # Errors
/// No element, or candle's own.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let losses = Tensor::new(&[1.0_f32, 3.0], &Device::Cpu)?;
/// assert_eq!(koala_optim::candle::measured(&losses)?, koala_optim::Loss::new(2.0, 5.0));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn measured(losses: &candle::Tensor) -> candle::Result<Loss> {
    let losses: Vec<f64> = losses.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    Loss::from_samples(&losses).map_err(candle::Error::wrap)
}

/// Type, shape and place, for a message.
fn described(tensor: &candle::Tensor) -> String {
    format!("{:?} {:?} on {:?}", tensor.dtype(), tensor.dims(), tensor.device().location())
}
