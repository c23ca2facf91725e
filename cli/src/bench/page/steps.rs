//! The whole step's cost over the tensor's length: by backend and by type.

use maud::{Markup, html};

use super::super::record::{Figure, Kind, Long, Part, Record, is_noisy};
use super::legend::legend;
use super::plot::{Frame, Point, Series, Size, panel};
use super::text;
use super::view::{backend, distinct, main_kind, numbered, other_kinds, prefix};

/// One plot of each, of every machine, and those of several threads.
pub(crate) fn section(records: &[Record], with_threads: Markup) -> Markup {
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
            }
            (with_threads)
            @for (i, record) in records.iter().enumerate() {
                @if let Some(sentence) = record.long.as_ref().map(long) { p { (prefix(records, i)) (sentence) } }
            }
        }
    }
}

/// What a very long tensor costs and takes.
fn long(long: &Long) -> String {
    let Long { backend, time, shorter_time, .. } = long;
    let [length, shorter] = [long.parameters, long.shorter_parameters].map(text::length);
    let cost = if is_noisy(time.spread.max(shorter_time.spread)) {
        "were too noisy to compare".to_owned()
    } else {
        let (time, ratio) = (text::duration(time.nanoseconds), text::ratio(long.ratio));
        format!("took {time} a step; for each parameter that is {ratio} the time of a tensor of {shorter}")
    };
    let [vectors, resident] = [long.vectors_bytes, long.resident_bytes].map(text::bytes);
    format!(
        "{length} parameters in one tensor, by {backend}, {cost}. Its four vectors take {vectors}, and the process \
         grew by {resident}."
    )
}

/// A legend, and a panel of every machine in one frame.
pub(crate) fn plots(records: &[Record], series: fn(&Record) -> Vec<Series>, unit: &'static str) -> Markup {
    let all: Vec<Vec<Series>> = records.iter().map(series).collect();
    let frame = Frame::around(all.iter().flatten(), unit, Size::Large);
    html! {
        (legend(all.iter().flatten()))
        @for (i, (record, series)) in records.iter().zip(&all).enumerate() {
            (panel(&format!("{}step", prefix(records, i)), &frame, series, Some((record, &main_kind()))))
        }
    }
}

/// The times of a step, by the tensor's length.
pub(crate) type Times = Vec<(usize, Figure)>;

pub(crate) fn times(record: &Record, kind: &Kind, backend: &str, threads: usize) -> Times {
    let steps = record.passes.iter().filter(|pass| pass.part == Part::Step && pass.kind == *kind);
    let steps = steps.filter(|pass| pass.threads == threads && pass.backend == backend);
    steps.map(|pass| (pass.parameters, pass.time)).collect()
}

/// The cost in ns per parameter.
pub(crate) fn costs(times: Times) -> Vec<Point> {
    let point =
        |(parameters, time): (usize, Figure)| Point::new(parameters, time.nanoseconds / parameters as f64, time.spread);
    times.into_iter().map(point).collect()
}

fn by_backend(record: &Record) -> Vec<Series> {
    let kind = main_kind();
    let names = distinct(record.passes.iter().map(|pass| &pass.backend));
    names.into_iter().map(|name| Series::new(name, backend(name), costs(times(record, &kind, name, 1)))).collect()
}

fn by_kind(record: &Record) -> Vec<Series> {
    let kinds = std::iter::once(main_kind()).chain(other_kinds(std::slice::from_ref(record)));
    let series = |(i, kind): (usize, Kind)| {
        let times = times(record, &kind, &record.advice.backend, 1);
        Series::new(&text::kind(&kind), numbered(i), costs(times))
    };
    kinds.enumerate().map(series).filter(|series| !series.points.is_empty()).collect()
}
