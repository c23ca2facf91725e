//! A very loose look at the clock: no backend may take twice as long as the scalar one, the best of many short tries of
//! each, so that a busy machine fails nobody.

use std::time::{Duration, Instant};

use koala_measure::Tensor;
use koala_optim::{Backend, ElementType, StateType};

const TRIES: usize = 500;

/// The backends that do, and how much they take.
pub fn slow_backends() -> Vec<String> {
    let backends = Backend::present();
    let (parameters, state) = (ElementType::F32, StateType::Same);
    let mut workload = Tensor { parameters, state, length: 1 << 14, weight_decay: 1e-3 }.workload();
    let mut best = vec![Duration::MAX; backends.len()];
    // In turn, so that all of them meet the quiet moments.
    for _ in 0..TRIES {
        for (&backend, best) in backends.iter().zip(&mut best) {
            let start = Instant::now();
            workload.step(backend);
            *best = start.elapsed().min(*best);
        }
    }
    let times: Vec<_> = backends.iter().map(Backend::name).zip(best).collect();
    println!("best time of a step of 2^14 elements: {times:?}");
    let scalar = times[0].1;
    let slow = times.iter().filter(|(_, time)| *time > 2 * scalar);
    slow.map(|(name, time)| format!("{name}: {time:?} for a step that takes the scalar backend {scalar:?}")).collect()
}
