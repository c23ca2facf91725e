//! Several machines in the same plots, each with the backend that is advised for it.

use maud::{Markup, html};

use super::super::compare::Comparison;
use super::super::record::{Part, Record};
use super::legend::legend;
use super::passes::{limit_points, points};
use super::plot::{Frame, Point, Series, Size, panel};
use super::steps::{costs, times};
use super::view::{letter, main_kind, most_threads, numbered};

/// The plots that compare: two in a row, in one frame.
pub(crate) fn section(records: &[Record]) -> Markup {
    let kind = main_kind();
    let limit = |part| lines(records, |record| limit_points(record, &kind, part));
    let pass = |part| lines(records, |record| points(record, &kind, part, &record.advice.backend));
    let step = |threads: fn(&Record) -> usize| {
        lines(records, |record| costs(times(record, &kind, &record.advice.backend, threads(record))))
    };
    let [first, second] = [Part::Pass1, Part::Pass2];
    let rows = [
        ("GB/s", [("streaming limit of pass 1", limit(first)), ("streaming limit of pass 2", limit(second))]),
        ("GB/s", [("pass 1", pass(first)), ("pass 2", pass(second))]),
        ("ns per parameter", [("step, one thread", step(|_| 1)), ("step, all threads", step(most_threads))]),
    ];
    html! {
        section {
            h2 { "Side by side" }
            p { "f32 with weight decay, the backend that is advised for each machine; one thread unless it says
                otherwise." }
            (legend(rows.iter().flat_map(|(_, row)| row).flat_map(|(_, series)| series)))
            div class="two" {
                @for (unit, row) in &rows {
                    @let frame = Frame::around(row.iter().flat_map(|(_, series)| series), unit, Size::Large);
                    @for (title, series) in row { (panel(title, &frame, series, None)) }
                }
            }
        }
    }
}

fn lines(records: &[Record], points: impl Fn(&Record) -> Vec<Point>) -> Vec<Series> {
    let name = |(i, record): (usize, &Record)| format!("{}: {}", letter(i), record.advice.backend);
    let series = |(i, record)| Series::new(&name((i, record)), numbered(i), points(record));
    records.iter().enumerate().map(series).collect()
}

/// What `koala bench --compare` prints, as tables of the page.
pub(crate) fn figures(tables: &[Comparison]) -> Markup {
    html! {
        @for table in tables {
            div class="wide" {
                h3 { (table.title) }
                table class="figures" {
                    thead { tr { @for cell in &table.header { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in &table.rows {
                            tr {
                                @for (i, cell) in row.iter().enumerate() {
                                    @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
