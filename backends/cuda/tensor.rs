//! A tensor of a step, and its filter: addresses of buffers on the device.

use super::error::Error;
use crate::types::element::ElementType;

/// A tensor as a step takes it: its name, and where its buffers are on the device.
///
/// See the [module's example](super).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) element_type: ElementType,
    pub(super) length: usize,
    pub(super) parameters: u64,
    pub(super) gradient: u64,
    /// The type of the copy in half precision, and its address.
    pub(super) copy: Option<(ElementType, u64)>,
}

impl<'a> Tensor<'a> {
    /// The tensor of that name: its parameters, which a step changes, and the gradient of the minibatch's mean loss by
    /// them, both of `length` elements of that type.
    ///
    /// # Safety
    /// Both are the addresses of that many elements in the memory of the optimizer's device, they live until the steps
    /// that take this tensor have run, and nothing else on the device writes them meanwhile.
    ///
    /// See the [module's example](super).
    pub unsafe fn new(name: &'a str, element_type: ElementType, length: usize, parameters: u64, gradient: u64) -> Self {
        Tensor { name, element_type, length, parameters, gradient, copy: None }
    }

    /// Also writes the new parameters here, rounded to bf16, when the tensor steps.
    ///
    /// # Safety
    /// As for the parameters: `length` elements of bf16.
    ///
    /// ```
    /// use koala_optim::{ElementType, cuda::Tensor};
    /// // SAFETY: no step takes it.
    /// let tensor = unsafe { Tensor::new("bias", ElementType::F32, 10, 0x1000, 0x2000).with_bf16_copy(0x3000) };
    /// ```
    pub unsafe fn with_bf16_copy(self, copy: u64) -> Self {
        Tensor { copy: Some((ElementType::Bf16, copy)), ..self }
    }

    /// Also writes the new parameters here, rounded to f16, when the tensor steps.
    ///
    /// # Safety
    /// As for the parameters: `length` elements of f16.
    ///
    /// ```
    /// use koala_optim::{ElementType, cuda::Tensor};
    /// // SAFETY: no step takes it.
    /// let tensor = unsafe { Tensor::new("bias", ElementType::F32, 10, 0x1000, 0x2000).with_f16_copy(0x3000) };
    /// ```
    pub unsafe fn with_f16_copy(self, copy: u64) -> Self {
        Tensor { copy: Some((ElementType::F16, copy)), ..self }
    }

    /// Whether each buffer is memory of the device, as `is_on_device` sees it, and aligned.
    pub(super) fn check(&self, is_on_device: impl Fn(u64) -> bool) -> Result<(), Error> {
        let element_type = self.element_type;
        let buffers = [("parameters", element_type, self.parameters), ("gradient", element_type, self.gradient)];
        let copy = self.copy.map(|(element_type, address)| ("half-precision copy", element_type, address));
        // An empty tensor may be anywhere.
        let buffers = buffers.into_iter().chain(copy).filter(|_| self.length > 0);
        for (buffer, element_type, address) in buffers {
            check_address(self.name, buffer, element_type, address, &is_on_device)?;
        }
        Ok(())
    }
}

/// Where v, h and the scalars of a tensor's filter are on the device: see
/// [`Optimizer::add_tensor_with_state`](super::Optimizer::add_tensor_with_state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBuffers {
    pub(super) v: u64,
    pub(super) h: u64,
    pub(super) scalars: u64,
}

impl StateBuffers {
    /// The addresses of v and h, as many elements of the state's type as the tensor has, and of four f64: h·h, h·v, the
    /// innovation variance, and the number of steps. If that is zero, the next step is a first step, which reads
    /// nothing of all these.
    ///
    /// # Safety
    /// They are memory of the optimizer's device that lives for as long as the tensor is stepped, restarted or read,
    /// apart from each other and from what else a step is given, and nothing else writes it while a step may run.
    ///
    /// ```
    /// use koala_optim::cuda::StateBuffers;
    /// // SAFETY: no optimizer takes it.
    /// let state = unsafe { StateBuffers::new(0x1000, 0x2000, 0x3000) };
    /// ```
    pub unsafe fn new(v: u64, h: u64, scalars: u64) -> Self {
        StateBuffers { v, h, scalars }
    }
}

/// Whether elements of that type can be at the address.
pub(super) fn check_address(
    tensor: &str,
    buffer: &'static str,
    element_type: ElementType,
    address: u64,
    is_on_device: impl Fn(u64) -> bool,
) -> Result<(), Error> {
    if !address.is_multiple_of(element_type.size() as u64) {
        return Err(Error::Misaligned { tensor: tensor.into(), buffer, address });
    }
    match is_on_device(address) {
        true => Ok(()),
        false => Err(Error::NotOnDevice { tensor: tensor.into(), buffer, address }),
    }
}
