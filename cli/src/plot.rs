//! Draws the curves of several runs: the training loss and the test accuracy over the epochs.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::method::Method;
use crate::run::{Epoch, Run};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Where the axis of the losses ends, which has no zero.
const LEAST_LOSS: f64 = 1e-8;
const SIZE: (u32, u32) = (1000, 460);
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// The picture, as the text of an SVG file.
pub fn draw(title: &str, runs: &[Run]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(70);
        head.draw_text(title, &(FONT, 22).into_font().color(&INK), (24, 12))?;
        legend(&head, runs)?;
        let (left, right) = body.split_horizontally(SIZE.0 / 2);

        // On a logarithmic axis, from one power of ten to another.
        let losses = curves(runs, |epoch| epoch.train_loss.clamp(LEAST_LOSS, f64::INFINITY));
        let (low, high) = bounds(&losses, (0.1, 1.0));
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        let range = (10_f64.powf(low)..10_f64.powf(high.max(low + 1.0))).log_scale();
        panel(&left, "Training loss", range, &|loss| format!("{loss}"), &losses)?;

        let accuracies = curves(runs, |epoch| epoch.test_accuracy * 100.0);
        let (low, _) = bounds(&accuracies, (0.0, 100.0));
        let range = low.floor().min(99.0)..100.0;
        panel(&right, "Test accuracy", range, &|part| format!("{part} %"), &accuracies)?;
        root.present()?;
    }
    Ok(svg)
}

/// A run's points: the epoch, from 1, and what is drawn of it.
type Curve = (RGBColor, Vec<(f64, f64)>);

fn curves(runs: &[Run], value: impl Fn(&Epoch) -> f64) -> Vec<Curve> {
    runs.iter()
        .map(|run| {
            let points = run.epochs.iter().enumerate().map(|(i, e)| ((i + 1) as f64, value(e)));
            (color(run.optimizer), points.filter(|(_, value)| value.is_finite()).collect())
        })
        .collect()
}

fn panel<Y>(area: &Area, title: &str, range: Y, format: &dyn Fn(&f64) -> String, curves: &[Curve]) -> Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let epochs = curves.iter().flat_map(|(_, points)| points).map(|point| point.0);
    let last = epochs.fold(2.0, f64::max);
    let text = |size: u32| (FONT, size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin_left(14)
        .margin_right(22)
        .margin_bottom(10)
        .caption(title, text(17))
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(1.0..last, range)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .axis_desc_style(text(14))
        .label_style(text(13))
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .x_labels(last.min(10.0) as usize)
        .y_label_formatter(format)
        .y_labels(8)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (color, points) in curves {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        // A single point makes no line.
        if points.len() < 10 {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
        }
    }
    Ok(())
}

fn legend(area: &Area, runs: &[Run]) -> Result<()> {
    let width = (SIZE.0 as i32 - 48) / runs.len().max(3) as i32;
    for (i, run) in runs.iter().enumerate() {
        let left = 24 + width * i as i32;
        let color = color(run.optimizer);
        area.draw(&PathElement::new([(left, 54), (left + 26, 54)], color.stroke_width(3)))?;
        let result = match run.result() {
            Some(last) => format!("{:.2} %", last.test_accuracy * 100.0),
            None => "diverged".to_owned(),
        };
        let text = format!("{}: {result}", run.optimizer.title());
        area.draw_text(&text, &(FONT, 15).into_font().color(&INK), (left + 34, 46))?;
    }
    Ok(())
}

/// Colours that people with any colour vision can tell apart (Okabe and Ito).
fn color(method: Method) -> RGBColor {
    match method {
        Method::Koala => RGBColor(0, 114, 178),
        Method::Sgd => RGBColor(213, 94, 0),
        Method::AdamW => RGBColor(0, 158, 115),
    }
}

/// The least and the greatest value of all curves, or these if there is none.
fn bounds(curves: &[Curve], none: (f64, f64)) -> (f64, f64) {
    let values = || curves.iter().flat_map(|(_, points)| points).map(|point| point.1);
    match values().next() {
        None => none,
        Some(first) => (values().fold(first, f64::min), values().fold(first, f64::max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Model;

    fn run(losses: &[f64]) -> Run {
        let epoch = |&train_loss| Epoch { train_loss, test_loss: train_loss, test_accuracy: 1.0 };
        Run {
            optimizer: Method::Sgd,
            settings: Method::Sgd.defaults(Model::Mlp),
            steps: losses.len(),
            diverged: false,
            epochs: losses.iter().map(epoch).collect(),
            microseconds_per_step: 1.0,
        }
    }

    /// Whatever a run gives, it can be drawn, and every point lies within the picture.
    #[test]
    fn strange_curves_can_be_drawn() -> Result<()> {
        for losses in [&[][..], &[0.0], &[0.1], &[0.0, 0.0], &[1e-300, 1e300], &[1.0, f64::NAN, f64::INFINITY, 2.0]] {
            let svg = draw("strange", &[run(losses), run(&[])])?;
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{losses:?}: {svg}");
            let finite = losses.iter().filter(|loss| loss.is_finite()).count();
            let heights =
                svg.split("<circle ").skip(1).filter_map(|circle| circle.split("cy=\"").nth(1)?.split('"').next());
            let heights = heights.map(str::parse).collect::<Result<Vec<u32>, _>>()?;
            assert_eq!(heights.len(), finite + losses.len(), "{losses:?}");
            assert!(heights.iter().all(|&height| height <= SIZE.1), "{losses:?}: {heights:?}");
        }
        Ok(())
    }
}
