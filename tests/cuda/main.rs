//! The CUDA backend without a GPU: its kernels compiled for this processor give the scalar backend's bits, and its host
//! side does what it says. Everything is compared with `==`. Needs g++; with `KOALA_WITHOUT_SHIM` set, nothing is tested
//! where there is none. With `KOALA_CUDA_DEVICE=0`, say, all that is not about the host's side alone runs on that GPU
//! instead, and its driver's own refusals are tested.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/compiled.rs"]
mod compiled;

mod bits;
mod driver;
mod graphs;
mod host;
mod machine;
mod model;
mod numbers;
mod scaling;
mod shim;
mod steps;
mod three;
