//! The step of whole models, beside a pass in AdamW's shape over as many parameters: `cargo bench --bench optimizer`; by
//! the other methods; and with gradients scaled and clipped, beside looking at all tensors before any is written, which
//! moves as many bytes (`traffic` counts them). GPT-2 small takes 4.5 GB; `-- ResNet-50` measures the other one alone.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::models::{gpt_2_small, resnet_50};
use koala_measure::{AdamW, Model, step};
use koala_optim::{
    AdamW as AdamWMethod, Backend, Config, KoalaM, KoalaV, Method, OnNonFinite, Policy, Scaling, Sgd, StateType,
    Threads,
};

fn models(criterion: &mut Criterion) {
    for architecture in [resnet_50(), gpt_2_small()] {
        let mut group = criterion.benchmark_group(architecture.name);
        group.sample_size(20).throughput(Throughput::Elements(architecture.parameters() as u64));
        // The memory is filled only where the filter on the command line lets this run.
        group.bench_function("AdamW-shaped pass", |bencher| {
            let mut adamw = AdamW::new(architecture.parameters());
            bencher.iter(|| adamw.step(1));
        });
        for (state, name) in [(StateType::Same, "f32 state"), (StateType::Bf16, "bf16 state")] {
            for backend in Backend::present() {
                group.bench_function(BenchmarkId::new(name, backend.name()), |bencher| {
                    let mut model = Model::from(&architecture);
                    let mut optimizer = model.optimizer(state, backend, Threads::One).unwrap();
                    let mut tensors = model.tensors();
                    bencher.iter(|| step(&mut optimizer, &mut tensors));
                });
            }
        }
        let of_method = |method| Config { method, ..Config::default() };
        let policy = Policy { non_finite: OnNonFinite::KeepAll, ..Policy::default() };
        for (name, config) in [
            ("AdamW", of_method(Method::AdamW(AdamWMethod::default()))),
            ("SGD with momentum", of_method(Method::Sgd(Sgd::default()))),
            ("KOALA-V", of_method(Method::KoalaV(KoalaV::default()))),
            ("KOALA-M", of_method(Method::KoalaM(KoalaM::default()))),
            ("scaled", Config { scaling: Scaling { factor: 0.5, limit: 1.0 }, ..Config::default() }),
            ("all looked at first", Config { policy, ..Config::default() }),
            ("clipped by the norm of all", Config { clip_norm: Some(1e-3), ..Config::default() }),
        ] {
            group.bench_function(name, |bencher| {
                let mut model = Model::from(&architecture);
                let mut optimizer = model.optimizer_of(StateType::Same, config.clone()).unwrap();
                let mut tensors = model.tensors();
                bencher.iter(|| step(&mut optimizer, &mut tensors));
            });
        }
    }
}

criterion_group!(benches, models);
criterion_main!(benches);
