//! What steps the arrays and variables of others, each where its feature is on: thin layers over the
//! [`Optimizer`](crate::Optimizer), which know where another crate keeps its elements, and nothing of the algorithms.

#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(feature = "ndarray")]
pub mod ndarray;
