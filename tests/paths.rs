//! Every way to take a step gives the same bits: the kernel in one call, in its three parts and with exchange, on
//! buffers that are off from the cache lines together; a tensor's state with exchange; an optimizer, whatever the order
//! of the tensors, with exchange and with a policy that looks at all of them first.

mod common;

use std::sync::Arc;

use common::{Bits, Case, TYPES, backends, bits, largest, reference, report_bits, scalar_bits};
use koala_optim::kernel::{Buffers, ExchangeBuffers, Scalars, Step, apply, dots, plan, step, step_exchanging};
use koala_optim::{
    Backend, Config, Element, ElementType, Gradient, Loss, Noise, OnNonFinite, Optimizer, Policy, StateType, Tensor,
    TensorState, Threads, bf16, f16,
};

/// The lengths: around rows, runs, blocks, a chunk, and the length from which buffers are peeled.
fn lengths() -> impl Iterator<Item = usize> {
    let lengths = [0, 1, 15, 16, 17, 64, 127, 200, 255, 256, 257, 271, 1000, 1024, 1025, 5000, 65_536, 70_001];
    lengths.into_iter().filter(|length| {
        let tested = *length <= largest();
        if !tested {
            println!("length {length} is above KOALA_TEST_LARGEST: not tested");
        }
        tested
    })
}

const WEIGHT_DECAYS: [f64; 2] = [0.0, 0.01];

/// The numbers that every path must agree about: all but the norms and the copy, which not every one has.
fn expected(case: &Case) -> Bits {
    let mut bits = reference::run(case);
    bits.reports.iter_mut().for_each(|report| report[5..].fill(0));
    bits.copy.clear();
    bits
}

fn settings(case: &Case, backend: Backend, number: usize) -> Step {
    Step { backend, method: case.koala().into(), settings: case.settings(), ..Step::new(Case::measurement(number)) }
}

fn widened<T: Element>(elements: &[T]) -> Vec<u64> {
    elements.iter().map(|element| element.to_f64().to_bits()).collect()
}

/// Elements that begin `offset` elements after a cache line.
struct Placed<T> {
    elements: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Element> Placed<T> {
    fn new(values: &[f64], offset: usize) -> Self {
        let mut elements = vec![T::rounded(0.0); values.len() + offset + 64];
        let start = elements.as_ptr().align_offset(64) + offset;
        elements[start..].iter_mut().zip(values).for_each(|(element, value)| *element = T::rounded(*value));
        Placed { elements, start, length: values.len() }
    }

    fn get(&mut self) -> &mut [T] {
        &mut self.elements[self.start..self.start + self.length]
    }
}

/// The kernel in one call or in its parts, all buffers `case.offset` elements off.
fn kernel<P: Element, S: Element>(case: &Case, backend: Backend, in_parts: bool) -> Bits {
    let mut parameters = Placed::<P>::new(&case.initial(), case.offset);
    let nothing = vec![0.0; case.length];
    let (mut v, mut h) = (Placed::<S>::new(&nothing, case.offset), Placed::<S>::new(&nothing, case.offset));
    let (mut scalars, mut result) = (Scalars::default(), Bits::default());
    for number in 0..Case::STEPS {
        let mut gradient = Placed::<P>::new(&case.gradient(number), case.offset);
        let settings = settings(case, backend, number);
        let buffers =
            Buffers { parameters: parameters.get(), gradient: gradient.get(), v: v.get(), h: h.get(), copy: None };
        let report = if in_parts {
            let found = dots(backend, case.weight_decay, &buffers, &scalars).unwrap();
            let plan = plan::<P>(&settings, &found, &scalars).unwrap();
            apply(backend, &plan, buffers, &mut scalars).unwrap();
            plan.report()
        } else {
            step(&settings, buffers, &mut scalars).unwrap()
        };
        result.reports.push(report_bits(&report));
    }
    result.parameters = widened(parameters.get());
    (result.v, result.h, result.scalars) = (widened(v.get()), widened(h.get()), scalar_bits(&scalars));
    result
}

/// The kernel with exchange: two buffers take turns as gradient and h.
fn exchanging_kernel<P: Element>(case: &Case, backend: Backend) -> Bits {
    let mut parameters = Placed::<P>::new(&case.initial(), case.offset);
    let nothing = vec![0.0; case.length];
    let [mut v, mut one, mut other] = [0; 3].map(|_| Placed::<P>::new(&nothing, case.offset));
    let (mut gradient, mut h) = (one.get(), other.get());
    let (mut scalars, mut result) = (Scalars::default(), Bits::default());
    for number in 0..Case::STEPS {
        let before = (gradient.as_ptr(), h.as_ptr());
        gradient.iter_mut().zip(case.gradient(number)).for_each(|(element, value)| *element = P::rounded(value));
        let buffers = ExchangeBuffers {
            parameters: parameters.get(),
            gradient: &mut gradient,
            v: v.get(),
            h: &mut h,
            copy: None,
        };
        let report = step_exchanging(&settings(case, backend, number), buffers, &mut scalars).unwrap();
        let exchanged = report.outcome.is_step() && case.weight_decay == 0.0;
        assert_eq!((gradient.as_ptr(), h.as_ptr()), if exchanged { (before.1, before.0) } else { before });
        result.reports.push(report_bits(&report));
    }
    result.h = widened(h);
    (result.parameters, result.v) = (widened(parameters.get()), widened(v.get()));
    result.scalars = scalar_bits(&scalars);
    result
}

fn exchanging_state<P: Element>(case: &Case, backend: Backend) -> Bits {
    let mut parameters = Placed::<P>::new(&case.initial(), case.offset);
    let mut state = TensorState::new::<P>(case.length, case.state).unwrap();
    let (mut gradient, mut result) = (Gradient::<P>::zeroed(case.length).unwrap(), Bits::default());
    for number in 0..Case::STEPS {
        gradient.iter_mut().zip(case.gradient(number)).for_each(|(element, value)| *element = P::rounded(value));
        let settings = settings(case, backend, number);
        let report = state.step_exchanging(&settings, parameters.get(), &mut gradient, None).unwrap();
        result.reports.push(report_bits(&report));
    }
    result.parameters = widened(parameters.get());
    (result.v, result.h, result.scalars) = (bits(&state.v()), bits(&state.h()), scalar_bits(&state.scalars()));
    result
}

fn agree(found: &Bits, expected: &Bits, case: &Case, backend: Backend, path: &str) {
    let difference = found.difference(expected);
    assert!(difference.is_none(), "{path} on {} in {case:?}: {}", backend.name(), difference.unwrap_or_default());
}

fn every_path<P: Element>(case: &Case, backend: Backend, expected: &Bits) {
    for in_parts in [false, true] {
        let found = match case.state {
            StateType::Same => kernel::<P, P>(case, backend, in_parts),
            StateType::F32 => kernel::<P, f32>(case, backend, in_parts),
            StateType::Bf16 => kernel::<P, bf16>(case, backend, in_parts),
        };
        agree(&found, expected, case, backend, if in_parts { "the kernel in parts" } else { "the kernel" });
    }
    if case.state == StateType::Same {
        agree(&exchanging_kernel::<P>(case, backend), expected, case, backend, "the kernel with exchange");
    }
    agree(&exchanging_state::<P>(case, backend), expected, case, backend, "a tensor's state with exchange");
}

fn every_path_on_every_backend(case: &Case) {
    let expected = expected(case);
    for backend in backends() {
        match case.parameters {
            ElementType::F32 => every_path::<f32>(case, backend, &expected),
            ElementType::F64 => every_path::<f64>(case, backend, &expected),
            ElementType::Bf16 => every_path::<bf16>(case, backend, &expected),
            ElementType::F16 => every_path::<f16>(case, backend, &expected),
        }
    }
}

#[test]
fn of_every_length_and_type() {
    for length in lengths() {
        for (i, types) in TYPES.into_iter().enumerate() {
            // The longest ones take three of the types each.
            if length <= 5000 || i % 4 == length % 4 {
                for weight_decay in WEIGHT_DECAYS {
                    every_path_on_every_backend(&Case::new(length, types, weight_decay));
                }
            }
        }
    }
}

#[test]
fn of_every_offset() {
    for types in TYPES {
        for offset in 0..34 {
            for weight_decay in WEIGHT_DECAYS {
                every_path_on_every_backend(&Case { offset, ..Case::new(300, types, weight_decay) });
            }
        }
    }
}

/// How a model is stepped.
#[derive(Clone, Debug)]
struct Way {
    /// The number by which the list of tensors is rotated.
    rotated: usize,
    exchanging: bool,
    policy: Policy,
    threads: Threads,
}

/// A model of small tensors, which are stepped in batches, and large ones.
fn model(state: StateType, backend: Backend, way: &Way) -> Vec<Bits> {
    let lengths = [64, 3, 64, 256, 0, 20_000, 64, 1000, 1, 17, (1 << 18) + 5, 2048, 2048, 40_000, 40_000, 512];
    let lengths = lengths.map(|length: usize| {
        if length > largest() {
            println!("length {length} is above KOALA_TEST_LARGEST: {} instead", largest());
        }
        length.min(largest())
    });
    let noise = Noise::Fixed(1.0);
    let (policy, threads) = (way.policy, way.threads.clone());
    let mut optimizer =
        Optimizer::new(Config { backend, policy, threads, noise, details: true, ..Config::default() }).unwrap();
    let cases: Vec<Case> = lengths
        .iter()
        .enumerate()
        .map(|(i, n)| Case::new(*n, (ElementType::F32, state), WEIGHT_DECAYS[i % 2]))
        .collect();
    let names: Vec<String> = (0..cases.len()).map(|i| format!("tensor {i}")).collect();
    for (case, name) in cases.iter().zip(&names) {
        let group = optimizer.add_group_with(case.settings(), case.koala()).unwrap();
        optimizer.add_tensor(name, case.length, ElementType::F32, state, group).unwrap();
    }
    let mut parameters: Vec<Placed<f32>> = cases.iter().map(|case| Placed::new(&case.initial(), 1)).collect();
    let mut gradients: Vec<Gradient<f32>> = cases.iter().map(|case| Gradient::zeroed(case.length).unwrap()).collect();
    let mut results = vec![Bits::default(); cases.len()];
    for number in 0..Case::STEPS {
        for (gradient, case) in gradients.iter_mut().zip(&cases) {
            gradient.iter_mut().zip(case.gradient(number)).for_each(|(element, value)| *element = value as f32);
        }
        let mut tensors: Vec<Tensor> = Vec::new();
        for ((name, parameters), gradient) in names.iter().zip(&mut parameters).zip(&mut gradients) {
            tensors.push(match way.exchanging {
                true => Tensor::exchanging(name, parameters.get(), gradient),
                false => Tensor::new(name, parameters.get(), gradient),
            });
        }
        tensors.rotate_left(way.rotated);
        optimizer.step(Loss::new(0.9 - 0.1 * number as f64, 1.0), &mut tensors).unwrap();
        for (i, report) in optimizer.details().iter().enumerate() {
            results[(i + way.rotated) % names.len()].reports.push(report_bits(report));
        }
    }
    for ((result, name), parameters) in results.iter_mut().zip(&names).zip(&mut parameters) {
        let state = optimizer.state(name).unwrap();
        result.parameters = widened(parameters.get());
        (result.v, result.h, result.scalars) = (bits(&state.v()), bits(&state.h()), scalar_bits(&state.scalars()));
    }
    results
}

#[test]
fn of_a_model() {
    let usual = Way { rotated: 0, exchanging: false, policy: Policy::default(), threads: Threads::One };
    let atomic = Policy { non_finite: OnNonFinite::KeepAll, ..Policy::default() };
    // From inside of the pool, where less work is enough to be divided.
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let two = || Threads::Pool(pool.clone());
    for state in [StateType::Same, StateType::Bf16] {
        let expected = model(state, Backend::scalar(), &usual);
        for backend in backends() {
            for way in [
                usual.clone(),
                Way { rotated: 5, ..usual.clone() },
                Way { exchanging: true, ..usual.clone() },
                Way { policy: atomic, ..usual.clone() },
                Way { exchanging: true, threads: two(), ..usual.clone() },
                Way { rotated: 3, exchanging: true, policy: atomic, threads: two() },
            ] {
                let found = pool.install(|| model(state, backend, &way));
                assert!(found == expected, "{} {way:?} {state:?}", backend.name());
            }
        }
    }
}
