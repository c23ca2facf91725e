//! Gradients that are scaled and clipped as they are loaded: bit by bit those that were scaled before, or, by the norm of
//! all, to rounding.

mod common;

use common::methods::{METHODS, expected, found};
use common::{Case, TYPES, backends, largest, random_vector};
use koala_optim::{
    Config, Element, ElementType, Error, Loss, Method, OnNonFinite, Optimizer, Policy, Report, Scaling, Settings,
    StateType, Tensor,
};

const SCALINGS: [Scaling; 3] = [
    Scaling { factor: 0.3, limit: f64::INFINITY },
    Scaling { factor: 1.0, limit: 0.03 },
    Scaling { factor: 1.7, limit: 0.05 },
];

fn methods() -> impl Iterator<Item = Method> {
    METHODS.into_iter()
}

/// Against the plain reference, which scales the gradient before.
#[test]
fn every_method_and_type() {
    for length in (0..=40).chain([100, 1023, 1024, 1025, 2048, 5000, 65_537]).filter(|length| *length <= largest()) {
        for (i, types) in TYPES.into_iter().enumerate() {
            for (j, method) in methods().enumerate().filter(|(j, _)| (length + i + j) % 3 == 0) {
                let case = Case::new(length, types, [0.0, 0.01][(length + i) % 2]);
                let scaling = SCALINGS[(length + j) % 3];
                let expected = expected(&case, method, scaling);
                for backend in backends() {
                    let differs = found(&case, method, scaling, backend).difference(&expected);
                    assert!(differs.is_none(), "{} {method:?} {scaling:?} {case:?}: {differs:?}", backend.name());
                }
            }
        }
    }
}

/// A model's parameters and state after some steps, and the reports.
#[derive(Debug, PartialEq)]
struct Outcome<P> {
    parameters: Vec<Vec<P>>,
    states: Vec<[Vec<f64>; 2]>,
    reports: Vec<Report>,
}

const SIZES: [usize; 7] = [1, 17, 0, 1000, 2049, 333, 70_001];
const STEPS: u64 = 4;

/// Runs a model on gradients that `prepare` may change before.
fn run<P: Element>(config: Config, state: StateType, prepare: impl Fn(&mut [Vec<f64>])) -> Result<Outcome<P>, Error> {
    let names = SIZES.map(|size| format!("tensor of {size}"));
    let mut optimizer = Optimizer::new(config)?;
    let settings = Settings { learning_rate: 0.05, weight_decay: 0.01, ..Settings::default() };
    let groups = [optimizer.add_group(settings)?, optimizer.add_group(Settings { weight_decay: 0.0, ..settings })?];
    let mut parameters = Vec::new();
    for (i, (name, size)) in names.iter().zip(SIZES).enumerate() {
        optimizer.add_tensor(name, size, P::TYPE, state, groups[i % 2])?;
        parameters.push(common::offset_vector::<P>(&random_vector(i as u64, size, 1.0), 0));
    }
    let mut reports = Vec::new();
    for step in 0..STEPS {
        let seed = |i: usize| 100 * (step + 1) + i as u64;
        let mut gradients: Vec<Vec<f64>> =
            SIZES.iter().enumerate().map(|(i, size)| random_vector(seed(i), *size, 0.1)).collect();
        // As an element of the type has it.
        gradients.iter_mut().flatten().for_each(|x| *x = P::rounded(*x).to_f64());
        prepare(&mut gradients);
        let gradients: Vec<Vec<P>> = gradients.iter().map(|g| common::offset_vector(g, 0)).collect();
        let mut tensors: Vec<Tensor> = names
            .iter()
            .zip(&mut parameters)
            .zip(&gradients)
            .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
            .collect();
        optimizer.predict(&mut tensors)?;
        reports.push(optimizer.step(Loss::new(0.8, 0.9), &mut tensors)?);
    }
    let states = names.iter().filter_map(|name| optimizer.state(name)).map(|state| [state.h(), state.v()]).collect();
    Ok(Outcome { parameters, states, reports })
}

/// KOALA++, whose plain reference does not scale: against itself on gradients that were scaled before.
#[test]
fn koala_plus_plus_is_as_if_scaled_before() -> Result<(), Error> {
    fn check<P: Element>(state: StateType, scaling: Scaling) -> Result<(), Error> {
        let before = |gradients: &mut [Vec<f64>]| {
            for x in gradients.iter_mut().flatten() {
                let arithmetic = |value: f64| match P::TYPE {
                    ElementType::F64 => value,
                    _ => f64::from(value as f32),
                };
                let limit = arithmetic(scaling.limit);
                *x = arithmetic(arithmetic(scaling.factor) * *x).clamp(-limit, limit);
            }
        };
        let scaled_before = run::<P>(Config::default(), state, before)?;
        for backend in backends() {
            assert!(run::<P>(Config { backend, scaling, ..Config::default() }, state, |_| ())? == scaled_before);
        }
        Ok(())
    }
    for scaling in SCALINGS {
        check::<f32>(StateType::Same, scaling)?;
        check::<f64>(StateType::Same, scaling)?;
        check::<f32>(StateType::Bf16, scaling)?;
        check::<f64>(StateType::F32, scaling)?;
    }
    // What half precision holds exactly.
    let exact = Scaling { factor: 0.25, limit: f64::INFINITY };
    check::<koala_optim::bf16>(StateType::Same, exact)?;
    check::<koala_optim::bf16>(StateType::F32, exact)?;
    check::<koala_optim::f16>(StateType::Same, Scaling { factor: 4.0, limit: f64::INFINITY })
}

/// Clipping by the norm of all gradients, against gradients that were clipped before.
#[test]
fn clipping_by_norm_is_as_if_clipped_before_to_rounding() -> Result<(), Error> {
    fn check<P: Element>(method: Method, tolerance: f64) -> Result<(), Error> {
        // Below the norm of all gradients, and above it.
        for (clip_norm, clips) in [(0.7, true), (1e3, false)] {
            let before = |gradients: &mut [Vec<f64>]| {
                let norm = gradients.iter().flatten().map(|x| x * x).sum::<f64>().sqrt();
                assert_eq!(norm > clip_norm, clips);
                gradients.iter_mut().flatten().for_each(|x| *x *= f64::min(1.0, clip_norm / norm));
            };
            let expected = run::<P>(Config { method, ..Config::default() }, StateType::Same, before)?;
            let config = Config { method, clip_norm: Some(clip_norm), ..Config::default() };
            let found = run::<P>(config, StateType::Same, |_| ())?;
            for (found, expected) in found.parameters.iter().zip(&expected.parameters) {
                let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.to_f64().abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let error = (found.to_f64() - expected.to_f64()).abs();
                    assert!(error <= tolerance * largest, "{method:?} {error:e}");
                }
            }
            for report in &found.reports {
                assert_eq!(report.gradient_norm.is_some_and(|norm| norm > clip_norm), clips);
            }
        }
        Ok(())
    }
    for method in methods().chain([Method::default()]) {
        check::<f32>(method, 1e-5)?;
        check::<f64>(method, 1e-12)?;
    }
    Ok(())
}

#[test]
fn the_report_has_the_norm_of_all() -> Result<(), Error> {
    let mut norms = std::cell::RefCell::new(Vec::new());
    let note = |gradients: &mut [Vec<f64>]| {
        let scaled = gradients.iter().flatten().map(|x| x * 0.5);
        norms.borrow_mut().push(scaled.map(|x| x * x).sum::<f64>().sqrt());
    };
    let scaling = Scaling { factor: 0.5, ..Scaling::default() };
    let config = Config { scaling, clip_norm: Some(0.1), ..Config::default() };
    let outcome = run::<f64>(config, StateType::Same, note)?;
    for (report, expected) in outcome.reports.iter().zip(norms.get_mut()) {
        assert!((report.gradient_norm.unwrap_or(0.0) - *expected).abs() < 1e-12 * *expected);
    }
    assert_eq!(run::<f64>(Config::default(), StateType::Same, |_| ())?.reports[0].gradient_norm, None);
    Ok(())
}

/// A limit must not make a number of what is none; and what is not finite does not count in the norm of the others.
#[test]
fn what_is_not_finite_stays_so() -> Result<(), Error> {
    for spoilt in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let spoil = |gradients: &mut [Vec<f64>]| gradients[3][999] = spoilt;
        for (scaling, clip_norm) in [
            (Scaling { limit: 0.01, ..Scaling::default() }, None),
            (Scaling { factor: 0.5, ..Scaling::default() }, None),
            (Scaling { limit: 0.01, ..Scaling::default() }, Some(0.1)),
            (Scaling::default(), Some(0.1)),
        ] {
            for method in methods().chain([Method::default()]) {
                let config = Config { method, scaling, clip_norm, ..Config::default() };
                let outcome = run::<f32>(config.clone(), StateType::Same, spoil)?;
                assert!(outcome.parameters.iter().flatten().all(|x| x.is_finite()), "{method:?}");
                for report in outcome.reports {
                    assert_eq!((report.non_finite, report.stepped >= 5), (1, true), "{method:?} {scaling:?}");
                    assert!(report.gradient_norm.is_none_or(f64::is_finite));
                }
                let policy = Policy { non_finite: OnNonFinite::Error, ..Policy::default() };
                let error = run::<f32>(Config { policy, ..config }, StateType::Same, spoil).unwrap_err();
                assert!(error.to_string().contains("tensor of 1000"), "{error}");
            }
        }
    }
    Ok(())
}

#[test]
fn numbers_out_of_range_are_named() -> Result<(), Error> {
    let mut optimizer = Optimizer::new(Config::default())?;
    for (scaling, said) in [
        (
            Scaling { factor: 0.0, ..Scaling::default() },
            "the gradient's factor is 0, expected a number that is at least 1e-37, and finite in f32",
        ),
        // In f32 they would be nothing, or infinite.
        (Scaling { factor: 1e-60, ..Scaling::default() }, "the gradient's factor is 0.000"),
        (Scaling { factor: 1e39, ..Scaling::default() }, "the gradient's factor is 1000"),
        (Scaling { factor: f64::INFINITY, ..Scaling::default() }, "the gradient's factor is inf"),
        (Scaling { limit: 1e-60, ..Scaling::default() }, "the gradient's limit is 0.000"),
        (Scaling { factor: f64::NAN, ..Scaling::default() }, "the gradient's factor is NaN"),
        (Scaling { limit: -1.0, ..Scaling::default() }, "the gradient's limit is -1"),
        (Scaling { limit: f64::NAN, ..Scaling::default() }, "the gradient's limit is NaN"),
    ] {
        let error = optimizer.set_scaling(scaling).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
        assert!(Optimizer::new(Config { scaling, ..Config::default() }).is_err());
    }
    let error = Optimizer::new(Config { clip_norm: Some(-1.0), ..Config::default() }).unwrap_err().to_string();
    assert_eq!(error, "the norm to clip by is -1, expected a finite number above 0");
    Ok(())
}
