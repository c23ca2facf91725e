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

mod types;

#[allow(unsafe_code)]
#[path = "../backends/mod.rs"]
mod backends;
mod dispatch;
mod simd;

mod methods;
mod passes;
mod step;

#[cfg(feature = "checkpoint")]
pub mod checkpoint;
pub mod kernel;
mod optimizer;

#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
#[path = "../backends/cuda/mod.rs"]
pub mod cuda;

/// The README's code, so that the tests run it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use dispatch::{Backend, BackendStatus, ENVIRONMENT_VARIABLE};
pub use half::{bf16, f16};
pub use kernel::{HalfCopy, Outcome, Scalars, TensorReport};
pub use methods::number::Number;
pub use methods::{AdamW, KoalaM, KoalaPlusPlus, KoalaV, Method, Sgd, Variant};
pub use optimizer::Optimizer;
pub use optimizer::config::Config;
pub use optimizer::registry::GroupId;
pub use optimizer::report::Report;
pub use optimizer::schedule;
pub use optimizer::state::{StateType, TensorState};
pub use optimizer::tensor::Tensor;
pub use types::contract;
pub use types::element::{Element, ElementType};
pub use types::error::Error;
pub use types::range::Range;
pub use types::settings::{Loss, Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings};
pub use types::storage::Gradient;
pub use types::threads::Threads;
