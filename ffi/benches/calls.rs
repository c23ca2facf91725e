//! What it costs to call the library from C, beside the same call from Rust: `cargo bench -p koala-ffi`. All of one
//! line are measured in turn, and the ratios are taken within rounds.
#![allow(missing_docs)]

use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use koala::*;
use koala_measure::{Budget, Contender, models, numbers, rounds, statistics};
use koala_optim::kernel::{Buffers, Measurement, Scalars, Step, step};
use koala_optim::{Config, ElementType, Loss, Noise, Optimizer, Settings, StateType, Tensor};

const BUDGET: Budget = Budget { seconds: 12.0, least: 15, most: 3000 };
const LOSS: koala_loss = koala_loss { mean: 1.0, second_moment: 1.0 };

/// A learning rate with which the numbers stay where they are.
fn settings() -> Settings {
    Settings { learning_rate: 1e-9, weight_decay: 1e-3, ..Settings::default() }
}

fn c_settings() -> koala_settings {
    // SAFETY: all of its bytes are written.
    let mut settings = unsafe { std::mem::zeroed() };
    // SAFETY: of that size.
    check(unsafe { koala_settings_init(&mut settings, size_of::<koala_settings>()) });
    koala_settings { learning_rate: 1e-9, weight_decay: 1e-3, process_noise: 1e-3, ..settings }
}

fn c_step(settings: &koala_settings) -> koala_step {
    // SAFETY: all of its bytes are written.
    let mut step = unsafe { std::mem::zeroed() };
    // SAFETY: of that size.
    check(unsafe { koala_step_init(&mut step, size_of::<koala_step>()) });
    koala_step { groups: settings, group_count: 1, loss: 1.0, noise: 1.0, ..step }
}

fn check(status: koala_status) {
    assert_eq!(status, koala_status::Ok);
}

fn wave(length: usize, scale: f32) -> Vec<f32> {
    (0..length).map(|i| ((i * 37 % 251) as f32 - 125.0) * scale).collect()
}

/// One tensor, at level 1.
struct Single {
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    v: Vec<f32>,
    h: Vec<f32>,
    scalars: Scalars,
    c_scalars: koala_scalars,
}

impl Single {
    fn c_tensor(&mut self) -> koala_tensor {
        koala_tensor {
            size: size_of::<koala_tensor>(),
            length: self.parameters.len(),
            parameters: self.parameters.as_mut_ptr().cast(),
            gradient: self.gradient.as_ptr().cast(),
            v: self.v.as_mut_ptr().cast(),
            h: self.h.as_mut_ptr().cast(),
            scalars: &mut self.c_scalars,
            // SAFETY: zeros are its defaults.
            ..unsafe { std::mem::zeroed() }
        }
    }
}

fn single(length: usize) {
    let mut context = Single {
        parameters: wave(length, 1e-3),
        gradient: wave(length, 1e-4),
        v: vec![0.0; length],
        h: vec![0.0; length],
        scalars: Scalars::default(),
        c_scalars: koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 },
    };
    let rust =
        Step { settings: settings(), method: numbers().into(), ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
    let c_settings = c_settings();
    let c = c_step(&c_settings);
    // A program in C has it in memory, and uses it again.
    let mut tensor = context.c_tensor();
    let contenders = vec![
        Contender::new(|context: &mut Single| {
            let Single { parameters, gradient, v, h, scalars, .. } = context;
            step(&rust, Buffers { parameters, gradient, v, h, copy: None }, scalars).unwrap()
        }),
        Contender::new(|_: &mut Single| {
            // SAFETY: the context's own buffers.
            check(unsafe { koala_step_tensor(&c, &mut tensor, null_mut()) });
        }),
    ];
    let times = rounds(&mut context, contenders, Budget { seconds: 2.0, ..BUDGET });
    let [rust, c] = [&times[0], &times[1]].map(|times| statistics::median(times));
    let apart = times[1].iter().zip(&times[0]).map(|(c, rust)| c - rust).collect::<Vec<_>>();
    let more = statistics::median(&apart);
    println!("{length:>9} parameters: Rust {rust:.0} ns, C {c:.0} ns, {more:+.0} ns");
}

/// A model, with an optimizer of Rust's, one of C's, and level 1 of C's, all on the same parameters and gradients.
struct Model {
    names: Vec<String>,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    rust: Optimizer,
    c: *mut koala_optimizer,
    given: Vec<koala_parameters>,
    tensors: Vec<koala_tensor>,
}

fn model(architecture: &models::Architecture) {
    let lengths: Vec<usize> = architecture.shapes.iter().map(|shape| shape.length()).collect();
    let names: Vec<String> = architecture.shapes.iter().map(|shape| shape.name.clone()).collect();
    let mut rust = Optimizer::new(Config { noise: Noise::Fixed(1.0), ..Config::default() }).unwrap();
    let group = rust.add_group_with(settings(), numbers()).unwrap();
    let mut c = null_mut();
    let c_settings = c_settings();
    // SAFETY: pointers of this function's own.
    unsafe {
        check(koala_optimizer_create(null(), &mut c));
        check(koala_optimizer_add_group(c, &c_settings, &mut 0));
    }
    let mut parameters: Vec<Vec<f32>> = lengths.iter().map(|length| wave(*length, 1e-3)).collect();
    let gradients: Vec<Vec<f32>> = lengths.iter().map(|length| wave(*length, 1e-4)).collect();
    let zero = koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 };
    let mut states: Vec<[Vec<f32>; 2]> =
        lengths.iter().map(|length| [vec![0.0; *length], vec![0.0; *length]]).collect();
    let mut scalars = vec![zero; lengths.len()];
    let (mut given, mut tensors) = (Vec::new(), Vec::new());
    for (i, (name, length)) in names.iter().zip(&lengths).enumerate() {
        rust.add_tensor(name, *length, ElementType::F32, StateType::Same, group).unwrap();
        let c_name = CString::new(&**name).unwrap();
        let (element_type, state_type) =
            (MaybeUninit::new(koala_element_type::F32), MaybeUninit::new(koala_state_type::Same));
        let (theta, g): (*mut c_void, *const c_void) =
            (parameters[i].as_mut_ptr().cast(), gradients[i].as_ptr().cast());
        // SAFETY: pointers of this function's own, and zeros are the structs' defaults.
        unsafe {
            check(koala_optimizer_add_tensor(c, c_name.as_ptr(), *length, element_type, state_type, 0, null_mut()));
            given.push(koala_parameters {
                size: size_of::<koala_parameters>(),
                tensor: i,
                length: *length,
                parameters: theta,
                gradient: g,
                ..std::mem::zeroed()
            });
            let [v, h] = &mut states[i];
            tensors.push(koala_tensor {
                size: size_of::<koala_tensor>(),
                length: *length,
                parameters: theta,
                gradient: g,
                v: v.as_mut_ptr().cast(),
                h: h.as_mut_ptr().cast(),
                scalars: &mut scalars[i],
                ..std::mem::zeroed()
            });
        }
    }
    let step = c_step(&c_settings);
    let mut context = Model { names, parameters, gradients, rust, c, given, tensors };
    let contenders = vec![
        Contender::new(|context: &mut Model| {
            let buffers = context.parameters.iter_mut().zip(&context.gradients);
            let mut tensors: Vec<Tensor> = context
                .names
                .iter()
                .zip(buffers)
                .map(|(name, (parameters, gradient))| Tensor::new(name, parameters, gradient))
                .collect();
            context.rust.step(Loss::new(1.0, 1.0), &mut tensors).unwrap()
        }),
        Contender::new(|context: &mut Model| {
            let given = &context.given;
            // SAFETY: the context's own buffers.
            check(unsafe {
                koala_optimizer_step(context.c, &LOSS, given.as_ptr(), given.len(), null_mut(), null_mut())
            });
        }),
        Contender::new(|context: &mut Model| {
            let tensors = &mut context.tensors;
            // SAFETY: the context's own buffers.
            check(unsafe { koala_step_tensors(&step, tensors.as_mut_ptr(), tensors.len(), null_mut(), null_mut()) });
        }),
    ];
    let times = rounds(&mut context, contenders, BUDGET);
    let ratio = |i: usize| statistics::median(&statistics::ratios(&times[i], &times[0]));
    println!(
        "{} ({} tensors): Rust {:.1} µs; C's optimizer {:.3} ×, C's array of tensors {:.3} × (spread {:.0} %)",
        architecture.name,
        lengths.len(),
        statistics::median(&times[0]) / 1000.0,
        ratio(1),
        ratio(2),
        100.0 * statistics::spread(&statistics::ratios(&times[1], &times[0])),
    );
    // SAFETY: made above.
    check(unsafe { koala_optimizer_destroy(context.c) });
}

fn main() {
    for length in [1, 16, 64, 1024] {
        single(length);
    }
    model(&models::resnet_50_normalizations());
    model(&models::resnet_50());
}
