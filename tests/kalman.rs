//! What the recursion means: v' = H·P₋₁ of a Kalman filter with a full covariance matrix, for small n, by dense matrices.

use koala_optim::kernel::{Buffers, Measurement, Scalars, Step, step};
use koala_optim::{KoalaPlusPlus, Settings, Variant};
use ndarray::{Array1, Array2, Axis};
use proptest::prelude::*;

/// a·bᵀ
fn outer(a: &Array1<f64>, b: &Array1<f64>) -> Array2<f64> {
    a.view().insert_axis(Axis(1)).dot(&b.view().insert_axis(Axis(0)))
}

/// P₋₁ = (I − K·h)·(P̂ + Q·I), with K = (vᵀ + Q·hᵀ)/s and P̂ the variant's matrix for which h·P̂ = v.
fn covariance(variant: Variant, q: f64, gamma: f64, v: &Array1<f64>, h: &Array1<f64>, s: f64) -> Array2<f64> {
    let x = h.dot(h);
    let identity = Array2::eye(h.len());
    let p_hat = match variant {
        Variant::Vanilla => outer(h, v) / x,
        Variant::Symmetric => (outer(h, v) + outer(v, h)) / x - outer(h, h) * (h.dot(v) / (x * x)),
        Variant::Definite => (&identity - &(outer(h, h) / x)) * gamma + outer(v, v) / h.dot(v),
    };
    let gain = (v + &(h * q)) / s;
    (&identity - &outer(&gain, h)).dot(&(p_hat + identity * q))
}

/// A tensor of n elements, and three gradients for it.
fn tensors() -> impl Strategy<Value = (Vec<f64>, Vec<Vec<f64>>)> {
    (1usize..=8).prop_flat_map(|n| {
        let vector = || prop::collection::vec(prop_oneof![-2.0..-0.05f64, 0.05..2.0f64], n);
        (vector(), prop::collection::vec(vector(), 3))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn the_recursion_is_a_kalman_filter(
        (theta, gradients) in tensors(),
        sigma in 0.01..1.0f64,
        q in 0.0..0.5f64,
        noise in 0.1..3.0f64,
        weight_decay in prop_oneof![Just(0.0), 1e-4..0.1f64],
        variant in prop::sample::select(vec![Variant::Symmetric, Variant::Vanilla, Variant::Definite]),
        gamma in 0.01..1.0f64,
    ) {
        let settings = Settings { learning_rate: 0.3, weight_decay, frozen: false };
        let numbers = KoalaPlusPlus { initial_variance: sigma, process_noise: q, variant, prior_variance: gamma };
        let n = theta.len();
        let mut parameters = theta;
        let (mut v, mut h, mut scalars) = (vec![0.0; n], vec![0.0; n], Scalars::default());
        for (i, g) in gradients.iter().enumerate() {
            let loss = 0.8 - 0.1 * i as f64;
            let theta = Array1::from(parameters.clone());
            let measurement = Array1::from(g.clone()) + &theta * weight_decay;
            let (old_h, old_v) = match i {
                0 => (measurement.clone(), &measurement * sigma),
                _ => (Array1::from(h.clone()), Array1::from(v.clone())),
            };
            let x = old_h.dot(&old_h);
            let old_s = if i == 0 { sigma * x + q * x + noise } else { scalars.innovation_variance };
            let p = covariance(variant, q, gamma, &old_v, &old_h, old_s);
            let expected_v = measurement.dot(&p);
            let expected_s = expected_v.dot(&measurement) + q * measurement.dot(&measurement) + noise;
            prop_assume!(expected_s > 1e-3);

            let buffers = Buffers { parameters: &mut parameters, gradient: g, v: &mut v, h: &mut h, copy: None };
            let step_of = Step { settings, method: numbers.into(), ..Step::new(Measurement { loss, noise }) };
            let report = step(&step_of, buffers, &mut scalars).unwrap();
            prop_assert!(report.outcome.is_step());

            let total_loss = loss + 0.5 * weight_decay * theta.dot(&theta);
            let gain = (&expected_v + &(&measurement * q)) / expected_s;
            let expected_theta = &theta - &(gain * (0.3 * total_loss));
            // The terms whose sum v' is may be far larger than it.
            let scale = 1.0 + old_v.iter().fold(0.0, |scale: f64, v| scale.max(v.abs())) * (1.0 + 10.0 / x);
            for k in 0..n {
                prop_assert!((v[k] - expected_v[k]).abs() < 1e-10 * scale, "v {} {}", v[k], expected_v[k]);
                prop_assert!((parameters[k] - expected_theta[k]).abs() < 1e-10 * scale / expected_s.min(1.0));
            }
            prop_assert_eq!(&h, &measurement.to_vec());
            prop_assert!((scalars.innovation_variance - expected_s).abs() < 1e-10 * scale);
        }
    }
}
