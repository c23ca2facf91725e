//! Small tensors and whole models, as bars.

use maud::{Markup, html};

use super::super::record::{Figure, Model, Record, Small, is_noisy};
use super::super::text;
use super::bars::{Bar, Group, panel};
use super::view::{backend, distinct, prefix, threads};

/// The step of small tensors.
pub(crate) fn small(records: &[Record]) -> Markup {
    let mut lengths = distinct(records.iter().flat_map(|record| &record.small).map(|small| small.parameters));
    lengths.sort_unstable();
    if lengths.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Small tensors" }
            p { "The whole step of one tensor of f32: alone, the same tensor again and again, and as one of many in a
                model, whose other tensors have taken its place in the cache." }
            div class="three" {
                @for length in lengths {
                    @let title = if length == 1 { "1 parameter".to_owned() } else { format!("{length} parameters") };
                    (panel(&title, &small_groups(records, length)))
                }
            }
        }
    }
}

fn small_groups(records: &[Record], length: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let of = || record.small.iter().filter(|small| small.parameters == length);
        let bar = |small: &Small, figure: Figure| Bar {
            label: small.backend.clone(),
            class: backend(&small.backend).class.to_owned(),
            nanoseconds: figure.nanoseconds,
            spread: figure.spread,
            note: None,
        };
        let before = prefix(records, i);
        groups
            .push(Group { title: format!("{before}alone"), bars: of().map(|small| bar(small, small.alone)).collect() });
        groups.push(Group {
            title: format!("{before}in a model"),
            bars: of().map(|small| bar(small, small.in_model)).collect(),
        });
    }
    groups
}

/// The step of whole models, beside the AdamW-shaped pass.
pub(crate) fn models(records: &[Record]) -> Markup {
    let all = || records.iter().flat_map(|record| &record.models);
    let names = distinct(all().map(|model| (&model.name, model.tensors, model.parameters)));
    if names.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Whole models" }
            p { "One optimizer step over all tensors, f32 parameters. AdamW's pass moves the least that an optimizer
                with two vectors of state can; the figure behind a time is how many times that pass it takes." }
            div class="two" {
                @for (name, tensors, parameters) in names {
                    @let title = format!("{name}: {} parameters in {tensors} tensors", text::length(parameters));
                    (panel(&title, &model_groups(records, name)))
                }
            }
        }
    }
}

fn model_groups(records: &[Record], name: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let of = || record.models.iter().filter(|model| model.name == name);
        for at_once in distinct(of().map(|model| model.threads)) {
            groups.push(Group {
                title: format!("{}{}", prefix(records, i), threads(at_once)),
                bars: of().filter(|model| model.threads == at_once).map(bar).collect(),
            });
        }
    }
    groups
}

fn bar(model: &Model) -> Bar {
    let class = match &model.backend {
        None => "limit".to_owned(),
        Some(name) if model.state == "f32" => backend(name).class.to_owned(),
        Some(name) => format!("{} light", backend(name).class),
    };
    let label = match &model.backend {
        None => model.optimizer.clone(),
        Some(backend) => format!("{}, {} state, {backend}", model.optimizer, model.state),
    };
    let Model { time, .. } = model;
    let note = if model.backend.is_some() { ratio(model) } else { None };
    Bar { label, class, nanoseconds: time.nanoseconds, spread: time.spread, note }
}

/// How many times the AdamW-shaped pass it takes; a ratio within rounds can be quiet where the time is noisy.
pub(crate) fn ratio(model: &Model) -> Option<String> {
    let ratio = model.ratio_to_adamw.filter(|ratio| ratio.is_finite())?;
    if !is_noisy(model.ratio_spread.unwrap_or(0.0)) {
        return Some(text::ratio(ratio) + " AdamW");
    }
    (!is_noisy(model.time.spread)).then(|| format!("ratio {}", text::NOISY))
}
