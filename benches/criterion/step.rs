//! The whole step of one tensor of f32 on every backend, from a single element on: `cargo bench --bench step`. Its limit
//! is that of pass 1 and that of pass 2, one after the other.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::{Tensor, widths};
use koala_optim::{Backend, ElementType, StateType};

fn step(criterion: &mut Criterion) {
    for length in [1, 16, 17, 64, 256, 1000, 1 << 12, 1 << 16, 1 << 20, 1 << 22] {
        let tensor = Tensor { parameters: ElementType::F32, state: StateType::Same, weight_decay: 1e-3, length };
        let mut workload = tensor.workload();
        let mut group = criterion.benchmark_group(format!("{length} parameters"));
        group.sample_size(20).throughput(Throughput::Elements(length as u64));
        for (i, width) in widths().into_iter().enumerate() {
            group.bench_function(BenchmarkId::new("limit", i), |bencher| {
                bencher.iter(|| {
                    workload.read_limit(width, 1);
                    workload.update_limit(width, 1);
                })
            });
        }
        for backend in Backend::present() {
            let name = BenchmarkId::new("step", backend.name());
            group.bench_function(name, |bencher| bencher.iter(|| workload.step(backend)));
        }
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
