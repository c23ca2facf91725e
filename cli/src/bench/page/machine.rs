//! The head of the page: what the machine is, and which backend to use on it.

use maud::{Markup, html};

use super::super::record::{Part, Record, is_noisy};
use super::super::text;
use super::models::ratio;
use super::view::{backend, letter, main_kind, passes, threads, typical};

/// One card of every machine.
pub(crate) fn cards(records: &[Record]) -> Markup {
    html! {
        div class=(if records.len() > 1 { "two" } else { "one" }) {
            @for (i, record) in records.iter().enumerate() {
                div class="card" {
                    h2 {
                        @if records.len() > 1 { span class="letter" { (letter(i)) } " " }
                        @if record.processor.name.is_empty() { "Unknown processor" } @else { (record.processor.name) }
                    }
                    (processor(record))
                    (advice(record))
                }
            }
        }
    }
}

fn processor(record: &Record) -> Markup {
    let processor = &record.processor;
    let caches = processor.caches.iter().map(|cache| {
        let shared = match cache.shared_by {
            Some(threads) if threads > 1 => format!("shared by {threads} threads"),
            _ => String::new(),
        };
        (format!("L{}", cache.level), text::bytes(cache.bytes), shared)
    });
    let threads = ("threads".to_owned(), processor.threads.to_string(), processor.architecture.clone());
    let memory = ("memory".to_owned(), text::bytes(processor.memory_bytes), String::new());
    html! {
        ul class="facts" {
            @for (name, value, note) in std::iter::once(threads).chain(caches).chain([memory]) {
                li { span { (name) } b { (value) } small { (note) } }
            }
        }
        ul class="tags" { @for feature in &processor.features { li { (feature) } } }
    }
}

fn advice(record: &Record) -> Markup {
    let advice = &record.advice;
    if let Some(noise) = &advice.noise {
        return html! {
            p class="advice noisy" { b { "Too noisy to judge" } ": " (noise.trim_end_matches('.')) "." }
            @if !advice.backend.is_empty() { p { "The least times were those of " (advice.backend) "." } }
        };
    }
    if advice.backend.is_empty() {
        return html! { p class="advice" { "No backend was measured." } };
    }
    let others = advice.slower_by.iter().map(|(name, ratio)| format!("{name} {}", text::slower(*ratio)));
    let others = enumerated(others.collect());
    html! {
        p class="advice" {
            "Use " b class=(backend(&advice.backend).class) { (advice.backend) }
            @if others.is_empty() { "." } @else { ": " (others) "." }
        }
        @for sentence in [reached(record), compared(record), quick(record)].into_iter().flatten() { p { (sentence) } }
    }
}

/// What the advised backend reaches of the limit of the memory.
fn reached(record: &Record) -> Option<String> {
    let kind = main_kind();
    let length = typical(record, &kind, "memory")?;
    let share = |part| {
        let pass = passes(record, &kind, part)
            .find(|pass| pass.backend == record.advice.backend && pass.parameters == length)?;
        let share = pass.share_of_limit.filter(|share| share.is_finite())?;
        (!is_noisy(pass.share_spread?)).then(|| text::percent(share))
    };
    let (first, second) = (share(Part::Pass1)?, share(Part::Pass2)?);
    Some(format!("From memory it reaches {first} of the streaming limit in pass 1 and {second} in pass 2."))
}

/// What the largest model takes in comparison with AdamW, with all threads.
fn compared(record: &Record) -> Option<String> {
    let models = record.models.iter().filter(|model| model.backend.as_ref() == Some(&record.advice.backend));
    let models = models.filter(|model| {
        model.state == "f32" && !model.ratio_spread.is_none_or(is_noisy) && !is_noisy(model.time.spread)
    });
    let model = models.max_by_key(|model| (model.parameters, model.threads))?;
    let time = text::duration(model.time.nanoseconds);
    Some(format!("A step of {} with {} takes {time}, {}.", model.name, threads(model.threads), ratio(model)?))
}

fn quick(record: &Record) -> Option<String> {
    record.quick.then(|| "This was a quick run: a full one tells more.".to_owned())
}

/// a, b and c.
fn enumerated(mut items: Vec<String>) -> String {
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}
