//! Logarithmic axes: where a value lies between two ends, and where the ticks are.

use super::super::text;

/// How values are laid out.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Decades,
    Octaves,
}

/// An axis that all values have been fitted to.
pub(crate) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// With round decimal numbers.
    pub(crate) fn decades(values: impl Iterator<Item = f64>) -> Axis {
        Axis::logarithmic(Scale::Decades, values, (1.0, 10.0), 0.5)
    }

    /// With powers of two: lengths.
    pub(crate) fn octaves(values: impl Iterator<Item = f64>) -> Axis {
        Axis::logarithmic(Scale::Octaves, values, (64.0, 16_777_216.0), 3.0)
    }

    fn logarithmic(scale: Scale, values: impl Iterator<Item = f64>, none: (f64, f64), least_span: f64) -> Axis {
        let values = values.filter(|value| value.is_finite() && *value > 0.0);
        let ends = values.fold(None, |ends, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((value.min(low), value.max(high)))
        });
        let (low, high) = ends.unwrap_or(none);
        let (low, high) = (transformed(scale, low), transformed(scale, high));
        let margin = (0.5 * (least_span - (high - low))).max(0.04 * (high - low));
        Axis { scale, low: low - margin, high: high + margin }
    }

    /// From 0 to 1; what is beyond an end lies on it.
    pub(crate) fn position(&self, value: f64) -> f64 {
        ((transformed(self.scale, value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Positions and labels, about as many as wanted at most.
    pub(crate) fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let values: Vec<(f64, String)> = match self.scale {
            Scale::Decades => {
                let span = self.high - self.low;
                let factors: &[f64] = match most as f64 / span {
                    6.0.. => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                    3.0.. => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                self.powers(most)
                    .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powf(power)))
                    .map(|value| (value, text::short(value)))
                    .collect()
            }
            Scale::Octaves => {
                let powers = self.powers(most).filter(|power| (0.0..64.0).contains(power));
                powers.map(|power| (power.exp2(), text::length(1 << power as u32))).collect()
            }
        };
        let inside = |value: &f64| (self.low..=self.high).contains(&transformed(self.scale, *value));
        values
            .into_iter()
            .filter(|(value, _)| inside(value))
            .map(|(value, label)| (self.position(value), label))
            .collect()
    }

    /// The whole exponents, thinned out.
    fn powers(&self, most: usize) -> impl Iterator<Item = f64> {
        let step = ((self.high - self.low) / most as f64).ceil().max(1.0);
        let (first, last) = ((self.low / step).floor() as i64, (self.high / step).ceil() as i64);
        (first..=last).map(move |i| i as f64 * step)
    }
}

fn transformed(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Decades => value.log10(),
        Scale::Octaves => value.log2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the values are, ticks are few and lie on the axis.
    #[test]
    fn any_values_make_an_axis() {
        let values =
            [&[][..], &[0.0], &[1.0], &[1e-300, 1e300], &[5e-324, f64::MAX], &[3.0, 3.1], &[f64::NAN, f64::INFINITY]];
        for values in values {
            for axis in [Axis::decades, Axis::octaves].map(|make| make(values.iter().copied())) {
                for most in [4, 7, 12] {
                    let ticks = axis.ticks(most);
                    assert!(ticks.len() <= 2 * most, "{values:?}: {ticks:?}");
                    assert!(ticks.iter().all(|(position, _)| (0.0..=1.0).contains(position)), "{values:?}: {ticks:?}");
                }
                let finite = values.iter().filter(|value| value.is_finite());
                assert!(finite.copied().all(|value| (0.0..=1.0).contains(&axis.position(value))), "{values:?}");
            }
        }
    }

    #[test]
    fn ticks_are_round() {
        let labels = |axis: Axis| axis.ticks(7).into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(Axis::decades([4.0, 210.0].into_iter())), "5 10 20 50 100 200");
        assert_eq!(labels(Axis::octaves([64.0, 16_777_216.0].into_iter())), "64 512 4 Ki 32 Ki 256 Ki 2 Mi 16 Mi");
    }
}
