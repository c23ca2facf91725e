//! What an optimizer is made with.

use crate::dispatch::Backend;
use crate::methods::Method;
use crate::types::error::Error;
use crate::types::range::Range;
use crate::types::settings::{Noise, Policy, Scaling};
use crate::types::threads::Threads;

/// What an optimizer is made with.
///
/// ```
/// use koala_optim::{Config, Noise, Threads};
/// let config = Config { noise: Noise::Fixed(1.0), threads: Threads::One, ..Config::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Which optimizer steps. Default: KOALA++.
    pub method: Method,
    /// R. Default: averaged with a decay of 0.9 from 1.
    pub noise: Noise,
    /// What to do when a tensor's step can't be taken.
    pub policy: Policy,
    /// What becomes of gradients as they are loaded. Default: nothing.
    pub scaling: Scaling,
    /// Above 0: the Euclidean norm of all gradients of a step together, scaled, above which they are shrunk to that norm.
    /// Pass 1 then goes over all tensors before any is written. Where it is not reached, no bit of finite gradients' results
    /// depends on it. Default: no limit.
    pub clip_norm: Option<f64>,
    /// Where steps run. Default: the fastest.
    pub backend: Backend,
    /// Default: the calling thread only.
    pub threads: Threads,
    /// Whether to keep each tensor's report, with its norms, for [`Optimizer::details`](crate::Optimizer::details). The
    /// norms may cost a pass more over gradient and parameters; what is written does not depend on it. Default: no.
    pub details: bool,
}

impl Config {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// use koala_optim::Config;
    /// assert!(Config { clip_norm: Some(0.0), ..Config::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        self.method.validate()?;
        self.noise.validate()?;
        self.scaling.validate()?;
        self.clip_norm.map_or(Ok(()), |norm| Range::ABOVE_ZERO.check("norm to clip by", norm))
    }
}
