//! The contract once more, in the plainest loops: every lane, run, block and tree spelled out over indices, with
//! nothing of the library's kernels in it. Arithmetic in f32 is done in f64 and rounded after each operation, which
//! for +, − and × of two f32 gives the same bits.

use koala_optim::kernel::{Outcome, Scalars};
use koala_optim::{ElementType, Variant, bf16};

use super::{Bits, Case, bits, round_to, scalar_bits, state_element};

/// Rounds to the arithmetic type.
type Round = fn(f64) -> f64;

fn round_f32(value: f64) -> f64 {
    f64::from(value as f32)
}

fn keep_f64(value: f64) -> f64 {
    value
}

/// The dot product of the contract.
pub fn dot(round: Round, a: &[f64], b: &[f64]) -> f64 {
    let blocks: Vec<f64> = (0..a.len().div_ceil(1024))
        .map(|block| {
            let mut lanes = [0.0; 16];
            for run in 0..8 {
                for (lane, sum) in lanes.iter_mut().enumerate() {
                    let mut partial = None;
                    for row in 0..8 {
                        let i = block * 1024 + run * 128 + row * 16 + lane;
                        if i < a.len() {
                            let product = round(a[i] * b[i]);
                            partial = Some(partial.map_or(product, |partial: f64| round(partial + product)));
                        }
                    }
                    *sum += partial.unwrap_or(0.0);
                }
            }
            for width in [8, 4, 2, 1] {
                for lane in 0..width {
                    lanes[lane] += lanes[lane + width];
                }
            }
            lanes[0]
        })
        .collect();
    tree(&blocks)
}

fn tree(blocks: &[f64]) -> f64 {
    match blocks {
        [] => 0.0,
        [block] => *block,
        _ => {
            let (left, right) = blocks.split_at(1 << (blocks.len() - 1).ilog2());
            tree(left) + tree(right)
        }
    }
}

/// The case, by the equations of the paper in the order of the contract.
pub fn run(case: &Case) -> Bits {
    let round: Round = if case.parameters == ElementType::F64 { keep_f64 } else { round_f32 };
    let store = state_element(case.parameters, case.state);
    let settings = case.settings();
    let q = case.koala().process_noise;
    let (sigma, gamma) = (case.koala().initial_variance, case.koala().prior_variance);
    let wd = round(settings.weight_decay);

    let mut theta = case.initial();
    let (mut v, mut h) = (vec![0.0; case.length], vec![0.0; case.length]);
    let (mut x, mut y, mut s, mut steps) = (0.0, 0.0, 0.0, 0);
    let mut result = Bits::default();
    for step in 0..Case::STEPS {
        let g = case.gradient(step);
        let (loss, noise) = (Case::measurement(step).loss, Case::measurement(step).noise);
        let measurement: Vec<f64> = match wd == 0.0 {
            true => g.clone(),
            false => g.iter().zip(&theta).map(|(g, theta)| round(g + round(wd * theta))).collect(),
        };
        let gradient_norm = dot(round, &g, &g).sqrt();
        let parameters_squared = dot(round, &theta, &theta);
        let c = dot(round, &measurement, &measurement);
        let norms = [gradient_norm, c.sqrt(), parameters_squared.sqrt()];
        if gradient_norm < 1e-9 {
            let mut report = [Outcome::Skipped as u64, 0, 0, 0, 0, 0, 0, 0];
            report[5..].copy_from_slice(&norms.map(f64::to_bits));
            result.reports.push(report);
            continue;
        }
        let t = if wd == 0.0 { 0.0 } else { parameters_squared };
        let first = steps == 0;
        let (a, b) = if first {
            (x, y) = (c, sigma * c);
            s = y + q * x + noise;
            (c, sigma * c)
        } else {
            (dot(round, &measurement, &h), dot(round, &measurement, &v))
        };
        let lambda = (b + q * a) / s;
        let (alpha, w, gain) = match case.variant {
            Variant::Symmetric => (a / x, b / x - a * y / (x * x), q),
            Variant::Vanilla => (a / x, 0.0, q),
            Variant::Definite => (b / y, -(gamma * a / x), q + gamma),
        };
        y = (alpha - lambda) * b + gain * c + (w - q * lambda) * a;
        s = y + q * c + noise;
        let rate = round(settings.learning_rate * (loss + 0.5 * settings.weight_decay * t) / s);
        let (keep, mix) = (round(alpha - lambda), round(w - q * lambda));
        if first {
            v = measurement.iter().map(|h| round_to(store, round(round(sigma) * h))).collect();
            h = measurement.iter().map(|h| round_to(store, *h)).collect();
        }
        for i in 0..case.length {
            let diffusion = round(round(q) * measurement[i]);
            let gained = round(round(gain) * measurement[i]);
            let new_v = round(round(round(keep * v[i]) + gained) + round(mix * h[i]));
            let new_theta = round(theta[i] - round(rate * round(new_v + diffusion)));
            theta[i] = round_to(case.parameters, new_theta);
            v[i] = round_to(store, new_v);
            h[i] = round_to(store, measurement[i]);
        }
        x = c;
        steps += 1;
        let outcome = if first { Outcome::FirstStep } else { Outcome::Stepped } as u64;
        let scalars = [s, alpha, lambda, w].map(f64::to_bits);
        let norms = norms.map(f64::to_bits);
        result.reports.push([outcome, scalars[0], scalars[1], scalars[2], scalars[3], norms[0], norms[1], norms[2]]);
    }
    // Exact: the value was rounded to bf16 before it becomes an f32.
    let half = |theta: &f64| bf16::from_f32(round_to(ElementType::Bf16, *theta) as f32).to_bits();
    result.copy = if steps == 0 { vec![0; case.length] } else { theta.iter().map(half).collect() };
    result.parameters = bits(&theta);
    result.v = bits(&v);
    result.h = bits(&h);
    result.scalars = scalar_bits(&Scalars { h_h: x, h_v: y, innovation_variance: s, steps });
    result
}
