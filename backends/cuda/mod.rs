//! The optimizer on an NVIDIA GPU: parameters, gradients and state are buffers of the device, a step is three launches
//! for each group of tensors, and the host waits for none of it. The bits are those of the CPU.
//!
//! Nothing of CUDA is needed to build this, and a machine that runs it needs only the driver (525 or later) and a GPU
//! of compute capability 8.0 or later. Without them, [`Device::new`] says what is missing.
//!
//! ```no_run
//! use koala_optim::cuda::{Config, Device, Optimizer, Stream, Tensor};
//! use koala_optim::{ElementType, Loss, Settings, StateType};
//!
//! # fn buffers() -> (u64, u64) { (0, 0) }
//! // Two buffers of a million f32, made with any library: their addresses on the device.
//! let (parameters, gradient) = buffers();
//! let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
//! let group = optimizer.add_group(Settings::default())?;
//! optimizer.add_tensor("weight", 1_000_000, ElementType::F32, StateType::Same, group)?;
//! // SAFETY: the buffers are the device's, as long as said, and nothing else uses them meanwhile.
//! let tensor = unsafe { Tensor::new("weight", ElementType::F32, 1_000_000, parameters, gradient) };
//! optimizer.step(Stream::DEFAULT, Loss::new(0.7, 0.6), &[tensor])?;
//! println!("{:?}", optimizer.report(Stream::DEFAULT)?); // Here the host waits.
//! # Ok::<(), koala_optim::cuda::Error>(())
//! ```
//!
//! # What differs from the optimizer on the CPU
//!
//! - It is KOALA++ only, without [`Method`](crate::Method); and gradients can be [scaled](Optimizer::set_scaling) and
//!   limited one by one, but not clipped by their norm.
//! - [`OnNonFinite::Unchecked`](crate::OnNonFinite) leaves out nothing here, as KOALA++'s dot products look at every
//!   gradient anyway: it is what [`OnNonFinite::KeepTensor`](crate::OnNonFinite) is.
//! - A step returns before it has run; [`Optimizer::report`] waits for it. So no policy can make an error of what a
//!   step meets: [`OnNonFinite::Error`](crate::OnNonFinite) and [`OnBreakdown::Error`](crate::OnBreakdown) are refused.
//!   [`OnNonFinite::KeepAll`](crate::OnNonFinite) keeps all tensors too, and its report says so.
//! - The loss, learning rates and the scale of gradients may be numbers on the device. What would be an error from the
//!   host, a second moment or a learning rate below zero, say, is then taken as not finite.
//! - A gradient's memory is not exchanged for that of h: whether a tensor steps is known on the device only.
//!
//! # Memory traffic
//!
//! A group's arrays are read twice, first for the dot products and then for the update, so groups are made small enough
//! to stay in the device's L2 cache in between: half of it, unless [`Config::group_bytes`] says otherwise. A tensor
//! that is larger is a group of its own and comes from memory twice. So a step over f32 parameters with weight decay
//! should move 28 bytes a parameter where tensors are small, and 44 where they are large. With an L2 of 40 MiB:
//!
//! | Tensors | Parameters | Groups | Bytes a step | A parameter |
//! |---|---|---|---|---|
//! | ResNet-50 | 25,557,032 | 20 | 895,165,536 | 35.0 |
//! | GPT-2 small | 124,439,808 | 74 | 5,347,580,928 | 43.0 |
//!
//! These are counted from the lists, not measured. Not counted is what the update finds in the cache of a larger
//! tensor, whose end it takes first: 16 bytes less for each parameter that is still there.
//!
//! # Capturing a graph
//!
//! A step is launches on the caller's stream and nothing else once the optimizer has seen its tensors: it allocates
//! nothing and waits for nothing. So [prepare](Optimizer::prepare) the tensors, or take a step of them, then capture
//! one; the loss should then be on the device. What is only captured has not been done: the graph has tables of its own
//! for as long as the optimizer lives, and other steps, with any tensors and with gradients anywhere, may be taken
//! before and between its launches.
//!
//! - A launch of the graph takes parameters, gradients, copies, state, and a loss and a scaler on the device where they
//!   were when the step was captured, and a loss and a scaling from the host as they were then. The graph is of no use
//!   any more once one of them has moved or the optimizer is dropped, which must not happen while a launch may run, nor
//!   during a capture.
//! - Settings and restarts are not captured, as each launch would undo what has been written since. They are written by
//!   [`Optimizer::write_changes`], before the capture and before a launch, or by a step that is not captured.
//! - The learning rate of a launch is the one that was written last: a schedule writes it ahead of each launch, on the
//!   stream, or it is a number that the device computes: [`Optimizer::set_device_learning_rate`].
//! - Where gradients are scaled against underflow, the scale and the flag by which a step is left out may be the
//!   device's too, so that nothing waits for them: [`Optimizer::set_device_scaler`].
//! - What cannot be done during a capture is refused by [`Error::Captured`] before it could spoil it: to step tensors
//!   that were not known before, to write changes, and to read. Tensors and groups must not be added then, which
//!   allocates.
//!
//! # The instruction set
//!
//! The kernels are committed as PTX for compute capability 8.0, which the driver translates for any newer device.
//! Whether PTX for a newer one would be faster could not be measured.

mod device;
mod device_numbers;
mod driver;
mod error;
mod optimizer;
mod structs;
mod tables;
mod tensor;

pub use device::Device;
pub use device_numbers::{DeviceLearningRate, DeviceLoss, DeviceScaler, StepLoss};
pub use driver::{Driver, Kernel, Stream};
pub use error::Error;
pub use optimizer::reading::{Counts, State};
pub use optimizer::{Config, Optimizer};
pub use tensor::{StateBuffers, Tensor};
