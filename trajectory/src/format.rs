//! The format `koala-trajectory-1`, as its JSON files have it.

use serde::Deserialize;

/// One recorded trajectory, with the settings `C` of its algorithm.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Trajectory<C = Settings> {
    /// `koala-trajectory-1`.
    pub format: String,
    /// What it is called.
    pub name: String,
    /// `koala++`, `koala-v` or `koala-m`.
    pub algorithm: String,
    /// The settings of all tensors.
    pub config: C,
    /// Where R comes from.
    pub noise: Noise,
    /// The length of each tensor.
    pub sizes: Vec<usize>,
    /// The parameters before the first step, by tensor.
    pub theta0: Vec<Vec<f64>>,
    /// What is done, and to what effect.
    pub steps: Vec<Step>,
}

impl<C> Trajectory<C> {
    /// The same with its settings as those of any algorithm.
    pub(crate) fn of_any(self, settings: impl FnOnce(C) -> Settings) -> Trajectory {
        let Trajectory { format, name, algorithm, config, noise, sizes, theta0, steps } = self;
        Trajectory { format, name, algorithm, config: settings(config), noise, sizes, theta0, steps }
    }
}

/// The settings of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// Of KOALA++.
    KoalaPlusPlus(KoalaPlusPlus),
    /// Of KOALA-V.
    KoalaV(KoalaV),
    /// Of KOALA-M.
    KoalaM(KoalaM),
}

/// The settings of KOALA++.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct KoalaPlusPlus {
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

/// The settings of KOALA-V.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct KoalaV {
    /// The initial variance.
    pub sigma: f64,
    /// The process noise.
    pub q: f64,
    /// The coupled weight decay.
    pub weight_decay: f64,
    /// The learning rate.
    pub lr: f64,
}

/// The settings of KOALA-M.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct KoalaM {
    /// The initial variance of a parameter.
    pub sw: f64,
    /// The initial covariance of a parameter and its velocity.
    pub sc: f64,
    /// The initial variance of a velocity.
    pub sv: f64,
    /// The decay of velocities.
    pub a: f64,
    /// The initial process noise of a parameter.
    pub qw: f64,
    /// The process noise of a velocity.
    pub qv: f64,
    /// The coupled weight decay.
    pub weight_decay: f64,
    /// The learning rate.
    pub lr: f64,
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
    /// v, by tensor: of KOALA++ only.
    #[serde(default)]
    pub v: Vec<Vec<f64>>,
    /// The innovation variance of each tensor: of KOALA++ only.
    #[serde(default)]
    pub s: Vec<f64>,
    /// R.
    pub r: f64,
}
