//! Both passes on every backend, each beside its streaming limit, in every vector width: `cargo bench --bench kernels`.
//! For shares of the limit that a drifting machine does not spoil: `koala bench`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::{Tensor, widths};
use koala_optim::{Backend, ElementType, StateType};

fn passes(criterion: &mut Criterion) {
    for (parameters, state, weight_decay) in [
        (ElementType::F32, StateType::Same, 1e-3),
        (ElementType::F32, StateType::Same, 0.0),
        (ElementType::F32, StateType::Bf16, 1e-3),
        (ElementType::F64, StateType::Same, 1e-3),
        (ElementType::Bf16, StateType::Same, 1e-3),
        (ElementType::F16, StateType::Same, 1e-3),
    ] {
        for power in [12, 16, 22] {
            let tensor = Tensor { parameters, state, weight_decay, length: 1 << power };
            let name = format!("{parameters}, state {state:?}, weight decay {weight_decay}, 2^{power} parameters");
            let mut workload = tensor.workload();
            let mut group = criterion.benchmark_group(name);
            group.sample_size(20).throughput(Throughput::Bytes((tensor.length * tensor.read_bytes()) as u64));
            for (i, width) in widths().into_iter().enumerate() {
                let name = BenchmarkId::new("limit of pass 1", i);
                group.bench_function(name, |bencher| bencher.iter(|| workload.read_limit(width, 1)));
            }
            for backend in Backend::present() {
                let name = BenchmarkId::new("pass 1", backend.name());
                group.bench_function(name, |bencher| bencher.iter(|| workload.dots(backend)));
            }
            group.throughput(Throughput::Bytes((tensor.length * tensor.update_bytes()) as u64));
            for (i, width) in widths().into_iter().enumerate() {
                let name = BenchmarkId::new("limit of pass 2", i);
                group.bench_function(name, |bencher| bencher.iter(|| workload.update_limit(width, 1)));
            }
            for backend in Backend::present() {
                let name = BenchmarkId::new("pass 2", backend.name());
                group.bench_function(name, |bencher| bencher.iter(|| workload.apply(backend)));
            }
        }
    }
}

criterion_group!(benches, passes);
criterion_main!(benches);
