//! An optimizer on a CUDA device.

pub(crate) mod create;
pub(crate) mod handle;
pub(crate) mod numbers;
pub(crate) mod reading;
pub(crate) mod step;
