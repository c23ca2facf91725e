#![doc = include_str!("../README.md")]
//!
//! # How it steps
//!
//! A step of the KOALA family needs the loss beside the gradient.
//! [`backward_step`](candle_nn::Optimizer::backward_step) takes the loss from the tensor that it differentiates. Give
//! it one loss for each sample: it takes the gradient of their mean. A tensor of one element counts as the loss of a
//! single sample, so the mean of the squares is its square. That is too small if the element is a mean of several
//! losses, and KOALA++ then trusts it more than it should. Whoever calls `backward` gives the loss to
//! [`Koala::step_with`], or calls [`Koala::set_loss`] before `step`.
//!
//! A step copies no parameters. While it runs, their vectors are moved out of the variables, which are empty until it
//! ends. So nobody else may use the model meanwhile, as with candle's own optimizers. A gradient is copied only if it
//! is not contiguous.
//!
//! Variables are f32, f64, bf16 or f16. They are on the CPU or, with the feature `cuda`, all on one NVIDIA GPU. What is
//! wrong with a call is an error, after which nothing has changed.
//!
//! With koala-optim's feature `checkpoint`, [`Koala::optimizer`] saves a run on the CPU, and [`Koala::optimizer_mut`]
//! loads it where variables of the same names and shapes were added. The variables are saved with it or by candle.
//! [`Koala::of_map`] and [`Koala::add_variable`] give names. Of variables that were given to `new`, only the place in
//! the list is known, and the next run may have another order: [`VarMap::all_vars`](candle_nn::VarMap::all_vars) has a
//! new one each time. To save or load the state of such variables is an error.
//!
//! # On a GPU
//!
//! candle itself is built for CUDA by its own feature, `candle-core/cuda`, for which NVIDIA's toolkit has to be there.
//! The feature `cuda` of this crate needs nothing else. Both features are on cudarc 0.19, which then links the driver,
//! as candle wants it, and takes it for that of CUDA 12.8.
//!
//! - A step is put on the stream on which candle does everything with the device, by `koala_optim::cuda::Optimizer`:
//!   parameters and gradients stay where they are, and `backward_step` and `step` return before it has run. The host
//!   waits if other variables have gradients than in the step before, and if another thread takes the step.
//! - [`Koala::wait_for_report`] tells what a step has done. [`Koala::step_with`] waits for that too.
//! - `backward_step` has candle compute the mean of the losses, and that of their squares, on the device, in float64.
//!   Their last bits may differ from those on the CPU, as candle adds in another order. From the same loss and the same
//!   gradients come the same bits.
//! - The method is KOALA++, gradients are not clipped by their norm, and no policy makes an error of what a step meets.
//!   Adding a variable under another configuration is an error, and so is a step if the configuration has changed
//!   since.
//! - Groups, settings and learning rates are those of [`Koala::optimizer`], as on the CPU. The state is on the device,
//!   where `Koala::cuda_optimizer_mut` reads it, and is not saved.
//!
//! This is tested on a driver of our own, which runs the kernels on the CPU, and has not been run on a GPU yet.
//!
//! Tested with candle 0.11.1, which is the least version that this takes; it takes those before 0.12.

#![deny(unsafe_code)]

#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod cuda_memory;
mod given;
mod koala;
mod lending;
#[cfg(feature = "cuda")]
mod on_cuda;

use koala_optim::{Settings, StateType};

pub use given::measured;
pub use koala::Koala;

/// What a [`Koala`] is made with.
///
/// ```
/// use koala_candle::Config;
/// use koala_optim::{AdamW, Method, Settings};
/// let config = Config {
///     optimizer: koala_optim::Config { method: Method::AdamW(AdamW::default()), ..Default::default() },
///     settings: Settings { learning_rate: 1e-3, weight_decay: 0.01, ..Settings::default() },
///     ..Config::default()
/// };
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The method, and all that holds for every variable.
    pub optimizer: koala_optim::Config,
    /// The settings of the variables that are in no group of their own.
    pub settings: Settings,
    /// What the state is stored in.
    pub state: StateType,
}
