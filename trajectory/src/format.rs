//! The format `koala-trajectory-1`, as its JSON files have it.

use serde::Deserialize;

/// One recorded trajectory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Trajectory {
    /// `koala-trajectory-1`.
    pub format: String,
    /// What it is called.
    pub name: String,
    /// `koala++`; others exist, which this version does not run.
    pub algorithm: String,
    /// The settings of all tensors.
    pub config: Settings,
    /// Where R comes from.
    pub noise: Noise,
    /// The length of each tensor.
    pub sizes: Vec<usize>,
    /// The parameters before the first step, by tensor.
    pub theta0: Vec<Vec<f64>>,
    /// What is done, and to what effect.
    pub steps: Vec<Step>,
}

/// The settings of the filters.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Settings {
    /// The initial variance.
    pub sigma: f64,
    /// The process noise.
    pub q: f64,
    /// The coupled weight decay.
    pub weight_decay: f64,
    /// The learning rate.
    pub lr: f64,
    /// The symmetric variant, or the vanilla one.
    pub symmetric: bool,
}

/// The measurement noise R.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// Always this.
    Fixed(f64),
    /// An exponential moving average of the second moment of the loss.
    Ema {
        /// What it keeps in a step.
        alpha: f64,
        /// What it starts from.
        init: f64,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Step {
    /// The mean loss.
    pub loss: f64,
    /// The mean of the squared per-sample losses.
    pub loss_second_moment: f64,
    /// The gradient of each tensor.
    pub grads: Vec<Vec<f64>>,
    /// What is to come out; recorded for some of the steps only.
    pub expect: Option<Expected>,
}

/// The values after a step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Expected {
    /// The parameters, by tensor.
    pub theta: Vec<Vec<f64>>,
    /// v, by tensor.
    pub v: Vec<Vec<f64>>,
    /// The innovation variance of each tensor.
    pub s: Vec<f64>,
    /// R.
    pub r: f64,
}
