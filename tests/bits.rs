//! The contract: the same bits on every backend, whatever the length, type, alignment and number of threads.
//! Everything here is compared with `==`, against the reference of `common/reference.rs` and against recorded hashes.

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use common::{Bits, Case, TYPES, backends, bits, largest, random_vector, reference, run, scalar_bits};
use koala_optim::kernel::{HalfCopy, Measurement, Step};
use koala_optim::{
    Backend, Config, Element, ElementType, Loss, Optimizer, Report, Settings, StateType, Tensor, TensorState, Threads,
    bf16, f16,
};

const WEIGHT_DECAYS: [f64; 2] = [0.0, 0.01];

fn agrees(case: &Case) {
    let expected = reference::run(case);
    for backend in backends() {
        let found = run(case, backend);
        let differs = found.difference(&expected);
        assert!(differs.is_none(), "{} in {case:?}: {}", backend.name(), differs.unwrap_or_default());
    }
}

#[test]
fn every_length_to_200_in_every_type() {
    for length in 0..=200 {
        for types in TYPES {
            for weight_decay in WEIGHT_DECAYS {
                agrees(&Case::new(length, types, weight_decay));
            }
        }
    }
}

#[test]
fn around_every_power_of_two() {
    for power in 8..=20 {
        for length in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
            if length > largest() {
                println!("length {length} is above KOALA_TEST_LARGEST: not tested");
                continue;
            }
            // Above 2¹⁴ each length takes four of the twelve types, all of them within three lengths.
            let stride = if power <= 14 { 1 } else { 3 };
            for types in TYPES.into_iter().skip(length % stride).step_by(stride) {
                agrees(&Case::new(length, types, WEIGHT_DECAYS[length % 2]));
                if power <= 12 {
                    agrees(&Case::new(length, types, WEIGHT_DECAYS[(length + 1) % 2]));
                }
            }
        }
    }
}

#[test]
fn every_alignment() {
    for types in TYPES {
        for offset in 0..32 {
            agrees(&Case { offset, ..Case::new(333, types, 0.01) });
        }
    }
}

/// A model of several tensors, large and small, for which threads are worth their while.
fn model_sizes() -> Vec<usize> {
    let sizes = [3, 100_000, 1, 64, (1 << 19) + 17, 70_000, 0, 1 << 17, 1025];
    sizes.into_iter().filter(|size| *size <= largest()).collect()
}

fn run_model(sizes: &[usize], backend: Backend, threads: Threads, state: StateType) -> (Vec<Bits>, Vec<Report>) {
    let names: Vec<String> = (0..sizes.len()).map(|i| format!("tensor {i}")).collect();
    let mut optimizer = Optimizer::new(Config { backend, threads, details: true, ..Config::default() }).unwrap();
    let settings = Settings { learning_rate: 0.2, weight_decay: 0.01, ..Settings::default() };
    let groups = [
        optimizer.add_group(settings).unwrap(),
        optimizer.add_group(Settings { weight_decay: 0.0, ..settings }).unwrap(),
    ];
    let mut parameters: Vec<Vec<f32>> = Vec::new();
    for (i, (name, size)) in names.iter().zip(sizes).enumerate() {
        optimizer.add_tensor(name, *size, ElementType::F32, state, groups[i % 2]).unwrap();
        parameters.push(common::offset_vector(&random_vector(i as u64, *size, 1.0), 0));
    }
    let mut reports = Vec::new();
    let mut results = vec![Bits::default(); sizes.len()];
    for step in 0..3 {
        let seed = |i: usize| 100 * (step + 1) + i as u64;
        let gradients: Vec<Vec<f32>> =
            (0..sizes.len()).map(|i| common::offset_vector(&random_vector(seed(i), sizes[i], 0.1), 0)).collect();
        let mut tensors: Vec<Tensor> = names
            .iter()
            .zip(&mut parameters)
            .zip(&gradients)
            .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
            .collect();
        reports.push(optimizer.step(Loss::new(0.8, 0.9), &mut tensors).unwrap());
        for (result, details) in results.iter_mut().zip(optimizer.details()) {
            result.reports.push(common::report_bits(details));
        }
    }
    for ((result, name), parameters) in results.iter_mut().zip(&names).zip(&parameters) {
        let state = optimizer.state(name).unwrap();
        result.parameters = parameters.iter().map(|value| u64::from(value.to_bits())).collect();
        result.v = bits(&state.v());
        result.h = bits(&state.h());
        result.scalars = scalar_bits(&state.scalars());
    }
    (results, reports)
}

#[test]
fn every_number_of_threads() {
    let sizes = model_sizes();
    for state in [StateType::Same, StateType::Bf16] {
        let expected = run_model(&sizes, Backend::scalar(), Threads::One, state);
        assert_eq!(expected.1[2].stepped, sizes.iter().filter(|size| **size > 0).count());
        for backend in backends() {
            for count in [1, 2, 7] {
                let found = run_model(&sizes, backend, Threads::Count(count), state);
                assert!(found == expected, "{} differs with {count} threads", backend.name());
                // From inside, where less work is enough to be divided.
                let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap());
                let inside = pool.install(|| run_model(&sizes, backend, Threads::Pool(pool.clone()), state));
                assert!(inside == expected, "{} differs inside a pool of {count} threads", backend.name());
            }
        }
    }
}

/// A step from outside of the pool is divided from 2²¹ elements on.
#[test]
fn a_pool_that_is_woken() {
    let sizes = [(1 << 21) + 17, 1000];
    if sizes[0] > 4 * largest() {
        return println!("length {} is above four times KOALA_TEST_LARGEST: not tested", sizes[0]);
    }
    let expected = run_model(&sizes, Backend::portable(), Threads::One, StateType::Same);
    for backend in backends() {
        for count in [2, 7] {
            let found = run_model(&sizes, backend, Threads::Count(count), StateType::Same);
            assert!(found == expected, "{} differs with {count} threads", backend.name());
        }
    }
}

/// All 65,536 values of both half types are loaded, and stored again from f32 and f64 at, just below and just above
/// the middle between each pair of neighbours.
#[test]
fn conversions_round_once() {
    fn check<T: Element, P: Element>(backend: Backend, from_bits: fn(u16) -> T, nudge: fn(f64) -> [f64; 3]) {
        let mut values = Vec::new();
        for bits in 0..=u16::MAX {
            let (value, next) = (from_bits(bits).to_f64(), from_bits(bits.wrapping_add(1)).to_f64());
            if value.is_finite() && next.is_finite() {
                values.extend([value].into_iter().chain(nudge(value * 0.5 + next * 0.5)));
            }
        }
        let mut parameters: Vec<P> = values.iter().map(|value| P::rounded(*value)).collect();
        let before = parameters.clone();
        let gradient = vec![P::rounded(1e-3); values.len()];
        let mut state = TensorState::new::<P>(values.len(), StateType::Same).unwrap();
        let settings = Settings { learning_rate: 0.0, ..Settings::default() };
        let step = Step { backend, settings, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        let (mut to_bf16, mut to_f16) = (vec![bf16::ZERO; values.len()], vec![f16::ZERO; values.len()]);
        let copy = match T::TYPE {
            ElementType::Bf16 => HalfCopy::Bf16(&mut to_bf16),
            _ => HalfCopy::F16(&mut to_f16),
        };
        let report = state.step(&step, &mut parameters, &gradient, Some(copy)).unwrap();
        assert!(report.outcome.is_step());
        assert_eq!(parameters, before, "a learning rate of 0 changes nothing");
        for (i, value) in parameters.iter().enumerate() {
            let found = if T::TYPE == ElementType::Bf16 { to_bf16[i].to_f64() } else { to_f16[i].to_f64() };
            assert_eq!(found.to_bits(), T::rounded(value.to_f64()).to_f64().to_bits(), "{} {value:?}", backend.name());
        }
    }
    fn nudge_f32(middle: f64) -> [f64; 3] {
        let middle = middle as f32;
        [middle.next_down(), middle, middle.next_up()].map(f64::from)
    }
    fn nudge_f64(middle: f64) -> [f64; 3] {
        [middle.next_down(), middle, middle.next_up()]
    }
    for backend in backends() {
        check::<bf16, f32>(backend, bf16::from_bits, nudge_f32);
        check::<f16, f32>(backend, f16::from_bits, nudge_f32);
        check::<bf16, f64>(backend, bf16::from_bits, nudge_f64);
        check::<f16, f64>(backend, f16::from_bits, nudge_f64);
        // Loading: a half-precision tensor with an f32 copy of itself in arithmetic, through the half-precision store.
        check::<bf16, bf16>(backend, bf16::from_bits, |middle| [middle; 3]);
        check::<f16, f16>(backend, f16::from_bits, |middle| [middle; 3]);
    }
}

const RECORDED: &str = include_str!("data/bits.txt");

/// One line a case: its name, and the hash of every bit of its result.
fn hashes(backend: Backend) -> String {
    let mut lines = String::new();
    for length in [0, 1, 15, 16, 17, 100, 127, 128, 129, 200, 1023, 1024, 1025, 4096, 5000, 65_536, 65_537, 200_003] {
        if length > largest() {
            println!("length {length} is above KOALA_TEST_LARGEST: not tested");
            continue;
        }
        for (i, types) in TYPES.into_iter().enumerate() {
            if length > 5000 && i % 3 != 0 {
                continue;
            }
            for weight_decay in WEIGHT_DECAYS {
                let result = run(&Case::new(length, types, weight_decay), backend);
                let mut bytes = Vec::new();
                for part in [&result.parameters, &result.v, &result.h, &result.scalars.to_vec()] {
                    bytes.extend(part.iter().flat_map(|bits| bits.to_le_bytes()));
                }
                bytes.extend(result.reports.iter().flatten().flat_map(|bits| bits.to_le_bytes()));
                bytes.extend(result.copy.iter().flat_map(|bits| bits.to_le_bytes()));
                let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
                let (parameters, state) = types;
                writeln!(lines, "{length} {parameters} {state:?} {weight_decay} {hash:016x}").unwrap();
            }
        }
    }
    lines
}

/// The hashes that any machine, of any architecture, must reproduce.
#[test]
fn recorded_hashes() {
    for backend in backends() {
        let found = hashes(backend);
        assert!(found.lines().count() > 200);
        let mut recorded = RECORDED.lines().filter(|line| {
            let length = line.split(' ').next().and_then(|length| length.parse::<usize>().ok());
            length.is_some_and(|length| length <= largest())
        });
        for line in found.lines() {
            assert_eq!(Some(line), recorded.next(), "{}", backend.name());
        }
        assert_eq!(recorded.next(), None, "{}", backend.name());
    }
}

/// Writes the recorded hashes: `cargo test --test bits -- --ignored record`. They change only if the contract does.
#[test]
#[ignore = "writes tests/data/bits.txt"]
fn record() {
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bits.txt"), hashes(Backend::scalar())).unwrap();
}
