//! What every layer speaks of: number types, settings, errors, memory and threads.

pub mod contract;
pub mod element;
pub mod error;
#[cfg(feature = "rayon")]
pub mod pool;
pub mod range;
pub mod settings;
pub mod storage;
pub mod threads;
