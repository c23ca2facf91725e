//! Runs a trajectory on a backend, in a precision, and measures how far the results are from those recorded.

use koala_optim::{
    Backend, Config, Element, ElementType, Error, KoalaM, KoalaPlusPlus, KoalaV, Loss, Method, Noise, Optimizer,
    Settings, StateType, Tensor, Threads, Variant, bf16, f16,
};

use crate::format::{self, Expected, Trajectory};

/// What parameters, gradients and state are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// All in f64.
    F64,
    /// All in f32.
    F32,
    /// Parameters and gradients in f32, v and h in bf16.
    F32WithBf16State,
    /// All in bf16.
    Bf16,
    /// All in f16.
    F16,
}

/// How far a run strayed: for each quantity the largest difference in any step, relative to the quantity's largest
/// entry in that step. Infinite where a result is NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Of the parameters.
    pub theta: f64,
    /// Of v.
    pub v: f64,
    /// Of the innovation variances.
    pub s: f64,
    /// Of R.
    pub r: f64,
}

/// The outcome of a run. Two runs are equal if they agree to the last bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The distance from what was recorded.
    pub errors: Errors,
    /// The final bits: R; then of each tensor its parameters, v, h, and scalars.
    pub bits: Vec<u64>,
}

impl Precision {
    /// All of them, the finest first.
    pub const ALL: [Precision; 5] =
        [Precision::F64, Precision::F32, Precision::F32WithBf16State, Precision::Bf16, Precision::F16];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F64 => "f64",
            Precision::F32 => "f32",
            Precision::F32WithBf16State => "f32, state in bf16",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// The largest error that is in order. Half precision has none: what it does to a trajectory depends on that.
    pub fn tolerance(self) -> Option<f64> {
        match self {
            Precision::F64 => Some(1e-12),
            Precision::F32 => Some(1e-5),
            Precision::F32WithBf16State | Precision::Bf16 | Precision::F16 => None,
        }
    }
}

impl Errors {
    /// The largest of the four.
    pub fn largest(&self) -> f64 {
        self.theta.max(self.v).max(self.s).max(self.r)
    }

    /// The larger of each.
    pub fn max(self, other: Errors) -> Errors {
        Errors {
            theta: self.theta.max(other.theta),
            v: self.v.max(other.v),
            s: self.s.max(other.s),
            r: self.r.max(other.r),
        }
    }
}

/// Runs a trajectory from its start to its end.
///
/// # Errors
/// What the optimizer says about settings out of range, or about threads that can't be had.
pub fn run(trajectory: &Trajectory, backend: Backend, precision: Precision, threads: Threads) -> Result<Run, Error> {
    let method = method(&trajectory.config);
    let config = Config { method, backend, threads, noise: noise(trajectory.noise), ..Config::default() };
    match precision {
        Precision::F64 => run_in::<f64>(trajectory, config, StateType::Same),
        Precision::F32 => run_in::<f32>(trajectory, config, StateType::Same),
        Precision::F32WithBf16State => run_in::<f32>(trajectory, config, StateType::Bf16),
        Precision::Bf16 => run_in::<bf16>(trajectory, config, StateType::Same),
        Precision::F16 => run_in::<f16>(trajectory, config, StateType::Same),
    }
}

fn run_in<E: Element>(trajectory: &Trajectory, config: Config, state: StateType) -> Result<Run, Error> {
    let mut optimizer = Optimizer::new(config)?;
    let group = optimizer.add_group(settings(&trajectory.config))?;
    let names: Vec<String> = (0..trajectory.sizes.len()).map(|i| format!("tensor {i}")).collect();
    for (name, &size) in names.iter().zip(&trajectory.sizes) {
        let element: ElementType = E::TYPE;
        optimizer.add_tensor(name, size, element, state, group)?;
    }
    let mut theta = round::<E>(&trajectory.theta0);
    let mut errors = Errors::default();
    for step in &trajectory.steps {
        let gradients = round::<E>(&step.grads);
        let mut tensors: Vec<Tensor> = names
            .iter()
            .zip(theta.iter_mut().zip(&gradients))
            .map(|(name, (parameters, gradient))| Tensor::new(name, parameters, gradient))
            .collect();
        optimizer.predict(&mut tensors)?;
        optimizer.step(Loss::new(step.loss, step.loss_second_moment), &mut tensors)?;
        if let Some(expected) = &step.expect {
            errors = errors.max(compare(&optimizer, &names, &theta, expected));
        }
    }

    let mut bits = vec![optimizer.noise().to_bits()];
    for (state, theta) in names.iter().filter_map(|name| optimizer.state(name)).zip(&theta) {
        let scalars = state.scalars();
        let widened = theta.iter().map(|entry| entry.to_f64()).chain(state.v()).chain(state.h());
        let numbers = widened.chain([scalars.h_h, scalars.h_v, scalars.innovation_variance]);
        bits.extend(numbers.map(f64::to_bits).chain([scalars.steps]));
    }
    Ok(Run { errors, bits })
}

fn compare<E: Element>(optimizer: &Optimizer, names: &[String], theta: &[Vec<E>], expected: &Expected) -> Errors {
    let states = || names.iter().filter_map(|name| optimizer.state(name));
    Errors {
        theta: relative(theta.iter().flatten().map(|entry| entry.to_f64()), expected.theta.iter().flatten()),
        v: relative(states().flat_map(|state| state.v()), expected.v.iter().flatten()),
        s: relative(states().map(|state| state.scalars().innovation_variance), &expected.s),
        r: relative([optimizer.noise()], &[expected.r]),
    }
}

/// The largest difference, relative to the largest entry.
fn relative<'a>(found: impl IntoIterator<Item = f64>, expected: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (mut difference, mut largest) = (0.0_f64, 0.0_f64);
    for (found, expected) in found.into_iter().zip(expected) {
        largest = largest.max(expected.abs());
        // `max` would pass over a NaN.
        let here = (found - expected).abs();
        difference = if here.is_nan() { f64::INFINITY } else { difference.max(here) };
    }
    if difference == 0.0 { 0.0 } else { difference / largest }
}

fn round<E: Element>(tensors: &[Vec<f64>]) -> Vec<Vec<E>> {
    tensors.iter().map(|tensor| tensor.iter().copied().map(E::rounded).collect()).collect()
}

fn settings(config: &format::Settings) -> Settings {
    match *config {
        format::Settings::KoalaPlusPlus(format::KoalaPlusPlus { lr, weight_decay, .. })
        | format::Settings::KoalaV(format::KoalaV { lr, weight_decay, .. })
        | format::Settings::KoalaM(format::KoalaM { lr, weight_decay, .. }) => {
            Settings { learning_rate: lr, weight_decay, ..Settings::default() }
        }
    }
}

fn method(config: &format::Settings) -> Method {
    match *config {
        format::Settings::KoalaPlusPlus(config) => Method::KoalaPlusPlus(KoalaPlusPlus {
            initial_variance: config.sigma,
            process_noise: config.q,
            variant: if config.symmetric { Variant::Symmetric } else { Variant::Vanilla },
            ..KoalaPlusPlus::default()
        }),
        format::Settings::KoalaV(config) => Method::KoalaV(KoalaV { variance: config.sigma, process_noise: config.q }),
        format::Settings::KoalaM(config) => Method::KoalaM(KoalaM {
            variance: config.sw,
            covariance: config.sc,
            velocity_variance: config.sv,
            velocity_decay: config.a,
            process_noise: config.qw,
            velocity_noise: config.qv,
        }),
    }
}

fn noise(noise: format::Noise) -> Noise {
    match noise {
        format::Noise::Fixed(value) => Noise::Fixed(value),
        format::Noise::Ema { alpha, init } => Noise::Averaged { decay: alpha, initial: init },
    }
}
