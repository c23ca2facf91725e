//! The main figures of several machines side by side, as tables: `koala bench --compare` prints them, the page shows
//! them.

use super::page::models::ratio;
use super::page::view::{
    bandwidth, distinct, letter, levels, limits, main_kind, most_threads, passes, prefix, threads, typical,
};
use super::record::{Figure, Model, Part, Pass, Record};
use super::text::{self, unless_noisy};

/// A table whose columns are machines.
pub(crate) struct Comparison {
    pub(crate) title: &'static str,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The tables that it prints.
pub fn tables(records: &[Record]) -> String {
    let tables = comparisons(records).into_iter();
    let texts = tables.map(|Comparison { title, header, rows }| format!("{title}\n{}", text::table(header, rows, 1)));
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Those of the tables that say anything.
pub(crate) fn comparisons(records: &[Record]) -> Vec<Comparison> {
    let all = [machines(records), bandwidths(records), steps(records), models(records)];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn header(first: &str, records: &[Record]) -> Vec<String> {
    let names = records.iter().enumerate().map(|(i, _)| match records.len() {
        1 => "this machine".to_owned(),
        _ => letter(i),
    });
    std::iter::once(first.to_owned()).chain(names).collect()
}

fn row(first: &str, records: &[Record], cell: impl Fn(&Record) -> Option<String>) -> Vec<String> {
    let cells = records.iter().map(|record| cell(record).unwrap_or_else(|| text::NONE.to_owned()));
    std::iter::once(first.to_owned()).chain(cells).collect()
}

fn machines(records: &[Record]) -> Comparison {
    let caches = |record: &Record| {
        let caches = record.processor.caches.iter();
        Some(caches.map(|cache| text::bytes(cache.bytes)).collect::<Vec<_>>().join(" / "))
    };
    let backend = |record: &Record| match &record.advice.noise {
        Some(_) => Some("too noisy to judge".to_owned()),
        None => Some(record.advice.backend.clone()),
    };
    let mut rows = vec![
        row("processor", records, |record| Some(record.processor.name.clone())),
        row("architecture", records, |record| Some(record.processor.architecture.clone())),
        row("threads", records, |record| Some(record.processor.threads.to_string())),
        row("caches", records, caches),
        row("memory", records, |record| Some(text::bytes(record.processor.memory_bytes))),
        row("koala-optim", records, |record| Some(record.version.clone())),
        row("measured", records, |record| Some(record.date.clone())),
        row("backend to use", records, backend),
    ];
    let others = distinct(records.iter().flat_map(|record| &record.advice.slower_by).map(|(name, _)| name));
    rows.extend(others.into_iter().map(|other| {
        row(other, records, |record| {
            let quiet = record.advice.noise.is_none();
            let (_, ratio) = record.advice.slower_by.iter().filter(|_| quiet).find(|(name, _)| name == other)?;
            Some(text::slower(*ratio))
        })
    }));
    Comparison { title: "Machines", header: header("", records), rows }
}

fn bandwidths(records: &[Record]) -> Comparison {
    let kind = main_kind();
    let mut rows = Vec::new();
    for (part, name) in [(Part::Pass1, "pass 1"), (Part::Pass2, "pass 2")] {
        for level in distinct(records.iter().flat_map(levels)) {
            let length = |record: &Record| typical(record, &kind, &level);
            let limit = |record: &Record| {
                let length = length(record)?;
                let limit = limits(record, &kind, part).find(|limit| limit.parameters == length)?;
                let value = bandwidth(limit.bytes_per_parameter, length, &limit.time);
                Some(unless_noisy(limit.time.spread, format!("{} GB/s", text::number(value))))
            };
            let share = |record: &Record| {
                let length = length(record)?;
                let of_advised = |pass: &&Pass| pass.backend == record.advice.backend && pass.parameters == length;
                let pass = passes(record, &kind, part).find(of_advised)?;
                let share = pass.share_of_limit.filter(|share| share.is_finite())?;
                Some(unless_noisy(pass.share_spread.unwrap_or(pass.time.spread), text::percent(share)))
            };
            rows.push(row(&format!("{name}, {level}: limit"), records, limit));
            rows.push(row(&format!("{name}, {level}: reached"), records, share));
        }
    }
    rows.retain(|row| row[1..].iter().any(|cell| cell != text::NONE));
    let title = "Streaming limits, and the share that the advised backend reaches: f32 with weight decay, one thread";
    Comparison { title, header: header("", records), rows }
}

fn steps(records: &[Record]) -> Comparison {
    fn shown(record: &Record) -> impl Iterator<Item = &Pass> {
        let steps = record.passes.iter().filter(|pass| pass.kind == main_kind() && pass.part == Part::Step);
        steps.filter(|pass| pass.backend == record.advice.backend)
    }
    let mut columns = Vec::new();
    let mut header = vec!["parameters".to_owned()];
    for (i, record) in records.iter().enumerate() {
        for at_once in distinct(shown(record).map(|pass| pass.threads)) {
            header.push(format!("{}{}", prefix(records, i), threads(at_once)));
            columns.push((record, at_once));
        }
    }
    let mut lengths = distinct(records.iter().flat_map(shown).map(|pass| pass.parameters));
    lengths.retain(|length| *length > 0);
    lengths.sort_unstable();
    let cell = |(record, at_once): &(&Record, usize), length: usize| {
        let pass = shown(record).find(|pass| pass.threads == *at_once && pass.parameters == length)?;
        Some(unless_noisy(pass.time.spread, text::number(pass.time.nanoseconds / length as f64)))
    };
    let rows = lengths.into_iter().map(|length| {
        let cells = columns.iter().map(|column| cell(column, length).unwrap_or_else(|| text::NONE.to_owned()));
        std::iter::once(text::length(length)).chain(cells).collect()
    });
    let rows = rows.collect();
    Comparison { title: "The step by the advised backend in ns per parameter: f32 with weight decay", header, rows }
}

/// Models are compared by one thread and by all threads, however many those are.
fn models(records: &[Record]) -> Comparison {
    let label = |record: &Record, model: &Model| {
        let is_all = model.threads > 1 && model.threads == most_threads(record);
        let threads = if is_all { "all threads".to_owned() } else { threads(model.threads) };
        let state = model.backend.as_ref().map_or(String::new(), |_| format!(", {} state", model.state));
        format!("{}: {}{state}, {threads}", model.name, model.optimizer)
    };
    let shown = |record: &Record| -> Vec<(String, Figure, Option<String>)> {
        let of_advised =
            |model: &&Model| model.backend.as_ref().is_none_or(|backend| *backend == record.advice.backend);
        let models = record.models.iter().filter(of_advised);
        models
            .map(|model| (label(record, model), model.time, model.backend.as_ref().and_then(|_| ratio(model))))
            .collect()
    };
    let labels = distinct(records.iter().flat_map(&shown).map(|(label, ..)| label));
    let rows = labels.iter().map(|label| {
        row(label, records, |record| {
            let (_, time, ratio) = shown(record).into_iter().find(|(other, ..)| other == label)?;
            let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio})"));
            Some(unless_noisy(time.spread, text::duration(time.nanoseconds)) + &ratio)
        })
    });
    let rows = rows.collect();
    Comparison { title: "One step of whole models", header: header("", records), rows }
}
