//! A tensor's filter in memory of the caller.

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
    /// innovation variance, and the number of steps. If that is zero, the next step is a first step, which reads nothing
    /// of all these.
    ///
    /// # Safety
    /// They are memory of the optimizer's device that lives for as long as the tensor is stepped, restarted or read, apart
    /// from each other and from what else a step is given, and nothing else writes it while a step may run.
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
