//! The parameters of a module of burn: what they are called, and their way out of the module and back into it.

use std::collections::{HashMap, VecDeque};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, GradientCheckpointingStrategy, Tensor as Array, TensorData};
use burn_core as burn;
use burn_optim::GradientsParams;
use koala_optim::{ElementType, Tensor, bf16, f16};

use crate::Error;

/// What is known of a parameter without its elements.
pub struct Description {
    /// Its path, with `#2`, `#3` and so on where others of that path came before it.
    pub name: String,
    pub path: String,
    pub id: ParamId,
    pub shape: Vec<usize>,
    pub dtype: DType,
}

impl Description {
    pub fn element_type(&self) -> Result<ElementType, Error> {
        match self.dtype {
            DType::F32 => Ok(ElementType::F32),
            DType::F64 => Ok(ElementType::F64),
            DType::BF16 => Ok(ElementType::Bf16),
            DType::F16 => Ok(ElementType::F16),
            found => Err(Error::ElementType { tensor: self.name.clone(), found }),
        }
    }
}

/// The parameters of a module that require a gradient.
pub fn described<M: Module>(module: &M) -> Vec<Description> {
    let mut describing = Describing::default();
    module.visit(&mut describing);
    describing.descriptions
}

/// Gives parameters their names as they come. A module need not say where it goes, so that paths may be the same.
#[derive(Default)]
struct Names {
    path: Vec<String>,
    /// How many parameters had a path.
    used: HashMap<String, usize>,
}

impl Names {
    fn enter(&mut self, name: &str) {
        self.path.push(name.into());
    }

    fn exit(&mut self) {
        self.path.pop();
    }

    fn describe<const D: usize>(&mut self, parameter: &Param<Array<D>>) -> Description {
        let path = self.path.join(".");
        let used = self.used.entry(path.clone()).or_default();
        *used += 1;
        let name = if *used == 1 { path.clone() } else { format!("{path}#{used}") };
        let (shape, dtype) = (parameter.shape().to_vec(), parameter.dtype());
        Description { name, path, id: parameter.id, shape, dtype }
    }
}

#[derive(Default)]
struct Describing {
    names: Names,
    descriptions: Vec<Description>,
}

impl ModuleVisitor for Describing {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Array<D>>) {
        let description = self.names.describe(parameter);
        if parameter.is_require_grad() {
            self.descriptions.push(description);
        }
    }
}

/// A parameter's elements, out of its module, and what burn knows about it beside them.
pub struct Taken {
    /// Which of the module's parameters it is, in the order in which they come. Neither its path nor its id, which a
    /// clone has too, would tell it from every other.
    place: usize,
    pub description: Description,
    parameters: TensorData,
    /// None for a prediction.
    gradient: Option<TensorData>,
    device: Device,
    requires_gradient: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
    distributed: bool,
}

impl Taken {
    /// What is to be stepped, with a gradient of the parameters' shape and type.
    pub fn lend(&mut self) -> Result<Tensor<'_>, Error> {
        let Taken { description: Description { name, shape, dtype, .. }, parameters, gradient, .. } = self;
        if let Some(gradient) = gradient
            && gradient.shape().to_vec() != *shape
        {
            let (parameters, gradient) = (shape.clone(), gradient.shape().to_vec());
            return Err(Error::Shape { tensor: name.clone(), parameters, gradient });
        }
        macro_rules! of_type {
            ($type:ty) => {
                parameters.as_mut_slice::<$type>().and_then(|parameters| {
                    let gradient = gradient.as_ref().map_or(Ok(&[][..]), |gradient| gradient.as_slice::<$type>())?;
                    Ok(Tensor::new(name, parameters, gradient))
                })
            };
        }
        let tensor = match dtype {
            DType::F32 => of_type!(f32),
            DType::F64 => of_type!(f64),
            DType::BF16 => of_type!(bf16),
            _ => of_type!(f16),
        };
        tensor.map_err(|reason| Error::Data { tensor: name.clone(), reason })
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
        if self.distributed { array.set_distributed(self.description.id) } else { array }
    }
}

/// Takes what is to be stepped out of a module, which holds empty parameters then: those with a gradient, or for a
/// prediction those that require one.
pub fn take<M: Module>(module: M, gradients: Option<GradientsParams>) -> (M, VecDeque<Taken>) {
    let mut taking = Taking { names: Names::default(), place: 0, gradients, taken: VecDeque::new() };
    let module = module.map(&mut taking);
    (module, taking.taken)
}

struct Taking {
    names: Names,
    /// Of the next parameter.
    place: usize,
    /// None for a prediction.
    gradients: Option<GradientsParams>,
    taken: VecDeque<Taken>,
}

impl ModuleMapper for Taking {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.exit();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Array<D>>) -> Param<Array<D>> {
        let place = self.place;
        self.place += 1;
        let description = self.names.describe(&parameter);
        let gradient = match &mut self.gradients {
            Some(gradients) => gradients.remove::<D>(parameter.id),
            None => None,
        };
        if gradient.is_none() && (self.gradients.is_some() || !parameter.is_require_grad()) {
            return parameter;
        }
        let (id, array, mapper) = parameter.consume();
        let (device, requires_gradient) = (array.device(), array.is_require_grad());
        let (checkpointing, distributed) = (array.gradient_checkpointing_strategy(), array.is_distributed());
        self.taken.push_back(Taken {
            place,
            description,
            parameters: array.inner().into_data(),
            gradient: gradient.map(Array::into_data),
            requires_gradient,
            checkpointing,
            distributed,
            device: device.clone(),
        });
        Param::from_mapped_value(id, Array::empty([0; D], &device), mapper)
    }
}

/// Puts back what was taken.
pub fn put_back<M: Module>(module: M, taken: VecDeque<Taken>) -> M {
    module.map(&mut Returning { place: 0, taken })
}

struct Returning {
    /// Of the next parameter.
    place: usize,
    taken: VecDeque<Taken>,
}

impl ModuleMapper for Returning {
    fn map_float<const D: usize>(&mut self, parameter: Param<Array<D>>) -> Param<Array<D>> {
        let place = self.place;
        self.place += 1;
        match self.taken.pop_front_if(|taken| taken.place == place) {
            Some(taken) => parameter.map(|_| taken.array()),
            None => parameter,
        }
    }
}
