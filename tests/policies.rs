//! What a step does when it can't be taken: skip, freeze, NaN and infinity, breakdown; and what it reports.

mod common;

use common::{backends, scalar_bits};
use koala_optim::kernel::{Buffers, Measurement, Outcome, Scalars, Step, step};
use koala_optim::{
    Config, ElementType, Error, GroupId, KoalaPlusPlus, Loss, Noise, OnBreakdown, OnNonFinite, Optimizer, Policy,
    Report, Settings, StateType, Tensor,
};

const NAMES: [&str; 3] = ["first", "second", "third"];
const N: usize = 40;

/// Three tensors with a gradient each, and everything that a step could change.
struct Model {
    optimizer: Optimizer,
    group: GroupId,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    parameters: Vec<Vec<u32>>,
    states: Vec<([Vec<u8>; 2], [u64; 4])>,
    noise: u64,
}

impl Model {
    fn new(policy: Policy, noise: Noise) -> Self {
        let mut optimizer = Optimizer::new(Config { policy, noise, details: true, ..Config::default() }).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        for name in NAMES {
            optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group).unwrap();
        }
        let vector = |seed| common::offset_vector(&common::random_vector(seed, N, 1.0), 0);
        Model { optimizer, group, parameters: (0..3).map(vector).collect(), gradients: (3..6).map(vector).collect() }
    }

    fn step(&mut self, loss: Loss) -> Result<Report, Error> {
        let tensors = NAMES.iter().zip(&mut self.parameters).zip(&self.gradients);
        let mut tensors: Vec<Tensor> =
            tensors.map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient)).collect();
        self.optimizer.step(loss, &mut tensors)
    }

    fn snapshot(&self) -> Snapshot {
        let state = |name: &&str| {
            let state = self.optimizer.state(name).unwrap();
            (state.bytes().map(<[u8]>::to_vec), scalar_bits(&state.scalars()))
        };
        Snapshot {
            parameters: self.parameters.iter().map(|tensor| tensor.iter().map(|x| x.to_bits()).collect()).collect(),
            states: NAMES.iter().map(state).collect(),
            noise: self.optimizer.noise().to_bits(),
        }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.optimizer.details().iter().map(|report| report.outcome).collect()
    }
}

fn policy(non_finite: OnNonFinite, breakdown: OnBreakdown) -> Policy {
    Policy { non_finite, breakdown }
}

const LOSS: Loss = Loss::new(0.8, 0.9);

#[test]
fn a_tiny_gradient_is_skipped_whatever_the_weight_decay() {
    let mut model = Model::new(Policy::default(), Noise::default());
    assert_eq!(model.step(LOSS).unwrap().first_steps, 3);
    let before = model.snapshot();
    model.gradients[1] = vec![1e-12; N];
    let report = model.step(LOSS).unwrap();
    let after = model.snapshot();
    assert_eq!((report.stepped, report.skipped), (2, 1));
    assert_eq!(model.outcomes(), [Outcome::Stepped, Outcome::Skipped, Outcome::Stepped]);
    assert_eq!((&after.parameters[1], &after.states[1]), (&before.parameters[1], &before.states[1]));
    assert_ne!(after.parameters[0], before.parameters[0]);
    // Just above the bound it steps: 40 elements of 1.6e-10 have a norm of 1.01e-9.
    model.gradients[1] = vec![1.6e-10; N];
    assert_eq!(model.step(LOSS).unwrap().skipped, 0);
    model.gradients[1] = vec![1.5e-10; N];
    assert_eq!(model.step(LOSS).unwrap().skipped, 1);
}

#[test]
fn a_gradient_that_cancels_the_weight_decay_leaves_nothing_to_learn() {
    for backend in backends() {
        let (mut parameters, gradient) = ([1.0f64; N], [-0.5f64; N]);
        let (mut v, mut h, mut scalars) = ([0.25f64; N], [0.5f64; N], Scalars::default());
        scalars.steps = 3;
        let settings = Settings { weight_decay: 0.5, ..Settings::default() };
        let step_of = Step { backend, settings, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        let buffers = Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy: None };
        assert_eq!(step(&step_of, buffers, &mut scalars).unwrap().outcome, Outcome::Skipped);
        assert_eq!((parameters, v, h, scalars.steps), ([1.0; N], [0.25; N], [0.5; N], 3));
    }
}

#[test]
fn frozen_tensors_stay() {
    let mut model = Model::new(Policy::default(), Noise::default());
    let before = model.snapshot();
    let settings = model.optimizer.settings(model.group).unwrap();
    model.optimizer.set_settings(model.group, Settings { frozen: true, ..settings }).unwrap();
    let report = model.step(LOSS).unwrap();
    assert_eq!((report.frozen, report.stepped, report.step), (3, 0, 1));
    assert_eq!(model.snapshot().parameters, before.parameters);
    assert_eq!(model.snapshot().states, before.states);
}

#[test]
fn a_non_finite_gradient_keeps_its_tensor() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut model = Model::new(Policy::default(), Noise::default());
        model.step(LOSS).unwrap();
        let before = model.snapshot();
        model.gradients[2][N - 1] = value;
        let report = model.step(LOSS).unwrap();
        let after = model.snapshot();
        assert_eq!((report.stepped, report.non_finite, report.step), (2, 1, 2));
        assert_eq!((&after.parameters[2], &after.states[2]), (&before.parameters[2], &before.states[2]));
        assert_ne!(after.parameters[1], before.parameters[1]);
    }
}

#[test]
fn a_non_finite_gradient_can_keep_all_tensors() {
    let mut model = Model::new(policy(OnNonFinite::KeepAll, OnBreakdown::Restart), Noise::default());
    model.step(LOSS).unwrap();
    let before = model.snapshot();
    model.gradients[1][7] = f32::NAN;
    let report = model.step(LOSS).unwrap();
    assert_eq!((report.stepped, report.non_finite, report.withheld, report.step), (0, 1, 2, 1));
    assert_eq!(model.outcomes(), [Outcome::Withheld, Outcome::NonFinite, Outcome::Withheld]);
    assert_eq!(model.snapshot(), before);
    model.gradients[1][7] = 0.1;
    assert_eq!(model.step(LOSS).unwrap().stepped, 3);
}

#[test]
fn a_non_finite_gradient_can_be_an_error() {
    let mut model = Model::new(policy(OnNonFinite::Error, OnBreakdown::Restart), Noise::default());
    model.step(LOSS).unwrap();
    let before = model.snapshot();
    model.gradients[1][7] = f32::INFINITY;
    let error = model.step(LOSS).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"second\": an element of the gradient is not finite: inf");
    assert_eq!(model.snapshot(), before);
    model.gradients[1][7] = 1e30;
    assert_eq!(model.step(LOSS).unwrap_err().to_string(), "tensor \"second\": H·H is not finite: inf");
    model.gradients[1][7] = 0.0;
    model.parameters[0][3] = f32::INFINITY;
    let error = model.step(LOSS).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"first\": an element of the parameters is not finite: inf");
}

#[test]
fn a_non_finite_loss_keeps_all() {
    for loss in [Loss::new(f64::NAN, 1.0), Loss::new(f64::INFINITY, 1.0), Loss::new(1.0, f64::INFINITY)] {
        for on_non_finite in [OnNonFinite::KeepTensor, OnNonFinite::KeepAll] {
            let mut model = Model::new(policy(on_non_finite, OnBreakdown::Restart), Noise::default());
            model.step(LOSS).unwrap();
            let before = model.snapshot();
            let report = model.step(loss).unwrap();
            assert_eq!((report.stepped, report.non_finite, report.step), (0, 3, 1));
            assert_eq!(model.snapshot(), before);
        }
        let mut model = Model::new(policy(OnNonFinite::Error, OnBreakdown::Restart), Noise::default());
        let before = model.snapshot();
        assert!(matches!(model.step(loss), Err(Error::NonFiniteLoss { .. })));
        assert_eq!(model.snapshot(), before);
    }
    // With fixed noise the second moment is not read.
    let mut model = Model::new(Policy::default(), Noise::Fixed(1.0));
    assert_eq!(model.step(Loss::new(1.0, f64::NAN)).unwrap().stepped, 3);
}

/// A state that the kernel is given, for which s' < 0 follows from the equations: v against h.
fn broken_step(on_breakdown: OnBreakdown) -> (Result<Outcome, Error>, [f64; 4], [f64; 4], Scalars) {
    let mut parameters = [1.0f64, 1.0, 1.0, 1.0];
    let (mut v, mut h) = ([-5.0f64, 0.0, 0.0, 0.0], [1.0f64, 0.0, 0.0, 0.0]);
    let mut scalars = Scalars { h_h: 1.0, h_v: -5.0, innovation_variance: 1.0, steps: 4 };
    let method = KoalaPlusPlus { process_noise: 0.0, ..KoalaPlusPlus::default() }.into();
    let policy = policy(OnNonFinite::KeepTensor, on_breakdown);
    let step_of = Step { method, policy, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
    let gradient = [1.0, 0.0, 0.0, 0.0];
    let buffers = Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy: None };
    let outcome = step(&step_of, buffers, &mut scalars).map(|report| report.outcome);
    (outcome, parameters, v, scalars)
}

#[test]
fn a_breakdown_restarts_skips_or_is_an_error() {
    let untouched = Scalars { h_h: 1.0, h_v: -5.0, innovation_variance: 1.0, steps: 4 };
    let (outcome, parameters, v, scalars) = broken_step(OnBreakdown::Skip);
    assert_eq!((outcome, parameters, v), (Ok(Outcome::Breakdown), [1.0; 4], [-5.0, 0.0, 0.0, 0.0]));
    assert_eq!(scalars, untouched);

    let (outcome, parameters, v, scalars) = broken_step(OnBreakdown::Error);
    let Err(error) = outcome else { panic!("an error was asked for") };
    // α = 1, λ = b = −5, w = 0: S = (1 + 5)·(−5) + R = −29.
    assert_eq!(error, Error::Breakdown { tensor: String::new(), innovation_variance: -29.0 });
    assert_eq!((parameters, v, scalars), ([1.0; 4], [-5.0, 0.0, 0.0, 0.0], untouched));

    let (outcome, parameters, v, scalars) = broken_step(OnBreakdown::Restart);
    assert_eq!(outcome, Ok(Outcome::Restarted));
    // As on a first step: x = 1, y = σ = 0.1, s = 1.1, λ = 0.1/1.1, v' = (1 − λ)·σ.
    let expected = (1.0 - 0.1 / 1.1) * 0.1;
    assert!((v[0] - expected).abs() < 1e-15);
    assert!((parameters[0] - (1.0 - expected / (expected + 1.0))).abs() < 1e-15);
    assert_eq!(scalars.steps, 5);
}

#[test]
fn the_first_step_reads_neither_v_nor_h() {
    for backend in backends() {
        let mut results = Vec::new();
        for garbage in [0.0f32, f32::NAN] {
            let (mut parameters, gradient) = ([1.0f32; N], [0.5f32; N]);
            let (mut v, mut h, mut scalars) = ([garbage; N], [garbage; N], Scalars::default());
            let step_of = Step { backend, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
            let buffers =
                Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy: None };
            assert_eq!(step(&step_of, buffers, &mut scalars).unwrap().outcome, Outcome::FirstStep);
            results.push((parameters, v, h, scalars));
        }
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn the_noise_is_averaged_before_the_step() {
    let mut model = Model::new(Policy::default(), Noise::Averaged { decay: 0.9, initial: 1.0 });
    let report = model.step(Loss::new(1.0, 3.0)).unwrap();
    assert_eq!(report.noise, 0.9 * 1.0 + (1.0 - 0.9) * 3.0);
    let report = model.step(Loss::new(1.0, 0.5)).unwrap();
    assert_eq!(report.noise, 0.9 * (0.9 * 1.0 + (1.0 - 0.9) * 3.0) + (1.0 - 0.9) * 0.5);
    let mut model = Model::new(Policy::default(), Noise::Fixed(0.25));
    assert_eq!(model.step(Loss::new(1.0, 3.0)).unwrap().noise, 0.25);
}

#[test]
fn details_have_the_scalars_and_the_norms() {
    let mut model = Model::new(Policy::default(), Noise::Fixed(1.0));
    model.step(LOSS).unwrap();
    let norm = |tensor: &[f32]| tensor.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    let expected: Vec<f64> = model.parameters.iter().map(|tensor| norm(tensor)).collect();
    model.step(LOSS).unwrap();
    for (i, details) in model.optimizer.details().iter().enumerate() {
        let norms = details.norms.unwrap();
        assert!((norms.parameters / expected[i] - 1.0).abs() < 1e-6);
        assert!((norms.gradient / norm(&model.gradients[i]) - 1.0).abs() < 1e-6);
        assert!(norms.measurement > 0.0 && details.innovation_variance > 1.0 && details.lambda > 0.0);
        assert!((details.alpha - 1.0).abs() < 0.1);
    }
}

#[test]
fn a_restarted_tensor_steps_as_for_the_first_time() {
    let mut model = Model::new(Policy::default(), Noise::Fixed(1.0));
    model.step(LOSS).unwrap();
    model.optimizer.restart("second").unwrap();
    let report = model.step(LOSS).unwrap();
    assert_eq!((report.first_steps, report.stepped), (1, 3));
}
