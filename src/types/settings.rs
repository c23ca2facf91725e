//! What a user sets: the filter's numbers, what to do when a step can't be taken, and the loss it is taken with.

use crate::types::contract::LEAST_FACTOR;
use crate::types::element::Element;
use crate::types::error::Error;
use crate::types::range::Range;

/// The settings of a group of tensors, whatever the method. Copy, change, and hand over; a step may use other ones than the step before.
///
/// ```
/// use koala_optim::Settings;
///
/// let settings = Settings { learning_rate: 0.5, weight_decay: 5e-4, ..Settings::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct Settings {
    /// η ≥ 0: the share of the Kalman step that is taken. Default 1, which is for the KOALA family: AdamW and SGD want far
    /// less.
    pub learning_rate: f64,
    /// wd ≥ 0, coupled: the loss of a tensor is L + ½·wd·θ·θ; but beside the gradient for AdamW. Default 0.
    pub weight_decay: f64,
    /// A frozen tensor is checked like any other and stays as it is. Default false.
    pub frozen: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { learning_rate: 1.0, weight_decay: 0.0, frozen: false }
    }
}

impl Settings {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// let settings = koala_optim::Settings { weight_decay: -1.0, ..Default::default() };
    /// assert_eq!(settings.validate().unwrap_err().to_string(), "the weight decay is -1, expected a finite number, at least 0");
    /// ```
    #[inline(always)]
    pub fn validate(&self) -> Result<(), Error> {
        let Settings { learning_rate, weight_decay, .. } = *self;
        let none_negative = learning_rate >= 0.0 && weight_decay >= 0.0;
        match none_negative && all_finite([learning_rate, weight_decay]) {
            true => Ok(()),
            false => self.validate_each(),
        }
    }

    #[cold]
    fn validate_each(&self) -> Result<(), Error> {
        Range::AT_LEAST_ZERO.check("learning rate", self.learning_rate)?;
        Range::AT_LEAST_ZERO.check("weight decay", self.weight_decay)
    }
}

/// Whether all of these are finite, with one comparison. A sum that overflows is taken for infinity, so a `false` may be
/// wrong: whoever gets it has to look at each.
#[inline(always)]
pub(crate) fn all_finite<const N: usize>(values: [f64; N]) -> bool {
    values.into_iter().sum::<f64>() * 0.0 == 0.0
}

/// What becomes of a gradient's elements as they are loaded, at no pass over memory: x = factor·g, and where there is a
/// limit, x = min(max(x, −limit), limit). The results are, bit by bit, those of a step with x for a gradient in the
/// arithmetic type.
///
/// ```
/// use koala_optim::Scaling;
/// let unscaled = Scaling { factor: 1.0 / 65536.0, ..Scaling::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// At least 10⁻³⁷, and finite in f32: what it is rounded to for all parameters but f64. Default 1. For mixed
    /// precision: one over the factor that the loss was scaled by.
    pub factor: f64,
    /// At least 10⁻³⁷: no element of the gradient is taken to be farther from zero. Default infinite, which is no limit.
    /// What is NaN or infinite before it counts as that, and so do elements whose square is; with a limit there is always
    /// a pass that looks, [`OnNonFinite::Unchecked`] or not.
    pub limit: f64,
}

impl Default for Scaling {
    fn default() -> Self {
        Scaling { factor: 1.0, limit: f64::INFINITY }
    }
}

impl Scaling {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// use koala_optim::Scaling;
    /// assert!(Scaling { factor: 0.0, ..Scaling::default() }.validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        let Scaling { factor, limit } = *self;
        let error = |setting, value, expected| Err(Error::Setting { setting, value, expected });
        match (factor >= LEAST_FACTOR && (factor as f32).is_finite(), limit >= LEAST_FACTOR) {
            (false, _) => error("gradient's factor", factor, "a number that is at least 1e-37, and finite in f32"),
            (true, false) => error("gradient's limit", limit, "a number that is at least 1e-37"),
            (true, true) => Ok(()),
        }
    }
}

/// What to do with a tensor whose gradient, loss or scalars are NaN or infinite, or whose new parameters or state
/// would be: see [`contract`](crate::contract), on overflow. It is not written, unless it is
/// [`Unchecked`](Self::Unchecked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum OnNonFinite {
    /// Leave that tensor as it is, step the others, and count it in the report.
    #[default]
    KeepTensor,
    /// Leave every tensor as it is, and the noise too, and count it in the report.
    KeepAll,
    /// Leave every tensor as it is, and return an error.
    Error,
    /// As [`KeepTensor`](Self::KeepTensor), where that costs no pass over the gradient. AdamW and SGD, which have no pass
    /// before the one that writes, do not look at it then, unless it is to be clipped by its norm or is
    /// [limited](Scaling::limit), which would hide what is infinite: what is not finite in it is written to its place in
    /// the parameters and the state, as by PyTorch, and the report says that the tensor stepped. So it is for AdamW where
    /// only the square of an element is infinite, which in f32 it is above 1.8·10¹⁹: the mean of squares is infinite from
    /// then on, and nothing but weight decay moves that parameter. Not to look saves reading the gradient twice: of f32, 4
    /// bytes of AdamW's 32 for each parameter. What is [reported](crate::Config::details) changes nothing of this.
    Unchecked,
}

/// What to do with a tensor whose innovation variance comes out as zero or less: the recursion of KOALA++ does not keep
/// the covariance positive definite. KOALA-V's and KOALA-M's is zero or less only without noise, or after numbers that are
/// no covariance; they have no filter of the tensor's own that could restart, and [`Restart`](Self::Restart) is
/// [`Skip`](Self::Skip) to them. AdamW and SGD have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum OnBreakdown {
    /// Restart its filter, as on a first step with this gradient, and count it in the report.
    #[default]
    Restart,
    /// Leave it as it is, and count it in the report.
    Skip,
    /// Leave every tensor as it is, and return an error.
    Error,
}

/// What to do when a tensor's step can't be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// NaN or infinity in the gradient, the loss or a scalar.
    pub non_finite: OnNonFinite,
    /// An innovation variance that is not positive.
    pub breakdown: OnBreakdown,
}

impl Policy {
    /// Whether one tensor's trouble can keep all tensors as they are, so that none may be written before all are
    /// known to be sound.
    ///
    /// ```
    /// assert!(!koala_optim::Policy::default().is_atomic());
    /// ```
    pub fn is_atomic(&self) -> bool {
        matches!(self.non_finite, OnNonFinite::KeepAll | OnNonFinite::Error) || self.breakdown == OnBreakdown::Error
    }
}

/// R, the variance of the measurement noise, shared by all tensors of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Noise {
    /// Always this, in squared units of the loss, at least 0.
    Fixed(f64),
    /// R ← decay·R + (1 − decay)·m before each step, m being the mean of the squared per-sample losses.
    Averaged {
        /// In [0, 1]; the paper has 0.9.
        decay: f64,
        /// R before the first step, at least 0; the paper has 1.
        initial: f64,
    },
}

impl Default for Noise {
    fn default() -> Self {
        Noise::Averaged { decay: 0.9, initial: 1.0 }
    }
}

impl Noise {
    /// Whether its numbers are in their ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// assert!(koala_optim::Noise::Fixed(-1.0).validate().is_err());
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        match *self {
            Noise::Fixed(noise) => Range::AT_LEAST_ZERO.check("measurement noise", noise),
            Noise::Averaged { decay, initial } => {
                Range::UP_TO_ONE.check("noise decay", decay)?;
                Range::AT_LEAST_ZERO.check("initial measurement noise", initial)
            }
        }
    }

    /// R before the first step.
    pub(crate) fn initial(&self) -> f64 {
        match *self {
            Noise::Fixed(noise) => noise,
            Noise::Averaged { initial, .. } => initial,
        }
    }

    /// R for the next step, from R of the one before and the loss.
    ///
    /// ```
    /// use koala_optim::{Loss, Noise};
    /// assert_eq!(Noise::Averaged { decay: 0.5, initial: 1.0 }.next(1.0, Loss::new(1.5, 3.0)), 2.0);
    /// ```
    pub fn next(&self, current: f64, loss: Loss) -> f64 {
        match *self {
            Noise::Fixed(noise) => noise,
            Noise::Averaged { decay, .. } => decay * current + (1.0 - decay) * loss.second_moment,
        }
    }
}

/// The measurement of one step: the minibatch's mean loss, and the mean of its squared per-sample losses.
///
/// ```
/// use koala_optim::Loss;
///
/// let loss = Loss::from_samples(&[1.0_f32, 3.0])?;
/// assert_eq!(loss, Loss::new(2.0, 5.0));
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// L, the mean.
    pub mean: f64,
    /// m, the mean of the squares; only [`Noise::Averaged`] reads it.
    pub second_moment: f64,
}

impl Loss {
    /// From a mean and a second moment. Any value will do here: a step says what it makes of NaN or infinity.
    ///
    /// ```
    /// assert_eq!(koala_optim::Loss::new(2.0, 5.0).mean, 2.0);
    /// ```
    pub const fn new(mean: f64, second_moment: f64) -> Self {
        Loss { mean, second_moment }
    }

    /// From the per-sample losses, in any type, averaged in float64 in their order.
    ///
    /// # Errors
    /// [`Error::NoSamples`] for an empty slice.
    ///
    /// ```
    /// assert!(koala_optim::Loss::from_samples::<f32>(&[]).is_err());
    /// ```
    pub fn from_samples<T: Element>(losses: &[T]) -> Result<Self, Error> {
        if losses.is_empty() {
            return Err(Error::NoSamples);
        }
        let (mut sum, mut squares) = (0.0, 0.0);
        for loss in losses {
            let loss = loss.to_f64();
            sum += loss;
            squares += loss * loss;
        }
        let count = losses.len() as f64;
        Ok(Loss { mean: sum / count, second_moment: squares / count })
    }

    pub(crate) fn is_finite(&self, noise: &Noise) -> bool {
        self.mean.is_finite() && (self.second_moment.is_finite() || matches!(noise, Noise::Fixed(_)))
    }
}
