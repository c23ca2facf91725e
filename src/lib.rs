//! The optimizer step of KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432): fast to the limit of the
//! memory, the same bits on every machine.
//!
//! KOALA++ trains neural networks with a Kalman filter that carries v, the product of the gradient and the parameters'
//! covariance, instead of a covariance matrix: O(n) time and memory, no inversion.
//!
//! ```
//! use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType, Tensor};
//!
//! let mut optimizer = Optimizer::new(Config::default())?;
//! let group = optimizer.add_group(Settings::default())?;
//! optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
//! let (mut weight, gradient) = ([1.0_f32, -2.0, 3.0], [0.1_f32, 0.2, -0.3]);
//! optimizer.step(Loss::from_samples(&[0.5_f32, 0.9])?, &mut [Tensor::new("weight", &mut weight, &gradient)])?;
//! # assert!(weight[0] < 1.0);
//! # Ok::<(), koala_optim::Error>(())
//! ```
//!
//! Three levels, each thin over the one below it:
//!
//! 1. [`kernel`]: slices in, slices out, the state in the caller's hands;
//! 2. [`TensorState`]: the filter of one tensor;
//! 3. [`Optimizer`]: named tensors in groups, noise, reports, threads.
//!
//! KOALA++ is one [`Method`] of several on the same kernels: its predecessors KOALA-V and KOALA-M, AdamW, and SGD.
//! Gradients may be scaled and clipped as they are loaded ([`Scaling`], [`Config::clip_norm`]), and [`schedule`] has
//! learning rates.
//!
//! What makes the bits the same everywhere is written in [`contract`]. Nothing here panics on bad input, prints, or
//! starts a thread that was not asked for.

#![deny(unsafe_code)]

#[cfg(feature = "checkpoint")]
pub mod checkpoint;
pub mod contract;
pub mod kernel;
pub mod recursion;
pub mod schedule;

mod adapters;
mod any_buffers;
mod backend;
#[allow(unsafe_code)]
#[path = "../backends/mod.rs"]
mod backends;
mod batches;
mod clipping;
mod convert;
mod dots;
mod element;
mod error;
mod exchange;
mod lending;
mod methods;
mod optimizer;
mod pass_1;
mod passes;
#[cfg(feature = "rayon")]
mod pool;
mod reach;
mod report;
mod rows;
mod settings;
mod staging;
mod storage;
mod tasks;
mod tensor_state;
mod tensors;
mod threads;
mod update;
mod vector;
mod walk;

/// The README's code, so that the tests run it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(feature = "burn")]
pub use adapters::burn;
#[cfg(feature = "candle")]
pub use adapters::candle;
#[cfg(feature = "ndarray")]
pub use adapters::ndarray;
pub use backend::{Backend, BackendStatus, ENVIRONMENT_VARIABLE};
#[cfg(feature = "cuda")]
pub use backends::cuda;
pub use element::{Element, ElementType, Real};
pub use error::Error;
pub use exchange::Gradient;
pub use half::{bf16, f16};
pub use kernel::{HalfCopy, Outcome, Scalars, TensorReport};
pub use methods::{AdamW, KoalaM, KoalaV, Method, Sgd};
pub use optimizer::{GroupId, Optimizer};
pub use report::{Config, Report};
pub use settings::{Loss, Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings, Variant};
pub use tensor_state::{StateType, TensorState};
pub use tensors::Tensor;
pub use threads::Threads;
