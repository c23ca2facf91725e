#![doc = include_str!("../README.md")]
//!
//! # How it steps
//!
//! The loss: a step of the KOALA family needs it, beside the gradient.
//! [`backward_step`](candle_nn::Optimizer::backward_step) takes it from the tensor that it differentiates: best the
//! losses of the samples, of whose mean the gradient then is. A loss of one element is taken for a single sample, so
//! the mean of the squares is its square, which is too small where it is the mean of several: KOALA++ then trusts it
//! more. Who calls `backward` by hand gives the loss to [`Koala::step_with`], or, for `step`, to [`Koala::set_loss`].
//!
//! Copies: none of parameters. While a step runs, their vectors are moved out of the variables, which are empty until
//! it ends: as always, nobody else may use the model meanwhile. A gradient is copied only if it is not contiguous.
//!
//! Variables are f32, f64, bf16 or f16, and on the CPU or, with the feature `cuda`, all on one NVIDIA GPU: see below.
//! What is wrong with a call is an error; then, nothing has changed.
//!
//! With koala-optim's feature `checkpoint`, a run on the CPU is saved by [`Koala::optimizer`], and loaded into the
//! [`Koala::optimizer_mut`] of one that was made with variables of the same names and shapes. The variables are saved
//! with it or by candle. Names are given by [`Koala::of_map`] or [`Koala::add_variable`]: of variables that were given
//! to `new`, only the place is known, and there the next run may have another one, as
//! [`VarMap::all_vars`](candle_nn::VarMap::all_vars) has them in a new order each time. To save or load their state is
//! an error.
//!
//! # On a GPU
//!
//! candle itself is built for CUDA by its own feature, `candle-core/cuda`, for which NVIDIA's toolkit has to be there. The
//! feature `cuda` of this crate needs nothing else. Both features are on cudarc 0.19, which then links the driver, as
//! candle wants it, and takes it for that of CUDA 12.8.
//!
//! - A step is put on the stream on which candle does everything with the device, by `koala_optim::cuda::Optimizer`:
//!   parameters and gradients stay where they are, and `backward_step` and `step` return before it has run. The host
//!   waits where other variables have gradients than in the step before, and where another thread steps than did
//!   before.
//! - What a step has done is told by [`Koala::wait_for_report`]; [`Koala::step_with`] waits for it too.
//! - `backward_step` has candle compute the mean of the losses, and that of their squares, on the device, in float64.
//!   Their last bits may differ from those on the CPU, as candle adds in another order; of the same loss and the same
//!   gradients, the results have the same bits.
//! - It is KOALA++ only, gradients are not clipped by their norm, and no policy makes an error of what a step meets.
//!   Another configuration is an error where a variable is added or, if it has changed since, where it steps.
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
