//! The whole step with several threads: its cost, and how many times as fast it is.

use maud::{Markup, html};

use super::super::record::{Figure, Part, Record};
use super::plot::{Point, Series};
use super::steps;
use super::steps::{Times, costs, times};
use super::view::{LIMIT, OUTSIDE, backend, distinct, main_kind, most_threads};

/// Both plots, if any machine was measured with several threads.
pub(crate) fn plots(records: &[Record]) -> Markup {
    if records.iter().all(|record| most_threads(record) == 1) {
        return html! {};
    }
    let counts = distinct(records.iter().map(most_threads)).into_iter().map(|count| count.to_string());
    html! {
        h3 { "With several threads (" (counts.collect::<Vec<_>>().join(", ")) ")" }
        p {
            "f32 with weight decay. The threads are a pool, and the caller is one of them. From outside: the advised
            backend for a caller who is none of them, where the optimizer decides whether waking the pool pays. The
            dashed line is what the memory itself gains in pass 2."
        }
        div class="two" {
            div class="plots" { (steps::plots(records, cost, "ns per parameter")) }
            div class="plots" { (steps::plots(records, gain, "times as fast as one thread")) }
        }
    }
}

fn cost(record: &Record) -> Vec<Series> {
    each(record, |times, _| costs(times))
}

fn gain(record: &Record) -> Vec<Series> {
    let limits = |threads| {
        let limits = record.limits.iter().filter(|limit| limit.kind == main_kind() && limit.part == Part::Pass2);
        limits.filter(|limit| limit.threads == threads).map(|limit| (limit.parameters, limit.time)).collect()
    };
    let limit = gains(limits(most_threads(record)), &limits(1));
    std::iter::once(Series::new("streaming limit", LIMIT, limit))
        .chain(each(record, |all, one| gains(all, &one)))
        .collect()
}

/// A line for each backend, and one for callers from outside; the points are made from the times of all threads and
/// those of one.
fn each(record: &Record, points: impl Fn(Times, Times) -> Vec<Point>) -> Vec<Series> {
    let (kind, most) = (main_kind(), most_threads(record));
    if most == 1 {
        return Vec::new();
    }
    let line = |name: &String| {
        let points = points(times(record, &kind, name, most), times(record, &kind, name, 1));
        Series::new(name, backend(name), points)
    };
    let advised = &record.advice.backend;
    let outside = record.passes.iter().filter(|pass| pass.kind == kind && pass.backend == *advised);
    let outside = outside.filter_map(|pass| Some((pass.parameters, pass.from_outside?))).collect();
    let outside = points(outside, times(record, &kind, advised, 1));
    let names = distinct(record.passes.iter().map(|pass| &pass.backend));
    let outside = Series::new("from outside", OUTSIDE, outside);
    names.into_iter().map(line).chain([outside]).collect()
}

/// The time of one thread over that of all threads.
fn gains(all: Times, one: &Times) -> Vec<Point> {
    let gain = |(parameters, time): (usize, Figure)| {
        let (_, alone) = one.iter().find(|(length, _)| *length == parameters)?;
        let spread = time.spread.max(alone.spread);
        Some(Point::new(parameters, alone.nanoseconds / time.nanoseconds, spread))
    };
    all.into_iter().filter_map(gain).collect()
}
