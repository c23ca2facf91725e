//! The share of the streaming limit as a table whose cells are coloured by it: backends down, lengths across.

use maud::{Markup, html};

use super::super::record::{Kind, Part, Pass, Record, is_noisy};
use super::super::text;
use super::view::{PASSES, distinct, level, passes, prefix};

/// One table of every machine and pass.
pub(crate) fn tables(records: &[Record], kind: &Kind) -> Markup {
    html! {
        div class="two" {
            @for (i, record) in records.iter().enumerate() {
                @for (part, name) in PASSES { (table(record, kind, part, &format!("{}{name}", prefix(records, i)))) }
            }
        }
    }
}

fn table(record: &Record, kind: &Kind, part: Part, title: &str) -> Markup {
    let shown = || passes(record, kind, part).filter(|pass| pass.share_of_limit.is_some_and(f64::is_finite));
    let mut lengths = distinct(shown().map(|pass| pass.parameters));
    lengths.sort_unstable();
    let levels: Vec<String> = lengths.iter().map(|length| level(record, kind, *length)).collect();
    let backends = distinct(shown().map(|pass| &pass.backend));
    if lengths.is_empty() {
        return html! {};
    }
    html! {
        div class="wide" {
            table class="heat" {
                caption { b { (title) } }
                thead {
                    tr {
                        th {}
                        @for same in levels.chunk_by(|a, b| a == b) {
                            th class="level" colspan=(same.len()) scope="colgroup" { (same[0]) }
                        }
                    }
                    tr { th {} @for length in &lengths { th scope="col" { (text::length(*length)) } } }
                }
                tbody {
                    @for backend in backends {
                        tr {
                            th scope="row" { (backend) }
                            @for length in &lengths {
                                (cell(shown().find(|pass| pass.backend == *backend && pass.parameters == *length)))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(pass: Option<&Pass>) -> Markup {
    let Some((pass, share)) = pass.and_then(|pass| Some((pass, pass.share_of_limit?))) else {
        return html! { td { (text::NONE) } };
    };
    let spread = pass.share_spread.unwrap_or(pass.time.spread);
    if is_noisy(spread) {
        return html! { td class="noisy" title="its spread is over the bound" { (text::NOISY) } };
    }
    let depth = (share.clamp(0.0, 1.0) * 100.0).round();
    html! {
        td class=(if depth >= 85.0 { "deep" } else { "pale" }) style=(format!("--share:{depth}%"))
            title=(format!("spread {}", text::percent(spread))) { (text::percent(share).replace(' ', "")) }
    }
}
