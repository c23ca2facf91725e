//! An optimizer of the framework burn, over the parameters of a module: the feature `burn`.
//!
//! ```
//! use burn_core as burn;
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Tensor};
//! use burn_optim::GradientsParams;
//! use koala_optim::{Loss, burn::{Config, Koala}};
//!
//! #[derive(Module, Debug)]
//! struct Model {
//!     weight: Param<Tensor<1>>,
//! }
//!
//! let device = Device::flex().autodiff();
//! let mut model = Model { weight: Param::from_tensor(Tensor::from_floats([1.0, -2.0], &device)) };
//! let mut optimizer = Koala::new(Config::default())?;
//!
//! let losses = model.weight.val().powi_scalar(2); // One for each sample.
//! let loss = Loss::from_samples(&losses.to_data().try_to_vec::<f32>()?)?;
//! let gradients = GradientsParams::from_grads(losses.mean().backward(), &model);
//! let report;
//! (model, report) = optimizer.step(loss, model, gradients);
//! assert_eq!(report?.stepped, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A step looks like that of burn's [`ModuleOptimizer`](burn_optim::ModuleOptimizer), and takes the loss too, which the
//! KOALA family needs. It is not an `Optimizer` of burn's, which sees one parameter at a time and returns no errors:
//! the methods here share numbers over all parameters, and clip by the norm of all gradients. Learning rates are in the
//! settings of groups.
//!
//! Copies: the parameters move out of the module, and back into it when they have been stepped, and on the CPU device
//! of burn-flex that copies neither them nor the gradients, as long as nobody else holds them. (What is shared, or not
//! contiguous, is copied by burn.) On another device both are copied to the CPU, and the parameters back.
//!
//! Parameters are f32, f64, bf16 or f16; those without a gradient stay as they are.
//!
//! Tested with burn 0.22.1, which is the least version that the feature takes; it takes those before 0.23.

use std::collections::VecDeque;

use ::burn_core as burn;
use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::{DType, DataError, Device, GradientCheckpointingStrategy, Tensor as Array, TensorData};
use burn_optim::GradientsParams;

pub use super::Config;
use crate::optimizer::{GroupId, Optimizer};
use crate::report::Report;
use crate::settings::{Loss, Settings};
use crate::tensor_state::StateType;
use crate::tensors::Tensor;
use crate::{ElementType, bf16, f16};

/// Why a step did nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The optimizer's own.
    Optimizer(crate::Error),
    /// A parameter of another type than f32, f64, bf16 and f16.
    ElementType {
        /// Its path.
        tensor: String,
        /// Its type.
        found: DType,
    },
    /// Burn does not lend a parameter or a gradient, whose type differs from the parameter's, say.
    Data {
        /// The path.
        tensor: String,
        /// Why not.
        reason: DataError,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Optimizer(error) => error.fmt(f),
            Error::ElementType { tensor, found } => {
                write!(f, "tensor {tensor:?}: expected f32, f64, bf16 or f16, found {found:?}")
            }
            Error::Data { tensor, reason } => write!(f, "tensor {tensor:?}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Error::Optimizer(error)
    }
}

/// KOALA++, or another [`Method`](crate::Method), over a module of burn: see the [module](self). Parameters become
/// known by their paths, such as `"encoder.weight"`, when they are first stepped.
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
    /// See the [module's example](self).
    pub fn new(config: Config) -> Result<Self, crate::Error> {
        let optimizer = Optimizer::new(config.optimizer)?;
        Koala { optimizer, state: config.state, groups: Vec::new() }.with_group(ParamGroup::all(), config.settings)
    }

    /// With settings of their own for some parameters: of the groups that a parameter matches, the last one counts. It
    /// is for parameters that have not been stepped yet.
    ///
    /// # Errors
    /// A number out of range.
    ///
    /// ```
    /// use burn_core::module::ParamGroup;
    /// use koala_optim::{Settings, burn::{Config, Koala}};
    /// let decayed = Settings { weight_decay: 5e-4, ..Settings::default() };
    /// let optimizer = Koala::new(Config::default())?.with_group(ParamGroup::from_predicate("weight"), decayed)?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn with_group(mut self, parameters: ParamGroup, settings: Settings) -> Result<Self, crate::Error> {
        self.groups.push((parameters, self.optimizer.add_group(settings)?));
        Ok(self)
    }

    /// The learning rate of every group, from the next step on.
    ///
    /// # Errors
    /// A number out of range.
    ///
    /// ```
    /// use koala_optim::burn::{Config, Koala};
    /// Koala::new(Config::default())?.set_learning_rate(0.5)?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<(), crate::Error> {
        self.groups.iter().try_for_each(|(_, group)| self.optimizer.set_learning_rate(*group, learning_rate))
    }

    /// Steps every parameter of the module that has a gradient. The module comes back even if there is an error; it is
    /// then as it was.
    ///
    /// # Errors
    /// [`Error`], whose [`Error::Optimizer`] are those of [`Optimizer::step`](crate::Optimizer::step), and a gradient
    /// of another shape.
    ///
    /// See the [module's example](self).
    pub fn step<M: Module>(&mut self, loss: Loss, module: M, gradients: GradientsParams) -> (M, Result<Report, Error>) {
        self.with_parameters(module, Some(gradients), |optimizer, tensors| optimizer.step(loss, tensors))
    }

    /// As [`Optimizer::predict`](crate::Optimizer::predict), which KOALA-M needs before the loss is computed; nothing
    /// for another method.
    ///
    /// # Errors
    /// As those of [`step`](Self::step).
    ///
    /// ```
    /// # use burn_core as burn;
    /// # use burn::{module::{Module, Param}, tensor::{Device, Tensor}};
    /// # use koala_optim::burn::{Config, Koala};
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
    /// use koala_optim::burn::{Config, Koala};
    /// assert_eq!(Koala::new(Config::default())?.optimizer().noise(), 1.0);
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The same, to change scaling and threads from the next step on.
    ///
    /// ```
    /// use koala_optim::{Scaling, burn::{Config, Koala}};
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
        task: impl FnOnce(&mut Optimizer, &mut [Tensor<'_>]) -> Result<T, crate::Error>,
    ) -> (M, Result<T, Error>) {
        let mut taking = Taking { path: Vec::new(), gradients, taken: VecDeque::new() };
        let module = module.map(&mut taking);
        let result = self.lent(&mut taking.taken).and_then(|mut tensors| Ok(task(&mut self.optimizer, &mut tensors)?));
        (module.map(&mut Returning { path: Vec::new(), taken: taking.taken }), result)
    }

    fn lent<'a>(&mut self, taken: &'a mut VecDeque<Taken>) -> Result<Vec<Tensor<'a>>, Error> {
        for Taken { path, group, parameters, gradient, .. } in taken.iter() {
            let element_type = match parameters.dtype() {
                DType::F32 => ElementType::F32,
                DType::F64 => ElementType::F64,
                DType::BF16 => ElementType::Bf16,
                DType::F16 => ElementType::F16,
                found => return Err(Error::ElementType { tensor: path.clone(), found }),
            };
            if let Some(gradient) = gradient
                && gradient.shape() != parameters.shape()
            {
                let [parameters, gradient] = [parameters, gradient].map(|data| data.shape().to_vec());
                return Err(crate::Error::Shape { tensor: path.clone(), parameters, gradient }.into());
            }
            if self.optimizer.state(path).is_none() {
                let matches = |(parameters, _): &&(ParamGroup, GroupId)| parameters.matches(group, Some(path));
                let Some((_, group)) = self.groups.iter().rev().find(matches) else { continue };
                self.optimizer.add_tensor(path, parameters.num_elements(), element_type, self.state, *group)?;
            }
        }
        taken.iter_mut().map(Taken::lend).collect()
    }
}

/// A parameter's elements, out of its module, and what burn knows about it beside them.
struct Taken {
    path: String,
    group: burn::module::ParamId,
    parameters: TensorData,
    /// None for a prediction.
    gradient: Option<TensorData>,
    device: Device,
    requires_gradient: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
    distributed: bool,
}

impl Taken {
    fn lend(&mut self) -> Result<Tensor<'_>, Error> {
        let Taken { path, parameters, gradient, .. } = self;
        macro_rules! of_type {
            ($type:ty) => {
                parameters.as_mut_slice::<$type>().and_then(|parameters| {
                    let gradient = gradient.as_ref().map_or(Ok(&[][..]), |gradient| gradient.as_slice::<$type>())?;
                    Ok(Tensor::new(path, parameters, gradient))
                })
            };
        }
        let tensor = match parameters.dtype() {
            DType::F32 => of_type!(f32),
            DType::F64 => of_type!(f64),
            DType::BF16 => of_type!(bf16),
            _ => of_type!(f16),
        };
        tensor.map_err(|reason| Error::Data { tensor: path.clone(), reason })
    }

    fn array<const D: usize>(self) -> Array<D> {
        let dtype = self.parameters.dtype();
        let array = Array::from_data(self.parameters, (&self.device.inner(), dtype));
        let mut array = Array::from_inner(array);
        if let Some(strategy) = self.checkpointing {
            array = array.with_gradient_checkpointing_strategy(strategy);
        }
        if self.requires_gradient {
            array = array.require_grad();
        }
        if self.distributed { array.set_distributed(self.group) } else { array }
    }
}

/// Takes what is to be stepped out of a module, which holds empty parameters then.
struct Taking {
    path: Vec<String>,
    /// None for a prediction.
    gradients: Option<GradientsParams>,
    taken: VecDeque<Taken>,
}

impl ModuleMapper for Taking {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Array<D>>) -> Param<Array<D>> {
        let gradient = match &mut self.gradients {
            Some(gradients) => gradients.remove::<D>(parameter.id),
            None => None,
        };
        if gradient.is_none() && (self.gradients.is_some() || !parameter.is_require_grad()) {
            return parameter;
        }
        let (group, array, mapper) = parameter.consume();
        let (device, requires_gradient) = (array.device(), array.is_require_grad());
        let (checkpointing, distributed) = (array.gradient_checkpointing_strategy(), array.is_distributed());
        self.taken.push_back(Taken {
            path: self.path.join("."),
            group,
            parameters: array.inner().into_data(),
            gradient: gradient.map(Array::into_data),
            requires_gradient,
            checkpointing,
            distributed,
            device: device.clone(),
        });
        Param::from_mapped_value(group, Array::empty([0; D], &device), mapper)
    }
}

/// Puts that back, in the same order.
struct Returning {
    path: Vec<String>,
    taken: VecDeque<Taken>,
}

impl ModuleMapper for Returning {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Array<D>>) -> Param<Array<D>> {
        let path = self.path.join(".");
        match self.taken.pop_front_if(|taken| taken.path == path) {
            Some(taken) => parameter.map(|_| taken.array()),
            None => parameter,
        }
    }
}
