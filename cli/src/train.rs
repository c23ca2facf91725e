//! `koala train`: trains one network by several optimizers on real data, and compares them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use koala_optim::Backend;
use serde::Serialize;

use crate::images::Data;
use crate::method::{Method, Settings};
use crate::network::{Model, Network};
use crate::output::{say, write};
use crate::run::{Plan, Run};
use crate::{digits, idx, plot};

/// Train a network on real data with KOALA++, and compare it with SGD and AdamW
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Train with this optimizer only; may be given several times [default: all]
    #[arg(long, value_enum)]
    optimizer: Vec<Method>,
    /// A folder with MNIST's four IDX files, plain or gzipped [default: the UCI digits, which are part of the program]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The network [default: mlp for the digits, conv for --data]
    #[arg(long, value_enum)]
    model: Option<Model>,
    /// How often to go through the training images [default: 40 for the digits, 5 for --data]
    #[arg(long)]
    epochs: Option<NonZeroUsize>,
    /// Images per step [default: 32 for the digits, 64 for --data]
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Draws the first weights and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The backend for KOALA++ [default: KOALA_BACKEND if set, or the best of this processor]
    #[arg(long)]
    backend: Option<String>,
    /// Threads for KOALA++
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// The learning rate, for the one optimizer chosen by --optimizer
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// The weight decay, likewise
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// KOALA++'s variance of the parameters before the first step
    #[arg(long, value_name = "VARIANCE", allow_negative_numbers = true)]
    initial_variance: Option<f64>,
    /// KOALA++'s process noise
    #[arg(long, value_name = "NOISE", allow_negative_numbers = true)]
    process_noise: Option<f64>,
    /// Test on a fifth of the training images instead of the held-out ones, to choose settings by
    #[arg(long)]
    validation: bool,
    /// Where to draw the curves
    #[arg(long, value_name = "FILE", default_value = "koala-train.svg")]
    plot: PathBuf,
    /// Also write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Record<'a> {
    data: &'a str,
    train_images: usize,
    test_images: usize,
    model: &'static str,
    epochs: usize,
    batch: usize,
    seed: u64,
    runs: &'a [Run],
}

/// Runs the command.
pub fn execute(arguments: &Arguments) -> Result<()> {
    let plan = plan(arguments)?;
    let methods = match &arguments.optimizer[..] {
        [] => &Method::ALL[..],
        chosen => chosen,
    };
    let settings = methods.iter().map(|&method| settings(arguments, plan.model, method)).collect::<Result<Vec<_>>>()?;
    say(describe(&plan)?)?;

    let mut runs = Vec::new();
    for (&method, settings) in methods.iter().zip(settings) {
        let bar = ProgressBar::new(plan.steps() as u64)
            .with_style(ProgressStyle::with_template("{prefix:17} {bar:32} {pos:>6}/{len} steps  {msg}")?);
        bar.set_prefix(method.title());
        let run = plan.run(method, settings, |run| {
            bar.inc(1);
            if let Some(last) = run.epochs.last() {
                bar.set_message(format!("{:.2} % right", last.test_accuracy * 100.0));
            }
        });
        bar.finish_and_clear();
        runs.push(run.with_context(|| format!("training with {}", method.title()))?);
    }

    say(table(&runs))?;
    write(&arguments.plot, plot::draw(&plan.data.name, &runs)?.as_bytes())?;
    say(format_args!("Curves: {}", arguments.plot.display()))?;
    if let Some(path) = &arguments.json {
        let record = Record {
            data: &plan.data.name,
            train_images: plan.data.train.count(),
            test_images: plan.data.test.count(),
            model: plan.model.title(),
            epochs: plan.epochs,
            batch: plan.batch,
            seed: plan.seed,
            runs: &runs,
        };
        write(path, &serde_json::to_vec_pretty(&record)?)?;
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    let backend = match &arguments.backend {
        Some(name) => Backend::by_name(name)?,
        None => Backend::from_environment()?,
    };
    let (data, model, epochs, batch) = match &arguments.data {
        Some(folder) => (idx::load(folder)?, Model::Conv, 5, 64),
        None => (digits::load()?, Model::Mlp, 40, 32),
    };
    Ok(Plan {
        data: if arguments.validation { data.validation()? } else { data },
        model: arguments.model.unwrap_or(model),
        epochs: arguments.epochs.map_or(epochs, NonZeroUsize::get),
        batch: arguments.batch.map_or(batch, NonZeroUsize::get),
        seed: arguments.seed,
        backend,
        threads: arguments.threads.get(),
    })
}

/// The defaults, with what was set on the command line. A value must be meant for one optimizer only, since none
/// suits two.
fn settings(arguments: &Arguments, model: Model, method: Method) -> Result<Settings> {
    let mut settings = method.defaults(model);
    for (option, value, setting, koala_only) in [
        ("learning-rate", arguments.learning_rate, &mut settings.learning_rate, false),
        ("weight-decay", arguments.weight_decay, &mut settings.weight_decay, false),
        ("initial-variance", arguments.initial_variance, &mut settings.initial_variance, true),
        ("process-noise", arguments.process_noise, &mut settings.process_noise, true),
    ] {
        let Some(value) = value else { continue };
        ensure!(
            koala_only || arguments.optimizer.len() == 1,
            "--{option} is for one optimizer: choose it by --optimizer"
        );
        ensure!(value.is_finite() && value >= 0.0, "--{option} is {value}, which is no finite number of at least 0");
        *setting = value;
    }
    Ok(settings)
}

fn describe(plan: &Plan) -> Result<String> {
    let Data { name, train, test } = &plan.data;
    let size = Network::new(plan.model, train.height, train.width, plan.seed)?.size();
    Ok(format!(
        "{name}: {} images to train on, {} to test on\n\
         Network: {}, {size} parameters\n\
         Training: {} epochs of batches of {}, seed {}; KOALA++ on {}, {} thread(s)",
        train.count(),
        test.count(),
        plan.model.title(),
        plan.epochs,
        plan.batch,
        plan.seed,
        plan.backend.name(),
        plan.threads,
    ))
}

fn table(runs: &[Run]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["optimizer", "test accuracy", "test loss", "steps", "µs per step"]);
    for run in runs {
        let (accuracy, loss) = match run.result() {
            Some(last) => (format!("{:.2} %", last.test_accuracy * 100.0), format!("{:.4}", last.test_loss)),
            None => ("diverged".to_owned(), "-".to_owned()),
        };
        table.add_row([
            run.optimizer.title().to_owned(),
            accuracy,
            loss,
            run.steps.to_string(),
            format!("{:.1}", run.microseconds_per_step),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
