//! The step of whole models, in the same rounds as a pass in AdamW's shape over as many parameters.

use std::sync::Arc;

use anyhow::Result;
use koala_measure::models::Architecture;
use koala_measure::statistics::{median, ratios, spread};
use koala_measure::{AdamW, Budget, Contender, rounds, step};
use koala_optim::{Backend, ElementType, Optimizer, StateType, Tensor, Threads};
use rayon::ThreadPool;

use super::passes::figure;
use super::record::Model;

/// What the contenders share.
struct Context<'a> {
    tensors: Vec<Tensor<'a>>,
    /// One for each type of state.
    optimizers: Vec<Optimizer>,
    adamw: AdamW,
}

/// Measures a model with each type of state. Without a pool, with one thread only.
pub(super) fn measure(
    architecture: &Architecture,
    states: &[StateType],
    backend: Backend,
    pool: Option<&Arc<ThreadPool>>,
    budget: Budget,
) -> Result<Vec<Model>> {
    let mut model = koala_measure::Model::from(architecture);
    let optimizer = |&state| model.optimizer(state, backend, Threads::One);
    let optimizers = states.iter().map(optimizer).collect::<Result<_, _>>()?;
    let adamw = AdamW::new(architecture.parameters());
    let mut context = Context { tensors: model.tensors(), optimizers, adamw };

    let mut contenders = vec![Contender::new(|c: &mut Context| c.adamw.step(1))];
    contenders.extend((0..states.len()).map(|i| {
        Contender::new(move |c: &mut Context| {
            c.optimizers[i].set_threads(Threads::One).expect("the calling thread is there");
            step(&mut c.optimizers[i], &mut c.tensors)
        })
    }));
    if let Some(pool) = pool {
        let parts = pool.current_num_threads();
        contenders.push(Contender::inside(pool, move |c: &mut Context| c.adamw.step(parts)));
        contenders.extend((0..states.len()).map(|i| {
            Contender::inside(pool, move |c: &mut Context| {
                c.optimizers[i].set_threads(Threads::Pool(pool.clone())).expect("the pool is there");
                step(&mut c.optimizers[i], &mut c.tensors)
            })
        }));
    }
    let times = rounds(&mut context, contenders, budget);

    let mut results = Vec::new();
    let counts = [1].into_iter().chain(pool.map(|pool| pool.current_num_threads()));
    for (threads, times) in counts.zip(times.chunks(1 + states.len())) {
        let row = |optimizer: &str, state: StateType, times: &[f64]| Model {
            name: architecture.name.to_owned(),
            tensors: architecture.shapes.len(),
            parameters: architecture.parameters(),
            optimizer: optimizer.to_owned(),
            backend: None,
            state: state.beside(ElementType::F32).to_string(),
            threads,
            time: figure(times),
            ratio_to_adamw: None,
            ratio_spread: None,
        };
        results.push(row("AdamW-shaped pass", StateType::Same, &times[0]));
        for (&state, koala) in states.iter().zip(&times[1..]) {
            let ratios = ratios(koala, &times[0]);
            results.push(Model {
                backend: Some(backend.name().to_owned()),
                ratio_to_adamw: Some(median(&ratios)),
                ratio_spread: Some(spread(&ratios)),
                ..row("KOALA++", state, koala)
            });
        }
    }
    Ok(results)
}
