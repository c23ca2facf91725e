//! What the optimizer's reports of all steps of a run come to: how often a tensor did not simply step.

use std::fmt;

use koala_optim::Report;
use serde::{Deserialize, Serialize};

/// Sums over the tensors of all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    /// The filter restarted.
    pub restarts: usize,
    /// The tensor was kept as its gradient was not finite.
    pub non_finite: usize,
    /// It was kept as its filter broke down.
    pub breakdowns: usize,
    /// It was kept as its gradient was (nearly) zero.
    pub skipped: usize,
    /// The greatest norm of all gradients together, before it was clipped, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_gradient_norm: Option<f64>,
}

impl Reports {
    /// Of a single step.
    pub fn of_step(report: &Report) -> Reports {
        let Report { restarts, non_finite, breakdowns, skipped, gradient_norm, .. } = *report;
        Reports { restarts, non_finite, breakdowns, skipped, largest_gradient_norm: gradient_norm }
    }

    /// Of these steps and of those.
    #[must_use]
    pub fn and(self, other: Reports) -> Reports {
        let norms = [self.largest_gradient_norm, other.largest_gradient_norm];
        Reports {
            restarts: self.restarts + other.restarts,
            non_finite: self.non_finite + other.non_finite,
            breakdowns: self.breakdowns + other.breakdowns,
            skipped: self.skipped + other.skipped,
            largest_gradient_norm: norms.into_iter().flatten().reduce(f64::max),
        }
    }
}

impl fmt::Display for Reports {
    /// What is not zero, such as "3 restarts, 1 gradient not finite"; nothing if all is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.restarts, "restart", "restarts"),
            (self.non_finite, "gradient not finite", "gradients not finite"),
            (self.breakdowns, "breakdown", "breakdowns"),
            (self.skipped, "gradient of zero", "gradients of zero"),
        ];
        let told = counts.into_iter().filter(|(count, ..)| *count > 0);
        let told = told.map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }));
        f.write_str(&told.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_words_by_hand() {
        let first = Report { restarts: 1, non_finite: 2, gradient_norm: Some(3.0), stepped: 9, ..Report::default() };
        let second = Report { breakdowns: 1, skipped: 4, gradient_norm: Some(2.0), ..Report::default() };
        let sum = Reports::of_step(&first).and(Reports::of_step(&second));
        let expected =
            Reports { restarts: 1, non_finite: 2, breakdowns: 1, skipped: 4, largest_gradient_norm: Some(3.0) };
        assert_eq!(sum, expected);
        assert_eq!(sum.to_string(), "1 restart, 2 gradients not finite, 1 breakdown, 4 gradients of zero");
        assert_eq!(Reports::of_step(&Report { stepped: 7, ..Report::default() }).to_string(), "");
    }
}
