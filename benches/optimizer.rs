//! The step of whole models, beside a pass in AdamW's shape over as many parameters: `cargo bench --bench optimizer`.
//! GPT-2 small takes 4.5 GB; `-- ResNet-50` measures the other one alone.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::models::{gpt_2_small, resnet_50};
use koala_measure::{AdamW, Model, step};
use koala_optim::{Backend, StateType, Threads};

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
    }
}

criterion_group!(benches, models);
criterion_main!(benches);
