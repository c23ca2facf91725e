//! Many tensors of f32 with their gradients, for an optimizer to step.

use koala_optim::{Backend, Config, ElementType, Error, Optimizer, StateType, Tensor, Threads};

use crate::filter;
use crate::models::Architecture;
use crate::stream::{LINE, Stream, saw_tooth};

/// The parameters and gradients of a model, one tensor after the other, each from the start of a cache line on.
pub struct Model {
    tensors: Vec<(String, usize)>,
    parameters: Stream<f32>,
    gradients: Stream<f32>,
}

/// From a tensor's start to the next one's.
fn room(length: usize) -> usize {
    length.next_multiple_of(LINE / size_of::<f32>())
}

impl Model {
    /// A model of tensors of these names and lengths.
    pub fn new(tensors: Vec<(String, usize)>) -> Self {
        let total = tensors.iter().map(|(_, length)| room(*length)).sum();
        let (gradient, parameter) = (saw_tooth(1e-4, 251), saw_tooth(1e-3, 241));
        Model {
            tensors,
            gradients: Stream::new(0, total, |i| gradient(i) as f32),
            parameters: Stream::new(1, total, |i| parameter(i) as f32),
        }
    }

    /// Equal tensors.
    pub fn of_equal(count: usize, length: usize) -> Self {
        Self::new((0..count).map(|i| (format!("tensor {i}"), length)).collect())
    }

    /// KOALA++ for it, with weight decay.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none for the state, [`Error::Threads`] if they can't be had.
    pub fn optimizer(&self, state: StateType, backend: Backend, threads: Threads) -> Result<Optimizer, Error> {
        self.optimizer_of(state, Config { backend, threads, ..Config::default() })
    }

    /// Any optimizer for it, with weight decay and fixed noise.
    ///
    /// # Errors
    /// As [`optimizer`](Self::optimizer), and [`Error::Setting`] for a number out of range.
    pub fn optimizer_of(&self, state: StateType, config: Config) -> Result<Optimizer, Error> {
        let tensors = self.tensors.iter().map(|(name, length)| (&**name, *length));
        filter::optimizer(tensors, (ElementType::F32, state), 1e-3, config)
    }

    /// What [`step`](crate::step) is to be given. Making it is not a part of a step.
    pub fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let (mut parameters, mut gradients) = (self.parameters.get_mut(), self.gradients.get());
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (name, length) in &self.tensors {
            let (of_this, of_others) = parameters.split_at_mut(room(*length));
            tensors.push(Tensor::new(name, &mut of_this[..*length], &gradients[..*length]));
            (parameters, gradients) = (of_others, &gradients[room(*length)..]);
        }
        tensors
    }
}

impl From<&Architecture> for Model {
    fn from(architecture: &Architecture) -> Self {
        Self::new(architecture.shapes.iter().map(|shape| (shape.name.clone(), shape.length())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::mobilenet_v3_large;
    use crate::step;

    #[test]
    fn every_tensor_of_a_model_steps_again_and_again() -> Result<(), Error> {
        let mut model = Model::from(&mobilenet_v3_large());
        for state in [StateType::Same, StateType::Bf16] {
            let mut optimizer = model.optimizer(state, Backend::detect(), Threads::One)?;
            let mut tensors = model.tensors();
            for _ in 0..3 {
                step(&mut optimizer, &mut tensors);
            }
            assert_eq!(tensors.len(), 174);
        }
        Ok(())
    }
}
