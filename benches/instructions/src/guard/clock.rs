//! A very loose look at the clock: no backend may take twice as long as the scalar one, the best of many short tries of
//! each, so that a busy machine fails nobody.

use std::hint::black_box;
use std::time::{Duration, Instant};

use koala_optim::Backend;

use super::parts::Tensor;

const TRIES: usize = 500;

/// The backends that do, and how much they take.
pub fn slow_backends() -> Vec<String> {
    let backends = Backend::present();
    let mut tensors: Vec<_> = backends.iter().map(|&backend| Tensor::<f32, f32>::new(backend, 1 << 14, 1e-3)).collect();
    let mut best = vec![Duration::MAX; backends.len()];
    // In turn, so that all of them meet the quiet moments.
    for _ in 0..TRIES {
        for (tensor, best) in tensors.iter_mut().zip(&mut best) {
            let start = Instant::now();
            black_box(tensor).step();
            *best = start.elapsed().min(*best);
        }
    }
    let times: Vec<_> = backends.iter().map(Backend::name).zip(best).collect();
    println!("best time of a step of 2^14 elements: {times:?}");
    let scalar = times[0].1;
    let slow = times.iter().filter(|(_, time)| *time > 2 * scalar);
    slow.map(|(name, time)| format!("{name}: {time:?} for a step that takes the scalar backend {scalar:?}")).collect()
}
