//! The step of a tensor of a few elements: what a step costs apart from what it does to the elements.

use anyhow::Result;
use koala_measure::{Budget, Contender, Model, Tensor, Workload, rounds, step};
use koala_optim::{Backend, ElementType, Optimizer, StateType, Threads};

use super::passes::figure;
use super::record::{Figure, Small};

/// What the contenders share.
struct Context<'a> {
    alone: Box<dyn Workload>,
    /// One for each backend.
    optimizers: Vec<Optimizer>,
    tensors: Vec<koala_optim::Tensor<'a>>,
}

/// As many tensors as keep each call short and all of them in the caches.
fn count(length: usize) -> usize {
    ((1 << 16) / length).clamp(1, 1 << 10)
}

/// Measures tensors of that length, alone and among others.
pub(super) fn measure(length: usize, backends: &[Backend], budget: Budget) -> Result<Vec<Small>> {
    let mut model = Model::of_equal(count(length), length);
    let optimizer = |&backend| model.optimizer(StateType::Same, backend, Threads::One);
    let optimizers = backends.iter().map(optimizer).collect::<Result<_, _>>()?;
    let tensor = Tensor { parameters: ElementType::F32, state: StateType::Same, length, weight_decay: 1e-3 };
    let mut context = Context { alone: tensor.workload(), optimizers, tensors: model.tensors() };

    let mut contenders = Vec::new();
    for (i, &backend) in backends.iter().enumerate() {
        contenders.push(Contender::new(move |c: &mut Context| c.alone.step(backend)));
        contenders.push(Contender::new(move |c: &mut Context| step(&mut c.optimizers[i], &mut c.tensors)));
    }
    let times = rounds(&mut context, contenders, budget);
    let small = backends.iter().zip(times.as_chunks::<2>().0).map(|(backend, [alone, all])| {
        let all = figure(all);
        Small {
            backend: backend.name().to_owned(),
            parameters: length,
            alone: figure(alone),
            in_model: Figure { nanoseconds: all.nanoseconds / count(length) as f64, ..all },
        }
    });
    Ok(small.collect())
}
