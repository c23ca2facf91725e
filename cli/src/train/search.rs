//! A search over learning rates: each optimizer at each rate of one grid, with the same seeds, on a validation part of
//! what there is to train on.

use anyhow::Result;

use crate::train::method::{Method, Settings};
use crate::train::outcome::Run;
use crate::train::summary::Summary;

/// The learning rates of `--search`: about a factor of three apart.
pub const GRID: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// What the search found.
pub struct Search {
    /// The learning rates, ascending.
    pub rates: Vec<f64>,
    /// For each optimizer in turn, for each of the rates in turn, the runs of all seeds.
    pub trials: Vec<(Method, Vec<Vec<Run>>)>,
}

impl Search {
    /// Tries every optimizer with its settings at every rate; `run` trains.
    pub fn new(
        methods: &[(Method, Settings)],
        mut rates: Vec<f64>,
        mut run: impl FnMut(Method, Settings) -> Result<Vec<Run>>,
    ) -> Result<Search> {
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        let trials = methods
            .iter()
            .map(|&(method, settings)| {
                let trials = rates.iter().map(|&learning_rate| run(method, Settings { learning_rate, ..settings }));
                Ok((method, trials.collect::<Result<_>>()?))
            })
            .collect::<Result<_>>()?;
        Ok(Search { rates, trials })
    }

    /// Where in the list of rates the best of an optimizer stands: where the fewest runs diverged, and among those where
    /// the mean validation loss of the others is least. None if all runs diverged.
    pub fn best(trials: &[Vec<Run>]) -> Option<usize> {
        let ranks = trials.iter().enumerate().filter_map(|(i, runs)| {
            let summary = Summary::of(runs);
            Some((i, summary.diverged, summary.loss?.mean))
        });
        ranks.min_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2))).map(|(i, ..)| i)
    }

    /// The best rate of each optimizer, if any rate is good.
    pub fn choices(&self) -> impl Iterator<Item = (Method, Option<f64>)> {
        self.trials.iter().map(|(method, trials)| (*method, Search::best(trials).map(|best| self.rates[best])))
    }

    /// Whether this is the least or the greatest rate, so that a wider grid might have a better.
    pub fn is_at_an_end(&self, rate: f64) -> bool {
        self.rates.first() == Some(&rate) || self.rates.last() == Some(&rate)
    }

    /// All runs, one after another.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.trials.iter().flat_map(|(_, trials)| trials.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Network;
    use crate::train::outcome::tests::run_with;

    /// The validation losses of one optimizer's seeds; those that are not finite diverged.
    fn runs(losses: &[f64]) -> Vec<Run> {
        losses.iter().map(|&loss| run_with(Method::Sgd, &[loss])).collect()
    }

    #[test]
    fn the_least_mean_loss_is_best() {
        let nan = f64::NAN;
        for (trials, best) in [
            (vec![runs(&[3.0, 1.0]), runs(&[1.5, 1.6]), runs(&[0.1, 9.0])], Some(1)),
            // A run that diverged counts for more than any loss.
            (vec![runs(&[3.0, 1.0]), runs(&[0.1, nan]), runs(&[nan, nan])], Some(0)),
            (vec![runs(&[nan, nan]), runs(&[0.4, nan]), runs(&[0.3, nan])], Some(2)),
            (vec![runs(&[nan]), runs(&[nan])], None),
        ] {
            assert_eq!(Search::best(&trials), best);
        }
    }

    #[test]
    fn every_optimizer_is_tried_at_every_rate() -> Result<()> {
        let methods = [Method::Sgd, Method::AdamW, Method::Koala];
        let pairs = methods.map(|method| (method, Settings { weight_decay: 0.25, ..method.defaults(Network::Mlp) }));
        let mut tried = Vec::new();
        let search = Search::new(&pairs, vec![1.0, 0.1, 1.0, 0.5], |method, settings| {
            tried.push((method, settings.learning_rate));
            assert_eq!((settings.weight_decay, settings.schedule), (0.25, method.defaults(Network::Mlp).schedule));
            Ok(runs(&[match method {
                Method::Sgd => (settings.learning_rate - 0.1).abs(),
                Method::AdamW => (settings.learning_rate - 0.5).abs(),
                _ => f64::NAN,
            }]))
        })?;
        let rates = [0.1, 0.5, 1.0];
        assert_eq!(search.rates, rates);
        assert_eq!(tried, methods.map(|method| rates.map(|rate| (method, rate))).concat());
        let choices = [(Method::Sgd, Some(0.1)), (Method::AdamW, Some(0.5)), (Method::Koala, None)];
        assert_eq!(search.choices().collect::<Vec<_>>(), choices);
        assert_eq!(rates.map(|rate| search.is_at_an_end(rate)), [true, false, true]);
        assert_eq!(search.runs().count(), 9);
        Ok(())
    }
}
