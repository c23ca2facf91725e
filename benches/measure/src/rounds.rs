//! Rounds: everything that is to be compared is measured in turn, again and again. A machine whose speed drifts, or that
//! someone else uses meanwhile, is then as fast for one as for the other, and ratios taken within a round hold.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::ThreadPool;

/// The least time of one measurement: much longer than it takes to read the clock.
const LEAST: Duration = Duration::from_micros(300);

/// Before a measurement comes a call that is not measured, so that the caches hold what this contender left there and not
/// what another one did. Calls that take longer than this have too much memory to leave any of it in a cache.
const NEEDS_NO_WARMING: Duration = Duration::from_millis(20);

/// Calls so many times, and says how long that took.
type Repeat<'a, C> = Box<dyn FnMut(&mut C, usize) -> Duration + 'a>;

/// One of the things that are compared, on a context that they share.
pub struct Contender<'a, C> {
    repeat: Repeat<'a, C>,
    repeats: usize,
    warms: bool,
}

fn timed<C, R>(call: &mut impl FnMut(&mut C) -> R, context: &mut C, repeats: usize) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats {
        black_box(call(context));
    }
    start.elapsed()
}

impl<'a, C> Contender<'a, C> {
    /// Called by the calling thread.
    pub fn new<R>(mut call: impl FnMut(&mut C) -> R + 'a) -> Self {
        Self::repeated(Box::new(move |context, repeats| timed(&mut call, context, repeats)))
    }

    /// Called by a thread of that pool, which is entered before the clock starts.
    pub fn inside<R>(pool: &'a ThreadPool, mut call: impl FnMut(&mut C) -> R + Send + 'a) -> Self
    where
        C: Send,
    {
        Self::repeated(Box::new(move |context, repeats| pool.install(|| timed(&mut call, context, repeats))))
    }

    fn repeated(repeat: Repeat<'a, C>) -> Self {
        Contender { repeat, repeats: 1, warms: true }
    }

    /// Finds how many calls fill the least time; returns what one measurement takes.
    fn calibrate(&mut self, context: &mut C) -> Duration {
        (self.repeat)(context, 1);
        loop {
            let took = (self.repeat)(context, self.repeats);
            if took >= LEAST {
                let one = took / self.repeats as u32;
                self.warms = one < NEEDS_NO_WARMING;
                return took + if self.warms { one } else { Duration::ZERO };
            }
            let wanted = LEAST.as_secs_f64() * 1.1 / took.as_secs_f64().max(1e-7);
            self.repeats = (self.repeats as f64 * wanted.clamp(2.0, 1000.0)) as usize;
        }
    }

    fn measure(&mut self, context: &mut C) -> f64 {
        if self.warms {
            (self.repeat)(context, 1);
        }
        (self.repeat)(context, self.repeats).as_secs_f64() * 1e9 / self.repeats as f64
    }
}

/// How many rounds: as many as fit into a time, within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Or less.
    pub seconds: f64,
    /// Even where they take longer.
    pub least: usize,
    /// Even where there is time for more.
    pub most: usize,
}

/// Measures the contenders in turn, and returns the nanoseconds of one call of each in each round.
pub fn rounds<C>(context: &mut C, mut contenders: Vec<Contender<'_, C>>, budget: Budget) -> Vec<Vec<f64>> {
    let round: Duration = contenders.iter_mut().map(|contender| contender.calibrate(context)).sum();
    let count = (budget.seconds / round.as_secs_f64()) as usize;
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..count.clamp(budget.least, budget.most) {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            times.push(contender.measure(context));
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{median, ratios};

    #[test]
    fn a_call_that_takes_twice_as_long_is_found_to() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread can be had");
        let spin = |micros| {
            move |calls: &mut u64| {
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(micros) {}
                *calls += 1;
            }
        };
        let mut calls = 0;
        let contenders = vec![Contender::new(spin(50)), Contender::inside(&pool, spin(100))];
        let times = rounds(&mut calls, contenders, Budget { seconds: 0.0, least: 9, most: 20 });
        assert_eq!((times[0].len(), times[1].len()), (9, 9));
        assert!(calls > 100, "{calls}");
        let ratio = median(&ratios(&times[1], &times[0]));
        assert!((1.2..=3.0).contains(&ratio), "{ratio}");
    }
}
