//! Several machines in the same plots, each with the backend that is advised for it.

use maud::{Markup, html};

use super::super::compare::Comparison;
use super::super::record::{Part, Record};
use super::axis::Axis;
use super::passes::{limit_points, points};
use super::plot::{Frame, Series, Size, legend, panel};
use super::steps::costs;
use super::view::{letter, main_kind, numbered};

/// The plots that compare, and the figures as tables.
pub(crate) fn section(records: &[Record]) -> Markup {
    let parts = [Part::Pass1, Part::Pass2];
    let reached = parts.map(|part| lines(records, |record| points(record, &main_kind(), part, &record.advice.backend)));
    let limits = parts.map(|part| lines(records, |record| limit_points(record, &main_kind(), part)));
    let steps = lines(records, |record| costs(record, &main_kind(), &record.advice.backend));
    let frame = |series: &[Vec<Series>], unit| {
        Frame::around(series.iter().flatten(), |values| Axis::decades(values), unit, Size::Large)
    };
    let (limit, backend) = (frame(&limits, "GB/s"), frame(&reached, "GB/s"));
    let step = Frame::around(steps.iter(), |values| Axis::decades(values), "ns per parameter", Size::Large);
    html! {
        section {
            h2 { "Side by side" }
            p { "One thread, f32 with weight decay, the backend that is advised for each machine." }
            (legend(steps.iter().chain(&reached[0])))
            div class="two" {
                (panel("streaming limit of pass 1", &limit, &limits[0], None))
                (panel("streaming limit of pass 2", &limit, &limits[1], None))
                (panel("pass 1", &backend, &reached[0], None))
                (panel("pass 2", &backend, &reached[1], None))
                (panel("step", &step, &steps, None))
            }
        }
    }
}

fn lines(records: &[Record], points: impl Fn(&Record) -> Vec<super::plot::Point>) -> Vec<Series> {
    let name = |(i, record): (usize, &Record)| format!("{}: {}", letter(i), record.advice.backend);
    let series = |(i, record)| Series::new(&name((i, record)), numbered(i), points(record));
    records.iter().enumerate().map(series).collect()
}

/// What `koala bench --compare` prints, as tables of the page.
pub(crate) fn figures(tables: &[Comparison]) -> Markup {
    html! {
        @for table in tables {
            h3 { (table.title) }
            div class="wide" {
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
