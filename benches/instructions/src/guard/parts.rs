//! What is counted: both passes, with weight decay and without, and the whole step of a small tensor, for every backend
//! and combination of types. It runs in a process of its own, which marks where each part begins and ends.

use std::hint::black_box;

use koala_measure::Tensor;
use koala_optim::{Backend, ElementType, StateType};
use nix::sys::signal::{Signal, raise};

/// Announces the beginning and the end of a part. To a process that nobody traces this signal does nothing.
pub const MARK: Signal = Signal::SIGURG;

/// The types of parameters and state, and their name.
pub const TYPES: [(&str, ElementType, StateType); 5] = [
    ("f32", ElementType::F32, StateType::Same),
    ("f64", ElementType::F64, StateType::Same),
    ("bf16", ElementType::Bf16, StateType::Same),
    ("f16", ElementType::F16, StateType::Same),
    ("f32/bf16", ElementType::F32, StateType::Bf16),
];

/// The columns of the record: instructions per element of the passes with weight decay and without, and instructions of
/// the step of seven elements.
pub const COLUMNS: [&str; 5] = ["pass-1-decay", "pass-2-decay", "pass-1", "pass-2", "step-of-7"];

/// Every pass runs on tensors of both, so that what a call costs at any length can be subtracted.
const LENGTHS: [usize; 2] = [128, 384];

/// How many parts are marked for a backend and types: two for each column, one of which is subtracted from the other.
pub const COUNTS: usize = 2 * COLUMNS.len();

/// The columns, from the counts of a backend and types.
pub fn columns(counts: &[u64]) -> [f64; COLUMNS.len()] {
    let difference = (LENGTHS[1] - LENGTHS[0]) as f64;
    let units = [difference, difference, difference, difference, 1.0];
    std::array::from_fn(|column| (counts[2 * column + 1] as f64 - counts[2 * column] as f64) / units[column])
}

/// Runs every part on every backend and type.
pub fn run() {
    for backend in Backend::present() {
        for (_, parameters, state) in TYPES {
            let workload = |length, weight_decay| Tensor { parameters, state, length, weight_decay }.workload();
            for weight_decay in [1e-3, 0.0] {
                let mut workloads = LENGTHS.map(|length| workload(length, weight_decay));
                workloads.iter_mut().for_each(|workload| marked(|| workload.dots(backend)));
                workloads.iter_mut().for_each(|workload| marked(|| workload.apply(backend)));
            }
            let mut small = workload(7, 1e-3);
            marked(|| ());
            marked(|| small.step(backend));
        }
    }
}

fn marked<R>(part: impl FnOnce() -> R) {
    raise(MARK).unwrap();
    black_box(part());
    raise(MARK).unwrap();
}
