//! The whole step's cost over the tensor's length: by backend, by type, and with all threads.

use maud::{Markup, html};

use super::super::record::{Kind, Part, Pass, Record};
use super::legend::legend;
use super::plot::{Frame, Point, Series, Size, panel};
use super::text;
use super::view::{LIMIT, backend, distinct, main_kind, numbered, other_kinds, prefix};

/// One plot of each, of every machine.
pub(crate) fn section(records: &[Record]) -> Markup {
    html! {
        section {
            h2 { "What a step costs" }
            div class="two" {
                div class="plots" {
                    h3 { "By backend" }
                    p { "f32 with weight decay, one thread." }
                    (plots(records, by_backend, "ns per parameter"))
                }
                div class="plots" {
                    h3 { "By type" }
                    p { "The backend that is advised, one thread." }
                    (plots(records, by_kind, "ns per parameter"))
                }
                @if records.iter().any(|record| record.processor.threads > 1) {
                    div class="plots" {
                        h3 { "With all threads" }
                        p { "f32 with weight decay." }
                        (plots(records, with_all_threads, "ns per parameter"))
                    }
                    div class="plots" {
                        h3 { "What all threads gain" }
                        p { "How many times as fast they are as one. Dashed: what the memory itself gains in pass 2." }
                        (plots(records, speed_up, "× one thread"))
                    }
                }
            }
        }
    }
}

fn plots(records: &[Record], series: fn(&Record) -> Vec<Series>, unit: &'static str) -> Markup {
    let all: Vec<Vec<Series>> = records.iter().map(series).collect();
    let frame = Frame::around(all.iter().flatten(), unit, Size::Large);
    html! {
        (legend(all.iter().flatten()))
        @for (i, (record, series)) in records.iter().zip(&all).enumerate() {
            (panel(&format!("{}step", prefix(records, i)), &frame, series, Some((record, &main_kind()))))
        }
    }
}

/// The cost of a step in ns per parameter.
pub(crate) fn costs(record: &Record, kind: &Kind, backend: &str, threads: usize) -> Vec<Point> {
    let steps = record.passes.iter().filter(|pass| pass.part == Part::Step && pass.kind == *kind);
    let steps = steps.filter(|pass| pass.threads == threads && pass.backend == backend && pass.parameters > 0);
    let cost = |pass: &Pass| pass.time.nanoseconds / pass.parameters as f64;
    steps.map(|pass| Point::new(pass.parameters, cost(pass), pass.time.spread)).collect()
}

fn by_backend(record: &Record) -> Vec<Series> {
    every_backend(record, 1)
}

fn with_all_threads(record: &Record) -> Vec<Series> {
    every_backend(record, record.processor.threads)
}

fn every_backend(record: &Record, threads: usize) -> Vec<Series> {
    let kind = main_kind();
    let names = distinct(record.passes.iter().map(|pass| &pass.backend));
    names.into_iter().map(|name| Series::new(name, backend(name), costs(record, &kind, name, threads))).collect()
}

fn by_kind(record: &Record) -> Vec<Series> {
    let kinds = std::iter::once(main_kind()).chain(other_kinds(std::slice::from_ref(record)));
    let series = |(i, kind): (usize, Kind)| {
        Series::new(&text::kind(&kind), numbered(i), costs(record, &kind, &record.advice.backend, 1))
    };
    kinds.enumerate().map(series).filter(|series| !series.points.is_empty()).collect()
}

/// The time of one thread over that of all threads.
fn speed_up(record: &Record) -> Vec<Series> {
    let kind = main_kind();
    let all = record.processor.threads;
    if all == 1 {
        return Vec::new();
    }
    let steps = || record.passes.iter().filter(|pass| pass.kind == kind && pass.part == Part::Step);
    let names = distinct(steps().filter(|pass| pass.threads == all).map(|pass| &pass.backend));
    let mut series: Vec<Series> = names
        .into_iter()
        .map(|name| {
            let timed = steps().filter(|pass| pass.backend == *name);
            let timed = timed.map(|pass| (pass.threads, pass.parameters, pass.time.nanoseconds, pass.time.spread));
            Series::new(name, backend(name), gains(timed.collect(), all))
        })
        .collect();
    let limits = record.limits.iter().filter(|limit| limit.kind == kind && limit.part == Part::Pass2);
    let limits = limits.map(|limit| (limit.threads, limit.parameters, limit.time.nanoseconds, limit.time.spread));
    series.insert(0, Series::new("streaming limit", LIMIT, gains(limits.collect(), all)));
    series
}

fn gains(timed: Vec<(usize, usize, f64, f64)>, all: usize) -> Vec<Point> {
    let of_all = timed.iter().filter(|(threads, ..)| *threads == all);
    of_all
        .filter_map(|(_, parameters, time, spread)| {
            let (.., one, one_spread) = timed.iter().find(|other| other.0 == 1 && other.1 == *parameters)?;
            Some(Point::new(*parameters, one / time, spread.max(*one_spread)))
        })
        .collect()
}
