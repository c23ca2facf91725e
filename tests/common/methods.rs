//! KOALA-V, KOALA-M, AdamW and SGD once more, in the plainest loops, as `reference.rs` has KOALA++; and the same cases on
//! a backend.

use koala_optim::kernel::{HalfCopy, Outcome, Step};
use koala_optim::{AdamW, Backend, Element, ElementType, KoalaM, KoalaV, Method, Scaling, Sgd, TensorState, bf16, f16};

use super::reference::dot;
use super::{Bits, Case, bits, offset_vector, round_to, scalar_bits, state_element};

/// What the methods below are called in data files.
pub const NAMES: [&str; 6] = ["koala-v", "koala-m", "adamw", "sgd", "sgd-momentum", "sgd-nesterov"];

/// Every method, with numbers that are not the defaults.
pub const METHODS: [Method; 6] = [
    Method::KoalaV(KoalaV { variance: 0.2, process_noise: 0.05 }),
    Method::KoalaM(KoalaM {
        variance: 0.2,
        covariance: 0.05,
        velocity_variance: 0.15,
        velocity_decay: 0.8,
        process_noise: 0.02,
        velocity_noise: 0.03,
    }),
    Method::AdamW(AdamW { beta1: 0.85, beta2: 0.99, epsilon: 1e-6 }),
    Method::Sgd(Sgd { momentum: 0.0, nesterov: false }),
    Method::Sgd(Sgd { momentum: 0.7, nesterov: false }),
    Method::Sgd(Sgd { momentum: 0.7, nesterov: true }),
];

/// The case by the equations of the method, in the order of its file in `src/methods`.
pub fn expected(case: &Case, method: Method, scaling: Scaling) -> Bits {
    let round: fn(f64) -> f64 =
        if case.parameters == ElementType::F64 { |value| value } else { |value| f64::from(value as f32) };
    let store = state_element(case.parameters, case.state);
    let (rate, decay) = (case.settings().learning_rate, case.settings().weight_decay);
    let wd = round(decay);
    let mut theta = case.initial();
    let (mut v, mut h) = (vec![0.0; case.length], vec![0.0; case.length]);
    let (mut method, mut steps) = (method, 0_u64);
    let mut result = Bits::default();
    for number in 0..Case::STEPS {
        let (loss, noise) = (Case::measurement(number).loss, Case::measurement(number).noise);
        let mut distance = 0.0;
        if let Method::KoalaM(koala_m) = method {
            let difference: Vec<f64> = v.iter().zip(&theta).map(|(m, theta)| round(m - theta)).collect();
            distance = dot(round, &difference, &difference);
            for i in 0..case.length {
                theta[i] = round_to(case.parameters, round(theta[i] + h[i]));
                h[i] = round_to(store, round(round(koala_m.velocity_decay) * h[i]));
            }
        }
        method.predict(distance, case.length);

        let limit = round(scaling.limit);
        let scaled = |g: &f64| round(round(scaling.factor) * g).clamp(-limit, limit);
        let g: Vec<f64> = case.gradient(number).iter().map(scaled).collect();
        let squared = dot(round, &g, &g);
        let coupled: Vec<f64> = g.iter().zip(&theta).map(|(g, theta)| round(g + round(wd * theta))).collect();
        let (c, t) = (dot(round, &coupled, &coupled), if wd == 0.0 { 0.0 } else { dot(round, &theta, &theta) });
        let parameters_norm = dot(round, &theta, &theta).sqrt();
        let filters = matches!(method, Method::KoalaV(_) | Method::KoalaM(_));
        if filters && squared.sqrt() < 1e-9 {
            let norms = [squared, c].map(f64::sqrt);
            result.reports.push(report(Outcome::Skipped, [0.0, 0.0, norms[0], norms[1], parameters_norm]));
            continue;
        }
        let variance = match method {
            Method::KoalaV(koala_v) => koala_v.variance,
            Method::KoalaM(koala_m) => koala_m.variance,
            _ => 0.0,
        };
        let s = variance * c + noise;
        let effective = rate * (loss + 0.5 * decay * t);
        steps += 1;
        match method {
            Method::KoalaPlusPlus(_) => unreachable!("reference.rs has it"),
            Method::KoalaV(_) => {
                let rate = round(effective * variance / s);
                for i in 0..case.length {
                    theta[i] = round_to(case.parameters, round(theta[i] - round(rate * g[i])));
                }
            }
            Method::KoalaM(koala_m) => {
                let k = effective / s;
                let rates = [round(k * koala_m.variance), round(k * koala_m.covariance)];
                for i in 0..case.length {
                    let new = round(theta[i] - round(rates[0] * coupled[i]));
                    h[i] = round_to(store, round(h[i] - round(rates[1] * coupled[i])));
                    v[i] = round_to(store, round(round(round(0.9) * v[i]) + round(round(0.1) * new)));
                    theta[i] = round_to(case.parameters, new);
                }
            }
            Method::AdamW(AdamW { beta1, beta2, epsilon }) => {
                let power = |beta: f64| [beta, beta * beta, beta * (beta * beta)][steps as usize - 1];
                let rate_1 = round(rate / (1.0 - power(beta1)));
                let root = round(1.0 / (1.0 - power(beta2)).sqrt());
                let shrink = round(1.0 - rate * decay);
                for i in 0..case.length {
                    let mean = round(round(round(beta1) * h[i]) + round(round(1.0 - beta1) * g[i]));
                    let square = round(round(1.0 - beta2) * round(g[i] * g[i]));
                    let square = round(round(round(beta2) * v[i]) + square);
                    let denominator = round(round(round(square.sqrt()) * root) + round(epsilon));
                    let direction = round(rate_1 * round(mean / denominator));
                    theta[i] = round_to(case.parameters, round(round(shrink * theta[i]) - direction));
                    (h[i], v[i]) = (round_to(store, mean), round_to(store, square));
                }
            }
            Method::Sgd(Sgd { momentum, nesterov }) => {
                for i in 0..case.length {
                    let velocity = round(round(round(momentum) * h[i]) + coupled[i]);
                    let direction =
                        if nesterov { round(coupled[i] + round(round(momentum) * velocity)) } else { velocity };
                    theta[i] = round_to(case.parameters, round(theta[i] - round(round(rate) * direction)));
                    h[i] = round_to(store, velocity);
                }
            }
        }
        let outcome = if steps == 1 { Outcome::FirstStep } else { Outcome::Stepped };
        // H is g + wd·θ to all but AdamW, whose weight decay acts beside the gradient.
        let measurement = if matches!(method, Method::AdamW(_)) { squared } else { c };
        let norms = [squared.sqrt(), measurement.sqrt(), parameters_norm];
        let (s, gain) = if filters { (s, c / s) } else { (0.0, 0.0) };
        method.correct(gain);
        result.reports.push(report(outcome, [s, gain, norms[0], norms[1], norms[2]]));
    }
    let half = |theta: &f64| bf16::from_f32(round_to(ElementType::Bf16, *theta) as f32).to_bits();
    result.copy = if steps == 0 { vec![0; case.length] } else { theta.iter().map(half).collect() };
    result.parameters = bits(&theta);
    let [keeps_h, keeps_v] = method.state_vectors().map(|vector| vector.is_some());
    result.h = if keeps_h { bits(&h) } else { vec![] };
    result.v = if keeps_v { bits(&v) } else { vec![] };
    result.scalars[3] = steps;
    result
}

/// As `report_bits`, with the gain for α.
fn report(outcome: Outcome, [s, gain, gradient, measurement, parameters]: [f64; 5]) -> [u64; 8] {
    let [s, gain, gradient, measurement, parameters] = [s, gain, gradient, measurement, parameters].map(f64::to_bits);
    [outcome as u64, s, gain, 0, 0, gradient, measurement, parameters]
}

/// The case on a backend.
pub fn found(case: &Case, method: Method, scaling: Scaling, backend: Backend) -> Bits {
    match case.parameters {
        ElementType::F32 => found_in::<f32>(case, method, scaling, backend),
        ElementType::F64 => found_in::<f64>(case, method, scaling, backend),
        ElementType::Bf16 => found_in::<bf16>(case, method, scaling, backend),
        ElementType::F16 => found_in::<f16>(case, method, scaling, backend),
    }
}

fn found_in<P: Element>(case: &Case, mut method: Method, scaling: Scaling, backend: Backend) -> Bits {
    let mut state = TensorState::of_method::<P>(&method, case.length, case.state).unwrap();
    let mut parameters = offset_vector::<P>(&case.initial(), case.offset);
    let parameters = &mut parameters[case.offset..];
    let mut copy = vec![bf16::ZERO; case.length + 1];
    let mut result = Bits::default();
    for number in 0..Case::STEPS {
        let gradient = offset_vector::<P>(&case.gradient(number), case.offset + 1);
        let step = Step {
            backend,
            method,
            settings: case.settings(),
            scaling,
            norms: true,
            ..Step::new(Case::measurement(number))
        };
        let distance = state.predict(&step, parameters, None).unwrap();
        method.predict(distance, case.length);
        let copy = Some(HalfCopy::Bf16(&mut copy[1..]));
        let of_step = state.step(&Step { method, ..step }, parameters, &gradient[case.offset + 1..], copy).unwrap();
        if of_step.outcome.is_step() {
            method.correct(of_step.gain);
        }
        let norms = of_step.norms.unwrap();
        let numbers = [of_step.innovation_variance, of_step.gain, norms.gradient, norms.measurement, norms.parameters];
        result.reports.push(report(of_step.outcome, numbers));
    }
    result.parameters = parameters.iter().map(|value| value.to_f64().to_bits()).collect();
    result.v = bits(&state.v());
    result.h = bits(&state.h());
    result.scalars = scalar_bits(&state.scalars());
    result.copy = copy[1..].iter().map(|value| value.to_bits()).collect();
    result
}
