//! KOALA-V and KOALA-M, whose variances all tensors share: predictions, breakdowns, and variances that are large.

mod common;

use common::methods::METHODS;
use koala_optim::kernel::{HalfCopy, Measurement, Step};
use koala_optim::{
    Config, ElementType, Error, KoalaM, KoalaV, Loss, Method, Noise, OnBreakdown, OnNonFinite, Optimizer, Outcome,
    Policy, Settings, StateType, Tensor, TensorState, bf16,
};

const KOALA_M: Method = METHODS[1];

/// An optimizer of two tensors, "first" of three parameters and "second" of two.
fn optimizer(config: Config) -> Result<Optimizer, Error> {
    let mut optimizer = Optimizer::new(config)?;
    let group = optimizer.add_group(Settings { learning_rate: 0.5, ..Settings::default() })?;
    optimizer.add_tensor("first", 3, ElementType::F64, StateType::Same, group)?;
    optimizer.add_tensor("second", 2, ElementType::F64, StateType::Same, group)?;
    Ok(optimizer)
}

const LOSS: Loss = Loss::new(0.8, 0.9);

/// A variance of nothing, and no noise: S = 0.
#[test]
fn a_breakdown_keeps_the_tensor_or_is_an_error() -> Result<(), Error> {
    let nothing = KoalaM { variance: 0.0, velocity_variance: 0.0, ..KoalaM::default() };
    for method in [
        Method::KoalaV(KoalaV { variance: 0.0, process_noise: 0.0 }),
        Method::KoalaM(KoalaM { process_noise: 0.0, velocity_noise: 0.0, ..nothing }),
    ] {
        for breakdown in [OnBreakdown::Restart, OnBreakdown::Skip, OnBreakdown::Error] {
            let policy = Policy { breakdown, ..Policy::default() };
            let step = Step { method, policy, ..Step::new(Measurement { loss: 0.8, noise: 0.0 }) };
            let mut state = TensorState::of_method::<f64>(&method, 2, StateType::Same)?;
            let mut parameters = [1.0, -2.0];
            let result = state.step(&step, &mut parameters, &[0.1, 0.2], None);
            match breakdown {
                OnBreakdown::Error => {
                    let expected = Error::Breakdown { tensor: String::new(), innovation_variance: 0.0 };
                    assert_eq!(result, Err(expected), "{method:?}");
                }
                _ => assert_eq!(result?.outcome, Outcome::Breakdown, "{method:?} {breakdown:?}"),
            }
            assert_eq!((parameters, state.scalars().steps), ([1.0, -2.0], 0));
            assert!(state.h().iter().chain(&state.v()).all(|x| *x == 0.0));
        }
    }
    // All of an optimizer's tensors; its number of steps goes on, and the variance has nothing to learn.
    let method = Method::KoalaV(KoalaV { variance: 0.0, process_noise: 0.0 });
    let mut optimizer = optimizer(Config { method, noise: Noise::Fixed(0.0), ..Config::default() })?;
    let mut parameters = [1.0; 3];
    let report = optimizer.step(LOSS, &mut [Tensor::new("first", &mut parameters, &[0.1; 3])])?;
    assert_eq!((report.breakdowns, report.stepped, report.step, optimizer.method()), (1, 0, 1, method));
    assert_eq!(parameters, [1.0; 3]);
    Ok(())
}

/// σ² would be infinite.
#[test]
fn a_large_variance_survives() -> Result<(), Error> {
    let koala_v = KoalaV { variance: 1e160, process_noise: 0.1 };
    let koala_m = KoalaM { variance: 1e160, covariance: 1e160, velocity_variance: 1e160, ..KoalaM::default() };
    for method in [Method::KoalaV(koala_v), Method::KoalaM(koala_m)] {
        let mut optimizer = optimizer(Config { method, ..Config::default() })?;
        let mut parameters = [1.0; 3];
        // Nothing to learn from.
        optimizer.predict(&mut [Tensor::new("first", &mut parameters, &[])])?;
        let report = optimizer.step(LOSS, &mut [Tensor::new("first", &mut parameters, &[0.0; 3])])?;
        assert_eq!(report.skipped, 1);
        match optimizer.method() {
            Method::KoalaV(koala_v) => assert_eq!(koala_v.variance, 1e160),
            Method::KoalaM(KoalaM { variance, covariance, velocity_variance, .. }) => {
                assert_eq!((variance, covariance), (2e160 + 2e160, 0.9 * 2e160));
                assert_eq!(velocity_variance, (0.9 * 0.9) * 1e160);
            }
            _ => unreachable!(),
        }
        // As much as there is to learn: σ·c/S is 1 but for what R adds to S.
        let mut method = method;
        method.correct(0.25e-160);
        match method {
            Method::KoalaV(koala_v) => assert!((koala_v.variance / 0.75e160 - 1.0).abs() < 1e-15),
            Method::KoalaM(KoalaM { variance, covariance, velocity_variance, .. }) => {
                for number in [variance, covariance, velocity_variance] {
                    assert!((number / 0.75e160 - 1.0).abs() < 1e-15, "{method:?}");
                }
            }
            _ => unreachable!(),
        }
        // What is no number does not become one.
        method.correct(f64::NAN);
        assert!(method.validate().is_err(), "{method:?}");
    }
    Ok(())
}

#[test]
fn a_prediction_leaves_out_what_is_not_finite() -> Result<(), Error> {
    let step = Step { method: KOALA_M, ..Step::new(Measurement { loss: 0.8, noise: 1.0 }) };
    for spoilt in [f64::NAN, f64::INFINITY] {
        let mut state = TensorState::of_method::<f64>(&KOALA_M, 3, StateType::Same)?;
        let mut parameters = [1.0, 2.0, 3.0];
        state.step(&step, &mut parameters, &[0.1, 0.2, 0.3], None)?;
        parameters[1] = spoilt;
        let before = (parameters.map(f64::to_bits), state.h(), state.v());
        assert!(!state.predict(&step, &mut parameters, None)?.is_finite());
        assert_eq!((parameters.map(f64::to_bits), state.h(), state.v()), before);
    }
    // Of an optimizer's tensors the others count, as if they were all.
    let predicted = |first: f64, both: bool| -> Result<(Method, [f64; 2]), Error> {
        let mut optimizer = optimizer(Config { method: KOALA_M, ..Config::default() })?;
        let (mut first, mut second) = ([first; 3], [3.0, 4.0]);
        let mut tensors = [Tensor::new("second", &mut second, &[]), Tensor::new("first", &mut first, &[])];
        optimizer.predict(&mut tensors[..1 + usize::from(both)])?;
        Ok((optimizer.method(), second))
    };
    assert_eq!(predicted(f64::NAN, true)?, predicted(0.0, false)?);
    assert_ne!(predicted(1.0, true)?, predicted(0.0, false)?);
    Ok(())
}

#[test]
fn a_prediction_writes_the_copy() -> Result<(), Error> {
    let step = Step { method: KOALA_M, ..Step::new(Measurement { loss: 0.8, noise: 1.0 }) };
    for length in [3, 5000] {
        let mut state = TensorState::of_method::<f32>(&KOALA_M, length, StateType::Same)?;
        let mut parameters: Vec<f32> = (0..length).map(|i| 1.0 + i as f32 / 1024.0).collect();
        let gradient = vec![0.25_f32; length];
        let mut copy = vec![bf16::ZERO; length];
        state.step(&step, &mut parameters, &gradient, None)?;
        let (before, velocity) = (parameters.clone(), state.h());
        state.predict(&step, &mut parameters, Some(HalfCopy::Bf16(&mut copy)))?;
        for i in 0..length {
            assert_eq!(parameters[i], before[i] + velocity[i] as f32);
            assert_eq!(copy[i], bf16::from_f32(parameters[i]));
        }
        assert_ne!(parameters, before);
        let short = Some(HalfCopy::Bf16(&mut copy[1..]));
        let error = state.predict(&step, &mut parameters, short).unwrap_err().to_string();
        assert!(error.contains("half-precision copy"), "{error}");
    }
    Ok(())
}

/// A step that is withheld keeps what the prediction has made of the parameters, the velocities and the covariance.
#[test]
fn what_keep_all_keeps_of_a_prediction() -> Result<(), Error> {
    for non_finite in [OnNonFinite::KeepAll, OnNonFinite::Error] {
        let policy = Policy { non_finite, ..Policy::default() };
        let mut optimizer = optimizer(Config { method: KOALA_M, policy, ..Config::default() })?;
        let (mut first, mut second) = ([1.0, 2.0, 3.0], [4.0, 5.0]);
        let mut spoilt = [0.1, 0.2];
        for step in 0..2 {
            let mut tensors = [Tensor::new("first", &mut first, &[]), Tensor::new("second", &mut second, &[])];
            optimizer.predict(&mut tensors)?;
            let before = (first, second, optimizer.method(), optimizer.noise());
            let velocity = optimizer.state("first").map(TensorState::h);
            spoilt[0] = if step == 1 { f64::NAN } else { 0.1 };
            let mut tensors =
                [Tensor::new("first", &mut first, &[0.1, 0.2, 0.3]), Tensor::new("second", &mut second, &spoilt)];
            let result = optimizer.step(LOSS, &mut tensors);
            if step == 0 {
                assert_eq!(result?.stepped, 2);
                continue;
            }
            assert_eq!(result.is_ok(), non_finite == OnNonFinite::KeepAll);
            assert_eq!((first, second, optimizer.method(), optimizer.noise()), before);
            assert_eq!(optimizer.state("first").map(TensorState::h), velocity);
        }
        let mut tensors = [Tensor::new("first", &mut first, &[0.1, 0.2, 0.3])];
        let again = optimizer.step(LOSS, &mut tensors);
        match non_finite {
            // The withheld step has used the prediction up.
            OnNonFinite::KeepAll => assert_eq!(again, Err(Error::NotPredicted)),
            // The failed one has not.
            _ => assert_eq!(again?.stepped, 1),
        }
        // One that no step follows, and another: each moves the parameters.
        let before = first;
        optimizer.predict(&mut [Tensor::new("first", &mut first, &[])])?;
        let once = first;
        optimizer.predict(&mut [Tensor::new("first", &mut first, &[])])?;
        assert!(once != before && first != once);
    }
    Ok(())
}
