//! What a step takes: its loss, and the variables that have a gradient. Whether they fit is checked here.

use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{self as candle, DType, Var};
use koala_optim::{ElementType, Loss};

/// The loss of a step: known, or the losses of the samples.
pub enum StepLoss<'a> {
    Known(Loss),
    OfSamples(&'a candle::Tensor),
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
/// assert_eq!(koala_candle::measured(&losses)?, koala_optim::Loss::new(2.0, 5.0));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn measured(losses: &candle::Tensor) -> candle::Result<Loss> {
    let losses: Vec<f64> = losses.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    Loss::from_samples(&losses).map_err(candle::Error::wrap)
}

/// A variable that has a gradient, which is of its shape, its type and on its device, and contiguous.
pub struct Given<'a> {
    pub name: &'a str,
    pub variable: &'a Var,
    pub gradient: candle::Tensor,
}

impl Given<'_> {
    /// The error of a gradient, or of parameters, that are the same memory as parameters.
    pub fn is_of_a_variable(&self) -> candle::Error {
        let (name, of_gradient) = (self.name, described(&self.gradient));
        let message =
            format!("tensor {name:?}: the gradient, {of_gradient}, or the parameters are a variable's memory");
        candle::Error::Msg(message)
    }
}

/// The variables that have a gradient.
pub fn given<'a>(variables: &'a [(String, Var)], gradients: &GradStore) -> candle::Result<Vec<Given<'a>>> {
    let mut given = Vec::with_capacity(variables.len());
    for (name, variable) in variables {
        let Some(gradient) = gradients.get(variable) else { continue };
        let is_like = gradient.shape() == variable.shape()
            && gradient.dtype() == variable.dtype()
            && gradient.device().same_device(variable.device());
        if !is_like {
            let [of_parameters, of_gradient] = [variable, gradient].map(described);
            candle::bail!("tensor {name:?}: the parameters are {of_parameters}, the gradient {of_gradient}");
        }
        given.push(Given { name, variable, gradient: gradient.contiguous()? });
    }
    Ok(given)
}

/// Where a contiguous array has its elements, in the memory that it is part of.
pub fn elements(layout: &candle::Layout) -> Range<usize> {
    layout.start_offset()..layout.start_offset() + layout.shape().elem_count()
}

/// The type of a variable, if it is one that there are steps for.
pub fn element_type(variable: &Var) -> Option<ElementType> {
    match variable.dtype() {
        DType::F32 => Some(ElementType::F32),
        DType::F64 => Some(ElementType::F64),
        DType::BF16 => Some(ElementType::Bf16),
        DType::F16 => Some(ElementType::F16),
        _ => None,
    }
}

/// Type, shape and place, for a message.
fn described(tensor: &candle::Tensor) -> String {
    format!("{:?} {:?} on {:?}", tensor.dtype(), tensor.dims(), tensor.device().location())
}
