//! Level 3: an optimizer behind a pointer.

pub(crate) mod apart;
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod groups;
pub(crate) mod handle;
pub(crate) mod names;
pub(crate) mod shared;
pub(crate) mod step;
pub(crate) mod tensors;
