//! Whether a run went out of hand. Told from its losses once it has ended, since a bad start may be made good.

use crate::train::outcome::Run;

/// How far above the loss of the first batch an epoch's is worse, and not only by the choice of that batch.
const WORSE: f64 = 1.25;

/// How far above both the loss of the first batch and that of guessing the last steps have thrown a network. By
/// overfitting it gets worse than guessing too, but not by so much.
const FAR: f64 = 10.0;

/// See [`Run::diverged`]. A run that is only slow has a loss near that of guessing too, but never was worse than it began.
pub fn has_diverged(run: &Run, guessing: f64) -> bool {
    let Some((first, last)) = run.first_loss.zip(run.epochs.last()) else { return false };
    let lost = last.test_loss > 0.95 * guessing && run.epochs.iter().any(|epoch| epoch.train_loss > WORSE * first);
    let thrown = last.test_loss > FAR * first.max(guessing);
    lost || thrown || !last.test_loss.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::method::Method;
    use crate::train::outcome::Epoch;
    use crate::train::outcome::tests::run_with;

    #[test]
    fn slow_and_overfitted_are_not_diverged() {
        // The losses of training and of the test after each epoch; guessing costs 2.3, the first batch 2.6.
        for (what, losses, diverged) in [
            ("slow", &[(2.7, 2.7), (2.55, 2.55)][..], false),
            ("trained", &[(1.0, 1.0), (0.1, 0.1)], false),
            ("trained after a bad start", &[(7.0, 7.0), (0.1, 0.1)], false),
            ("overfitted", &[(0.5, 0.6), (1e-3, 3.1)], false),
            ("overfitted and very sure of it", &[(0.5, 2.4), (1e-6, 15.0)], false),
            ("dead", &[(7.0, 7.0), (2.31, 2.31)], true),
            ("ever worse", &[(3.0, 3.0), (4.0, 4.0)], true),
            ("thrown by the last steps", &[(0.5, 0.4), (0.3, 1e10)], true),
            ("thrown, and trained again", &[(0.5, 1e10), (0.3, 0.4)], false),
            ("not finite", &[(0.5, 0.5), (0.3, f64::NAN)], true),
        ] {
            let epoch = |&(train_loss, test_loss): &(f64, f64)| Epoch { train_loss, test_loss, test_accuracy: 0.5 };
            let run = Run { epochs: losses.iter().map(epoch).collect(), ..run_with(Method::Sgd, &[]) };
            assert_eq!(has_diverged(&run, 10.0_f64.ln()), diverged, "{what}");
        }
    }
}
