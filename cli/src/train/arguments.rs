//! What can be said to `koala train`, and what it means.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use koala_optim::Backend;

use crate::output;
use crate::printable;
use crate::processor;
use crate::task::classifier::{Classifier, Model};
use crate::task::language::{Language, Shape};
use crate::task::text::Text;
use crate::task::{Network, Task, digits, idx};
use crate::train::method::{Method, Settings};
use crate::train::plan::Plan;
use crate::train::schedule::Schedule;
use crate::train::{checkpoint, record, search};

/// Train a network on real data with KOALA++, and compare it with other optimizers
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Train with this optimizer only; may be given several times, for several [default: all]
    #[arg(long, value_enum)]
    optimizer: Vec<Method>,
    /// A folder with MNIST's four IDX files, plain or gzipped [default: the UCI digits, which are part of the program]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Train a language model of characters on this text in UTF-8 instead; its end is held out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "model"])]
    text: Option<PathBuf>,
    /// The network for images [default: mlp for the digits, conv for --data]
    #[arg(long, value_enum)]
    model: Option<Model>,
    /// How often to go through the samples [default: 40 for the digits, 5 for --data and --text]
    #[arg(long)]
    epochs: Option<NonZeroUsize>,
    /// An epoch is so many samples, drawn anew, instead of all [default: 2048 for --text]
    #[arg(long, value_name = "COUNT")]
    samples_per_epoch: Option<NonZeroUsize>,
    /// Samples per step [default: 32 for the digits, 64 for --data, 16 for --text]
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Draws the first weights and the order of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train so many times, each with a seed one greater
    #[arg(long, value_name = "COUNT", default_value = "1")]
    seeds: NonZeroUsize,
    /// The backend [default: KOALA_BACKEND if set, or the best of this processor]
    #[arg(long)]
    backend: Option<String>,
    /// Threads for the optimizer, among which it divides a step of 2^21 parameters or more; the networks for the digits,
    /// for MNIST and for text have fewer, and one thread steps them whatever this says. 0: as many as there are
    /// processors that this process may use
    #[arg(long, default_value = "1", value_parser = processor::parse_threads)]
    threads: usize,
    /// The learning rate, for the one optimizer chosen by --optimizer
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// The weight decay, for the one optimizer chosen by --optimizer
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// The variance of the parameters before the first step, for KOALA++, KOALA-V or KOALA-M, chosen by --optimizer
    #[arg(long, value_name = "VARIANCE", allow_negative_numbers = true)]
    initial_variance: Option<f64>,
    /// The process noise, for KOALA++, KOALA-V or KOALA-M, chosen by --optimizer
    #[arg(long, value_name = "NOISE", allow_negative_numbers = true)]
    process_noise: Option<f64>,
    /// Scale the gradients down to this norm, that of all together, where theirs is greater
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    clip_norm: Option<f64>,
    /// How the learning rate changes [default: step-decay, but cosine for AdamW without --search]
    #[arg(long, value_enum)]
    schedule: Option<Schedule>,
    /// Before that, choose each optimizer's learning rate from one grid by the mean loss on a validation part of what
    /// there is to train on
    #[arg(long, conflicts_with_all = ["learning_rate", "validation"])]
    search: bool,
    /// The grid for --search [default: 0.001,0.003,0.01,0.03,0.1,0.3,1,3,10]
    #[arg(long, value_name = "RATES", value_delimiter = ',', allow_negative_numbers = true, requires = "search")]
    learning_rates: Vec<f64>,
    /// Test on the validation part instead of the held-out one, to choose settings by
    #[arg(long)]
    validation: bool,
    /// Where to draw the curves
    #[arg(long, value_name = "FILE", default_value = "koala-train.svg")]
    pub plot: PathBuf,
    /// Also write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write a file for each run, as soon as it ends, into this folder
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// After each epoch, write the state of training to this file; for one optimizer and one seed
    #[arg(long, value_name = "FILE", conflicts_with = "search")]
    pub save: Option<PathBuf>,
    /// Go on from such a file, with the other options as they were: the results are those of not having stopped
    #[arg(long, value_name = "FILE", conflicts_with = "search")]
    pub resume: Option<PathBuf>,
    /// Stop after so many epochs, to go on from --save later
    #[arg(long, value_name = "EPOCHS", requires = "save")]
    pub stop_after: Option<NonZeroUsize>,
}

impl Arguments {
    /// What all runs share.
    pub fn plan(&self) -> Result<Plan> {
        let backend = match &self.backend {
            Some(name) => Backend::by_name(name)?,
            None => Backend::from_environment()?,
        };
        let (task, epochs, samples_per_epoch, batch): (Box<dyn Task>, _, _, _) = match (&self.text, &self.data) {
            (Some(file), _) => {
                let shape = Shape::default();
                let text = Text::load(file, shape.context + 1)?;
                (Box::new(Language::new(text, shape)), 5, 2048, 16)
            }
            (None, Some(folder)) => {
                let model = self.model.unwrap_or(Model::Conv);
                (Box::new(Classifier::new(idx::load(folder)?, model)), 5, usize::MAX, 64)
            }
            (None, None) => {
                let model = self.model.unwrap_or(Model::Mlp);
                (Box::new(Classifier::new(digits::load()?, model)), 40, usize::MAX, 32)
            }
        };
        let plan = Plan {
            task: if self.validation { task.validation()? } else { task },
            epochs: self.epochs.map_or(epochs, NonZeroUsize::get),
            samples_per_epoch: self.samples_per_epoch.map_or(samples_per_epoch, NonZeroUsize::get),
            batch: self.batch.map_or(batch, NonZeroUsize::get),
            backend,
            threads: self.threads,
        };
        plan.check()?;
        Ok(plan)
    }

    /// The optimizers, each with the defaults and what was set on the command line.
    pub fn methods(&self, network: Network) -> Result<Vec<(Method, Settings)>> {
        let methods = match &self.optimizer[..] {
            [] => &Method::ALL[..],
            chosen => chosen,
        };
        for (i, method) in methods.iter().enumerate() {
            ensure!(!methods[..i].contains(method), "--optimizer {} is given twice", method.name());
        }
        let single = methods.len() == 1 && self.seeds.get() == 1;
        for (option, file) in [("save", &self.save), ("resume", &self.resume)] {
            ensure!(single || file.is_none(), "--{option} is for one optimizer, chosen by --optimizer, and one seed");
        }
        methods.iter().map(|&method| Ok((method, self.settings(network, method)?))).collect()
    }

    /// A value must be meant for one optimizer only, since none suits two.
    fn settings(&self, network: Network, method: Method) -> Result<Settings> {
        let mut settings = method.defaults(network);
        // What is searched for all is to be compared: one schedule for all.
        let default = if self.search { Schedule::StepDecay } else { settings.schedule };
        settings.schedule = self.schedule.unwrap_or(default);
        if let Some(norm) = self.clip_norm {
            ensure!(norm.is_finite() && norm > 0.0, "--clip-norm is {norm}, which is no finite number above 0");
        }
        settings.clip_norm = self.clip_norm;
        for (option, value, setting) in [
            ("learning-rate", self.learning_rate, Some(&mut settings.learning_rate)),
            ("weight-decay", self.weight_decay, Some(&mut settings.weight_decay)),
            ("initial-variance", self.initial_variance, settings.initial_variance.as_mut()),
            ("process-noise", self.process_noise, settings.process_noise.as_mut()),
        ] {
            let Some(value) = value else { continue };
            ensure!(self.optimizer.len() == 1, "--{option} is for one optimizer: choose it by --optimizer");
            ensure!(
                value.is_finite() && value >= 0.0,
                "--{option} is {value}, which is no finite number of at least 0"
            );
            *setting.with_context(|| format!("{} has no --{option}", method.title()))? = value;
        }
        Ok(settings)
    }

    /// The seeds, one for each run with the same settings.
    pub fn seeds(&self) -> Result<RangeInclusive<u64>> {
        let last = self.seed.checked_add(self.seeds.get() as u64 - 1);
        let last = last.with_context(|| format!("--seeds {}: the seeds end at {}", self.seeds, u64::MAX))?;
        Ok(self.seed..=last)
    }

    /// Whether all that is asked for can be written, so that no training is for nothing.
    pub fn check_outputs(&self) -> Result<()> {
        let plot = Some(("plot", &*self.plot));
        let [json, save, text, resume] =
            [("json", &self.json), ("save", &self.save), ("text", &self.text), ("resume", &self.resume)]
                .map(|(option, file)| file.as_deref().map(|file| (option, file)));
        let distinct = |files: &[Option<(&str, &Path)>]| {
            output::check_distinct(&files.iter().copied().flatten().collect::<Vec<_>>())
        };
        // What a run goes on from may be replaced by where it gets to.
        distinct(&[text, resume, plot, json])?;
        distinct(&[text, save, plot, json])?;
        for (option, file) in [plot, json, save].into_iter().flatten() {
            for data in self.data.iter().flat_map(|folder| idx::places(folder)) {
                output::check_distinct(&[("data", &data), (option, file)])?;
            }
            let is_taken = self.results.as_ref().is_some_and(|folder| record::may_be_of_run(folder, file));
            let path = printable::path(file);
            ensure!(!is_taken, "--{option}: {path}: --results may write a file of such a name there");
        }
        for (_, file) in [plot, json].into_iter().flatten() {
            output::check(file)?;
        }
        if let Some(file) = &self.save {
            checkpoint::check(file)?;
        }
        self.results.as_deref().map_or(Ok(()), record::prepare)
    }

    /// The learning rates to search, if a search was asked for.
    pub fn grid(&self) -> Result<Option<Vec<f64>>> {
        if !self.search {
            return Ok(None);
        }
        for rate in &self.learning_rates {
            ensure!(rate.is_finite() && *rate > 0.0, "--learning-rates has {rate}, which is no finite number above 0");
        }
        Ok(Some(if self.learning_rates.is_empty() { search::GRID.to_vec() } else { self.learning_rates.clone() }))
    }
}
