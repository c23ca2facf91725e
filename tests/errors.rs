//! Bad input: an error that names the tensor and the numbers, and after it everything is as it was, to the bit.

mod common;

use common::scalar_bits;
use koala_optim::kernel::{self, Buffers, HalfCopy, Measurement, Scalars, Step};
use koala_optim::{
    Backend, Config, Element, ElementType, Error, GroupId, KoalaPlusPlus, Loss, Noise, OnBreakdown, OnNonFinite,
    Optimizer, Policy, Settings, StateType, Tensor, TensorState, Threads, bf16,
};
use proptest::prelude::*;

fn optimizer(policy: Policy) -> (Optimizer, GroupId) {
    let mut optimizer = Optimizer::new(Config { policy, ..Config::default() }).unwrap();
    let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
    for (name, length) in [("weight", 30), ("bias", 3), ("empty", 0)] {
        optimizer.add_tensor(name, length, ElementType::F32, StateType::Same, group).unwrap();
    }
    (optimizer, group)
}

#[test]
fn messages_name_the_tensor_and_the_numbers() {
    let (mut optimizer, _) = optimizer(Policy::default());
    let loss = Loss::new(0.7, 0.6);
    let (mut weight, mut bias) = ([0.5f32; 30], [0.5f32; 3]);
    let mut message = |tensors: &mut [Tensor]| optimizer.step(loss, tensors).unwrap_err().to_string();

    assert_eq!(
        message(&mut [Tensor::new("weight", &mut weight, &[0.1; 29])]),
        "tensor \"weight\": expected 30 elements, found 29 in the gradient"
    );
    assert_eq!(
        message(&mut [Tensor::new("weight", &mut weight[1..], &[0.1; 29])]),
        "tensor \"weight\": expected 30 elements, found 29 in the parameters"
    );
    assert_eq!(
        message(&mut [Tensor::new("bias", &mut bias, &[0.1; 3]).with_bf16_copy(&mut [bf16::ZERO; 4])]),
        "tensor \"bias\": expected 3 elements, found 4 in the half-precision copy"
    );
    assert_eq!(
        message(&mut [Tensor::new("biass", &mut bias, &[0.1; 3])]),
        "tensor \"biass\" was never added to this optimizer"
    );
    assert_eq!(
        message(&mut [Tensor::new("bias", &mut bias, &[0.1; 3]), Tensor::new("bias", &mut [0.0; 3], &[0.1; 3])]),
        "tensor \"bias\" is given twice"
    );
    assert_eq!(
        message(&mut [Tensor::new("bias", &mut [0.5f64; 3], &[0.1; 3])]),
        "tensor \"bias\": the parameters are f64, but it was added as f32"
    );
    assert_eq!(
        optimizer.step(Loss::new(0.7, -0.5), &mut []).unwrap_err().to_string(),
        "the second moment of the loss is -0.5, expected a finite number, at least 0"
    );
}

#[test]
fn a_length_of_zero_is_legal_and_does_nothing() {
    let (mut optimizer, _) = optimizer(Policy::default());
    let report = optimizer.step(Loss::new(0.7, 0.6), &mut [Tensor::new::<f32>("empty", &mut [], &[])]).unwrap();
    assert_eq!((report.stepped, report.skipped), (0, 1));
    let report = optimizer.step(Loss::new(0.7, 0.6), &mut []).unwrap();
    assert_eq!((report.stepped, report.step), (0, 2));
}

#[test]
fn settings_out_of_range() {
    let good = Settings::default();
    let mut bad = Vec::new();
    for value in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        bad.push(("learning rate", value, Settings { learning_rate: value, ..good }));
        bad.push(("weight decay", value, Settings { weight_decay: value, ..good }));
    }
    let (mut optimizer, group) = optimizer(Policy::default());
    let settings = optimizer.settings(group).unwrap();
    for (name, value, bad) in bad {
        for error in [optimizer.add_group(bad).unwrap_err(), optimizer.set_settings(group, bad).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&value.to_string()), "{text}");
        }
        assert_eq!(optimizer.settings(group).unwrap(), settings);
        let step_of = Step { settings: bad, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        let mut state = TensorState::new::<f32>(1, StateType::Same).unwrap();
        assert!(matches!(state.step(&step_of, &mut [1.0f32], &[1.0], None), Err(Error::Setting { .. })));
    }
    for noise in [
        Noise::Fixed(-1.0),
        Noise::Fixed(f64::NAN),
        Noise::Averaged { decay: 1.5, initial: 1.0 },
        Noise::Averaged { decay: f64::NAN, initial: 1.0 },
        Noise::Averaged { decay: 0.9, initial: f64::INFINITY },
    ] {
        assert!(matches!(Optimizer::new(Config { noise, ..Config::default() }), Err(Error::Setting { .. })));
    }
    let step_of = Step::new(Measurement { loss: 1.0, noise: -1.0 });
    let mut state = TensorState::new::<f32>(1, StateType::Same).unwrap();
    let error = state.step(&step_of, &mut [1.0f32], &[1.0], None).unwrap_err();
    assert_eq!(error.to_string(), "the measurement noise is -1, expected a finite number, at least 0");
}

#[test]
fn tensors_and_groups_that_cannot_be_added() {
    let (mut one, group) = optimizer(Policy::default());
    let error = one.add_tensor("bias", 5, ElementType::F32, StateType::Same, group).unwrap_err();
    assert_eq!(error, Error::DuplicateTensor { tensor: "bias".into() });
    let mut other = Optimizer::new(Config::default()).unwrap();
    let error = other.add_tensor("bias", 5, ElementType::F32, StateType::Same, group).unwrap_err();
    assert_eq!(error, Error::UnknownGroup { group: 0, groups: 0 });
    assert!(other.state("bias").is_none());
    for length in [usize::MAX, isize::MAX as usize, 1 << (usize::BITS - 4)] {
        let error = one.add_tensor("huge", length, ElementType::F64, StateType::Same, group).unwrap_err();
        assert_eq!(error, Error::Memory { tensor: "huge".into(), elements: length });
    }
    assert!(one.state("huge").is_none());
    assert!(matches!(
        Optimizer::new(Config { threads: Threads::Count(100_000), ..Config::default() }),
        Err(Error::Threads { count: 100_000, .. })
    ));
}

#[test]
fn backends_that_cannot_be_had() {
    let present: Vec<&str> = Backend::present().iter().map(Backend::name).collect();
    let error = Backend::by_name("mmx").unwrap_err();
    assert_eq!(error, Error::UnknownBackend { name: "mmx".into(), present: present.clone() });
    for status in Backend::statuses() {
        match Backend::by_name(status.name) {
            Ok(backend) => assert_eq!(Some(backend), status.backend),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(status.name) && text.contains(status.absent_because.unwrap()), "{text}");
                assert!(present.iter().all(|name| text.contains(name)), "{text}");
            }
        }
    }
    assert!(Backend::statuses().iter().any(|status| status.backend.is_none()), "no machine has all");
}

/// What is wrong with a call of the kernel.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Length(usize),
    Setting(usize),
    NonFinite(usize, f32),
    Loss(f64),
    Breakdown,
}

fn faults() -> impl Strategy<Value = Fault> {
    let bad = || prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)];
    prop_oneof![
        (0usize..4).prop_map(Fault::Length),
        (0usize..4).prop_map(Fault::Setting),
        (any::<prop::sample::Index>(), bad()).prop_map(|(index, value)| Fault::NonFinite(index.index(1 << 20), value)),
        bad().prop_map(|value| Fault::Loss(f64::from(value))),
        Just(Fault::Breakdown),
    ]
}

/// Some steps, then one with a fault: every buffer, by type.
fn unchanged_after<P: Element, S: Element>(
    length: usize,
    seed: u64,
    fault: Fault,
    decay: f64,
) -> Result<(), TestCaseError> {
    let vector = |seed: u64, scale: f64| common::offset_vector::<P>(&common::random_vector(seed, length, scale), 0);
    let mut parameters = vector(seed, 1.0);
    let (mut v, mut h) = (vec![S::zeroed(); length], vec![S::zeroed(); length]);
    let mut copy = vec![bf16::ZERO; length];
    let mut scalars = Scalars::default();
    let policy = Policy { non_finite: OnNonFinite::Error, breakdown: OnBreakdown::Error };
    let settings = Settings { weight_decay: decay, ..Settings::default() };
    let good = Step { policy, settings, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
    for i in 1..3 {
        let gradient = vector(seed + i, 0.1);
        let copy = Some(HalfCopy::Bf16(&mut copy));
        let buffers = Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy };
        kernel::step(&good, buffers, &mut scalars).unwrap();
    }

    let mut gradient = vector(seed + 9, 0.1);
    let mut faulty = good;
    let (mut gradient_length, mut v_length, mut h_length, mut copy_length) = (length, length, length, length);
    match fault {
        Fault::Length(0) => gradient_length -= 1,
        Fault::Length(1) => v_length -= 1,
        Fault::Length(2) => h_length -= 1,
        Fault::Length(_) => copy_length -= 1,
        Fault::Setting(0) => faulty.settings.learning_rate = f64::NAN,
        Fault::Setting(1) => faulty.settings.weight_decay = -1.0,
        Fault::Setting(2) => {
            faulty.method = KoalaPlusPlus { process_noise: f64::INFINITY, ..KoalaPlusPlus::default() }.into()
        }
        Fault::Setting(_) => faulty.measurement.noise = -1.0,
        Fault::NonFinite(index, value) => gradient[index % length] = P::rounded(f64::from(value)),
        Fault::Loss(value) => faulty.measurement.loss = value,
        // With H = h and v = −(1000/x)·h, b is −1000, and S about −b².
        Fault::Breakdown => {
            let factor = -1e3 / scalars.h_h;
            v.iter_mut().zip(&h).for_each(|(v, h)| *v = S::rounded(factor * h.to_f64()));
            scalars.h_v = -1e3;
            gradient.iter_mut().zip(&h).for_each(|(g, h)| *g = P::rounded(h.to_f64()));
            faulty.settings.weight_decay = 0.0;
        }
    }
    let before = (parameters.clone(), v.clone(), h.clone(), copy.clone(), scalar_bits(&scalars));
    let copy_part = Some(HalfCopy::Bf16(&mut copy[..copy_length]));
    let buffers = Buffers {
        parameters: &mut parameters,
        gradient: &gradient[..gradient_length],
        v: &mut v[..v_length],
        h: &mut h[..h_length],
        copy: copy_part,
    };
    let result = kernel::step(&faulty, buffers, &mut scalars);
    prop_assert!(result.is_err(), "{fault:?} gave {result:?}");
    prop_assert_eq!((parameters, v, h, copy, scalar_bits(&scalars)), before);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn the_kernel_changes_nothing_after_any_error(
        length in prop_oneof![1usize..40, 1000usize..1100], seed in 0u64..1000, fault in faults(),
        decay in prop_oneof![Just(0.0), Just(0.01)],
    ) {
        unchanged_after::<f32, f32>(length, seed, fault, decay)?;
        unchanged_after::<f32, bf16>(length, seed, fault, decay)?;
        unchanged_after::<f64, f64>(length, seed, fault, decay)?;
        unchanged_after::<bf16, f32>(length, seed, fault, decay)?;
    }

    /// An optimizer whose errors come from any tensor, at any place in the call.
    #[test]
    fn the_optimizer_changes_nothing_after_any_error(
        broken in 0usize..5, kind in 0usize..6, seed in 0u64..1000, threads in prop_oneof![Just(1usize), Just(2)],
    ) {
        let policy = Policy { non_finite: OnNonFinite::Error, breakdown: OnBreakdown::Error };
        let threads = if cfg!(feature = "rayon") { threads } else { 1 };
        let config = Config { policy, threads: Threads::Count(threads), ..Config::default() };
        let mut optimizer = Optimizer::new(config).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        let names = ["a", "b", "c", "d", "e"];
        for (i, name) in names.iter().enumerate() {
            optimizer.add_tensor(name, 20 + i, ElementType::F32, StateType::Same, group).unwrap();
        }
        let vector = |i: usize, seed: u64, scale| common::offset_vector::<f32>(&common::random_vector(seed, 20 + i, scale), 0);
        let mut parameters: Vec<Vec<f32>> = (0..5).map(|i| vector(i, seed + i as u64, 1.0)).collect();
        let mut gradients: Vec<Vec<f32>> = (0..5).map(|i| vector(i, seed + 10 + i as u64, 0.1)).collect();
        let good = |parameters: &mut Vec<Vec<f32>>, gradients: &[Vec<f32>], optimizer: &mut Optimizer| {
            let tensors = names.iter().zip(parameters).zip(gradients);
            let mut tensors: Vec<_> = tensors.map(|((name, p), g)| Tensor::new(name, p, g)).collect();
            optimizer.step(Loss::new(0.7, 0.6), &mut tensors)
        };
        good(&mut parameters, &gradients, &mut optimizer).unwrap();
        let snapshot = |optimizer: &Optimizer, parameters: &[Vec<f32>]| {
            let states: Vec<_> = names.iter().map(|name| {
                let state = optimizer.state(name).unwrap();
                (state.bytes().map(<[u8]>::to_vec), scalar_bits(&state.scalars()))
            }).collect();
            let bits: Vec<Vec<u32>> = parameters.iter().map(|p| p.iter().map(|x| x.to_bits()).collect()).collect();
            (states, bits, optimizer.noise().to_bits())
        };
        let mut loss = Loss::new(0.7, 0.6);
        let mut name = names[broken];
        match kind {
            0 => gradients[broken][3] = f32::NAN,
            1 => gradients[broken].truncate(5),
            2 => name = "nobody",
            3 => name = names[(broken + 1) % 5],
            4 => loss.mean = f64::INFINITY,
            _ => loss.second_moment = -1.0,
        }
        let before = snapshot(&optimizer, &parameters);
        let result = {
            let tensors = names.iter().enumerate().zip(&mut parameters).zip(&gradients);
            let mut tensors: Vec<_> = tensors
                .map(|(((i, own), p), g)| Tensor::new(if i == broken { name } else { own }, p, g))
                .collect();
            optimizer.step(loss, &mut tensors)
        };
        prop_assert!(result.is_err());
        prop_assert_eq!(snapshot(&optimizer, &parameters), before);
        // And it goes on working.
        let gradients: Vec<Vec<f32>> = (0..5).map(|i| vector(i, seed + 20 + i as u64, 0.1)).collect();
        prop_assert_eq!(good(&mut parameters, &gradients, &mut optimizer).unwrap().stepped, 5);
    }
}
