//! A C program steps by every method, with gradients as they are, scaled, limited and clipped, at every level of the C
//! API, and gives the bits of the Rust API.

mod common;

use std::mem::MaybeUninit;

use koala::*;
use koala_optim::{
    AdamW, Backend, Config, ElementType, KoalaM, KoalaPlusPlus, KoalaV, Loss, Method, Noise, Optimizer, Scaling,
    Settings, Sgd, StateType, Tensor, Variant,
};

const LENGTHS: [usize; 3] = [67, 3, 0];
const LONGEST: usize = 67;
const NAMES: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 6;

fn settings() -> Settings {
    Settings { learning_rate: 0.05, weight_decay: 0.01, ..Settings::default() }
}

/// Numbers that have nothing to do with each other.
fn wave(place: usize, scale: f64) -> f64 {
    ((place * 97 % 251) as f64 - 125.0) * scale
}

fn gradient(step: usize, tensor: usize) -> Vec<f64> {
    (0..LENGTHS[tensor]).map(|i| wave(i + 31 * tensor + 7 * step, 0.01)).collect()
}

fn parameters(tensor: usize) -> Vec<f64> {
    (0..LENGTHS[tensor]).map(|i| wave(3 * i + tensor, 0.02)).collect()
}

fn loss(step: usize) -> Loss {
    Loss::new(1.5 / (step + 1) as f64, 2.0)
}

fn padded(values: &[f64]) -> impl Iterator<Item = f64> {
    values.iter().copied().chain(std::iter::repeat(0.0)).take(LONGEST)
}

/// The bytes of a struct of C's, which has no padding.
fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: the library's structs have no padding.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

fn c_method(method: &Method) -> koala_method {
    let kind = match method {
        Method::KoalaPlusPlus(_) => koala_method_kind::KoalaPlusPlus,
        Method::KoalaV(_) => koala_method_kind::KoalaV,
        Method::KoalaM(_) => koala_method_kind::KoalaM,
        Method::AdamW(_) => koala_method_kind::Adamw,
        Method::Sgd(_) => koala_method_kind::Sgd,
    };
    let mut made = MaybeUninit::uninit();
    // SAFETY: of that size; a call that succeeds has written all of it.
    let mut made = unsafe {
        let status = koala_method_init(made.as_mut_ptr(), size_of::<koala_method>(), MaybeUninit::new(kind));
        assert_eq!(status, koala_status::Ok);
        made.assume_init()
    };
    match *method {
        Method::KoalaPlusPlus(_) => {}
        Method::KoalaV(KoalaV { variance, process_noise }) => {
            made = koala_method { variance, process_noise, ..made };
        }
        Method::KoalaM(KoalaM {
            variance,
            covariance,
            velocity_variance,
            velocity_decay,
            process_noise,
            velocity_noise,
        }) => {
            made = koala_method {
                variance,
                covariance,
                velocity_variance,
                velocity_decay,
                process_noise,
                velocity_noise,
                ..made
            };
        }
        Method::AdamW(AdamW { beta1, beta2, epsilon }) => made = koala_method { beta1, beta2, epsilon, ..made },
        Method::Sgd(Sgd { momentum, nesterov }) => {
            made = koala_method { momentum, nesterov: nesterov.into(), ..made };
        }
    }
    made
}

/// The settings, with the numbers of KOALA++.
fn c_settings(method: &Method) -> koala_settings {
    let Settings { learning_rate, weight_decay, .. } = settings();
    let made = koala_settings { learning_rate, weight_decay, ..koala_settings::default() };
    let Method::KoalaPlusPlus(KoalaPlusPlus { initial_variance, process_noise, variant, prior_variance }) = *method
    else {
        return made;
    };
    let variant = match variant {
        Variant::Symmetric => koala_variant::Symmetric,
        Variant::Vanilla => koala_variant::Vanilla,
        Variant::Definite => koala_variant::Definite,
    };
    koala_settings { initial_variance, process_noise, variant: MaybeUninit::new(variant), prior_variance, ..made }
}

/// What ffi/c/tests/methods.c reads.
fn input(method: &Method, scaling: Scaling, clip_norm: Option<f64>, backend: koala_backend) -> Vec<u8> {
    let config = koala_config {
        gradient_factor: scaling.factor,
        gradient_limit: scaling.limit,
        clip_norm: clip_norm.unwrap_or(f64::INFINITY),
        noise: MaybeUninit::new(koala_noise::Fixed),
        initial_noise: 0.7,
        backend: MaybeUninit::new(backend),
        ..koala_config::default()
    };
    let mut bytes = [bytes_of(&config), bytes_of(&c_method(method)), bytes_of(&c_settings(method))].concat();
    let mut append = |values: &[f64]| bytes.extend_from_slice(bytemuck::cast_slice(values));
    (0..3).for_each(|tensor| append(&padded(&parameters(tensor)).collect::<Vec<_>>()));
    for step in 0..STEPS {
        append(&[loss(step).mean, loss(step).second_moment]);
        (0..3).for_each(|tensor| append(&padded(&gradient(step, tensor)).collect::<Vec<_>>()));
    }
    bytes
}

/// The bits that it writes.
fn expected(method: Method, scaling: Scaling, clip_norm: Option<f64>, backend: Backend) -> Vec<u8> {
    let config = Config { method, scaling, clip_norm, backend, noise: Noise::Fixed(0.7), ..Config::default() };
    let mut optimizer = Optimizer::new(config).unwrap();
    let group = optimizer.add_group(settings()).unwrap();
    for (name, length) in NAMES.into_iter().zip(LENGTHS) {
        optimizer.add_tensor(name, length, ElementType::F64, StateType::Same, group).unwrap();
    }
    let mut model = [0, 1, 2].map(parameters);
    let mut norm = None;
    for step in 0..STEPS {
        let gradients = [0, 1, 2].map(|tensor| gradient(step, tensor));
        let list = |model: &mut [Vec<f64>; 3], work: &mut dyn FnMut(&mut [Tensor<'_>])| {
            let [a, b, c] = model;
            let [of_a, of_b, of_c] = &gradients;
            work(&mut [Tensor::new("a", a, of_a), Tensor::new("b", b, of_b), Tensor::new("c", c, of_c)]);
        };
        list(&mut model, &mut |tensors| optimizer.predict(tensors).unwrap());
        list(&mut model, &mut |tensors| norm = optimizer.step(loss(step), tensors).unwrap().gradient_norm);
    }
    let state = NAMES.map(|name| optimizer.state(name).unwrap());
    let mut bytes = bytes_of(&c_method(&optimizer.method())).to_vec();
    let mut append = |values: &[f64]| bytes.extend_from_slice(bytemuck::cast_slice(values));
    append(&[norm.unwrap_or(f64::NAN)]);
    model.iter().for_each(|values| append(&padded(values).collect::<Vec<_>>()));
    state.iter().for_each(|state| append(&padded(&state.v()).collect::<Vec<_>>()));
    state.iter().for_each(|state| append(&padded(&state.h()).collect::<Vec<_>>()));
    for state in state {
        let koala_optim::kernel::Scalars { h_h, h_v, innovation_variance, steps } = state.scalars();
        append(&[h_h, h_v, innovation_variance, steps as f64]);
    }
    bytes
}

#[test]
fn c_gives_the_bits_of_rust_for_every_method() {
    let program = common::compile("c/tests/methods.c", &[]);
    let numbers = [
        ("scalar", koala_backend::Scalar),
        ("portable", koala_backend::Portable),
        ("neon", koala_backend::Neon),
        ("avx2", koala_backend::Avx2),
        ("avx512", koala_backend::Avx512),
    ];
    let variant = |variant, prior_variance| {
        Method::KoalaPlusPlus(KoalaPlusPlus { variant, prior_variance, ..KoalaPlusPlus::default() })
    };
    let methods = [
        Method::default(),
        variant(Variant::Vanilla, 0.0),
        variant(Variant::Definite, 0.0),
        variant(Variant::Definite, 0.25),
        Method::KoalaV(KoalaV { variance: 0.25, ..KoalaV::default() }),
        Method::KoalaM(KoalaM { velocity_decay: 0.75, ..KoalaM::default() }),
        Method::AdamW(AdamW { beta1: 0.85, ..AdamW::default() }),
        Method::Sgd(Sgd { momentum: 0.8, nesterov: true }),
        Method::Sgd(Sgd::default()),
        Method::Sgd(Sgd { momentum: 0.0, nesterov: false }),
    ];
    let as_it_is = Scaling::default();
    let scaled = Scaling { factor: 1.0 / 3.0, limit: 0.3 };
    let mut cases = Vec::new();
    for method in methods {
        for (scaling, clip_norm) in [(as_it_is, None), (scaled, None), (as_it_is, Some(0.5)), (scaled, Some(0.5))] {
            cases.extend(Backend::present().into_iter().map(|backend| (method, scaling, clip_norm, backend)));
        }
    }
    // All in one run, as what watches over a program takes long to begin.
    let given: Vec<u8> = cases
        .iter()
        .flat_map(|&(method, scaling, clip_norm, backend)| {
            let (_, number) = numbers.into_iter().find(|(name, _)| *name == backend.name()).unwrap();
            input(&method, scaling, clip_norm, number)
        })
        .collect();
    let found = common::run(&program, &[], &given);
    let mut found = found.chunks_exact(found.len() / cases.len());
    let mut seen = Vec::new();
    for (method, scaling, clip_norm, backend) in cases {
        let found = found.next().unwrap();
        // Valgrind has no AVX-512.
        if std::env::var_os("KOALA_TEST_RUNNER").is_some() && found.iter().all(|byte| *byte == 0) {
            println!("skipped: {method:?} on {}, which is not there for the program", backend.name());
            continue;
        }
        let expected = expected(method, scaling, clip_norm, backend);
        assert!(found == expected, "{method:?}, {scaling:?}, {clip_norm:?}, on {}", backend.name());
        seen.push(found);
    }
    // The backends agree, and nothing else does: every case is another one.
    seen.dedup();
    assert_eq!(seen.len(), methods.len() * 4);
}
