//! Where threads pay: `cargo bench --bench threads`. One tensor, and a model of small ones, stepped by
//! one thread and by pools, from inside of the pool and from outside; beside it the limit of pass 2, divided in the same way.
#![allow(missing_docs)]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use koala_measure::{Model, Tensor, step, widths};
use koala_optim::{Backend, ElementType, StateType, Threads};

/// 1, 2, 4 and so on, and all that there are.
fn counts() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let powers = (0..usize::BITS).map(|power| 1 << power).take_while(|&count| count < all);
    powers.chain([all]).collect()
}

fn threads(criterion: &mut Criterion) {
    for power in [14, 16, 17, 18, 20, 21, 22] {
        for (tensors, name) in [(1, "one tensor"), (64, "64 tensors")] {
            let length = (1usize << power) / tensors;
            // The same memory for all: where it lies matters as much as the threads do.
            let mut model = Model::of_equal(tensors, length);
            let mut optimizer = model.optimizer(StateType::Same, Backend::detect(), Threads::One).unwrap();
            let mut tensors = model.tensors();
            let mut group = criterion.benchmark_group(format!("2^{power} parameters, {name}"));
            group.sample_size(20).throughput(Throughput::Elements(1 << power));
            for count in counts() {
                let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap());
                optimizer.set_threads(Threads::Pool(pool.clone())).unwrap();
                group.bench_function(BenchmarkId::new("inside", count), |bencher| {
                    pool.install(|| bencher.iter(|| step(&mut optimizer, &mut tensors)))
                });
                group.bench_function(BenchmarkId::new("outside", count), |bencher| {
                    bencher.iter(|| step(&mut optimizer, &mut tensors))
                });
            }
        }
    }
}

fn limits(criterion: &mut Criterion) {
    for power in [14, 16, 18, 20, 22] {
        let types = (ElementType::F32, StateType::Same);
        let tensor = Tensor { parameters: types.0, state: types.1, length: 1 << power, weight_decay: 1e-3 };
        let mut workload = tensor.workload();
        let mut group = criterion.benchmark_group(format!("2^{power} parameters, limit of pass 2"));
        group.sample_size(20).throughput(Throughput::Elements(1 << power));
        for count in counts() {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
            for (i, width) in widths().into_iter().enumerate() {
                group.bench_function(BenchmarkId::new(format!("width {i}"), count), |bencher| {
                    pool.install(|| bencher.iter(|| workload.update_limit(width, count)))
                });
            }
        }
    }
}

criterion_group!(benches, threads, limits);
criterion_main!(benches);
