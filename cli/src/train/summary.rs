//! What the runs of several seeds come to: means, how far the runs are spread, and how many diverged.

use std::fmt;

use crate::train::outcome::Run;

/// A mean, and the standard deviation of the single runs (of a sample: over one less than their number).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// None of a single run.
    pub deviation: Option<f64>,
}

impl Spread {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        match values.len() {
            0 => None,
            1 => Some(Spread { mean, deviation: None }),
            _ => Some(Spread { mean, deviation: Some((squares / (count - 1.0)).sqrt()) }),
        }
    }

    /// In another unit.
    pub fn times(self, factor: f64) -> Spread {
        Spread { mean: self.mean * factor, deviation: self.deviation.map(|deviation| deviation * factor) }
    }
}

impl fmt::Display for Spread {
    /// As `97.46 ± 0.33`, to the digits that the format asks for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.mean, f)?;
        let Some(deviation) = self.deviation else { return Ok(()) };
        f.write_str(" ± ")?;
        fmt::Display::fmt(&deviation, f)
    }
}

/// A learning rate in tables and names, with an exponent where it would be long without.
pub fn rate_text(rate: f64) -> String {
    let plain = rate.to_string();
    if plain.len() <= 8 { plain } else { format!("{rate:e}") }
}

/// The runs of one optimizer with one setting, whose seeds differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many runs there are.
    pub count: usize,
    /// How many of them diverged. They are in none of the means below.
    pub diverged: usize,
    /// The loss on the held-out part, in nats.
    pub loss: Option<Spread>,
    /// The part of it that was answered rightly.
    pub accuracy: Option<Spread>,
}

impl Summary {
    /// Of these runs.
    pub fn of(runs: &[Run]) -> Summary {
        let results: Vec<_> = runs.iter().filter_map(Run::result).collect();
        let losses: Vec<f64> = results.iter().map(|last| last.test_loss).collect();
        let accuracies: Vec<f64> = results.iter().map(|last| last.test_accuracy).collect();
        Summary {
            count: runs.len(),
            diverged: runs.len() - results.len(),
            loss: Spread::of(&losses),
            accuracy: Spread::of(&accuracies),
        }
    }

    /// Such as "2 of 5 diverged", if any did.
    pub fn divergence(&self) -> Option<String> {
        match (self.diverged, self.count) {
            (0, _) => None,
            (1, 1) => Some("diverged".to_owned()),
            (diverged, count) => Some(format!("{diverged} of {count} diverged")),
        }
    }

    /// What is said of a figure: its mean and spread, and always how many runs are missing from them.
    pub fn text(&self, figure: Option<String>) -> String {
        match (figure, self.divergence()) {
            (Some(figure), Some(divergence)) => format!("{figure} ({divergence})"),
            (figure, divergence) => figure.or(divergence).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::method::Method;
    use crate::train::outcome::tests::run_with;

    #[test]
    fn spreads_by_hand() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { mean: 3.0, deviation: None }));
        let spread = Spread::of(&[1.0, 3.0, 5.0]).map(|spread| spread.times(10.0));
        assert_eq!(spread, Some(Spread { mean: 30.0, deviation: Some(20.0) }));
        assert_eq!(spread.map(|spread| format!("{spread:.1}")).as_deref(), Some("30.0 ± 20.0"));
    }

    #[test]
    fn rates_are_short() {
        for (rate, text) in [
            (1e-5, "0.00001"),
            (1e5, "100000"),
            (1.0 / 3.0, "3.333333333333333e-1"),
            (1e-300, "1e-300"),
            (1e300, "1e300"),
            (0.0, "0"),
        ] {
            assert_eq!(rate_text(rate), text);
        }
    }

    #[test]
    fn what_diverged_is_told_and_in_no_mean() {
        let runs = [1.0, f64::NAN, 2.0].map(|loss| run_with(Method::Sgd, &[9.0, loss]));
        let summary = Summary::of(&runs);
        assert_eq!((summary.count, summary.diverged), (3, 1));
        assert_eq!(summary.loss.map(|loss| loss.mean), Some(1.5));
        let loss = summary.loss.map(|loss| format!("{:.1}", loss.mean));
        assert_eq!(summary.text(loss), "1.5 (1 of 3 diverged)");
        assert_eq!(Summary::of(&runs[1..2]).text(None), "diverged");
    }
}
