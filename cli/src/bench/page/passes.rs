//! The bandwidth of both passes over the tensor's length, below the streaming limit.

use maud::{Markup, html};

use super::super::record::{Kind, Part, Record};
use super::legend::legend;
use super::plot::{Frame, Point, Series, Size, panel};
use super::view::{LIMIT, PASSES, backend, bandwidth, distinct, limits, main_kind, other_kinds, passes, prefix};
use super::{heat, text};

/// The plots of f32, the shares as tables, and the other kinds as small plots.
pub(crate) fn section(records: &[Record]) -> Markup {
    let (main, others) = (main_kind(), other_kinds(records));
    let drawn = panels(records, &[main], Size::Large);
    let small = panels(records, &others, Size::Small);
    html! {
        section {
            h2 { "Bandwidth of both passes" }
            p {
                "One thread, f32 with weight decay. Pass 1 takes the dots and only reads; pass 2 updates. The dashed
                line is the same streams without arithmetic: hardly anything can be faster. Stripes show where the
                tensor's four arrays lie."
            }
            (legend(drawn.iter().flat_map(|panel| &panel.series)))
            div class="two" { @for panel in &drawn { (panel.markup) } }
            h3 { "Share of the streaming limit" }
            (heat::tables(records, &main_kind()))
        }
        @if !others.is_empty() {
            section {
                h2 { "Other types" }
                p { "One thread. With state in the same type unless it says otherwise." }
                (legend(small.iter().flat_map(|panel| &panel.series)))
                div class="four" { @for panel in &small { (panel.markup) } }
                details {
                    summary { "Shares of the streaming limit" }
                    @for kind in &others { h3 { (text::kind(kind)) } (heat::tables(records, kind)) }
                }
            }
        }
    }
}

struct Drawn {
    series: Vec<Series>,
    markup: Markup,
}

/// One of every kind, machine and pass, all in one frame.
fn panels(records: &[Record], kinds: &[Kind], size: Size) -> Vec<Drawn> {
    let mut all = Vec::new();
    for kind in kinds {
        for (i, record) in records.iter().enumerate() {
            for (part, name) in PASSES {
                let kind_name = if size == Size::Small { format!("{}, ", text::kind(kind)) } else { String::new() };
                let title = format!("{}{kind_name}{name}", prefix(records, i));
                all.push((title, record, kind, bandwidths(record, kind, part)));
            }
        }
    }
    let frame = Frame::around(all.iter().flat_map(|(.., series)| series), "GB/s", size);
    all.into_iter()
        .map(|(title, record, kind, series)| Drawn {
            markup: panel(&title, &frame, &series, Some((record, kind))),
            series,
        })
        .collect()
}

fn bandwidths(record: &Record, kind: &Kind, part: Part) -> Vec<Series> {
    let limit = Series::new("streaming limit", LIMIT, limit_points(record, kind, part));
    let names = distinct(passes(record, kind, part).map(|pass| &pass.backend));
    let backends = names.into_iter().map(|name| Series::new(name, backend(name), points(record, kind, part, name)));
    std::iter::once(limit).chain(backends).collect()
}

/// The limit's bandwidth.
pub(crate) fn limit_points(record: &Record, kind: &Kind, part: Part) -> Vec<Point> {
    let point = |parameters, bytes, time: &_| Point::new(parameters, bandwidth(bytes, parameters, time), time.spread);
    limits(record, kind, part).map(|limit| point(limit.parameters, limit.bytes_per_parameter, &limit.time)).collect()
}

/// One backend's bandwidth.
pub(crate) fn points(record: &Record, kind: &Kind, part: Part, backend: &str) -> Vec<Point> {
    let point = |parameters, bytes, time: &_| Point::new(parameters, bandwidth(bytes, parameters, time), time.spread);
    passes(record, kind, part)
        .filter(|pass| pass.backend == backend)
        .map(|pass| point(pass.parameters, pass.bytes_per_parameter, &pass.time))
        .collect()
}
