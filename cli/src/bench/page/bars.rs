//! Bars with their figures written beside them: a table, so that it can be read aloud and never cuts text off.

use maud::{Markup, html};

use super::super::record::is_noisy;
use super::super::text;

/// A time as a bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) class: String,
    pub(crate) nanoseconds: f64,
    pub(crate) spread: f64,
    /// What is written after the time.
    pub(crate) note: Option<String>,
}

/// Bars that belong together.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// All groups to one scale.
pub(crate) fn panel(title: &str, groups: &[Group]) -> Markup {
    let values = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.nanoseconds);
    let longest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let noted = groups.iter().flat_map(|group| &group.bars).any(|bar| bar.note.is_some());
    html! {
        figure {
            figcaption { b { (title) } }
            table class=(if noted { "bars noted" } else { "bars" }) {
                @for group in groups.iter().filter(|group| !group.bars.is_empty()) {
                    tbody {
                        tr { th colspan="2" class="group" scope="rowgroup" { (group.title) } }
                        @for bar in &group.bars { (row(bar, longest)) }
                    }
                }
            }
        }
    }
}

fn row(bar: &Bar, longest: f64) -> Markup {
    let part = |value: f64| if longest > 0.0 { (value / longest).clamp(0.0, 1.0) } else { 0.0 };
    let noisy = is_noisy(bar.spread) || !bar.nanoseconds.is_finite();
    let half = if noisy { 0.0 } else { 0.5 * bar.spread.max(0.0) };
    let (low, high) = (part(bar.nanoseconds / (1.0 + half)), part(bar.nanoseconds * (1.0 + half)));
    let style = format!("--part:{:.4};--low:{low:.4};--high:{high:.4}", part(bar.nanoseconds));
    let hover = if noisy { text::NOISY.to_owned() } else { format!("spread {}", text::percent(bar.spread)) };
    html! {
        tr {
            th scope="row" { (bar.label) }
            td {
                div class="track" title=(hover) style=(style) {
                    span class=(format!("bar {}", if noisy { "noisy" } else { &bar.class })) {}
                    @if !noisy { span class="whisker" {} }
                    span class="figure" {
                        @if noisy { (text::NOISY) } @else { (text::duration(bar.nanoseconds)) }
                        @if let Some(note) = &bar.note { " " b { (note) } }
                    }
                }
            }
        }
    }
}
