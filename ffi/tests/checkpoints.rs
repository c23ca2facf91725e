//! A run that Rust begins, C goes on with, and Rust ends, each from the checkpoint of the one before, gives the bits of
//! one that never stopped: parameters, state, and all that a later step depends on.

mod common;

use koala::koala_method_kind;
use koala_optim::checkpoint::Loading;
use koala_optim::{
    AdamW, Config, ElementType, KoalaM, KoalaPlusPlus, KoalaV, Loss, Method, Noise, OnBreakdown, OnNonFinite,
    Optimizer, Policy, Scaling, Settings, Sgd, StateType, Tensor, Variant,
};

const LENGTHS: [usize; 2] = [67, 3];
const LONGEST: usize = 67;
const NAMES: [&str; 2] = ["a", "b"];

/// What C is not told, and has to take from the checkpoint.
fn config(method: Method) -> Config {
    Config {
        method,
        noise: Noise::Averaged { decay: 0.75, initial: 0.5 },
        policy: Policy { non_finite: OnNonFinite::KeepAll, breakdown: OnBreakdown::Skip },
        scaling: Scaling { factor: 0.5, limit: 0.7 },
        clip_norm: Some(2.0),
        ..Config::default()
    }
}

fn settings() -> Settings {
    Settings { learning_rate: 0.05, weight_decay: 0.01, ..Settings::default() }
}

fn with_tensors(config: Config, settings: Settings) -> Optimizer {
    let mut optimizer = Optimizer::new(config).unwrap();
    let group = optimizer.add_group(settings).unwrap();
    for (name, length) in NAMES.into_iter().zip(LENGTHS) {
        optimizer.add_tensor(name, length, ElementType::F64, StateType::Same, group).unwrap();
    }
    optimizer
}

/// Numbers that have nothing to do with each other.
fn wave(place: usize, scale: f64) -> f64 {
    ((place * 97 % 251) as f64 - 125.0) * scale
}

fn gradient(step: usize, tensor: usize) -> Vec<f64> {
    (0..LENGTHS[tensor]).map(|i| wave(i + 31 * tensor + 7 * step, 0.01)).collect()
}

fn loss(step: usize) -> Loss {
    Loss::new(1.5 / (step + 1) as f64, 2.0)
}

fn step(optimizer: &mut Optimizer, model: &mut [Vec<f64>; 2], steps: std::ops::Range<usize>) {
    for step in steps {
        let gradients = [gradient(step, 0), gradient(step, 1)];
        let [a, b] = &mut *model;
        let mut tensors = [Tensor::new("a", a, &gradients[0]), Tensor::new("b", b, &gradients[1])];
        optimizer.predict(&mut tensors).unwrap();
        optimizer.step(loss(step), &mut tensors).unwrap();
    }
}

fn padded(values: &[f64]) -> impl Iterator<Item = f64> {
    values.iter().copied().chain(std::iter::repeat(0.0)).take(LONGEST)
}

/// What ffi/c/tests/checkpoint.c reads.
fn input(model: &[Vec<f64>; 2], steps: std::ops::Range<usize>) -> Vec<u8> {
    let mut values: Vec<f64> = model.iter().flat_map(|values| padded(values)).collect();
    for step in steps {
        values.extend([loss(step).mean, loss(step).second_moment]);
        (0..2).for_each(|tensor| values.extend(padded(&gradient(step, tensor))));
    }
    bytemuck::cast_slice(&values).to_vec()
}

#[test]
fn rust_and_c_go_on_from_each_others_checkpoints() {
    let program = common::compile("c/tests/checkpoint.c", &[]);
    let file = program.with_file_name("run.safetensors");
    let path = file.to_str().unwrap();
    let vanilla = KoalaPlusPlus { variant: Variant::Vanilla, ..KoalaPlusPlus::default() };
    let definite = KoalaPlusPlus { variant: Variant::Definite, prior_variance: 0.25, ..KoalaPlusPlus::default() };
    let methods = [
        (Method::KoalaPlusPlus(vanilla), koala_method_kind::KoalaPlusPlus),
        (Method::KoalaPlusPlus(definite), koala_method_kind::KoalaPlusPlus),
        (Method::KoalaV(KoalaV { variance: 0.25, ..KoalaV::default() }), koala_method_kind::KoalaV),
        (Method::KoalaM(KoalaM { velocity_decay: 0.75, ..KoalaM::default() }), koala_method_kind::KoalaM),
        (Method::AdamW(AdamW { beta1: 0.85, ..AdamW::default() }), koala_method_kind::Adamw),
        (Method::Sgd(Sgd { momentum: 0.8, nesterov: true }), koala_method_kind::Sgd),
    ];
    for (method, kind) in methods {
        let start = [0, 1].map(|tensor| (0..LENGTHS[tensor]).map(|i| wave(3 * i + tensor, 0.02)).collect::<Vec<_>>());
        let (mut expected, mut model) = (start.clone(), start.clone());
        let mut unstopped = with_tensors(config(method), settings());
        step(&mut unstopped, &mut expected, 0..6);

        let mut first = with_tensors(config(method), settings());
        step(&mut first, &mut model, 0..2);
        first.save(&file).unwrap();
        let found = common::run(&program, &[path, &(kind as i32).to_string()], &input(&model, 2..4));
        let found: Vec<f64> = bytemuck::pod_collect_to_vec(&found);
        model = [found[..LENGTHS[0]].to_vec(), found[LONGEST..LONGEST + LENGTHS[1]].to_vec()];
        // Nothing but the kind of method is known here, either.
        let mut last = with_tensors(Config { method, ..Config::default() }, Settings::default());
        last.load(&file, Loading::Exact).unwrap();
        step(&mut last, &mut model, 4..6);

        assert!(model == expected && model != start, "{method:?}");
        let after = |optimizer: &Optimizer, name: &str| {
            let state = optimizer.state(name).unwrap();
            (state.bytes().map(<[u8]>::to_vec), state.scalars())
        };
        assert!(NAMES.iter().all(|name| after(&last, name) == after(&unstopped, name)), "{method:?}");
        assert_eq!(last.method(), unstopped.method());
        // Where anything else is not as in a run that never stopped, its checkpoint is another one.
        let file_of_unstopped = program.with_file_name("unstopped.safetensors");
        last.save(&file).unwrap();
        unstopped.save(&file_of_unstopped).unwrap();
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&file_of_unstopped).unwrap(), "{method:?}");
    }
}
