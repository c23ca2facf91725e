//! Draws the curves of several optimizers over the epochs: the training loss, and beside it the accuracy, or the loss of
//! a text, on the held-out part. Where there are several seeds a line is their median, and what is shaded their range.

use std::f64::consts::LN_2;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::printable;
use crate::task::Task;
use crate::train::method::Method;
use crate::train::outcome::{Epoch, Run};
use crate::train::summary::Summary;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Where the axis of the losses ends, which has no zero, and no infinity to take a step towards.
const LEAST_LOSS: f64 = 1e-8;
const GREATEST_LOSS: f64 = 1e300;
const SIZE: (u32, u32) = (1000, 490);
const HEAD: u32 = 100;
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// The picture, as the text of an SVG file. Each element of `runs` holds the seeds of one optimizer.
pub fn draw(task: &dyn Task, runs: &[Vec<Run>]) -> Result<String> {
    let part = task.held_out().title();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        head.draw_text(task.data(), &(FONT, 22).into_font().color(&INK), (24, 12))?;
        if let Some(key) = key(runs) {
            let end = Pos::new(HPos::Right, VPos::Top);
            head.draw_text(&key, &(FONT, 14).into_font().color(&INK).pos(end), (SIZE.0 as i32 - 24, 18))?;
        }
        legend(&head, task.is_text(), runs)?;
        let (left, right) = body.split_horizontally(SIZE.0 / 2);

        let losses = curves(runs, f64::INFINITY, |epoch| on_axis(epoch.train_loss));
        let title = if task.is_text() { "Training loss, nats per character" } else { "Training loss" };
        losses_panel(&left, title, &losses)?;
        if task.is_text() {
            let losses = curves(runs, f64::INFINITY, |epoch| on_axis(epoch.test_loss / LN_2));
            losses_panel(&right, &format!("Bits per character, {part}"), &losses)?;
        } else {
            let accuracies = curves(runs, 0.0, |epoch| epoch.test_accuracy * 100.0);
            let (low, _) = bounds(&accuracies, (0.0, 100.0));
            let low = low.floor().min(99.0);
            let title = format!("Accuracy, {part}");
            panel(&right, &title, low..100.0, (low, 100.0), &|part| format!("{part} %"), &accuracies)?;
        }
        root.present()?;
    }
    // In XML no control character may stand, whatever it was in.
    Ok(printable::lines(&svg))
}

/// What a loss is drawn as; one that is not finite stays so.
fn on_axis(loss: f64) -> f64 {
    if loss.is_finite() { loss.clamp(LEAST_LOSS, GREATEST_LOSS) } else { loss }
}

/// How to read the picture, where there is more in it than a line for each optimizer.
fn key(runs: &[Vec<Run>]) -> Option<String> {
    let seeds = runs.iter().map(Vec::len).max().unwrap_or(0);
    let lines = (seeds > 1).then(|| format!("line: median of {seeds} seeds; shaded: their range"));
    let crosses = runs.iter().flatten().any(|run| run.diverged).then(|| "cross: a run that diverged".to_owned());
    let parts: Vec<String> = [lines, crosses].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What is drawn of an optimizer.
struct Curve {
    color: RGBColor,
    /// Of the runs that did not diverge, at each epoch from 1: least, median, greatest.
    points: Vec<(f64, [f64; 3])>,
    /// Where each of those that diverged ended: at the last epoch with a value, or with the worst of all at the first.
    ends: Vec<(f64, f64)>,
}

/// `worst` is what the value of an epoch that came to nothing is drawn as: infinity is the edge of the picture.
fn curves(runs: &[Vec<Run>], worst: f64, value: impl Fn(&Epoch) -> f64) -> Vec<Curve> {
    let end = |run: &&Run| {
        let points = run.epochs.iter().enumerate().map(|(i, epoch)| ((i + 1) as f64, value(epoch)));
        points.filter(|(_, value)| value.is_finite()).last().unwrap_or((1.0, worst))
    };
    let optimizers = runs.iter().filter_map(|runs| Some((runs.first()?.optimizer, runs)));
    let of_optimizer = |(method, runs): (Method, &Vec<Run>)| {
        let (diverged, good): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.diverged);
        let epochs = good.iter().map(|run| run.epochs.len()).max().unwrap_or(0);
        let at = |i: usize| {
            let mut values: Vec<f64> = good.iter().filter_map(|run| run.epochs.get(i)).map(&value).collect();
            values.retain(|value| value.is_finite());
            values.sort_by(f64::total_cmp);
            let (least, greatest) = (*values.first()?, *values.last()?);
            let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
            Some(((i + 1) as f64, [least, middle, greatest]))
        };
        Curve {
            color: color(method),
            points: (0..epochs).filter_map(at).collect(),
            ends: diverged.iter().map(end).collect(),
        }
    };
    optimizers.map(of_optimizer).collect()
}

/// On a logarithmic axis, from one power of ten to another, where the losses are far apart.
fn losses_panel(area: &Area, title: &str, curves: &[Curve]) -> Result<()> {
    let (low, high) = bounds(curves, (0.1, 1.0));
    if high < 8.0 * low {
        let margin = ((high - low) / 20.0).max(high / 100.0);
        let (low, high) = (low - margin, high + margin);
        return panel(area, title, low..high, (low, high), &|loss| format!("{loss:.2}"), curves);
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let (low, high) = (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)));
    panel(area, title, (low..high).log_scale(), (low, high), &|loss| format!("{loss}"), curves)
}

fn panel<Y>(
    area: &Area,
    title: &str,
    range: Y,
    (low, high): (f64, f64),
    format: &dyn Fn(&f64) -> String,
    curves: &[Curve],
) -> Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let epochs = curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|point| point.0).chain(curve.ends.iter().map(|end| end.0)));
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
    for Curve { points, color, .. } in curves {
        if points.iter().any(|(_, [least, _, greatest])| least < greatest) {
            let lower = points.iter().map(|&(epoch, [least, ..])| (epoch, least));
            let upper = points.iter().map(|&(epoch, [.., greatest])| (epoch, greatest));
            chart.draw_series([Polygon::new(lower.chain(upper.rev()).collect::<Vec<_>>(), color.mix(0.15))])?;
        }
    }
    for Curve { points, ends, color } in curves {
        let line = points.iter().map(|&(epoch, [_, median, _])| (epoch, median));
        chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?;
        // A single point makes no line.
        if points.len() < 10 {
            chart.draw_series(line.map(|point| Circle::new(point, 3, color.filled())))?;
        }
        let ends = ends.iter().map(|&(epoch, value)| (epoch, value.clamp(low, high)));
        chart.draw_series(ends.map(|end| Cross::new(end, 5, color.stroke_width(2))))?;
    }
    Ok(())
}

/// In rows of three.
fn legend(area: &Area, is_text: bool, runs: &[Vec<Run>]) -> Result<()> {
    let width = (SIZE.0 as i32 - 48) / 3;
    for (i, runs) in runs.iter().enumerate() {
        let Some(first) = runs.first() else { continue };
        let (left, top) = (24 + width * (i as i32 % 3), 44 + 22 * (i as i32 / 3));
        let color = color(first.optimizer);
        area.draw(&PathElement::new([(left, top + 9), (left + 26, top + 9)], color.stroke_width(3)))?;
        let summary = Summary::of(runs);
        let figure = match is_text {
            true => summary.loss.map(|loss| format!("{:.3} bits", loss.times(1.0 / LN_2))),
            false => summary.accuracy.map(|part| format!("{:.2} %", part.times(100.0))),
        };
        let text = format!("{}: {}", first.optimizer.title(), summary.text(figure));
        area.draw_text(&text, &(FONT, 15).into_font().color(&INK), (left + 34, top))?;
    }
    Ok(())
}

/// Colours that people with any colour vision can tell apart (Okabe and Ito).
fn color(method: Method) -> RGBColor {
    match method {
        Method::Koala => RGBColor(0, 114, 178),
        Method::KoalaDefinite => RGBColor(0, 0, 0),
        Method::KoalaV => RGBColor(86, 180, 233),
        Method::KoalaM => RGBColor(204, 121, 167),
        Method::Sgd => RGBColor(213, 94, 0),
        Method::Nesterov => RGBColor(230, 159, 0),
        Method::AdamW => RGBColor(0, 158, 115),
    }
}

/// The least and the greatest value of the runs that did not diverge; of those that did, if all did; or these.
fn bounds(curves: &[Curve], none: (f64, f64)) -> (f64, f64) {
    let mut values: Vec<f64> = curves.iter().flat_map(|curve| &curve.points).flat_map(|(_, range)| *range).collect();
    if values.is_empty() {
        values.extend(curves.iter().flat_map(|curve| &curve.ends).map(|end| end.1).filter(|value| value.is_finite()));
    }
    match values.first() {
        None => none,
        Some(&first) => (values.iter().copied().fold(first, f64::min), values.iter().copied().fold(first, f64::max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::classifier::{Classifier, Model};
    use crate::task::digits;
    use crate::train::outcome::tests::run_with;

    /// Whatever a run gives, it can be drawn, and every point lies within the picture.
    #[test]
    fn strange_curves_can_be_drawn() -> Result<()> {
        let task = Classifier::new(digits::load()?, Model::Mlp);
        let greatest = [1.0, 9.99e307, f64::MAX, f64::MAX];
        for losses in
            [&[][..], &[0.0], &[0.1], &[0.0, 0.0], &[1e-300, 1e300], &greatest, &[1.0, f64::NAN, f64::INFINITY, 2.0]]
        {
            let good = |losses: &[f64]| Run { diverged: false, ..run_with(Method::Sgd, losses) };
            let svg = draw(&task, &[vec![good(losses)], vec![good(&[])], vec![]])?;
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{losses:?}: {svg}");
            let finite = losses.iter().filter(|loss| loss.is_finite()).count();
            let accuracies = losses.iter().filter(|&&loss| (-loss).exp().is_finite()).count();
            let heights =
                svg.split("<circle ").skip(1).filter_map(|circle| circle.split("cy=\"").nth(1)?.split('"').next());
            let heights = heights.map(str::parse).collect::<Result<Vec<u32>, _>>()?;
            assert_eq!(heights.len(), finite + accuracies, "{losses:?}");
            assert!(heights.iter().all(|&height| height <= SIZE.1), "{losses:?}: {heights:?}");
        }
        Ok(())
    }

    #[test]
    fn lines_are_medians_and_what_diverged_is_marked() {
        let losses: [&[f64]; 5] = [&[3.0, 1.0], &[5.0, 1.5], &[4.0, 2.5], &[9.0, f64::NAN], &[]];
        let runs = losses.map(|losses| run_with(Method::Sgd, losses)).to_vec();
        let curves = curves(&[runs], f64::INFINITY, |epoch| epoch.train_loss);
        assert_eq!(curves[0].points, [(1.0, [3.0, 4.0, 5.0]), (2.0, [1.0, 1.5, 2.5])]);
        assert_eq!(curves[0].ends, [(1.0, 9.0), (1.0, f64::INFINITY)]);
    }

    /// One seed of one optimizer that came to nothing in its first epoch, alone and beside a good one.
    #[test]
    fn what_diverges_at_once_is_crossed_and_explained() -> Result<()> {
        let task = Classifier::new(digits::load()?, Model::Mlp);
        let (good, bad) = (vec![run_with(Method::AdamW, &[1.0, 0.5])], vec![run_with(Method::Sgd, &[])]);
        let strokes = |svg: &str| svg.matches("stroke=\"#D55E00\"").count();
        let legend = 1;
        for (runs, crosses) in [(vec![bad.clone()], 2), (vec![good.clone(), bad], 2), (vec![good], 0)] {
            let svg = draw(&task, &runs)?;
            assert_eq!(svg.contains("cross: a run that diverged"), crosses > 0);
            let lines = if crosses > 0 { legend + 2 * crosses } else { 0 };
            assert_eq!(strokes(&svg), lines, "{svg}");
        }
        Ok(())
    }
}
