//! KOALA-V, KOALA-M, AdamW and SGD: the contract, and PyTorch's results, to rounding. (The trajectories of KOALA-V and KOALA-M are
//! checked by the crate `koala-trajectory`.)

mod common;
#[path = "common/grid.rs"]
mod grid;

use common::methods::{METHODS, NAMES, expected, found};
use common::{Case, TYPES, backends, random_vector};
use koala_optim::kernel::{Measurement, Step};
use koala_optim::{
    AdamW, Backend, Config, ElementType, Error, GroupId, KoalaM, KoalaV, Loss, Method, OnNonFinite, Optimizer, Policy,
    Report, Scaling, Settings, Sgd, StateType, Tensor, TensorState,
};

/// Of every method; above 2¹⁴ of every other one, by turns, so that each meets every length with two pairs of types.
fn agrees(case: &Case) {
    let turn = TYPES.iter().position(|types| *types == (case.parameters, case.state)).unwrap_or_default() / 3;
    let taken = |place: &usize| case.length <= (1 << 14) + 1 || (place + turn).is_multiple_of(2);
    for method in (0..METHODS.len()).filter(taken).map(|place| METHODS[place]) {
        let expected = expected(case, method, Scaling::default());
        for backend in backends() {
            let found = found(case, method, Scaling::default(), backend);
            let differs = found.difference(&expected);
            assert!(differs.is_none(), "{} {method:?} in {case:?}: {}", backend.name(), differs.unwrap_or_default());
        }
    }
}

#[test]
fn every_length_to_200_in_every_type() {
    grid::every_length_to_200_in_every_type(agrees);
}

#[test]
fn around_every_power_of_two() {
    grid::around_every_power_of_two(agrees);
}

#[test]
fn every_alignment() {
    grid::every_alignment(agrees);
}

#[test]
fn every_number_of_threads() {
    let model = grid::Model::for_threads();
    for method in METHODS {
        for (clip_norm, state) in [(None, StateType::Same), (Some(0.5), StateType::Bf16)] {
            let config = Config { method, clip_norm, ..Config::default() };
            let (_, reports, _) = model.agrees_with_any_threads(&config, state);
            assert_eq!(reports[2].gradient_norm.is_some_and(|norm| norm > 0.5), clip_norm.is_some());
        }
    }
}

const RECORDED: &str = include_str!("data/methods.txt");

fn hashes(backend: Backend) -> String {
    let of_method = |(name, method): (&str, Method)| {
        grid::hashes(&format!("{name} "), |case| found(case, method, Scaling::default(), backend))
    };
    NAMES.into_iter().zip(METHODS).map(of_method).collect()
}

/// The hashes that any machine, of any architecture, must reproduce.
#[test]
fn recorded_hashes() {
    for backend in backends() {
        grid::agrees_with_recorded(RECORDED, &hashes(backend), backend);
    }
}

/// Writes the recorded hashes: `cargo test --test methods -- --ignored record`. They change only if the contract does.
#[test]
#[ignore = "writes tests/data/methods.txt"]
fn record() {
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/methods.txt"), hashes(Backend::scalar())).unwrap();
}

/// Parameters, state and the shared numbers, to be compared with `==`.
type Outcome = (Vec<Vec<u32>>, Vec<[Vec<f64>; 2]>, Method);

/// A model, its first parameters and gradients from a formula.
struct Model {
    optimizer: Optimizer,
    groups: [GroupId; 2],
    names: Vec<String>,
    parameters: Vec<Vec<f32>>,
}

impl Model {
    fn new(config: Config, sizes: &[usize]) -> Model {
        let mut optimizer = Optimizer::new(config).unwrap();
        let settings = Settings { learning_rate: 0.05, weight_decay: 0.01, ..Settings::default() };
        let groups = [settings, Settings { weight_decay: 0.0, ..settings }].map(|s| optimizer.add_group(s).unwrap());
        let names: Vec<String> = (0..sizes.len()).map(|i| format!("tensor {i}")).collect();
        let mut parameters = Vec::new();
        for (i, (name, size)) in names.iter().zip(sizes).enumerate() {
            optimizer.add_tensor(name, *size, ElementType::F32, StateType::Same, groups[i % 2]).unwrap();
            parameters.push(common::offset_vector(&random_vector(i as u64, *size, 1.0), 0));
        }
        Model { optimizer, groups, names, parameters }
    }

    fn gradients(&self, step: u64) -> Vec<Vec<f32>> {
        let gradient = |(i, p): (usize, &Vec<f32>)| random_vector(100 * (step + 1) + i as u64, p.len(), 0.1);
        self.parameters.iter().enumerate().map(gradient).map(|g| common::offset_vector(&g, 0)).collect()
    }

    fn step(&mut self, gradients: &[Vec<f32>]) -> Result<Report, Error> {
        let mut tensors: Vec<Tensor> = self
            .names
            .iter()
            .zip(&mut self.parameters)
            .zip(gradients)
            .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
            .collect();
        self.optimizer.predict(&mut tensors)?;
        self.optimizer.step(Loss::new(0.8, 0.9), &mut tensors)
    }

    fn outcome(&self) -> Outcome {
        let parameters = self.parameters.iter().map(|p| p.iter().map(|x| x.to_bits()).collect()).collect();
        let states = self.names.iter().map(|name| self.optimizer.state(name).unwrap());
        (parameters, states.map(|state| [state.h(), state.v()]).collect(), self.optimizer.method())
    }
}

/// `tests/data/pytorch.py` has the same.
fn number(index: usize, step: usize) -> f64 {
    (((index * 7919 + step * 104_729 + index * step * 31) % 2001) as f64 - 1000.0) / 1000.0
}

/// 100 steps of PyTorch's own AdamW and SGD, in float64.
#[test]
fn adamw_and_sgd_are_pytorchs() {
    let momentum = Sgd { momentum: 0.9, nesterov: false };
    let cases = [
        ("adamw", Method::AdamW(AdamW::default()), 1e-2, 0.01),
        ("adamw-betas", Method::AdamW(AdamW { beta1: 0.8, beta2: 0.95, epsilon: 1e-6 }), 0.1, 0.0),
        ("sgd", Method::Sgd(Sgd { momentum: 0.0, nesterov: false }), 0.1, 0.1),
        ("sgd-momentum", Method::Sgd(momentum), 0.05, 5e-4),
        ("sgd-nesterov", Method::Sgd(Sgd { nesterov: true, ..momentum }), 0.05, 5e-4),
    ];
    let mut compared = 0;
    for line in include_str!("data/pytorch.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (length, last) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let expected: Vec<f64> = words[3..].iter().map(|word| word.parse().unwrap()).collect();
        let (_, method, learning_rate, weight_decay) = cases.into_iter().find(|case| case.0 == words[0]).unwrap();
        let settings = Settings { learning_rate, weight_decay, ..Settings::default() };
        let step = Step { method, settings, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        let error = |found: Vec<f64>| {
            let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
            found.iter().zip(&expected).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / largest
        };
        let of_gradient = |number_of_step| (0..length).map(move |i| number(i, number_of_step));

        let mut state = TensorState::of_method::<f64>(&method, length, StateType::Same).unwrap();
        let mut parameters: Vec<f64> = of_gradient(0).collect();
        for number in 1..=last {
            let gradient: Vec<f64> = of_gradient(number).collect();
            state.step(&step, &mut parameters, &gradient, None).unwrap();
        }
        assert!(error(parameters) <= 1e-12, "{} {length} {last}", words[0]);

        let mut state = TensorState::of_method::<f32>(&method, length, StateType::Same).unwrap();
        let mut parameters: Vec<f32> = of_gradient(0).map(|x| x as f32).collect();
        for number in 1..=last {
            let gradient: Vec<f32> = of_gradient(number).map(|x| x as f32).collect();
            state.step(&step, &mut parameters, &gradient, None).unwrap();
        }
        let error = error(parameters.iter().map(|x| f64::from(*x)).collect());
        assert!(error <= 1e-5, "{} {length} {last} in f32: {error:e}", words[0]);
        compared += 1;
    }
    assert_eq!(compared, 5 * 5 * 4);
}

#[test]
fn koala_m_must_predict() {
    let mut model = Model::new(Config { method: METHODS[1], ..Config::default() }, &[4]);
    let gradients = model.gradients(0);
    let step = |model: &mut Model| {
        let mut tensors = [Tensor::new("tensor 0", &mut model.parameters[0], &gradients[0])];
        model.optimizer.step(Loss::new(0.8, 0.9), &mut tensors)
    };
    assert_eq!(step(&mut model), Err(Error::NotPredicted));
    let mut tensors = [Tensor::new("tensor 0", &mut model.parameters[0], &[])];
    model.optimizer.predict(&mut tensors).unwrap();
    assert_eq!(step(&mut model).unwrap().first_steps, 1);
    assert_eq!(step(&mut model), Err(Error::NotPredicted), "each step needs one");
}

/// A gradient that is not finite writes nothing of its tensor, and under KeepAll nothing at all, the shared numbers
/// included.
#[test]
fn what_is_not_finite_writes_nothing() {
    for method in METHODS {
        for non_finite in [OnNonFinite::KeepTensor, OnNonFinite::KeepAll, OnNonFinite::Error] {
            let policy = Policy { non_finite, ..Policy::default() };
            let mut model = Model::new(Config { method, policy, ..Config::default() }, &[40, 3000]);
            let good = model.gradients(0);
            model.step(&good).unwrap();
            // Without KOALA-M's prediction, which writes whatever the gradient will be.
            let mut tensors: Vec<Tensor> =
                model.names.iter().zip(&mut model.parameters).map(|(n, p)| Tensor::new(n, p, &[])).collect();
            model.optimizer.predict(&mut tensors).unwrap();
            let before = model.outcome();
            let mut bad = model.gradients(1);
            bad[1][2999] = f32::NAN;
            let mut tensors: Vec<Tensor> = model
                .names
                .iter()
                .zip(&mut model.parameters)
                .zip(&bad)
                .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
                .collect();
            let result = model.optimizer.step(Loss::new(0.8, 0.9), &mut tensors);
            let after = model.outcome();
            assert_eq!((&after.0[1], &after.1[1]), (&before.0[1], &before.1[1]), "{method:?}");
            match non_finite {
                OnNonFinite::KeepTensor => {
                    let report = result.unwrap();
                    assert_eq!((report.stepped, report.non_finite), (1, 1));
                    assert_ne!(after.0[0], before.0[0], "{method:?}");
                }
                OnNonFinite::KeepAll => {
                    assert_eq!(result.unwrap().withheld, 1);
                    assert!(after == before, "{method:?}");
                }
                _ => {
                    assert!(result.unwrap_err().to_string().contains("tensor 1"));
                    assert!(after == before, "{method:?}");
                }
            }
        }
    }
}

#[test]
fn frozen_tensors_and_restarts() {
    for method in METHODS {
        let mut model = Model::new(Config { method, ..Config::default() }, &[40, 50]);
        let settings = model.optimizer.settings(model.groups[1]).unwrap();
        model.step(&model.gradients(0)).unwrap();
        model.optimizer.set_settings(model.groups[1], Settings { frozen: true, ..settings }).unwrap();
        let before = model.outcome();
        assert_eq!(model.step(&model.gradients(1)).unwrap().frozen, 1);
        let after = model.outcome();
        assert_eq!((&after.0[1], &after.1[1]), (&before.0[1], &before.1[1]), "{method:?}");
        assert_ne!(after.0[0], before.0[0]);
        model.optimizer.restart("tensor 0").unwrap();
        let state = model.optimizer.state("tensor 0").unwrap();
        assert!(state.h().iter().chain(&state.v()).all(|x| *x == 0.0) && state.scalars().steps == 0);
    }
}

/// Unchecked, methods without dots take any gradient and write it element by element; the others look in any case. What
/// is finite is stepped as ever.
#[test]
fn what_is_unchecked_is_written() {
    const BAD: usize = 2999;
    let step = |method: Method, non_finite, gradients: &dyn Fn(&mut Vec<Vec<f32>>)| {
        let policy = Policy { non_finite, ..Policy::default() };
        let mut model = Model::new(Config { method, policy, ..Config::default() }, &[40, 3000]);
        model.step(&model.gradients(0)).unwrap();
        let mut given = model.gradients(1);
        gradients(&mut given);
        let report = model.step(&given).unwrap();
        (report, model.outcome())
    };
    for method in METHODS {
        let finite = step(method, OnNonFinite::KeepTensor, &|_| {});
        assert_eq!(step(method, OnNonFinite::Unchecked, &|_| {}), finite, "{method:?}");
        let spoil = |gradients: &mut Vec<Vec<f32>>| gradients[1][BAD] = f32::NAN;
        let (report, found) = step(method, OnNonFinite::Unchecked, &spoil);
        if !matches!(method, Method::AdamW(_) | Method::Sgd(_)) {
            assert_eq!((report, found), step(method, OnNonFinite::KeepTensor, &spoil), "{method:?}");
            continue;
        }
        assert_eq!((report.stepped, report.non_finite), (2, 0));
        let (mut parameters, mut states, _) = finite.1;
        assert!(f32::from_bits(found.0[1][BAD]).is_nan());
        parameters[1][BAD] = found.0[1][BAD];
        for (vector, spoilt) in states[1].iter_mut().zip(&found.1[1]).filter(|(vector, _)| !vector.is_empty()) {
            assert!(spoilt[BAD].is_nan());
            vector[BAD] = 0.0;
        }
        let mut kept = found.1.clone();
        kept[1].iter_mut().filter(|vector| !vector.is_empty()).for_each(|vector| vector[BAD] = 0.0);
        assert_eq!((&found.0, &kept), (&parameters, &states), "{method:?}");
    }
}

#[test]
fn numbers_out_of_range_are_named() {
    let koala_m = KoalaM::default();
    for (method, said) in [
        (Method::KoalaV(KoalaV { variance: f64::NAN, process_noise: 0.1 }), "the variance is NaN"),
        (Method::KoalaV(KoalaV { variance: 0.1, process_noise: -1.0 }), "the process noise is -1"),
        (Method::KoalaM(KoalaM { velocity_decay: 1.5, ..koala_m }), "the velocity decay is 1.5"),
        (Method::KoalaM(KoalaM { covariance: f64::INFINITY, ..koala_m }), "the covariance is inf"),
        (Method::AdamW(AdamW { beta1: 1.0, ..AdamW::default() }), "the beta1 is 1"),
        (Method::AdamW(AdamW { beta2: -0.1, ..AdamW::default() }), "the beta2 is -0.1"),
        (Method::AdamW(AdamW { epsilon: 0.0, ..AdamW::default() }), "the epsilon is 0"),
        (Method::Sgd(Sgd { momentum: 1.0, nesterov: false }), "the momentum is 1"),
        (Method::Sgd(Sgd { momentum: 0.0, nesterov: true }), "the momentum is 0"),
    ] {
        let error = Optimizer::new(Config { method, ..Config::default() }).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error:?} does not start with {said:?}");
        let mut state = TensorState::of_method::<f32>(&method, 1, StateType::Same).unwrap();
        let step = Step { method, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        assert_eq!(state.step(&step, &mut [1.0_f32], &[1.0], None).unwrap_err().to_string(), error);
    }
    // The state of another method.
    let mut state = TensorState::of_method::<f32>(&METHODS[0], 2, StateType::Same).unwrap();
    let step = Step { method: METHODS[2], ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
    let error = state.step(&step, &mut [1.0_f32, 2.0], &[1.0, 2.0], None).unwrap_err().to_string();
    assert_eq!(error, "the tensor: expected 2 elements, found 0 in the state v");
}
