//! The memory of candle's variables and gradients, lent for as long as a step takes.

use std::cell::RefCell;
use std::ops::Range;

use ::candle_core::{self as candle, CpuStorage, InplaceOp1, Layout, Storage, Var};

use crate::tensors::Tensor;

/// A variable's elements, moved out of it, and back in when this is dropped. Candle lends the memory of one variable at
/// a time, but a step takes all together.
pub struct Taken<'a> {
    variable: &'a Var,
    pub elements: CpuStorage,
}

impl<'a> Taken<'a> {
    pub fn from(variable: &'a Var) -> candle::Result<Self> {
        let mut taken = Taken { variable, elements: CpuStorage::U8(Vec::new()) };
        taken.exchange()?;
        Ok(taken)
    }

    fn exchange(&mut self) -> candle::Result<()> {
        self.variable.inplace_op1(&Exchange(RefCell::new(&mut self.elements)))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // What was done once with this variable can be done again.
        let _ = self.exchange();
    }
}

/// Exchanges a variable's elements for others.
struct Exchange<'a>(RefCell<&'a mut CpuStorage>);

impl InplaceOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        "koala"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle::Result<()> {
        std::mem::swap(storage, &mut **self.0.borrow_mut());
        Ok(())
    }
}

macro_rules! for_each_type {
    ($($variant:ident)*) => {
        /// The parameters with their gradient, if both are there, of one type, and the gradient has that range.
        pub fn lent<'a>(
            name: &'a str,
            parameters: &'a mut CpuStorage,
            gradient: &'a Storage,
            range: Range<usize>,
        ) -> Option<Tensor<'a>> {
            match (parameters, gradient) {
                $((CpuStorage::$variant(parameters), Storage::Cpu(CpuStorage::$variant(gradient))) => {
                    Some(Tensor::new(name, parameters, gradient.get(range)?))
                })*
                _ => None,
            }
        }

        /// The parameters without a gradient, for a prediction.
        pub fn lent_alone<'a>(name: &'a str, parameters: &'a mut CpuStorage) -> Option<Tensor<'a>> {
            match parameters {
                $(CpuStorage::$variant(parameters) => Some(Tensor::new(name, parameters, &[])),)*
                _ => None,
            }
        }
    };
}

for_each_type!(F32 F64 BF16 F16);
