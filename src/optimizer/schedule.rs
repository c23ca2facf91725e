//! Learning rates as plain functions of the step. Each returns a factor for the learning rate, so that one schedule serves
//! groups of different rates: `optimizer.set_learning_rate(group, rate * cosine(step, steps))`.
//!
//! They are the same to the last bit on every machine, as all here is. Steps are counted from 0. Beyond the last one, a
//! schedule stays at its end; one of no steps is at its end at once.
//!
//! ```
//! use koala_optim::schedule::{constant, cosine, step_decay, warm_up};
//!
//! // Ten steps of linear warm-up, then half a cosine.
//! let factor = |step| warm_up(step, 10) * cosine(step, 100);
//! assert!(factor(0) < factor(9) && factor(99) < 0.001);
//! // As the experiments of the paper of KOALA++: a tenth after epochs 30, 60 and 90.
//! let factors = [29, 30, 59, 60, 89, 90].map(|epoch| step_decay(epoch, &[30, 60, 90], 0.1));
//! assert_eq!(factors, [1.0, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1, 0.1 * 0.1 * 0.1]);
//! assert_eq!(constant(7), 1.0);
//! ```

/// Always 1.
///
/// See the [module's example](self).
pub fn constant(_step: u64) -> f64 {
    1.0
}

/// Rises from 1/`steps` at step 0 to 1 at the last of these steps, and stays there.
///
/// ```
/// use koala_optim::schedule::warm_up;
/// assert_eq!([0, 1, 3, 100].map(|step| warm_up(step, 4)), [0.25, 0.5, 1.0, 1.0]);
/// ```
pub fn warm_up(step: u64, steps: u64) -> f64 {
    if step >= steps { 1.0 } else { (step + 1) as f64 / steps as f64 }
}

/// Falls from 1 at step 0 to 0 after the last of these steps, along half a cosine (Loshchilov and Hutter, 2017).
///
/// ```
/// use koala_optim::schedule::cosine;
/// assert_eq!((cosine(0, 100), cosine(100, 100)), (1.0, 0.0));
/// assert!((cosine(50, 100) - 0.5).abs() < 1e-15);
/// ```
pub fn cosine(step: u64, steps: u64) -> f64 {
    if step >= steps { 0.0 } else { 0.5 * (1.0 + cos(done(step, steps))) }
}

/// Is multiplied by `factor` at each of these steps, or epochs: whatever is counted.
///
/// See the [module's example](self).
pub fn step_decay(step: u64, at: &[u64], factor: f64) -> f64 {
    at.iter().filter(|&&at| step >= at).fold(1.0, |product, _| product * factor)
}

/// One cycle (Smith, 2018): over the first `rising` share of these steps, from 0 to 1, it rises from 1/`start` to 1 along
/// half a cosine, and over the others falls to 1/(`start`·`end`) along another. PyTorch has 0.3, 25 and 10⁴.
///
/// ```
/// use koala_optim::schedule::one_cycle;
/// let factor = |step| one_cycle(step, 100, 0.25, 25.0, 1e4);
/// assert_eq!((factor(0), factor(25)), (1.0 / 25.0, 1.0));
/// assert!(factor(24) < 1.0 && factor(26) < 1.0 && factor(100) == 1.0 / 25e4);
/// // One that only rises is at its end too, once it is over.
/// assert_eq!(one_cycle(100, 100, 1.0, 25.0, 1e4), 1.0 / 25e4);
/// ```
pub fn one_cycle(step: u64, steps: u64, rising: f64, start: f64, end: f64) -> f64 {
    let (lowest, last) = (1.0 / start, 1.0 / (start * end));
    if step >= steps {
        return last;
    }
    let done = done(step, steps);
    // Along half a cosine, which begins and ends exactly where it should.
    let between = |from: f64, to: f64, share: f64| {
        if share >= 1.0 { to } else { from + (to - from) * 0.5 * (1.0 - cos(share)) }
    };
    if done < rising {
        between(lowest, 1.0, done / rising)
    } else {
        between(1.0, last, (done - rising) / (1.0 - rising))
    }
}

/// The cosine of that share of half a turn: not by the system's library, whose last bit is its own.
fn cos(share: f64) -> f64 {
    libm::cos(std::f64::consts::PI * share)
}

fn done(step: u64, steps: u64) -> f64 {
    step as f64 / steps as f64
}
