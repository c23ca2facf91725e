//! Both passes on every backend, each beside its streaming limit, in every vector width: `cargo bench --bench kernels`.
//! For shares of the limit that a drifting machine does not spoil: `koala bench`.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::{Tensor, Width, Workload, widths};
use koala_optim::{Backend, ElementType, StateType};

/// Its name, its bytes per parameter, its limit, and what runs it.
type Pass = (&'static str, fn(&Tensor) -> usize, fn(&mut dyn Workload, Width), fn(&mut dyn Workload, Backend));

const PASSES: [Pass; 2] = [
    (
        "pass 1",
        Tensor::read_bytes,
        |tensor, width| tensor.read_limit(width, 1),
        |tensor, backend| {
            black_box(tensor.dots(backend));
        },
    ),
    (
        "pass 2",
        Tensor::update_bytes,
        |tensor, width| tensor.update_limit(width, 1),
        |tensor, backend| tensor.apply(backend),
    ),
];

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
            group.sample_size(20);
            for (pass, bytes, limit, run) in PASSES {
                group.throughput(Throughput::Bytes((tensor.length * bytes(&tensor)) as u64));
                for (i, width) in widths().into_iter().enumerate() {
                    let name = BenchmarkId::new(format!("limit of {pass}"), i);
                    group.bench_function(name, |bencher| bencher.iter(|| limit(&mut *workload, width)));
                }
                for backend in Backend::present() {
                    let name = BenchmarkId::new(pass, backend.name());
                    group.bench_function(name, |bencher| bencher.iter(|| run(&mut *workload, backend)));
                }
            }
        }
    }
}

criterion_group!(benches, passes);
criterion_main!(benches);
