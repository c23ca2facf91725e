//! `koala info`: this machine as the library sees it, its backends, and the one that would be chosen.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use koala_optim::{Backend, ENVIRONMENT_VARIABLE};

use crate::bench::record::{Cache, Processor};
use crate::output::say;
use crate::processor;

/// Prints all of it.
pub fn execute() -> Result<()> {
    say(text(&processor::describe()))?;

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["backend", "what it is", "here"]);
    for status in Backend::statuses() {
        let here = status.absent_because.map_or("present".to_owned(), |why| format!("absent: {why}"));
        table.add_row([status.name, status.description, &here]);
    }
    say(table)?;

    let forced = std::env::var_os(ENVIRONMENT_VARIABLE).is_some();
    let chosen = Backend::from_environment().with_context(|| format!("{ENVIRONMENT_VARIABLE} is set"))?;
    let reason = if forced { "because KOALA_BACKEND says so" } else { "the fastest that is present" };
    say(format_args!("Chosen: {}, {reason}", chosen.name()))
}

/// The machine, in a few lines.
pub fn text(processor: &Processor) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "unknown".to_owned() } else { items.join(", ") };
    let cache = |cache: &Cache| format!("L{} {} KiB", cache.level, cache.bytes / 1024);
    format!(
        "Processor: {}\nArchitecture: {}, {} threads\nFeatures: {}\nCaches: {}",
        processor.name,
        processor.architecture,
        processor.threads,
        list(processor.features.clone()),
        list(processor.caches.iter().map(cache).collect()),
    )
}
