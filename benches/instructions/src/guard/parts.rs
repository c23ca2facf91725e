//! What is counted: both passes, with weight decay and without, and the whole step of a small tensor, for every backend
//! and combination of types. It runs in a process of its own, which marks where each part begins and ends.

use std::hint::black_box;

use koala_optim::kernel::{Buffers, Dots, Measurement, Plan, Scalars, Step, apply, dots, plan, step};
use koala_optim::{Backend, Element, Settings, bf16, f16};
use nix::sys::signal::{Signal, raise};

/// Announces the beginning and the end of a part. To a process that nobody traces this signal does nothing.
pub const MARK: Signal = Signal::SIGURG;

/// The name of the types of parameters and state, and what runs the parts on them.
type Types = (&'static str, fn(Backend));

pub const TYPES: [Types; 5] = [
    ("f32", run_parts::<f32, f32>),
    ("f64", run_parts::<f64, f64>),
    ("bf16", run_parts::<bf16, bf16>),
    ("f16", run_parts::<f16, f16>),
    ("f32/bf16", run_parts::<f32, bf16>),
];

/// The columns of the record: instructions per element of the passes with weight decay and without, and instructions of
/// the step of seven elements.
pub const COLUMNS: [&str; 5] = ["pass-1-decay", "pass-2-decay", "pass-1", "pass-2", "step-of-7"];

/// Every pass runs on tensors of both, so that what a call costs at any length can be subtracted.
const LENGTHS: [usize; 2] = [128, 384];

/// How many parts [`run_parts`] marks: two for each column, one of which is subtracted from the other.
pub const COUNTS: usize = 2 * COLUMNS.len();

/// The columns, from the counts of one call of [`run_parts`].
pub fn columns(counts: &[u64]) -> [f64; COLUMNS.len()] {
    let difference = (LENGTHS[1] - LENGTHS[0]) as f64;
    let units = [difference, difference, difference, difference, 1.0];
    std::array::from_fn(|column| (counts[2 * column + 1] as f64 - counts[2 * column] as f64) / units[column])
}

/// Runs every part on every backend and type.
pub fn run() {
    for backend in Backend::present() {
        TYPES.iter().for_each(|(_, run_parts)| run_parts(backend));
    }
}

fn run_parts<P: Element, S: Element>(backend: Backend) {
    for weight_decay in [1e-3, 0.0] {
        let mut tensors = LENGTHS.map(|length| Tensor::<P, S>::new(backend, length, weight_decay));
        for tensor in &mut tensors {
            marked(|| tensor.dots());
        }
        for tensor in &mut tensors {
            marked(|| tensor.apply());
        }
    }
    let mut tensor = Tensor::<P, S>::new(backend, 7, 1e-3);
    marked(|| ());
    marked(|| tensor.step());
}

fn marked<R>(part: impl FnOnce() -> R) {
    raise(MARK).unwrap();
    black_box(part());
    raise(MARK).unwrap();
}

/// A tensor that has had its first step.
pub struct Tensor<P, S> {
    step: Step,
    parameters: Vec<P>,
    gradient: Vec<P>,
    v: Vec<S>,
    h: Vec<S>,
    scalars: Scalars,
    /// Of its second step.
    plan: Plan,
}

impl<P: Element, S: Element> Tensor<P, S> {
    pub fn new(backend: Backend, length: usize, weight_decay: f64) -> Self {
        // A tiny learning rate keeps the numbers where they are, however often the step is repeated.
        let settings = Settings { learning_rate: 1e-9, weight_decay, process_noise: 1e-3, ..Settings::default() };
        let wave = |period: usize| (0..length).map(|i| P::rounded((i % period) as f64 / period as f64 - 0.4)).collect();
        let mut tensor = Tensor {
            step: Step { backend, settings, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) },
            parameters: wave(5),
            gradient: wave(3),
            v: vec![S::zeroed(); length],
            h: vec![S::zeroed(); length],
            scalars: Scalars::default(),
            plan: Plan::default(),
        };
        tensor.step();
        let found = tensor.dots();
        tensor.plan = plan::<P>(&tensor.step, &found, &tensor.scalars).unwrap();
        tensor
    }

    fn buffers(&mut self) -> Buffers<'_, P, S> {
        Buffers {
            parameters: &mut self.parameters,
            gradient: &self.gradient,
            v: &mut self.v,
            h: &mut self.h,
            copy: None,
        }
    }

    fn dots(&mut self) -> Dots {
        let (step, scalars) = (self.step, self.scalars);
        dots(step.backend, step.settings.weight_decay, &self.buffers(), &scalars).unwrap()
    }

    fn apply(&mut self) {
        let (step, plan, mut scalars) = (self.step, self.plan, self.scalars);
        apply(step.backend, &plan, self.buffers(), &mut scalars).unwrap();
    }

    pub fn step(&mut self) {
        let (settings, mut scalars) = (self.step, self.scalars);
        let report = step(&settings, self.buffers(), &mut scalars).unwrap();
        assert!(report.outcome.is_step());
        self.scalars = scalars;
    }
}
