//! The tables that `koala train` prints: what the search found, and the comparison.

use std::f64::consts::LN_2;

use comfy_table::{CellAlignment, Table, presets};

use crate::train::outcome::Run;
use crate::train::plan::Plan;
use crate::train::search::Search;
use crate::train::summary::{Summary, rate_text};

fn new_table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The optimizers side by side. Each element of `runs` holds the seeds of one optimizer.
pub fn comparison(plan: &Plan, runs: &[Vec<Run>]) -> Table {
    let task = &*plan.task;
    let part = task.held_out().title();
    let mut header = vec!["optimizer".to_owned(), "learning rate".to_owned(), format!("{part} accuracy")];
    header.push(format!("{part} loss"));
    if task.is_text() {
        header.push("bits per character".to_owned());
    }
    header.extend(["steps", "µs per step"].map(str::to_owned));

    let mut table = new_table(header);
    for runs in runs {
        let Some(first) = runs.first() else { continue };
        let summary = Summary::of(runs);
        let accuracy = summary.accuracy.map(|part| format!("{:.2} %", part.times(100.0)));
        let loss = summary.loss.map(|loss| format!("{loss:.4}"));
        let mut row = vec![
            first.optimizer.title().to_owned(),
            rate_text(first.settings.learning_rate),
            summary.text(accuracy),
            loss.unwrap_or_else(|| "-".to_owned()),
        ];
        if task.is_text() {
            let bits = summary.loss.map(|loss| format!("{:.3}", loss.times(1.0 / LN_2)));
            row.push(bits.unwrap_or_else(|| "-".to_owned()));
        }
        // Of runs that diverged too, but not more than a run has.
        let mut steps = runs.iter().map(|run| run.steps).max().unwrap_or(0).to_string();
        if runs.iter().any(|run| run.stopped) {
            steps = format!("{steps} of {}, stopped", plan.steps());
        }
        let time = runs.iter().map(|run| run.microseconds_per_step).sum::<f64>() / runs.len() as f64;
        row.extend([steps, format!("{time:.1}")]);
        table.add_row(row);
    }
    table
}

/// The mean validation loss of each optimizer at each learning rate.
pub fn search(search: &Search) -> Table {
    let header = search.trials.iter().map(|(method, _)| method.title().to_owned());
    let mut table = new_table([vec!["learning rate".to_owned()], header.collect()].concat());
    for (i, rate) in search.rates.iter().enumerate() {
        let cells = search.trials.iter().map(|(_, trials)| {
            let summary = Summary::of(&trials[i]);
            let mark = if Search::best(trials) == Some(i) { "* " } else { "" };
            format!("{mark}{}", summary.text(summary.loss.map(|loss| format!("{:.4}", loss.mean))))
        });
        table.add_row([vec![rate_text(*rate)], cells.collect()].concat());
    }
    table
}
