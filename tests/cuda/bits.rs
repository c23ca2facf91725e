//! The kernels' bits are those of the scalar backend.

use koala_optim::{
    ElementType, KoalaPlusPlus, Loss, Noise, OnBreakdown, OnNonFinite, Outcome, Policy, Settings, StateType, Variant,
    bf16, f16,
};

use crate::common::TYPES;
use crate::machine::machine;
use crate::model::{Group, Model, Shape, Trace, on_device, on_scalar};
use crate::shim::half_conversions;

/// Compares the machine with the scalar backend, over groups of all tensors, of single ones, and of something between; and
/// returns the bits, if there was anything to compare.
pub fn agrees(model: &Model) -> Option<Trace> {
    let machine = machine()?;
    let expected = on_scalar(model);
    let total: usize = model.shapes.iter().map(|shape| shape.length * 8).sum();
    let mut counts = Vec::new();
    for group_bytes in [usize::MAX, total / 3, 0] {
        let (found, groups) = on_device(model, &machine, group_bytes);
        let difference = found.difference(&expected);
        let name = &machine.name;
        assert!(difference.is_none(), "{name}, groups of {group_bytes} bytes: {}", difference.unwrap_or_default());
        counts.push(groups);
    }
    // A tensor without elements has no bytes.
    if !model.policy.is_atomic() && model.shapes.iter().all(|shape| shape.length > 0) {
        assert_eq!([counts[0], counts[2]], [1, model.shapes.len()]);
    }
    Some(expected)
}

/// A group without weight decay and one with, of that variant.
pub fn settings(variant: Variant) -> Vec<Group> {
    let plain = Settings { learning_rate: 0.3, ..Settings::default() };
    let numbers = KoalaPlusPlus { initial_variance: 0.2, process_noise: 0.05, variant, prior_variance: 0.3 };
    vec![(plain, numbers), (Settings { weight_decay: 0.01, ..plain }, numbers)]
}

/// A tensor of each pair of types, with and without weight decay, and with every kind of copy among them.
pub fn shapes(length: usize) -> Vec<Shape> {
    let copies = [None, Some(ElementType::Bf16), Some(ElementType::F16)];
    let types = TYPES.into_iter().enumerate();
    types
        .flat_map(|(i, (parameters, state))| {
            [0, 1].map(|group| Shape { length, parameters, state, group, copy: copies[(i + group) % 3], offset: 0 })
        })
        .collect()
}

/// Some tensors of f32.
pub fn plain_shapes(lengths: &[usize], group: usize) -> Vec<Shape> {
    let shape = |length: &usize| Shape {
        length: *length,
        parameters: ElementType::F32,
        state: StateType::Same,
        group,
        copy: None,
        offset: 0,
    };
    lengths.iter().map(shape).collect()
}

#[test]
fn every_type_and_length() {
    for (i, length) in
        [0, 1, 15, 16, 17, 127, 128, 129, 1023, 1024, 1025, 5000, 8191, 8192, 8193, 70_003].into_iter().enumerate()
    {
        let variant = [Variant::Symmetric, Variant::Vanilla, Variant::Definite][i % 3];
        agrees(&Model::new(shapes(length), settings(variant)));
    }
}

/// The same over one grouping, for many tensors.
fn agrees_at_once(shapes: Vec<Shape>) {
    let Some(machine) = machine() else { return };
    let model = Model { steps: 2, ..Model::new(shapes, settings(Variant::Symmetric)) };
    let total: usize = model.shapes.iter().map(|shape| shape.length * 8).sum();
    let difference = on_device(&model, &machine, total / 3).0.difference(&on_scalar(&model));
    assert!(difference.is_none(), "{}: {}", machine.name, difference.unwrap_or_default());
}

#[test]
fn every_length_to_200_in_every_type() {
    agrees_at_once((0..=200).flat_map(shapes).collect());
}

#[test]
fn around_every_power_of_two() {
    let lengths = (8..=20).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
    let shapes = |length: usize| {
        // Above 2¹⁴ each length takes four of the twelve types, all of them within three lengths.
        let stride = if length <= (1 << 14) + 1 { 1 } else { 3 };
        let types = TYPES.into_iter().skip(length % stride).step_by(stride).enumerate();
        let shape = move |(i, (parameters, state))| {
            let group = (length + i) % 2;
            Shape { length, parameters, state, group, copy: None, offset: 0 }
        };
        types.map(shape)
    };
    agrees_at_once(lengths.flat_map(shapes).collect());
}

#[test]
fn every_alignment() {
    let copies = [Some(ElementType::Bf16), Some(ElementType::F16)];
    let with_offset = |offset: usize| {
        let shape = move |(parameters, state)| Shape {
            length: 333,
            parameters,
            state,
            group: 1,
            copy: copies[offset % 2],
            offset,
        };
        TYPES.into_iter().map(shape)
    };
    agrees_at_once((0..32).flat_map(with_offset).collect());
}

/// A model whose tensors are divided over several calls has the bits of one that is stepped as a whole.
#[test]
fn every_split_over_calls() {
    let Some(machine) = machine() else { return };
    let mut shapes = shapes(333);
    shapes.extend(plain_shapes(&[9000, 0, 1, 64], 1));
    let model = Model { noise: Noise::Fixed(0.5), ..Model::new(shapes, settings(Variant::Symmetric)) };
    let expected = on_scalar(&model);
    for calls in [2, 3, 28] {
        let (found, _) = on_device(&Model { calls, ..model.clone() }, &machine, usize::MAX);
        let (found, expected) = (found.tensors, &expected.tensors);
        let differs = (0..expected.len()).find(|tensor| found[*tensor] != expected[*tensor]);
        assert_eq!(differs, None, "{}, {calls} calls", machine.name);
    }
}

/// More chunks than the recursion has threads.
#[test]
fn a_tensor_of_many_chunks() {
    agrees(&Model { steps: 2, ..Model::new(plain_shapes(&[(1 << 21) + 8193], 1), settings(Variant::Symmetric)) });
}

#[test]
fn fifty_steps() {
    for variant in [Variant::Symmetric, Variant::Vanilla, Variant::Definite] {
        let mut shapes = shapes(333);
        shapes.extend(plain_shapes(&[1, 9000, 0, 64], 0));
        agrees(&Model { steps: 50, ..Model::new(shapes, settings(variant)) });
    }
}

#[test]
fn steps_of_a_graph() {
    agrees(&Model { steps: 8, captured: true, ..Model::new(shapes(333), settings(Variant::Symmetric)) });
}

#[test]
fn fixed_noise_and_no_details() {
    let model = Model::new(shapes(100), settings(Variant::Symmetric));
    agrees(&Model { noise: Noise::Fixed(0.5), details: false, ..model });
}

/// Gradients of nearly zero, with and without weight decay, around the bound below which a tensor is skipped.
#[test]
fn skipped_and_frozen() {
    let mut settings = settings(Variant::Symmetric);
    let (decayed, numbers) = settings[1];
    settings.push((Settings { frozen: true, ..decayed }, numbers));
    let mut shapes = shapes(50);
    shapes.extend(plain_shapes(&[50, 9000], 2));
    let change: fn(usize, usize, &mut [f64]) = |step, tensor, gradient| {
        let norm = [1.0, 0.0, 0.5e-9, 2e-9, 1.0][(step + tensor) % 5];
        let length = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
        gradient.iter_mut().for_each(|x| *x *= norm / length.max(1e-30));
    };
    let Some(trace) = agrees(&Model { steps: 10, change, ..Model::new(shapes, settings) }) else { return };
    let last = trace.reports.last().unwrap().0;
    assert!(last.frozen == 2 && last.skipped > 0 && last.stepped > 0, "{last:?}");
}

/// NaN and infinity in gradients, in the loss, and from products that overflow.
fn with_trouble(policy: Policy) -> Option<Trace> {
    let change: fn(usize, usize, &mut [f64]) = |step, tensor, gradient| match (step, tensor) {
        (0, 3) => gradient[17] = f64::NAN,
        (2, 5) => gradient[0] = f64::INFINITY,
        (4, 1) => gradient.fill(f64::from(f32::MAX)),
        _ => {}
    };
    let loss: fn(usize) -> Loss = |step| match step {
        3 => Loss::new(f64::NAN, 1.0),
        6 => Loss::new(0.5, f64::INFINITY),
        _ => Loss::new(0.5, 0.4),
    };
    agrees(&Model { steps: 8, change, loss, policy, ..Model::new(shapes(40), settings(Variant::Symmetric)) })
}

#[test]
fn not_finite_keeps_a_tensor() {
    let Some(trace) = with_trouble(Policy::default()) else { return };
    let non_finite: Vec<usize> = trace.reports.iter().map(|(report, _)| report.non_finite).collect();
    assert!(non_finite[0] == 1 && non_finite[1] == 0 && non_finite[2] == 1 && non_finite[3] == 24, "{non_finite:?}");
}

#[test]
fn not_finite_keeps_all_tensors() {
    let policy = Policy { non_finite: OnNonFinite::KeepAll, ..Policy::default() };
    let Some(trace) = with_trouble(policy) else { return };
    let withheld: Vec<usize> = trace.reports.iter().map(|(report, _)| report.withheld).collect();
    assert!(withheld[0] == 23 && withheld[1] == 0 && withheld[2] == 23 && withheld[3] == 0, "{withheld:?}");
}

/// Steps that would make an element infinite in its type, on the first step and later: in some tensors, while others come
/// near.
#[test]
fn what_would_overflow_is_kept() {
    let grown: fn(usize, usize, &mut [f64]) = |step, tensor, gradient| {
        let factor = 4.0_f64.powi(((step + tensor) % 7) as i32);
        gradient.iter_mut().for_each(|x| *x *= factor);
    };
    // From step to step at another end of the tensor: the covariance there has not been learned yet.
    let elsewhere: fn(usize, usize, &mut [f64]) = |step, _, gradient| {
        let middle = gradient.len() / 2;
        gradient.fill(0.0);
        gradient[if step % 2 == 0 { 0 } else { middle }] = 4.0_f64.powi(step as i32).min(6e4);
    };
    let (symmetric, definite) = (Variant::Symmetric, Variant::Definite);
    for (change, variant, variance, steps) in [
        (grown, symmetric, 1e4, 4),
        (grown, symmetric, 1e38, 4),
        (grown, definite, 1e4, 4),
        (grown, definite, 1e38, 4),
        (elsewhere, symmetric, 2.0, 12),
    ] {
        let wide =
            KoalaPlusPlus { initial_variance: variance, process_noise: variance, variant, ..KoalaPlusPlus::default() };
        let decayed = Settings { weight_decay: 0.01, ..Settings::default() };
        let settings = vec![(Settings::default(), wide), (decayed, wide)];
        let Some(trace) = agrees(&Model { steps, change, ..Model::new(shapes(3000), settings) }) else { return };
        let sum = |count: fn(&koala_optim::Report) -> usize| -> usize {
            trace.reports.iter().map(|(report, _)| count(report)).sum()
        };
        assert!(sum(|report| report.non_finite) > 0 && sum(|report| report.stepped) > 0, "variance {variance}");
    }
}

/// An innovation variance that is not positive: gradients that turn back and forth, of changing length.
#[test]
fn breakdown_restarts_or_keeps_a_tensor() {
    let change: fn(usize, usize, &mut [f64]) = |step, tensor, gradient| {
        let factor = [1.0, -30.0, 0.02, -3.0][(step + tensor) % 4];
        gradient.iter_mut().for_each(|x| *x *= factor);
    };
    for breakdown in [OnBreakdown::Restart, OnBreakdown::Skip] {
        let settings = settings(Variant::Symmetric)
            .into_iter()
            .map(|(settings, numbers)| (settings, KoalaPlusPlus { process_noise: 0.0, ..numbers }))
            .collect();
        let policy = Policy { breakdown, ..Policy::default() };
        let noise = Noise::Fixed(1e-6);
        let model = Model { steps: 12, change, policy, noise, ..Model::new(shapes(60), settings) };
        let Some(trace) = agrees(&model) else { return };
        let sum = |count: fn(&koala_optim::Report) -> usize| -> usize {
            trace.reports.iter().map(|(report, _)| count(report)).sum()
        };
        match breakdown {
            OnBreakdown::Restart => assert!(sum(|report| report.restarts) > 0),
            _ => assert!(sum(|report| report.breakdowns) > 0),
        }
    }
}

/// Settings that are nothing, or too much, in the type of the arithmetic.
#[test]
fn settings_beyond_the_arithmetic_type() {
    let (usual, numbers) = (Settings::default(), KoalaPlusPlus::default());
    let definite = KoalaPlusPlus { variant: Variant::Definite, ..numbers };
    for extreme in [
        (usual, KoalaPlusPlus { initial_variance: 1e-60, ..numbers }),
        (usual, KoalaPlusPlus { initial_variance: 1e60, ..numbers }),
        (Settings { weight_decay: 1e-60, ..usual }, numbers),
        (Settings { weight_decay: 1e60, ..usual }, numbers),
        (Settings { learning_rate: 0.0, ..usual }, KoalaPlusPlus { process_noise: 0.0, ..numbers }),
        (usual, KoalaPlusPlus { process_noise: 1e60, ..numbers }),
        (usual, definite),
        (usual, KoalaPlusPlus { initial_variance: 1e-60, ..definite }),
        (usual, KoalaPlusPlus { prior_variance: 1e-60, ..definite }),
        (usual, KoalaPlusPlus { prior_variance: 1e60, ..definite }),
        (Settings { weight_decay: 1e60, ..usual }, definite),
    ] {
        // The first tensors are of f32, then f64.
        let Some(trace) = agrees(&Model::new(shapes(30), vec![extreme, extreme])) else { return };
        assert!(trace.details.iter().flatten().any(|report| report[0] != Outcome::Skipped as u64));
    }
}

/// Copies of parameters that are at, just below and just above the middle between each pair of neighbours in half
/// precision, and stay there.
#[test]
fn conversions_round_once() {
    let copies = [ElementType::Bf16, ElementType::F16];
    let shapes = [ElementType::F64, ElementType::F32]
        .into_iter()
        .flat_map(|parameters| copies.map(|copy| (parameters, copy)))
        .map(|(parameters, copy)| Shape {
            length: 3 << 16,
            parameters,
            state: StateType::Bf16,
            group: 0,
            copy: Some(copy),
            offset: 0,
        })
        .collect();
    let begin: fn(usize, &mut [f64]) = |tensor, values| {
        let half =
            |bits: u16| if tensor % 2 == 0 { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() };
        for (i, value) in values.iter_mut().enumerate() {
            let bits = (i / 3) as u16;
            let middle = half(bits) * 0.5 + half(bits.wrapping_add(1)) * 0.5;
            *value = match (tensor < 2, i % 3) {
                _ if !middle.is_finite() => 0.0,
                (_, 0) => middle,
                (true, 1) => middle.next_down(),
                (true, _) => middle.next_up(),
                (false, 1) => (middle as f32).next_down().into(),
                (false, _) => (middle as f32).next_up().into(),
            };
        }
    };
    let settings = vec![(Settings { learning_rate: 0.0, ..Settings::default() }, KoalaPlusPlus::default())];
    agrees(&Model { steps: 1, begin, ..Model::new(shapes, settings) });
}

/// The shim's own conversions, which a GPU has instructions for.
#[test]
fn the_shim_converts_f16_as_ieee_754_says() {
    let Some((from, to)) = half_conversions() else { return };
    for bits in 0..=u16::MAX {
        let value = f16::from_bits(bits);
        assert!(from(bits).to_bits() == value.to_f32().to_bits() || value.is_nan() && from(bits).is_nan());
        let next = f16::from_bits(bits.wrapping_add(1)).to_f32();
        let middle = value.to_f32() * 0.5 + next * 0.5;
        for value in [value.to_f32(), middle.next_down(), middle, middle.next_up()] {
            assert!(
                to(value) == f16::from_f32(value).to_bits() || value.is_nan() && f16::from_bits(to(value)).is_nan()
            );
        }
    }
    for value in [65519.99, 65520.0, 1e30, f32::INFINITY, 1e-30, 2.980_232_2e-8, 2.980_233e-8] {
        assert_eq!(to(value), f16::from_f32(value).to_bits(), "{value}");
        assert_eq!(to(-value), f16::from_f32(-value).to_bits(), "{value}");
    }
}
