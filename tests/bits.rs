//! The contract: the same bits on every backend, whatever the length, type, alignment and number of threads.
//! Everything here is compared with `==`, against the reference of `common/reference.rs` and against recorded hashes.

mod common;
#[path = "common/grid.rs"]
mod grid;

use common::{agrees_with_reference, backends, largest, run};
use grid::Model;
use koala_optim::kernel::{HalfCopy, Measurement, Step};
use koala_optim::{Backend, Config, Element, ElementType, Settings, StateType, TensorState, Threads, bf16, f16};

#[test]
fn every_length_to_200_in_every_type() {
    grid::every_length_to_200_in_every_type(agrees_with_reference);
}

#[test]
fn around_every_power_of_two() {
    grid::around_every_power_of_two(agrees_with_reference);
}

#[test]
fn every_alignment() {
    grid::every_alignment(agrees_with_reference);
}

#[test]
fn every_number_of_threads() {
    let model = Model::for_threads();
    for state in [StateType::Same, StateType::Bf16] {
        let (tensors, reports, _) = model.agrees_with_any_threads(&Config::default(), state);
        let stepped = tensors.iter().filter(|tensor| !tensor.parameters.is_empty()).count();
        assert_eq!(reports[2].stepped, stepped);
    }
}

/// A step from outside of the pool is divided from 2²¹ elements on.
#[test]
fn a_pool_that_is_woken() {
    let sizes = [(1 << 21) + 17, 1000];
    if sizes[0] > 4 * largest() {
        return println!("length {} is above four times KOALA_TEST_LARGEST: not tested", sizes[0]);
    }
    let model = Model::new(&sizes);
    let run = |backend, threads| model.run(Config { backend, threads, ..Config::default() }, StateType::Same);
    let expected = run(Backend::portable(), Threads::One);
    for backend in backends() {
        for count in [2, 7] {
            assert!(run(backend, Threads::Count(count)) == expected, "{} with {count} threads", backend.name());
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

fn hashes(backend: Backend) -> String {
    grid::hashes("", |case| run(case, backend))
}

/// The hashes that any machine, of any architecture, must reproduce.
#[test]
fn recorded_hashes() {
    for backend in backends() {
        grid::agrees_with_recorded(RECORDED, &hashes(backend), backend);
    }
}

/// Writes the recorded hashes: `cargo test --test bits -- --ignored record`. They change only if the contract does.
#[test]
#[ignore = "writes tests/data/bits.txt"]
fn record() {
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bits.txt"), hashes(Backend::scalar())).unwrap();
}
