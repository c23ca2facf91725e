//! Line plots as SVG: lines with marks, bands for the spread, and the caches in the background.

use maud::{Markup, html};

use super::super::record::{Kind, Record, is_noisy};
use super::super::text;
use super::axis::Axis;
use super::view::{Look, footprint, mark};

/// A line.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
}

/// A measured value at a length, with the distance between its quartiles as a part of it.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) parameters: usize,
    pub(crate) value: f64,
    pub(crate) spread: f64,
}

impl Series {
    /// With its points in order.
    pub(crate) fn new(name: &str, look: Look, mut points: Vec<Point>) -> Series {
        points.sort_by_key(|point| point.parameters);
        Series { name: name.to_owned(), look, points }
    }
}

impl Point {
    pub(crate) fn new(parameters: usize, value: f64, spread: f64) -> Point {
        Point { parameters, value, spread }
    }

    pub(crate) fn is_drawn(&self) -> bool {
        self.parameters > 0 && self.value.is_finite() && self.value > 0.0
    }

    fn place(&self) -> (usize, f64) {
        (self.parameters, self.value)
    }

    /// The quartiles, about.
    fn low(&self) -> f64 {
        self.value / (1.0 + 0.5 * self.spread.max(0.0))
    }

    fn high(&self) -> f64 {
        (self.value * (1.0 + 0.5 * self.spread.max(0.0))).min(f64::MAX)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Size {
    Large,
    Small,
}

/// What several panels have in common, so that they can be compared by eye.
pub(crate) struct Frame {
    pub(crate) lengths: Axis,
    pub(crate) values: Axis,
    pub(crate) unit: &'static str,
    pub(crate) size: Size,
}

impl Frame {
    /// Around all of these.
    pub(crate) fn around<'a>(all: impl Iterator<Item = &'a Series> + Clone, unit: &'static str, size: Size) -> Frame {
        let points = all.flat_map(|series| &series.points).filter(|point| point.is_drawn());
        let lengths = Axis::octaves(points.clone().map(|point| point.parameters as f64));
        Frame { lengths, values: Axis::decades(points.map(|point| point.value)), unit, size }
    }

    fn layout(&self) -> Layout {
        let (width, height, left, top, bottom) = match self.size {
            Size::Large => (600.0, 330.0, 46.0, 24.0, 40.0),
            Size::Small => (300.0, 200.0, 38.0, 20.0, 24.0),
        };
        Layout { width, height, left, top, right: width - 12.0, bottom: height - bottom }
    }

    fn x(&self, parameters: f64) -> f64 {
        let Layout { left, right, .. } = self.layout();
        left + self.lengths.position(parameters) * (right - left)
    }

    fn y(&self, value: f64) -> f64 {
        let Layout { top, bottom, .. } = self.layout();
        bottom - self.values.position(value) * (bottom - top)
    }
}

struct Layout {
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// The plot, or that there is nothing to draw.
pub(crate) fn panel(title: &str, frame: &Frame, series: &[Series], caches: Option<(&Record, &Kind)>) -> Markup {
    if !series.iter().any(|series| series.points.iter().any(Point::is_drawn)) {
        return html! { figure { figcaption { b { (title) } " was not measured." } } };
    }
    let Layout { width, height, .. } = frame.layout();
    let label = format!("{title}: {} over the tensor's length", frame.unit);
    html! {
        figure class=(if frame.size == Size::Large { "large" } else { "small" }) {
            figcaption { b { (title) } " " span { (frame.unit) } }
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
                @if let Some((record, kind)) = caches { (levels(frame, record, kind)) }
                (grid(frame))
                @for series in series { (band(frame, series)) }
                @for series in series { (line(frame, series)) }
            }
        }
    }
}

fn grid(frame: &Frame) -> Markup {
    let Layout { left, top, right, bottom, .. } = frame.layout();
    let most = if frame.size == Size::Large { 12 } else { 5 };
    html! {
        @for (position, label) in frame.values.ticks(7) {
            @let y = bottom - position * (bottom - top);
            path class="grid" d=(format!("M{left:.1} {y:.1}H{right:.1}")) {}
            text class="tick" x=(left - 6.0) y=(format!("{:.1}", y + 4.0)) text-anchor="end" { (label) }
        }
        path class="axis" d=(format!("M{left:.1} {bottom:.1}H{right:.1}")) {}
        @for (position, label) in frame.lengths.ticks(most) {
            @let x = left + position * (right - left);
            path class="axis" d=(format!("M{x:.1} {bottom:.1}v4")) {}
            text class="tick" x=(format!("{x:.1}")) y=(bottom + 17.0) text-anchor="middle" { (label) }
        }
        @if frame.size == Size::Large {
            text class="tick" x=(right) y=(bottom + 34.0) text-anchor="end" { "parameters" }
        }
    }
}

/// Stripes between the lengths at which the tensor's four arrays fill a cache.
fn levels(frame: &Frame, record: &Record, kind: &Kind) -> Markup {
    let Some(footprint) = footprint(kind) else { return html! {} };
    let Layout { top, left, right, bottom, .. } = frame.layout();
    let caches = record.processor.caches.iter().filter(|cache| cache.bytes > 0);
    let mut ends: Vec<(f64, String, String)> = caches
        .map(|cache| (cache.bytes as f64 / footprint, format!("L{}", cache.level), text::bytes(cache.bytes)))
        .map(|(length, name, size)| (frame.x(length), format!("{name} · {size}"), name))
        .collect();
    ends.push((right, "memory".to_owned(), "mem".to_owned()));
    let starts = std::iter::once(left).chain(ends.iter().map(|end| end.0)).collect::<Vec<_>>();
    let room = |label: &str, width: f64| label.chars().count() as f64 * 6.6 < width;
    html! {
        @for (i, (end, name, short)) in ends.iter().enumerate() {
            @let (start, width) = (starts[i], end - starts[i]);
            @if width > 0.0 {
                rect class=(if i % 2 == 0 { "level" } else { "level odd" }) x=(format!("{start:.1}")) y=(top)
                    width=(format!("{width:.1}")) height=(bottom - top) {}
                @let label = [name, short].into_iter().find(|label| room(label, width));
                @if let Some(label) = label {
                    text class="tick" x=(format!("{:.1}", start + 0.5 * width)) y=(top - 7.0) text-anchor="middle" {
                        (label)
                    }
                }
                @if i + 1 < ends.len() { path class="edge" d=(format!("M{end:.1} {top:.1}V{bottom:.1}")) {} }
            }
        }
    }
}

fn band(frame: &Frame, series: &Series) -> Markup {
    let points: Vec<&Point> = series.points.iter().filter(|point| point.is_drawn()).collect();
    // A noisy point has no band: it would say where the value is.
    let runs = points.split(|point| is_noisy(point.spread)).filter(|run| run.len() > 1);
    html! {
        @for run in runs {
            @let upper = run.iter().map(|point| (point.parameters, point.high()));
            @let lower = run.iter().rev().map(|point| (point.parameters, point.low()));
            path class=(format!("band {}", series.look.class)) d=(format!("{}Z", path(frame, upper.chain(lower)))) {}
        }
    }
}

fn line(frame: &Frame, series: &Series) -> Markup {
    let points: Vec<&Point> = series.points.iter().filter(|point| point.is_drawn()).collect();
    let class = series.look.class;
    html! {
        @for run in points.chunk_by(|a, b| is_quiet(a, b)).filter(|run| run.len() > 1) {
            path class=(format!("line {class}")) d=(path(frame, run.iter().map(|point| point.place()))) {}
        }
        @for pair in points.windows(2).filter(|pair| !is_quiet(pair[0], pair[1])) {
            path class=(format!("line {class} noisy")) d=(path(frame, pair.iter().map(|point| point.place()))) {}
        }
        @for point in points {
            @let (x, y) = (frame.x(point.parameters as f64), frame.y(point.value));
            @let noisy = is_noisy(point.spread);
            g class=(format!("point {}", if noisy { "noisy" } else { class })) {
                title { (hover(frame, &series.name, point)) }
                circle class="target" cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="8" {}
                path d=(mark(series.look.mark, x, y)) {}
            }
        }
    }
}

fn is_quiet(a: &Point, b: &Point) -> bool {
    !is_noisy(a.spread) && !is_noisy(b.spread)
}

fn hover(frame: &Frame, name: &str, point: &Point) -> String {
    let at = format!("{name}, {} parameters", text::length(point.parameters));
    if is_noisy(point.spread) {
        return format!("{at}: {}", text::NOISY);
    }
    format!("{at}: {} {}, spread {}", text::number(point.value), frame.unit, text::percent(point.spread))
}

fn path(frame: &Frame, points: impl Iterator<Item = (usize, f64)>) -> String {
    let place = |(i, (parameters, value)): (usize, (usize, f64))| {
        let command = if i == 0 { 'M' } else { 'L' };
        format!("{command}{:.1} {:.1}", frame.x(parameters as f64), frame.y(value))
    };
    points.enumerate().map(place).collect()
}
