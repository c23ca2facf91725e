//! Both passes and the whole step by criterion, for every backend present, beside the streaming limit:
//! `cargo bench --bench step`. For shares of the limit that a drifting machine does not spoil: `--bench share`.
#![allow(missing_docs)]

mod common;

use common::{Workload, widths};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_optim::Backend;

fn passes(criterion: &mut Criterion) {
    for weight_decay in [1e-3, 0.0] {
        for power in [6, 12, 16, 20, 22] {
            let n = 1usize << power;
            let mut workload = Workload::new(n, weight_decay);
            let mut group = criterion.benchmark_group(format!("weight decay {weight_decay}, 2^{power} parameters"));
            group.sample_size(20).throughput(Throughput::Elements(n as u64));
            for (i, width) in widths().into_iter().enumerate() {
                group.bench_function(BenchmarkId::new("limit of pass 1", i), |b| b.iter(|| workload.read_limit(width)));
                group.bench_function(BenchmarkId::new("limit of pass 2", i), |b| {
                    b.iter(|| workload.update_limit(width))
                });
            }
            for backend in Backend::present() {
                let name = backend.name();
                group.bench_function(BenchmarkId::new("pass 1", name), |b| b.iter(|| workload.dots(backend)));
                group.bench_function(BenchmarkId::new("pass 2", name), |b| b.iter(|| workload.apply(backend)));
                group.bench_function(BenchmarkId::new("step", name), |b| b.iter(|| workload.step(backend)));
            }
        }
    }
}

criterion_group!(benches, passes);
criterion_main!(benches);
