//! The CUDA backend without a GPU: its kernels compiled for this processor give the scalar backend's bits, and its host
//! side does what it says. Everything is compared with `==`. Needs g++; without one, each test says that it is skipped.
//! With `KOALA_CUDA_DEVICE=0`, say, the bits are compared on that GPU instead, and its driver's own refusals are tested.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/compiled.rs"]
mod compiled;

mod bits;
mod driver;
mod host;
mod machine;
mod model;
mod shim;
