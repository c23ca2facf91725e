//! What `koala bench` prints: tables of what was measured, and the advice.

use comfy_table::Table;

use super::page::view::{bandwidth, distinct, main_kind};
use super::record::{Figure, Kind, Long, Part, Pass, Record};
use super::text::{self, unless_noisy};

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

fn header<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
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
    let mut header = header(["parameters", "", "limit, GB/s"]);
    header.extend(backends.iter().map(|name| (*name).clone()).chain(["spread".to_owned()]));
    let mut rows = Vec::new();
    for parameters in distinct(all.iter().map(|pass| pass.parameters)) {
        for (part, name) in [(Part::Pass1, "pass 1"), (Part::Pass2, "pass 2"), (Part::Step, "step")] {
            let limit = record.limits.iter().find(|limit| {
                (&limit.kind, limit.part, limit.parameters, limit.threads) == (kind, part, parameters, 1)
            });
            let speed = limit.map(|limit| {
                let speed = bandwidth(limit.bytes_per_parameter, parameters, &limit.time);
                unless_noisy(limit.time.spread, text::number(speed))
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
            rows.push(cells);
        }
    }
    text::table(header, rows, 2)
}

fn threaded(record: &Record, threads: usize) -> Table {
    let header = header(["parameters", "1 thread", "from inside", "from outside", "speed-up inside", "outside"]);
    let mut rows = Vec::new();
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
        rows.push(vec![
            text::length(pass.parameters),
            per_parameter(&one.time, pass.parameters),
            per_parameter(&pass.time, pass.parameters),
            per_parameter(outside, pass.parameters),
            speed_up(&pass.time),
            speed_up(outside),
        ]);
    }
    text::table(header, rows, 1)
}

fn small(record: &Record) -> Table {
    let backends = distinct(record.small.iter().map(|small| &small.backend));
    let mut header = header(["parameters"]);
    header.extend(backends.into_iter().cloned());
    let rows = distinct(record.small.iter().map(|small| small.parameters)).into_iter().map(|parameters| {
        let of_size = record.small.iter().filter(|small| small.parameters == parameters);
        let cells = of_size.map(|small| format!("{} / {}", duration(&small.alone), duration(&small.in_model)));
        [parameters.to_string()].into_iter().chain(cells).collect()
    });
    text::table(header, rows.collect(), 1)
}

fn models(record: &Record) -> Table {
    let header = header(["model", "tensors", "parameters", "threads", "", "state", "step", "of AdamW's", "spread"]);
    let rows = record.models.iter().map(|model| {
        let ratio = model.ratio_to_adamw.zip(model.ratio_spread);
        vec![
            model.name.clone(),
            model.tensors.to_string(),
            text::length(model.parameters),
            model.threads.to_string(),
            model.optimizer.clone(),
            model.state.clone(),
            duration(&model.time),
            ratio.map_or_else(String::new, |(ratio, spread)| unless_noisy(spread, text::ratio(ratio))),
            text::percent(model.time.spread),
        ]
    });
    text::table(header, rows.collect(), 6)
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
