//! What steps the arrays and variables of others, each where its feature is on: thin layers over the
//! [`Optimizer`](crate::Optimizer), which know where another crate keeps its elements, and nothing of the algorithms.

#[cfg(feature = "burn")]
pub mod burn;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(feature = "ndarray")]
pub mod ndarray;

/// What an optimizer for a framework, a `Koala`, is made with.
///
/// ```
/// # #[cfg(feature = "candle")]
/// use koala_optim::candle::Config;
/// # #[cfg(not(feature = "candle"))]
/// # use koala_optim::burn::Config;
/// use koala_optim::{AdamW, Method, Settings};
/// let config = Config {
///     optimizer: koala_optim::Config { method: Method::AdamW(AdamW::default()), ..Default::default() },
///     settings: Settings { learning_rate: 1e-3, weight_decay: 0.01, ..Settings::default() },
///     ..Config::default()
/// };
/// ```
#[cfg(any(feature = "burn", feature = "candle"))]
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The method, and all that holds for every parameter.
    pub optimizer: crate::Config,
    /// The settings of the parameters that are in no group of their own.
    pub settings: crate::Settings,
    /// What the state is stored in.
    pub state: crate::StateType,
}
