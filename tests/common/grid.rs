//! The contract's grid: the cases, the models and the hashes over which each method is compared, with `==`. `bits.rs` has
//! it for KOALA++, `methods.rs` for the other methods.

use std::fmt::Write as _;
use std::sync::Arc;

use koala_optim::{
    Backend, Config, ElementType, Loss, Method, Optimizer, Report, Settings, StateType, Tensor, Threads,
};

use super::common::{
    Bits, Case, TYPES, backends, bits, largest, offset_vector, random_vector, report_bits, scalar_bits,
};

const WEIGHT_DECAYS: [f64; 2] = [0.0, 0.01];

pub fn every_length_to_200_in_every_type(agrees: impl Fn(&Case)) {
    for length in 0..=200 {
        for types in TYPES {
            for weight_decay in WEIGHT_DECAYS {
                agrees(&Case::new(length, types, weight_decay));
            }
        }
    }
}

pub fn around_every_power_of_two(agrees: impl Fn(&Case)) {
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

pub fn every_alignment(agrees: impl Fn(&Case)) {
    for types in TYPES {
        for offset in 0..32 {
            agrees(&Case { offset, ..Case::new(333, types, 0.01) });
        }
    }
}

/// A model of several tensors, and their gradients in some steps.
pub struct Model {
    sizes: Vec<usize>,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<Vec<f32>>>,
}

/// What a model has become: of each tensor, and of all.
pub type Outcome = (Vec<Bits>, Vec<Report>, Method);

impl Model {
    pub fn new(sizes: &[usize]) -> Self {
        let vectors = |first_seed: u64, scale: f64| -> Vec<Vec<f32>> {
            let seeds = first_seed..first_seed + sizes.len() as u64;
            seeds.zip(sizes).map(|(seed, size)| offset_vector(&random_vector(seed, *size, scale), 0)).collect()
        };
        let gradients = (1..=3).map(|step| vectors(100 * step, 0.1)).collect();
        Model { sizes: sizes.into(), parameters: vectors(0, 1.0), gradients }
    }

    /// Tensors large and small, for which threads are worth their while.
    pub fn for_threads() -> Self {
        let sizes = [3, 100_000, 1, 64, (1 << 19) + 17, 70_000, 0, 1 << 17, 1025];
        Self::new(&sizes.into_iter().filter(|size| *size <= largest()).collect::<Vec<_>>())
    }

    pub fn run(&self, config: Config, state: StateType) -> Outcome {
        let names: Vec<String> = (0..self.sizes.len()).map(|i| format!("tensor {i}")).collect();
        let mut optimizer = Optimizer::new(Config { details: true, ..config }).unwrap();
        let settings = Settings { learning_rate: 0.2, weight_decay: 0.01, ..Settings::default() };
        let groups = [settings, Settings { weight_decay: 0.0, ..settings }].map(|s| optimizer.add_group(s).unwrap());
        for (i, (name, size)) in names.iter().zip(&self.sizes).enumerate() {
            optimizer.add_tensor(name, *size, ElementType::F32, state, groups[i % 2]).unwrap();
        }
        let mut parameters = self.parameters.clone();
        let mut reports = Vec::new();
        let mut results = vec![Bits::default(); names.len()];
        for gradients in &self.gradients {
            let mut tensors: Vec<Tensor> = names
                .iter()
                .zip(&mut parameters)
                .zip(gradients)
                .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
                .collect();
            optimizer.predict(&mut tensors).unwrap();
            reports.push(optimizer.step(Loss::new(0.8, 0.9), &mut tensors).unwrap());
            for (result, details) in results.iter_mut().zip(optimizer.details()) {
                result.reports.push(report_bits(details));
            }
        }
        for ((result, name), parameters) in results.iter_mut().zip(&names).zip(&parameters) {
            let state = optimizer.state(name).unwrap();
            result.parameters = parameters.iter().map(|value| u64::from(value.to_bits())).collect();
            result.v = bits(&state.v());
            result.h = bits(&state.h());
            result.scalars = scalar_bits(&state.scalars());
        }
        (results, reports, optimizer.method())
    }

    /// On every backend and with 1, 2 and 7 threads, from outside of their pool and from inside, where less work is enough
    /// to be divided. Returns what comes of it on one thread.
    pub fn agrees_with_any_threads(&self, config: &Config, state: StateType) -> Outcome {
        let run = |backend, threads| self.run(Config { backend, threads, ..config.clone() }, state);
        let expected = run(Backend::scalar(), Threads::One);
        for backend in backends() {
            for count in [1, 2, 7] {
                let which = format!("{} with {count} threads, {:?}", backend.name(), config.method);
                assert!(run(backend, Threads::Count(count)) == expected, "{which}");
                let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap());
                let inside = pool.install(|| run(backend, Threads::Pool(pool.clone())));
                assert!(inside == expected, "{which}, inside their pool");
            }
        }
        expected
    }
}

/// One line a case: its name, and the hash of every bit of its result.
pub fn hashes(prefix: &str, run: impl Fn(&Case) -> Bits) -> String {
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
                let result = run(&Case::new(length, types, weight_decay));
                let mut bytes = Vec::new();
                for part in [&result.parameters, &result.v, &result.h, &result.scalars.to_vec()] {
                    bytes.extend(part.iter().flat_map(|bits| bits.to_le_bytes()));
                }
                bytes.extend(result.reports.iter().flatten().flat_map(|bits| bits.to_le_bytes()));
                bytes.extend(result.copy.iter().flat_map(|bits| bits.to_le_bytes()));
                let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
                let (parameters, state) = types;
                writeln!(lines, "{prefix}{length} {parameters} {state:?} {weight_decay} {hash:016x}").unwrap();
            }
        }
    }
    lines
}

/// Every hash that was recorded, of the lengths that are tested, is found again.
pub fn agrees_with_recorded(recorded: &str, found: &str, backend: Backend) {
    let length = |line: &str| line.split(' ').find_map(|word| word.parse::<usize>().ok());
    let mut recorded = recorded.lines().filter(|line| length(line).is_some_and(|length| length <= largest()));
    assert!(found.lines().count() > 200);
    for line in found.lines() {
        assert_eq!(Some(line), recorded.next(), "{}", backend.name());
    }
    assert_eq!(recorded.next(), None, "{}", backend.name());
}
