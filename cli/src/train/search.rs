//! A search over learning rates: each optimizer at each rate of one grid, with the same seeds, on a validation part of
//! what there is to train on.

use anyhow::Result;

use crate::train::method::Method;
use crate::train::run::Run;
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
    /// Tries every optimizer at every rate; `run` trains.
    pub fn new(
        methods: &[Method],
        mut rates: Vec<f64>,
        mut run: impl FnMut(Method, f64) -> Result<Vec<Run>>,
    ) -> Result<Search> {
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        let trials = methods
            .iter()
            .map(|&method| Ok((method, rates.iter().map(|&rate| run(method, rate)).collect::<Result<_>>()?)))
            .collect::<Result<_>>()?;
        Ok(Search { rates, trials })
    }

    /// Where in the list of rates the best of an optimizer stands: where the fewest runs diverged, and among those where
    /// the mean validation loss of the others is least.
    pub fn best(trials: &[Vec<Run>]) -> usize {
        let ranks = trials.iter().map(|runs| {
            let summary = Summary::of(runs);
            (summary.diverged, summary.loss.map_or(f64::INFINITY, |loss| loss.mean))
        });
        let ranked = ranks.enumerate().min_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        ranked.map_or(0, |(i, _)| i)
    }

    /// The best rate of each optimizer.
    pub fn choices(&self) -> impl Iterator<Item = (Method, f64)> {
        self.trials.iter().map(|(method, trials)| (*method, self.rates[Search::best(trials)]))
    }

    /// Those whose best rate is the least or the greatest, so that a wider grid might have a better.
    pub fn at_the_ends(&self) -> impl Iterator<Item = Method> {
        let is_end = |best| best == 0 || best + 1 == self.rates.len();
        self.trials.iter().filter(move |(_, trials)| is_end(Search::best(trials))).map(|(method, _)| *method)
    }

    /// All runs, one after another.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.trials.iter().flat_map(|(_, trials)| trials.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::run::tests::run_with;

    /// The validation losses of one optimizer's seeds; those that are not finite diverged.
    fn runs(losses: &[f64]) -> Vec<Run> {
        losses.iter().map(|&loss| run_with(Method::Sgd, &[loss])).collect()
    }

    #[test]
    fn the_least_mean_loss_is_best() {
        let nan = f64::NAN;
        for (trials, best) in [
            (vec![runs(&[3.0, 1.0]), runs(&[1.5, 1.6]), runs(&[0.1, 9.0])], 1),
            // A run that diverged counts for more than any loss.
            (vec![runs(&[3.0, 1.0]), runs(&[0.1, nan]), runs(&[nan, nan])], 0),
            (vec![runs(&[nan, nan]), runs(&[0.4, nan]), runs(&[0.3, nan])], 2),
            (vec![runs(&[nan]), runs(&[nan])], 0),
        ] {
            assert_eq!(Search::best(&trials), best);
        }
    }

    #[test]
    fn every_optimizer_is_tried_at_every_rate() -> Result<()> {
        let methods = [Method::Sgd, Method::AdamW];
        let mut tried = Vec::new();
        let search = Search::new(&methods, vec![1.0, 0.1, 1.0], |method, rate| {
            tried.push((method, rate));
            let best = if method == Method::Sgd { 0.1 } else { 1.0 };
            Ok(runs(&[(rate - best).abs()]))
        })?;
        let rates = [0.1, 1.0];
        assert_eq!(search.rates, rates);
        assert_eq!(tried, methods.map(|method| rates.map(|rate| (method, rate))).concat());
        assert_eq!(search.choices().collect::<Vec<_>>(), [(Method::Sgd, 0.1), (Method::AdamW, 1.0)]);
        assert_eq!(search.at_the_ends().collect::<Vec<_>>(), methods);
        assert_eq!(search.runs().count(), 4);
        Ok(())
    }
}
