//! The definite variant of KOALA++: the contract's bits, recorded trajectories, and that its innovation variance stays
//! positive. What it means is checked in `kalman.rs`, by dense matrices.

mod common;
#[allow(dead_code)]
#[path = "common/grid.rs"]
mod grid;

use common::{Case, agrees_with_reference, random_vector};
use koala_optim::kernel::{Measurement, Outcome, Step};
use koala_optim::{
    Config, ElementType, KoalaPlusPlus, Loss, Method, Optimizer, Settings, StateType, Tensor, TensorState, Variant,
};

fn agrees(case: &Case) {
    agrees_with_reference(&Case { variant: Variant::Definite, ..*case });
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
    let method = definite(0.1, 0.1, 0.2);
    for clip_norm in [None, Some(0.5)] {
        let config = Config { method, clip_norm, ..Config::default() };
        grid::Model::for_threads().agrees_with_any_threads(&config, StateType::Same);
    }
}

fn definite(initial_variance: f64, process_noise: f64, prior_variance: f64) -> Method {
    KoalaPlusPlus { initial_variance, process_noise, variant: Variant::Definite, prior_variance }.into()
}

#[test]
fn a_prior_variance_of_zero_stands_for_the_initial_variance() {
    let of = |prior_variance| {
        let method = definite(0.3, 0.1, prior_variance);
        let step = Step { method, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
        let mut state = TensorState::new::<f64>(50, StateType::Same).unwrap();
        let mut parameters = random_vector(1, 50, 1.0);
        for seed in 2..9 {
            state.step(&step, &mut parameters, &random_vector(seed, 50, 0.5), None).unwrap();
        }
        (parameters, state.v())
    };
    assert_eq!(of(0.0), of(0.3));
    assert_ne!(of(0.0), of(0.2));
}

/// `tests/data/definite.py` has the same.
fn number(index: usize, step: usize) -> f64 {
    (((index * 7919 + step * 104_729 + index * step * 31) % 2001) as f64 - 1000.0) / 1000.0
}

/// 100 steps of an independent program in float64.
#[test]
fn recorded_trajectories() {
    // The learning rate, the weight decay, σ, Q, γ and R.
    let cases = [
        ("usual", [1.0, 0.0, 0.1, 0.1, 0.1, 1.0]),
        ("decay", [0.5, 0.01, 0.2, 0.05, 0.2, 0.5]),
        ("little-prior", [0.5, 0.001, 0.5, 0.0, 0.01, 2.0]),
        ("large-prior", [0.1, 0.0, 0.1, 0.01, 5.0, 0.1]),
    ];
    let mut compared = 0;
    for line in include_str!("data/definite.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (length, last): (usize, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let numbers: Vec<f64> = words[3..].iter().map(|word| word.parse().unwrap()).collect();
        let (innovation_variance, expected) = (numbers[0], &numbers[1..]);
        let (_, [learning_rate, weight_decay, sigma, q, gamma, noise]) =
            cases.into_iter().find(|case| case.0 == words[0]).unwrap();
        let settings = Settings { learning_rate, weight_decay, ..Settings::default() };

        let mut state = TensorState::new::<f64>(length, StateType::Same).unwrap();
        let mut parameters: Vec<f64> = (0..length).map(|index| number(index, 0)).collect();
        let mut found = 0.0;
        for step in 1..=last {
            let measurement = Measurement { loss: 1.0 / step as f64, noise };
            let of_step = Step { method: definite(sigma, q, gamma), settings, ..Step::new(measurement) };
            let gradient: Vec<f64> = (0..length).map(|index| number(index, step)).collect();
            found = state.step(&of_step, &mut parameters, &gradient, None).unwrap().innovation_variance;
        }
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let error = parameters.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs()));
        assert!(error <= 1e-12 * largest, "{} {length} {last}: {error:e} of {largest}", words[0]);
        assert!((found - innovation_variance).abs() <= 1e-12 * innovation_variance, "{} {length} {last}", words[0]);
        compared += 1;
    }
    assert_eq!(compared, 4 * 5 * 4);
}

/// Gradients that make the paper's variants break down.
fn hard(kind: usize, step: u64, length: usize) -> Vec<f64> {
    let common = random_vector(7, length, 1.0);
    let own = random_vector(1000 + step, length, 1.0);
    let scale = 10.0_f64.powi((step * 7 % 5) as i32 - 2);
    match kind {
        // Of any size over four decades.
        0 => own.iter().map(|x| x * scale).collect(),
        // Nearly the same direction again and again, forwards and backwards.
        1 => common
            .iter()
            .zip(&own)
            .map(|(c, o)| (c + 1e-3 * o) * if step.is_multiple_of(2) { 1.0 } else { -1.0 })
            .collect(),
        // Mostly nothing.
        2 => own.iter().enumerate().map(|(i, x)| if i as u64 % 7 == step % 7 { x * scale } else { 0.0 }).collect(),
        // A direction that turns slowly.
        _ => common
            .iter()
            .zip(&own)
            .map(|(c, o)| c * (step as f64 * 0.01).cos() + o * (step as f64 * 0.01).sin())
            .collect(),
    }
}

/// How many of the steps broke down.
fn breakdowns(method: Method, kind: usize, noise: f64, steps: u64) -> usize {
    const LENGTH: usize = 24;
    let config = Config { method, noise: koala_optim::Noise::Fixed(noise), ..Config::default() };
    let mut optimizer = Optimizer::new(config).unwrap();
    let group = optimizer.add_group(Settings { learning_rate: 1e-3, ..Settings::default() }).unwrap();
    optimizer.add_tensor("w", LENGTH, ElementType::F32, StateType::Same, group).unwrap();
    let mut parameters = vec![0.0_f32; LENGTH];
    let mut broken = 0;
    for step in 0..steps {
        let gradient: Vec<f32> = hard(kind, step, LENGTH).into_iter().map(|x| x as f32).collect();
        let tensors = &mut [Tensor::new("w", &mut parameters, &gradient)];
        let report = optimizer.step(Loss::new(1e-3, 1e-6), tensors).unwrap();
        assert_ne!(tensors[0].report().outcome, Outcome::NonFinite);
        broken += report.restarts;
    }
    broken
}

/// In exact arithmetic S ≥ R > 0, with P positive semidefinite. In float32, rounding can take h·v, which is divided by, to
/// zero or below where the gradient lies in a direction that the filter knows to 2⁻²⁴ of its variance; with noise as here
/// it does not come to that.
#[test]
fn it_does_not_break_down() {
    for kind in 0..4 {
        for (sigma, q, gamma) in [(0.1, 0.1, 0.1), (1.0, 0.0, 1.0), (0.1, 0.01, 1.0)] {
            assert_eq!(breakdowns(definite(sigma, q, gamma), kind, 1.0, 10_000), 0, "kind {kind}, {sigma} {q} {gamma}");
        }
    }
}

/// The test above is about gradients that do break the paper's variant down.
#[test]
fn the_symmetric_variant_breaks_down() {
    let symmetric = KoalaPlusPlus { initial_variance: 1.0, process_noise: 0.0, ..KoalaPlusPlus::default() };
    let broken: usize = (0..4).map(|kind| breakdowns(symmetric.into(), kind, 1.0, 1000)).sum();
    assert!(broken > 0);
}
