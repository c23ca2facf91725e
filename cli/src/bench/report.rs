//! What `koala bench` prints: tables of what was measured, and the advice.

use comfy_table::{CellAlignment, Table, presets};

use super::page::text;
use super::page::view::{distinct, is_noisy, main_kind};
use super::record::{Figure, Kind, Long, Part, Pass, Record};

/// All of it.
pub(super) fn report(record: &Record) -> String {
    let mut parts = Vec::new();
    for kind in distinct(record.passes.iter().map(|pass| &pass.kind)) {
        parts.push(format!(
            "{}, one thread: of the passes, the share of the limit that each backend reaches; of the step, ns per parameter\n{}",
            text::kind(kind),
            passes(record, kind)
        ));
    }
    for threads in distinct(record.passes.iter().map(|pass| pass.threads)).into_iter().filter(|&threads| threads > 1) {
        parts.push(format!(
            "f32, the step in ns per parameter on {}; {threads} threads are a pool, which the caller belongs to or does not\n{}",
            record.advice.backend,
            threaded(record, threads)
        ));
    }
    if !record.small.is_empty() {
        parts.push(format!("f32, a small tensor's step: alone / one of many in a model\n{}", small(record)));
    }
    if !record.models.is_empty() {
        parts.push(format!("Whole models, f32 parameters\n{}", models(record)));
    }
    parts.extend(record.long.as_ref().map(long));
    parts.push(advice(record));
    parts.join("\n\n")
}

fn table(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// With all columns but the first `left` to the right.
fn aligned(mut table: Table, left: usize) -> Table {
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The text, or that it would say nothing.
fn unless_noisy(spread: f64, text: String) -> String {
    if is_noisy(spread) { text::NOISY.to_owned() } else { text }
}

fn duration(figure: &Figure) -> String {
    unless_noisy(figure.spread, text::duration(figure.nanoseconds))
}

fn per_parameter(figure: &Figure, parameters: usize) -> String {
    unless_noisy(figure.spread, text::number(figure.nanoseconds / parameters as f64))
}

fn passes(record: &Record, kind: &Kind) -> Table {
    let all: Vec<&Pass> = record.passes.iter().filter(|pass| pass.kind == *kind && pass.threads == 1).collect();
    let backends = distinct(all.iter().map(|pass| &pass.backend));
    let header = ["parameters", "", "limit, GB/s"].into_iter().map(str::to_owned);
    let mut table = table(header.chain(backends.iter().map(|name| (*name).clone())).chain(["spread".to_owned()]));
    for parameters in distinct(all.iter().map(|pass| pass.parameters)) {
        for (part, name) in [(Part::Pass1, "pass 1"), (Part::Pass2, "pass 2"), (Part::Step, "step")] {
            let limit = record.limits.iter().find(|limit| {
                (&limit.kind, limit.part, limit.parameters, limit.threads) == (kind, part, parameters, 1)
            });
            let speed = limit.map(|limit| {
                let bytes = limit.bytes_per_parameter * parameters as f64;
                unless_noisy(limit.time.spread, text::number(bytes / limit.time.nanoseconds))
            });
            let size = if part == Part::Pass1 { text::length(parameters) } else { String::new() };
            let mut cells = vec![size, name.to_owned(), speed.unwrap_or_default()];
            let mut widest: f64 = 0.0;
            for backend in &backends {
                let pass =
                    all.iter().find(|pass| (&pass.backend, pass.part, pass.parameters) == (*backend, part, parameters));
                let cell = pass.map(|pass| {
                    let spread = pass.share_spread.unwrap_or(pass.time.spread);
                    widest = widest.max(spread);
                    match pass.share_of_limit {
                        Some(share) => unless_noisy(spread, text::percent(share)),
                        None => per_parameter(&pass.time, parameters),
                    }
                });
                cells.push(cell.unwrap_or_else(|| text::NONE.to_owned()));
            }
            cells.push(format!("≤ {}", text::percent(widest)));
            table.add_row(cells);
        }
    }
    aligned(table, 2)
}

fn threaded(record: &Record, threads: usize) -> Table {
    let header = ["parameters", "1 thread", "from inside", "from outside", "speed-up inside", "outside"];
    let mut table = table(header.into_iter().map(str::to_owned));
    let of = |threads: usize| {
        let (kind, backend) = (main_kind(), &record.advice.backend);
        record.passes.iter().filter(move |pass| {
            (pass.part, pass.threads, &pass.backend, &pass.kind) == (Part::Step, threads, backend, &kind)
        })
    };
    for pass in of(threads) {
        let Some(one) = of(1).find(|one| one.parameters == pass.parameters) else { continue };
        let Some(outside) = &pass.from_outside else { continue };
        let speed_up = |figure: &Figure| {
            let spread = one.time.spread.max(figure.spread);
            unless_noisy(spread, text::ratio(one.time.nanoseconds / figure.nanoseconds))
        };
        table.add_row([
            text::length(pass.parameters),
            per_parameter(&one.time, pass.parameters),
            per_parameter(&pass.time, pass.parameters),
            per_parameter(outside, pass.parameters),
            speed_up(&pass.time),
            speed_up(outside),
        ]);
    }
    aligned(table, 1)
}

fn small(record: &Record) -> Table {
    let backends = distinct(record.small.iter().map(|small| &small.backend));
    let mut table = table(["parameters".to_owned()].into_iter().chain(backends.iter().map(|name| (*name).clone())));
    for parameters in distinct(record.small.iter().map(|small| small.parameters)) {
        let of_size = record.small.iter().filter(|small| small.parameters == parameters);
        let cells = of_size.map(|small| format!("{} / {}", duration(&small.alone), duration(&small.in_model)));
        table.add_row([parameters.to_string()].into_iter().chain(cells));
    }
    aligned(table, 1)
}

fn models(record: &Record) -> Table {
    let header = ["model", "tensors", "parameters", "threads", "", "state", "step", "of AdamW's", "spread"];
    let mut table = table(header.into_iter().map(str::to_owned));
    for model in &record.models {
        let ratio = model.ratio_to_adamw.zip(model.ratio_spread);
        table.add_row([
            model.name.clone(),
            model.tensors.to_string(),
            text::length(model.parameters),
            model.threads.to_string(),
            model.optimizer.clone(),
            model.state.clone(),
            duration(&model.time),
            ratio.map_or_else(String::new, |(ratio, spread)| unless_noisy(spread, text::ratio(ratio))),
            text::percent(model.time.spread),
        ]);
    }
    aligned(table, 6)
}

fn long(long: &Long) -> String {
    format!(
        "One tensor of {}, f32, one thread, {}: {} per step, {} the cost per parameter of one of {}; \
         its vectors take {}, the process grew by {}.",
        text::length(long.parameters),
        long.backend,
        duration(&long.time),
        unless_noisy(long.time.spread.max(long.shorter_time.spread), text::ratio(long.ratio)),
        text::length(long.shorter_parameters),
        text::bytes(long.vectors_bytes),
        text::bytes(long.resident_bytes),
    )
}

fn advice(record: &Record) -> String {
    let advice = &record.advice;
    if let Some(noise) = &advice.noise {
        return format!("This machine was too noisy to judge by: {noise}. Try again when it is quiet.");
    }
    let others = advice.slower_by.iter().map(|(name, ratio)| format!("{name} {}", text::slower(*ratio)));
    let others: Vec<String> = others.collect();
    let others = if others.is_empty() { "no other was measured".to_owned() } else { others.join(", ") };
    format!("Use {}: {others} (geometric mean over sizes, f32, whole step, one thread).", advice.backend)
}
