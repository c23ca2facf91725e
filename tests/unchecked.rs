//! What is looked at before a step writes, and what is not: [`OnNonFinite::Unchecked`], which reports change nothing of;
//! and the norms of a report, which are what they say for every method.

mod common;

use common::methods::METHODS;
use common::{offset_vector, random_vector};
use koala_optim::kernel::{Measurement, Step};
use koala_optim::{
    AdamW, Error, Method, OnNonFinite, Outcome, Policy, Scaling, Settings, StateType, TensorReport, TensorState,
};

const N: usize = 1500;
const UNCHECKED: Policy = Policy { non_finite: OnNonFinite::Unchecked, breakdown: koala_optim::OnBreakdown::Restart };

fn methods() -> impl Iterator<Item = Method> {
    METHODS.into_iter().chain([Method::default()])
}

fn is_first_order(method: Method) -> bool {
    matches!(method, Method::AdamW(_) | Method::Sgd(_))
}

fn step_of(method: Method) -> Step {
    let settings = Settings { learning_rate: 0.05, weight_decay: 0.5, ..Settings::default() };
    Step { method, settings, ..Step::new(Measurement { loss: 0.8, noise: 1.0 }) }
}

/// Two steps, the second one with element 7 of gradient and parameters spoilt: the bits of parameters and state, and the
/// last report.
fn run(step: Step, spoilt: [Option<f32>; 2]) -> Result<([Vec<u64>; 3], TensorReport), Error> {
    let vector = |seed, scale| offset_vector::<f32>(&random_vector(seed, N, scale), 0);
    let (mut parameters, mut gradient) = (vector(1, 1.0), vector(2, 0.1));
    let mut state = TensorState::of_method::<f32>(&step.method, N, StateType::Same)?;
    state.step(&step, &mut parameters, &gradient, None)?;
    for (element, spoilt) in [&mut gradient[7], &mut parameters[7]].into_iter().zip(spoilt) {
        *element = spoilt.unwrap_or(*element);
    }
    let report = state.step(&step, &mut parameters, &gradient, None)?;
    let parameters = parameters.iter().map(|x| u64::from(x.to_bits())).collect();
    Ok(([parameters, common::bits(&state.h()), common::bits(&state.v())], report))
}

#[test]
fn what_is_written_does_not_depend_on_what_is_reported() -> Result<(), Error> {
    let none = [None, None];
    for method in methods() {
        for policy in [Policy::default(), UNCHECKED] {
            for spoilt in [none, [Some(f32::NAN), None], [Some(f32::INFINITY), None], [None, Some(f32::NAN)]] {
                for scaling in [Scaling::default(), Scaling { factor: 0.5, ..Scaling::default() }] {
                    let step = Step { policy, scaling, ..step_of(method) };
                    let (written, report) = run(step, spoilt)?;
                    let (written_too, mut detailed) = run(Step { norms: true, ..step }, spoilt)?;
                    let norms = detailed.norms.take().unwrap_or_default();
                    let which = format!("{method:?} {policy:?} {spoilt:?} {scaling:?}");
                    assert_eq!(detailed, report, "{which}");
                    assert!(written_too == written, "{which}");
                    assert_eq!(norms.gradient.is_finite(), spoilt[0].is_none(), "{which}");
                    let kept = match is_first_order(method) {
                        true => spoilt[0].is_some() && policy != UNCHECKED,
                        false => spoilt != none,
                    };
                    assert_eq!(report.outcome, if kept { Outcome::NonFinite } else { Outcome::Stepped }, "{which}");
                }
            }
        }
    }
    Ok(())
}

/// It would make a number of infinity, which nobody would see.
#[test]
fn a_limit_is_always_looked_behind() -> Result<(), Error> {
    for method in methods() {
        let limited = Scaling { limit: 0.05, ..Scaling::default() };
        let step = Step { scaling: limited, policy: UNCHECKED, ..step_of(method) };
        for spoilt in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let (_, report) = run(step, [Some(spoilt), None])?;
            assert_eq!(report.outcome, Outcome::NonFinite, "{method:?} {spoilt}");
        }
        assert_eq!(run(step, [Some(1e9), None])?.1.outcome, Outcome::Stepped, "{method:?}");
    }
    Ok(())
}

/// As OnNonFinite::Unchecked says.
#[test]
fn an_element_whose_square_overflows_stops_adamw_there() -> Result<(), Error> {
    let mut step = step_of(Method::AdamW(AdamW::default()));
    step.settings.weight_decay = 0.0;
    assert_eq!(run(step, [Some(2e19), None])?.1.outcome, Outcome::NonFinite);
    step.policy = UNCHECKED;
    let ([parameters, _, squares], report) = run(step, [Some(2e19), Some(0.25)])?;
    assert_eq!(report.outcome, Outcome::Stepped);
    assert_eq!(squares.iter().filter(|x| f64::from_bits(**x) == f64::INFINITY).count(), 1);
    assert_eq!((squares[7], parameters[7]), (f64::INFINITY.to_bits(), 0.25_f32.to_bits().into()));
    Ok(())
}

#[test]
fn the_norms_are_what_they_say() -> Result<(), Error> {
    fn norm(vector: impl Iterator<Item = f64>) -> f64 {
        vector.map(|x| x * x).sum::<f64>().sqrt()
    }
    let (parameters, gradient) = (random_vector(1, N, 1.0), random_vector(2, N, 0.1));
    for method in methods() {
        for factor in [1.0, 0.5] {
            for policy in [Policy::default(), UNCHECKED] {
                let scaling = Scaling { factor, ..Scaling::default() };
                let step = Step { scaling, policy, norms: true, ..step_of(method) };
                let weight_decay = if matches!(method, Method::AdamW(_)) { 0.0 } else { step.settings.weight_decay };
                let mut state = TensorState::of_method::<f64>(&method, N, StateType::Same)?;
                let report = state.step(&step, &mut parameters.clone(), &gradient, None)?;
                let found = report.norms.unwrap_or_default();
                let pairs = gradient.iter().zip(&parameters);
                for (name, found, expected) in [
                    ("g", found.gradient, norm(gradient.iter().map(|g| factor * g))),
                    ("H", found.measurement, norm(pairs.map(|(g, theta)| factor * g + weight_decay * theta))),
                    ("θ", found.parameters, norm(parameters.iter().copied())),
                ] {
                    assert!((found / expected - 1.0).abs() < 1e-12, "‖{name}‖ is {found} for {method:?} {step:?}");
                }
            }
        }
    }
    Ok(())
}
