//! Where threads pay: `cargo bench --features rayon --bench threads`. One tensor, and a model of small ones, stepped by
//! one thread and by a pool of two in turn, from outside of the pool and from inside; the ratio is the speed-up.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType, Tensor, Threads};

/// An optimizer over equal tensors, with what it steps.
struct Model {
    optimizer: Optimizer,
    names: Vec<String>,
    parameters: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

impl Model {
    fn new(tensors: usize, length: usize) -> Self {
        let mut optimizer = Optimizer::new(Config::default()).unwrap();
        let settings = Settings { learning_rate: 1e-9, weight_decay: 1e-3, ..Settings::default() };
        let group = optimizer.add_group(settings).unwrap();
        let names: Vec<String> = (0..tensors).map(|i| format!("tensor {i}")).collect();
        for name in &names {
            optimizer.add_tensor(name, length, ElementType::F32, StateType::Same, group).unwrap();
        }
        let fill = |scale: f32| (0..length).map(|i| scale * ((i % 251) as f32 - 125.0)).collect::<Vec<_>>();
        Model {
            optimizer,
            names,
            parameters: (0..tensors).map(|_| fill(1e-3)).collect(),
            gradients: (0..tensors).map(|_| fill(1e-4)).collect(),
        }
    }

    /// The time of some steps, in nanoseconds each.
    fn time(&mut self, threads: Threads, steps: usize) -> f64 {
        self.optimizer.set_threads(threads).unwrap();
        let mut tensors: Vec<Tensor> = self
            .names
            .iter()
            .zip(&mut self.parameters)
            .zip(&self.gradients)
            .map(|((name, parameters), gradient)| Tensor::new(name, parameters, gradient))
            .collect();
        self.optimizer.step(Loss::new(1.0, 1.0), &mut tensors).unwrap();
        let start = Instant::now();
        for _ in 0..steps {
            black_box(self.optimizer.step(Loss::new(1.0, 1.0), &mut tensors).unwrap());
        }
        start.elapsed().as_nanos() as f64 / steps as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("speed-up by two threads: from outside of the pool, from inside");
    for power in 14..=22 {
        for (tensors, name) in [(1, "one tensor"), (64, "64 tensors")] {
            let length = (1usize << power) / tensors;
            let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
            let two = || Threads::Pool(pool.clone());
            // The same memory for both: where it lies matters as much as the threads do.
            let mut model = Model::new(tensors, length);
            let steps = ((1 << 21) >> power).max(2);
            let (mut outside, mut inside) = (Vec::new(), Vec::new());
            for _ in 0..21 {
                outside.push(model.time(Threads::One, steps) / model.time(two(), steps));
                inside.push(model.time(Threads::One, steps) / pool.install(|| model.time(two(), steps)));
            }
            println!("2^{power}, {name}: {:.2} {:.2}", median(outside), median(inside));
        }
    }
}
