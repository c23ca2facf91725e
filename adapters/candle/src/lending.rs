//! The memory of candle's variables and gradients, lent for as long as a step takes.

use std::borrow::BorrowMut;
use std::cell::RefCell;
use std::ops::Range;

use candle_core::{self as candle, CpuStorage, CudaStorage, InplaceOp1, Layout, Storage, Var};
use koala_optim::Tensor;

/// A variable's memory, moved out of it in exchange for other of its device, and back in when this is dropped. Candle
/// lends the memory of one variable at a time, but a step takes all together.
pub struct Taken<'a, M: BorrowMut<Storage>> {
    variable: &'a Var,
    pub memory: M,
}

impl<'a, M: BorrowMut<Storage>> Taken<'a, M> {
    pub fn from(variable: &'a Var, memory: M) -> candle::Result<Self> {
        let mut taken = Taken { variable, memory };
        taken.exchange()?;
        Ok(taken)
    }

    fn exchange(&mut self) -> candle::Result<()> {
        self.variable.inplace_op1(&Exchange(RefCell::new(self.memory.borrow_mut())))
    }
}

impl<'a> Taken<'a, Storage> {
    /// In exchange for no memory, on the CPU.
    pub fn from_cpu(variable: &'a Var) -> candle::Result<Self> {
        Taken::from(variable, Storage::Cpu(CpuStorage::U8(Vec::new())))
    }
}

impl<M: BorrowMut<Storage>> Drop for Taken<'_, M> {
    fn drop(&mut self) {
        // What was done once with this variable can be done again.
        let _ = self.exchange();
    }
}

/// Exchanges a variable's memory for other of its device.
struct Exchange<'a>(RefCell<&'a mut Storage>);

impl InplaceOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        "koala"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle::Result<()> {
        match &mut **self.0.borrow_mut() {
            Storage::Cpu(other) => std::mem::swap(storage, other),
            _ => candle::bail!("expected memory of a device"),
        }
        Ok(())
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> candle::Result<()> {
        match &mut **self.0.borrow_mut() {
            Storage::Cuda(other) => std::mem::swap(storage, other),
            _ => candle::bail!("expected memory of the CPU"),
        }
        Ok(())
    }
}

macro_rules! for_each_type {
    ($($variant:ident)*) => {
        /// The parameters with their gradient, if both are there, of one type, and the gradient has that range.
        pub fn lent<'a>(
            name: &'a str,
            parameters: &'a mut Storage,
            gradient: &'a Storage,
            range: Range<usize>,
        ) -> Option<Tensor<'a>> {
            match (parameters, gradient) {
                $((
                    Storage::Cpu(CpuStorage::$variant(parameters)),
                    Storage::Cpu(CpuStorage::$variant(gradient)),
                ) => Some(Tensor::new(name, parameters, gradient.get(range)?)),)*
                _ => None,
            }
        }

        /// The parameters without a gradient, for a prediction.
        pub fn lent_alone<'a>(name: &'a str, parameters: &'a mut Storage) -> Option<Tensor<'a>> {
            match parameters {
                $(Storage::Cpu(CpuStorage::$variant(parameters)) => Some(Tensor::new(name, parameters, &[])),)*
                _ => None,
            }
        }
    };
}

for_each_type!(F32 F64 BF16 F16);
