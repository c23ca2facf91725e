//! A C program steps through the recorded trajectories at every level of the C API, and gives the bits of the Rust API.

mod common;

use koala_optim::{Backend, Element, ElementType, Threads, bf16, f16};
use koala_trajectory::{KoalaPlusPlus, Noise, Precision, Settings, Trajectory, embedded, run};

/// The numbers of koala_element_type and koala_state_type, and the types of parameters and state.
fn types(precision: Precision) -> ([i64; 2], [ElementType; 2]) {
    match precision {
        Precision::F64 => ([1, 0], [ElementType::F64; 2]),
        Precision::F32 => ([0, 0], [ElementType::F32; 2]),
        Precision::F32WithBf16State => ([0, 2], [ElementType::F32, ElementType::Bf16]),
        Precision::Bf16 => ([2, 0], [ElementType::Bf16; 2]),
        Precision::F16 => ([3, 0], [ElementType::F16; 2]),
    }
}

/// Calls a function with an element type that is a value.
macro_rules! with_type {
    ($element_type:expr, $function:ident($($argument:expr),*)) => {
        match $element_type {
            ElementType::F32 => $function::<f32>($($argument),*),
            ElementType::F64 => $function::<f64>($($argument),*),
            ElementType::Bf16 => $function::<bf16>($($argument),*),
            ElementType::F16 => $function::<f16>($($argument),*),
        }
    };
}

fn rounded<E: Element>(values: &[f64]) -> Vec<u8> {
    let elements: Vec<E> = values.iter().map(|value| E::rounded(*value)).collect();
    bytemuck::cast_slice(&elements).to_vec()
}

fn widened<E: Element>(bytes: &[u8]) -> Vec<u64> {
    let exact = |bytes: &[u8]| bytemuck::pod_read_unaligned::<E>(bytes).to_f64().to_bits();
    bytes.chunks_exact(size_of::<E>()).map(exact).collect()
}

/// What ffi/c/tests/trajectory.c reads.
fn input(trajectory: &Trajectory, config: &KoalaPlusPlus, backend: i64, precision: Precision) -> Vec<u8> {
    let ([element, state], [element_type, _]) = types(precision);
    let (rule, decay, initial) = match trajectory.noise {
        Noise::Ema { alpha, init } => (0, alpha, init),
        Noise::Fixed(value) => (1, 0.0, value),
    };
    let (tensors, steps) = (trajectory.sizes.len() as i64, trajectory.steps.len() as i64);
    let whole = [backend, element, state, (!config.symmetric).into(), rule, tensors, steps];
    let real = [config.sigma, config.q, config.weight_decay, config.lr, decay, initial];
    let lengths: Vec<i64> = trajectory.sizes.iter().map(|size| *size as i64).collect();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(bytemuck::cast_slice(&whole));
    bytes.extend_from_slice(bytemuck::cast_slice(&real));
    bytes.extend_from_slice(bytemuck::cast_slice(&lengths));
    for tensor in &trajectory.theta0 {
        bytes.extend(with_type!(element_type, rounded(tensor)));
    }
    for step in &trajectory.steps {
        bytes.extend_from_slice(bytemuck::cast_slice(&[step.loss, step.loss_second_moment]));
        for tensor in &step.grads {
            bytes.extend(with_type!(element_type, rounded(tensor)));
        }
    }
    bytes
}

/// The bits that it writes, as `koala_trajectory::run` gives them.
fn bits(mut output: &[u8], sizes: &[usize], precision: Precision) -> Vec<u64> {
    let mut take = |bytes: usize| {
        let (taken, rest) = output.split_at(bytes);
        output = rest;
        taken
    };
    let (_, [element_type, state_type]) = types(precision);
    let mut bits = widened::<f64>(take(8));
    for length in sizes {
        bits.extend(with_type!(element_type, widened(take(length * element_type.size()))));
        bits.extend(with_type!(state_type, widened(take(length * state_type.size()))));
        bits.extend(with_type!(state_type, widened(take(length * state_type.size()))));
        bits.extend(widened::<f64>(take(24)));
        // In C, a double too.
        bits.push(bytemuck::pod_read_unaligned::<f64>(take(8)) as u64);
    }
    assert!(output.is_empty());
    bits
}

#[test]
fn c_gives_the_bits_of_rust() {
    let program = common::compile("c/tests/trajectory.c", &[]);
    let numbers = ["scalar", "portable", "neon", "avx2", "avx512"];
    for (name, trajectory) in embedded() {
        // The other methods are stepped by the optimizer alone: ffi/tests/c_methods.rs.
        let Settings::KoalaPlusPlus(config) = trajectory.config else { continue };
        for backend in Backend::present() {
            for precision in Precision::ALL {
                let number = numbers.iter().position(|name| *name == backend.name()).unwrap() as i64 + 1;
                let output = common::run(&program, &[], &input(&trajectory, &config, number, precision));
                let expected = run(&trajectory, backend, precision, Threads::One).unwrap();
                let found = bits(&output, &trajectory.sizes, precision);
                assert!(found == expected.bits, "{name} on {} in {precision:?}", backend.name());
            }
        }
    }
}
