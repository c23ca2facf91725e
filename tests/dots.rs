//! The contract's accuracy: each dot against the exact sum of the products, in whole numbers of any size, on inputs
//! that are hard: cancellation, magnitudes from 1e-30 to 1e30, denormals.

mod common;

use common::backends;
use koala_optim::kernel::{Buffers, Dots, Scalars, dots};
use koala_optim::{Backend, Element};
use num_bigint::{BigInt, Sign};
use proptest::prelude::*;

/// A finite number as a whole number of 2⁻¹⁰⁷⁴.
fn exact(value: f64) -> BigInt {
    let bits = value.to_bits();
    let exponent = (bits >> 52) & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    let magnitude =
        if exponent == 0 { BigInt::from(fraction) } else { BigInt::from(fraction | 1 << 52) << (exponent - 1) };
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

/// In whole numbers of 2⁻²¹⁴⁸: the dot, and the sum of the absolute products.
fn exact_dot(a: &[f64], b: &[f64]) -> (BigInt, BigInt) {
    let products = a.iter().zip(b).map(|(a, b)| exact(*a) * exact(*b));
    products.fold((BigInt::ZERO, BigInt::ZERO), |(dot, absolute), product| {
        let magnitude = BigInt::from_biguint(Sign::Plus, product.magnitude().clone());
        (dot + product, absolute + magnitude)
    })
}

/// |found − exact| ≤ 2^−precision · Σ|ab| + n · 2^−underflow
fn within<P: Element>(found: f64, a: &[P], b: &[P], precision: u32, underflow: u32) -> Result<(), TestCaseError> {
    let (a, b): (Vec<f64>, Vec<f64>) = (a.iter().map(|x| x.to_f64()).collect(), b.iter().map(|x| x.to_f64()).collect());
    let (dot, absolute) = exact_dot(&a, &b);
    let error: BigInt = (exact(found) << 1074) - dot;
    let error = BigInt::from_biguint(Sign::Plus, error.magnitude().clone());
    let allowed: BigInt = absolute + (BigInt::from(a.len()) << (2148 - underflow + precision));
    prop_assert!(error << precision <= allowed, "found {found} over {} elements", a.len());
    Ok(())
}

fn dots_of<P: Element>(backend: Backend, g: &[P], theta: &[P], h: &[P], v: &[P], weight_decay: f64) -> Dots {
    let (mut theta, mut h, mut v) = (theta.to_vec(), h.to_vec(), v.to_vec());
    let scalars = Scalars { steps: 1, ..Scalars::default() };
    let buffers = Buffers { parameters: &mut theta, gradient: g, v: &mut v, h: &mut h, copy: None };
    dots(backend, weight_decay, &buffers, &scalars).unwrap()
}

/// A vector whose magnitudes are from 10^low to 10^high, with some zeros and some denormals.
fn hard(length: usize, low: f64, high: f64, denormal: f64) -> impl Strategy<Value = Vec<f64>> {
    let element = prop_oneof![
        20 => (low..high, any::<bool>()).prop_map(|(power, negative)| 10f64.powf(power) * if negative { -1.0 } else { 1.0 }),
        1 => Just(0.0),
        1 => (0.0..1.0f64).prop_map(move |fraction| fraction * denormal),
    ];
    prop::collection::vec(element, length)
}

/// Inputs that nearly cancel: each value again, later and negated, with a last bit changed here and there.
fn cancelling(mut a: Vec<f64>, mut b: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    let n = a.len();
    a.extend_from_within(..);
    b.extend_from_within(..);
    b[n..].iter_mut().enumerate().for_each(|(i, b)| *b = if i % 7 == 3 { -b.next_up() } else { -*b });
    a[n..].rotate_left(n / 3);
    b[n..].rotate_left(n / 3);
    (a, b)
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..300, 900usize..1200, 2000usize..2500]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn in_f32(
        (g, h) in lengths().prop_flat_map(|n| (hard(n, -30.0, 7.0, 1e-40), hard(n, -30.0, 30.0, 1e-40))),
    ) {
        let (g, h) = cancelling(g, h);
        let (g, h): (Vec<f32>, Vec<f32>) = (g.iter().map(|x| *x as f32).collect(), h.iter().map(|x| *x as f32).collect());
        for backend in backends() {
            let found = dots_of(backend, &g, &g, &h, &h, 0.0);
            within(found.a, &g, &h, 21, 150)?;
            within(found.c, &g, &g, 21, 150)?;
            // A weight decay that changes no gradient: t = θ·θ is taken then.
            let found = dots_of(backend, &vec![0.0; g.len()], &g, &h, &h, 1.0);
            within(found.t, &g, &g, 21, 150)?;
            within(found.b, &g, &h, 21, 150)?;
        }
    }

    #[test]
    fn in_f64(
        (g, h) in lengths().prop_flat_map(|n| (hard(n, -30.0, 30.0, 1e-310), hard(n, -30.0, 30.0, 1e-310))),
    ) {
        let (g, h) = cancelling(g, h);
        for backend in backends() {
            let found = dots_of(backend, &g, &g, &h, &h, 0.0);
            within(found.a, &g, &h, 48, 1075)?;
            within(found.c, &g, &g, 48, 1075)?;
        }
    }
}

/// The worst case of the bound is nearly met: in each run, seven products that are just too small to be seen by the sum
/// of those before them. Runs of sixteen rows would break the contract here.
#[test]
fn the_bound_is_nearly_met() {
    let n = 128 * 64;
    // Half an ulp of 1, and a tie that goes to the even 1: each of the seven is lost.
    let lost = 0.5f32.powi(24);
    let g: Vec<f32> = (0..n).map(|i| if i / 16 % 8 == 0 { 1.0 } else { lost }).collect();
    let ones = vec![1.0f32; n];
    for backend in backends() {
        let found = dots_of(backend, &g, &ones, &ones, &ones, 0.0);
        within(found.a, &g, &ones, 21, 150).unwrap();
        assert!(within(found.a, &g, &ones, 22, 150).is_err(), "the error is seven eighths of the bound");
        assert_eq!(found.a, n as f64 / 8.0);
    }
}

#[test]
fn products_that_overflow_are_seen() {
    for backend in backends() {
        let found = dots_of(backend, &[2e19f32; 40], &[0.0; 40], &[1.0; 40], &[1.0; 40], 0.0);
        assert_eq!(found.c, f64::INFINITY);
        // A run of eight: 8 · (6.6e18)² is above the largest f32, 8 · (6.5e18)² below it, however many runs there are.
        let found = dots_of(backend, &[6.6e18f32; 128], &[0.0; 128], &[1.0; 128], &[1.0; 128], 0.0);
        assert_eq!(found.c, f64::INFINITY);
        let found = dots_of(backend, &[6.5e18f32; 5000], &[0.0; 5000], &[1.0; 5000], &[1.0; 5000], 0.0);
        assert!(found.c > 2e41 && found.c.is_finite());
    }
}
