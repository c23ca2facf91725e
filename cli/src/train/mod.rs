//! `koala train`: trains one network by several optimizers on real data, and compares them.

mod arguments;
mod checkpoint;
mod divergence;
pub mod method;
pub mod outcome;
pub mod plan;
mod plot;
mod record;
pub mod reports;
pub mod run;
pub mod schedule;
mod search;
mod summary;
mod table;

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

pub use arguments::Arguments;

use crate::output::{log, tell, write};
use crate::printable;
use crate::task::Part;
use method::{Method, Settings};
use outcome::Run;
use plan::Plan;
use run::Training;
use search::Search;
use summary::rate_text;

/// Runs the command.
pub fn execute(arguments: &Arguments) -> Result<()> {
    let plan = arguments.plan()?;
    let mut methods = arguments.methods(plan.task.network())?;
    let grid = arguments.grid()?;
    arguments.check_outputs()?;
    tell(describe(arguments, &plan)?)?;

    let searched = grid.map(|rates| search(arguments, &plan, &mut methods, rates)).transpose()?;
    let runs: Vec<Vec<Run>> =
        methods.iter().map(|&(method, settings)| train(arguments, &plan, method, settings)).collect::<Result<_>>()?;
    // The files first, and the record of it all before the picture: what is printed can be had again from them.
    if let Some(path) = &arguments.json {
        record::write_all(path, &plan, &runs.concat(), searched.as_ref())?;
    }
    write(&arguments.plot, plot::draw(&*plan.task, &runs)?.as_bytes())?;
    tell(table::comparison(&plan, &runs))?;
    for runs in &runs {
        let reports = outcome::reports_of(runs).to_string();
        if let (Some(run), false) = (runs.first(), reports.is_empty()) {
            tell(format_args!("{}, over all tensors and steps: {reports}", run.optimizer.title()))?;
        }
    }
    tell(format_args!("Curves: {}", printable::path(&arguments.plot)))
}

/// Tries all learning rates on a validation part, and sets each optimizer's to its best.
fn search(
    arguments: &Arguments,
    plan: &Plan,
    methods: &mut [(Method, Settings)],
    rates: Vec<f64>,
) -> Result<(Plan, Search)> {
    let plan = plan.validation()?;
    tell(format_args!(
        "Search: each optimizer's learning rate is that of the least mean loss (*) on {} other samples, which are \
         split off those to train on",
        plan.task.count(Part::HeldOut)
    ))?;
    let search = Search::new(methods, rates, |method, settings| train(arguments, &plan, method, settings))?;
    tell(table::search(&search))?;
    for ((method, settings), (_, best)) in methods.iter_mut().zip(search.choices()) {
        let (title, default) = (method.title(), rate_text(settings.learning_rate));
        match best {
            None => tell(format_args!("{title} diverged at every rate of the grid: it goes on with {default}"))?,
            Some(best) if search.is_at_an_end(best) => {
                tell(format_args!("{title}'s best is at an end of the grid: a wider one might have a better"))?;
            }
            Some(_) => {}
        }
        settings.learning_rate = best.unwrap_or(settings.learning_rate);
    }
    Ok((plan, search))
}

/// Trains with every seed.
fn train(arguments: &Arguments, plan: &Plan, method: Method, settings: Settings) -> Result<Vec<Run>> {
    let with_seed = |seed| {
        let bar = ProgressBar::new(plan.steps() as u64)
            .with_style(ProgressStyle::with_template("{prefix:40} {bar:32} {pos:>6}/{len} steps  {msg}")?);
        let name = format!("{}, learning rate {}, seed {seed}", method.title(), rate_text(settings.learning_rate));
        bar.set_prefix(name.clone());
        let run = train_one(arguments, plan, method, settings, seed, &bar);
        bar.finish_and_clear();
        let run = run.with_context(|| format!("training with {}", method.title()))?;
        if bar.is_hidden() {
            log(format_args!("{name}, {}: {}", plan.task.held_out().title(), run.result_text()));
        }
        if let Some(folder) = &arguments.results {
            record::write_run(folder, plan, &run)?;
        }
        Ok(run)
    };
    arguments.seeds()?.map(with_seed).collect()
}

/// Trains with one seed, from where it is to be resumed to where it is to stop.
fn train_one(
    arguments: &Arguments,
    plan: &Plan,
    method: Method,
    settings: Settings,
    seed: u64,
    bar: &ProgressBar,
) -> Result<Run> {
    let mut training = match &arguments.resume {
        Some(file) => checkpoint::resume(plan, method, settings, seed, file)?,
        None => Training::new(plan, method, settings, seed)?,
    };
    let last = arguments.stop_after.map_or(plan.epochs, NonZeroUsize::get);
    while training.run.epochs.len() < last {
        let trained = training.epoch(|run| {
            bar.set_position(run.steps as u64);
            if let Some(last) = run.epochs.last() {
                bar.set_message(format!("{:.2} % right", last.test_accuracy * 100.0));
            }
        })?;
        if !trained || training.run.diverged {
            break;
        }
        if let Some(file) = &arguments.save {
            checkpoint::save(&training, file)?;
        }
    }
    training.run.stopped = !training.run.diverged && training.run.epochs.len() < plan.epochs;
    Ok(training.run)
}

fn describe(arguments: &Arguments, plan: &Plan) -> Result<String> {
    let (first, last) = arguments.seeds()?.into_inner();
    let seeds = if first == last { format!("seed {first}") } else { format!("seeds {first} to {last}") };
    let samples = match plan.samples_of_epoch() {
        count if count < plan.task.count(Part::Train) => format!(" of {count} samples"),
        _ => String::new(),
    };
    Ok(format!(
        "{}\nTraining: {} epochs{samples}, batches of {}, {seeds}; steps on {}, {} thread(s)",
        plan.task.describe(),
        plan.epochs,
        plan.batch,
        plan.backend.name(),
        plan.threads,
    ))
}
