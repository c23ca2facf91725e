//! What a run of `koala bench` measures: as much as the time and the memory allow, and in the open what it leaves out.

use koala_measure::models::{self, Architecture};
use koala_measure::{AdamW, Budget, Tensor};
use koala_optim::{Backend, ElementType, StateType};

use super::Arguments;

/// The lengths that whole steps of small tensors are measured at.
const SMALL: [usize; 6] = [1, 16, 17, 64, 256, 1000];

/// A tensor that is long beside every cache, and one that is longer still.
const LONG: [usize; 2] = [1 << 26, 1_000_000_000];

/// Below this, a step is never divided.
pub(super) const WORTH_THREADS: usize = 1 << 14;

/// Bytes that are left to others.
const MARGIN: u64 = 1 << 30;

/// One thing to measure, whose parts are compared with each other.
pub(super) enum Task {
    /// Limits, passes and steps of one tensor.
    Tensor(Tensor),
    /// Steps of a small tensor of that length, alone and among others.
    Small(usize),
    /// A whole model, with a state in each of these types.
    Model(Architecture, Vec<StateType>),
    /// The cost per parameter of a long tensor and a longer one.
    Long([Tensor; 2]),
}

/// All of it.
pub(super) struct Plan {
    pub tasks: Vec<Task>,
    pub left_out: Vec<String>,
    pub backends: Vec<Backend>,
    /// For what is measured with several.
    pub threads: usize,
    pub quick: bool,
    rounds: Option<usize>,
}

fn tensor(parameters: ElementType, state: StateType, weight_decay: f64) -> Tensor {
    Tensor { parameters, state, length: 0, weight_decay }
}

/// A number of parameters as people say it.
pub(super) fn millions(parameters: usize) -> String {
    format!("{:.1} million parameters", parameters as f64 / 1e6)
}

impl Plan {
    /// What is measured with these arguments and that memory.
    pub fn new(arguments: &Arguments, backends: Vec<Backend>, threads: usize, memory: u64) -> Self {
        let mut plan = Plan {
            tasks: Vec::new(),
            left_out: Vec::new(),
            backends,
            threads,
            quick: arguments.quick,
            rounds: arguments.rounds.map(usize::from),
        };
        let room = memory.saturating_sub(MARGIN);
        let largest = arguments.largest.map(|power| 1 << power);
        plan.add_tensors(largest, room);
        let small = SMALL.into_iter().filter(|&length| largest.is_none_or(|largest| length <= largest));
        plan.tasks.extend(small.map(Task::Small));
        plan.add_models(largest, room);
        plan.add_long(largest, room);
        plan
    }

    fn add_tensors(&mut self, largest: Option<usize>, room: u64) {
        let all = [
            tensor(ElementType::F32, StateType::Same, 1e-3),
            tensor(ElementType::F32, StateType::Same, 0.0),
            tensor(ElementType::F32, StateType::Bf16, 1e-3),
            tensor(ElementType::Bf16, StateType::Same, 1e-3),
            tensor(ElementType::F16, StateType::Same, 1e-3),
            tensor(ElementType::F64, StateType::Same, 1e-3),
        ];
        let (kinds, stride, usual) = if self.quick { (&all[..3], 4, 1 << 22) } else { (&all[..], 2, 1 << 26) };
        if self.quick {
            self.left_out
                .push("bf16, f16 and f64 parameters; tensors above 2^22; every other size (--quick)".to_owned());
        }
        for kind in kinds {
            for length in (6..usize::BITS).step_by(stride).map(|power| 1 << power) {
                let tensor = Tensor { length, ..*kind };
                if length > largest.unwrap_or(usual) {
                    break;
                }
                if self.bytes(&tensor) > room {
                    let (parameters, state) = (tensor.parameters, tensor.state);
                    self.left_out.push(format!("{parameters}, state {state:?}, from {length} on: too little memory"));
                    break;
                }
                self.tasks.push(Task::Tensor(tensor));
            }
        }
    }

    fn add_models(&mut self, largest: Option<usize>, room: u64) {
        for model in models::all() {
            let parameters = model.parameters();
            // Parameters and gradients; the state in one type, and in the other.
            let bytes = |each: usize| (parameters * each + AdamW::bytes(parameters)) as u64;
            let why = if largest.is_some_and(|largest| parameters > largest) {
                "above --largest"
            } else if self.quick && parameters > 30_000_000 {
                "--quick"
            } else if bytes(8 + 8 + 4) <= room {
                self.tasks.push(Task::Model(model, vec![StateType::Same, StateType::Bf16]));
                continue;
            } else if bytes(8 + 8) <= room {
                self.tasks.push(Task::Model(model.clone(), vec![StateType::Same]));
                self.tasks.push(Task::Model(model, vec![StateType::Bf16]));
                continue;
            } else {
                "too little memory"
            };
            self.left_out.push(format!("{}, {}: {why}", model.name, millions(parameters)));
        }
    }

    fn add_long(&mut self, largest: Option<usize>, room: u64) {
        let tensors = LONG.map(|length| Tensor { length, ..tensor(ElementType::F32, StateType::Same, 1e-3) });
        let why = if largest.is_some_and(|largest| LONG[1] > largest) {
            "above --largest"
        } else if self.quick {
            "--quick"
        } else if tensors.iter().map(Tensor::bytes).sum::<usize>() as u64 <= room {
            return self.tasks.push(Task::Long(tensors));
        } else {
            "too little memory"
        };
        self.left_out.push(format!("a tensor of {}: {why}", millions(LONG[1])));
    }

    /// Whether that tensor is measured with several threads too.
    pub fn threads_at(&self, length: usize) -> Option<usize> {
        (self.threads > 1 && length >= WORTH_THREADS).then_some(self.threads)
    }

    /// The memory for measuring a tensor: with threads, each backend has an optimizer with a state of its own.
    fn bytes(&self, tensor: &Tensor) -> u64 {
        let optimizers = self.threads_at(tensor.length).map_or(0, |_| self.backends.len());
        (tensor.bytes() + optimizers * tensor.state_bytes()) as u64
    }

    /// The rounds of a task.
    pub fn budget(&self, task: &Task) -> Budget {
        if let Some(rounds) = self.rounds {
            return Budget { seconds: 0.0, least: rounds, most: rounds };
        }
        let seconds = match task {
            Task::Tensor(_) | Task::Small(_) => 1.5,
            Task::Model(..) | Task::Long(_) => 6.0,
        };
        if self.quick {
            Budget { seconds: seconds / 3.0, least: 5, most: 21 }
        } else {
            Budget { seconds, least: 7, most: 41 }
        }
    }

    /// About how long a task takes: at two nanoseconds a parameter where it matters.
    pub fn seconds(&self, task: &Task) -> f64 {
        let budget = self.budget(task);
        let (calls, parameters, fill) = match task {
            Task::Tensor(tensor) => {
                let per_backend = if self.threads_at(tensor.length).is_some() { 5 } else { 3 };
                (4 + per_backend * self.backends.len(), tensor.length, self.bytes(tensor))
            }
            Task::Small(length) => (2 * self.backends.len(), *length, 0),
            Task::Model(model, states) => (4 + 2 * states.len(), model.parameters(), 24 * model.parameters() as u64),
            Task::Long(tensors) => (1, LONG[0] + LONG[1], tensors.iter().map(|tensor| tensor.bytes() as u64).sum()),
        };
        let round = calls as f64 * (0.4e-3 + 1.5e-9 * parameters as f64);
        let rounds = ((budget.seconds / round) as usize).clamp(budget.least, budget.most);
        rounds as f64 * round + 1e-9 * fill as f64
    }
}

impl Task {
    /// What it is, in a few words.
    pub fn name(&self) -> String {
        match self {
            Task::Tensor(tensor) => format!("{} × {}", tensor.length, tensor.parameters),
            Task::Small(length) => format!("a tensor of {length}"),
            Task::Model(model, _) => model.name.to_owned(),
            Task::Long(_) => millions(LONG[1]),
        }
    }
}
