//! The report as one page of HTML that needs nothing else: no script, no picture, no font from elsewhere.

pub(crate) mod axis;
mod bars;
mod heat;
mod legend;
mod machine;
pub(crate) mod models;
mod passes;
mod plot;
#[cfg(test)]
mod samples;
mod side_by_side;
mod steps;
#[cfg(test)]
mod tests;
mod threads;
pub(crate) mod view;

use anyhow::{Result, ensure};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::compare::comparisons;
use super::record::{NOISE_BOUND, Record};
use super::text;
use crate::printable;
use view::prefix;

/// One page that shows all of these, several machines side by side.
pub fn page(records: &[Record]) -> Result<String> {
    ensure!(!records.is_empty(), "there is no record to show");
    let title = match records {
        [one] => format!("koala bench: {}", one.processor.name),
        several => format!("koala bench: {} machines side by side", several.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("page/style.css"))) }
            }
            body {
                h1 { "koala bench" @if records.len() > 1 { ": " (records.len()) " machines side by side" } }
                (machine::cards(records))
                @if records.len() > 1 { (side_by_side::section(records)) }
                (passes::section(records))
                (steps::section(records, threads::plots(records)))
                (models::small(records))
                (models::models(records))
                section {
                    h2 { "The main figures" }
                    div class=(if records.len() > 1 { "one" } else { "two" }) {
                        (side_by_side::figures(&comparisons(records)))
                    }
                }
                (footer(records))
            }
        }
    };
    Ok(printable::lines(&page.into_string()))
}

fn footer(records: &[Record]) -> Markup {
    html! {
        footer {
            h2 { "How this was measured" }
            p {
                "Every figure is a median over rounds; in each round everything that is compared with something was
                measured in turn, and ratios were taken within the round, so that a machine whose speed drifts gives
                the same ratios. The spread is the distance between the quartiles as a part of the median: a band in
                the plots, a whisker on the bars. What spreads over more than " (text::percent(NOISE_BOUND)) " is
                called noisy and has no figure: an empty mark on a dotted line, a hatched cell or bar."
            }
            p {
                "The streaming limit is a loop over the same streams without arithmetic, in the vector width that is
                fastest for it. A bandwidth counts what a pass reads and writes, once. GB are 10⁹ bytes; lengths are
                in parameters, and Ki is 1024 of them."
            }
            @for (i, record) in records.iter().enumerate() {
                p {
                    (prefix(records, i)) "koala-optim " (record.version) ", " (record.date) ", "
                    @if record.quick { "a quick run of " } @else { "a run of " }
                    (text::duration(record.seconds * 1e9)) "."
                    @if !record.left_out.is_empty() { " Left out: " (record.left_out.join("; ")) "." }
                }
            }
        }
    }
}
