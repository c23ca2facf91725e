//! The small vector trait that a backend implements, and what is built directly on it.

pub mod convert;
pub mod vector;
