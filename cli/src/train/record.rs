//! What `koala train` leaves behind as JSON: one file with everything, or one for each run with all that is needed to
//! repeat it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::output::{self, write};
use crate::task::{self, HeldOut, Part};
use crate::train::plan::Plan;
use crate::train::run::Run;
use crate::train::search::Search;

/// The schema's name; one that means something else by the same words has another.
const SCHEMA: &str = "koala-train-1";

/// What all runs of a plan share.
#[derive(Clone, Debug, Serialize)]
pub struct Experiment {
    schema: &'static str,
    /// The version of koala-optim.
    version: &'static str,
    /// When this was written, UTC, as 2026-11-24T08:17:13Z.
    date: String,
    /// Those of the command.
    arguments: Vec<String>,
    data: String,
    /// XXH3 of the data, in hexadecimal digits.
    checksum: String,
    network: &'static str,
    parameters: usize,
    train_samples: usize,
    held_out: &'static str,
    held_out_samples: usize,
    epochs: usize,
    samples_per_epoch: usize,
    batch: usize,
    backend: &'static str,
    threads: usize,
}

impl Experiment {
    fn new(plan: &Plan) -> Experiment {
        Experiment {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            arguments: std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
            data: plan.task.data().to_owned(),
            checksum: plan.checksum(),
            network: plan.task.network().name(),
            parameters: task::size(&plan.task.parameters(0)),
            train_samples: plan.task.count(Part::Train),
            held_out: plan.task.held_out().title(),
            held_out_samples: plan.task.count(Part::HeldOut),
            epochs: plan.epochs,
            samples_per_epoch: plan.samples_of_epoch(),
            batch: plan.batch,
            backend: plan.backend.name(),
            threads: plan.threads,
        }
    }
}

#[derive(Serialize)]
struct Everything<'a> {
    #[serde(flatten)]
    experiment: Experiment,
    runs: &'a [Run],
    /// The search that chose their learning rates.
    search: Option<Searched<'a>>,
}

#[derive(Serialize)]
struct Searched<'a> {
    #[serde(flatten)]
    experiment: Experiment,
    learning_rates: &'a [f64],
    runs: Vec<&'a Run>,
}

#[derive(Serialize)]
struct Single<'a> {
    #[serde(flatten)]
    experiment: Experiment,
    run: &'a Run,
}

/// Writes all runs, and the search before them if there was one.
pub fn write_all(path: &Path, plan: &Plan, runs: &[Run], search: Option<&(Plan, Search)>) -> Result<()> {
    let search = search.map(|(plan, search)| Searched {
        experiment: Experiment::new(plan),
        learning_rates: &search.rates,
        runs: search.runs().collect(),
    });
    write(path, &serde_json::to_vec_pretty(&Everything { experiment: Experiment::new(plan), runs, search })?)
}

/// Makes the folder for the files of single runs if it is not there, and looks whether files can be written into it.
pub fn prepare(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    output::check(&folder.join("run.json"))
}

/// Writes one run into such a folder by a name that says which run it is.
pub fn write_run(folder: &Path, plan: &Plan, run: &Run) -> Result<()> {
    let file = folder.join(file_name(plan.task.data(), plan.task.network().name(), plan.task.held_out(), run));
    write(&file, &serde_json::to_vec_pretty(&Single { experiment: Experiment::new(plan), run })?)
}

/// Such as `uci-digits_mlp_koala_rate-0.1_seed-3_validation.json`.
fn file_name(data: &str, network: &str, held_out: HeldOut, run: &Run) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let data: String = data.chars().map(plain).collect();
    let (rate, seed) = (run.settings.learning_rate, run.seed);
    format!("{data}_{network}_{}_rate-{rate}_seed-{seed}_{}.json", run.optimizer.name(), held_out.title())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::method::Method;
    use crate::train::run::tests::run_with;

    #[test]
    fn names_say_which_run() {
        let run = run_with(Method::AdamW, &[1.0]);
        let name = file_name("A text/of Æ.txt", "transformer", HeldOut::Test, &run);
        assert_eq!(name, "a-text-of-Æ.txt_transformer_adamw_rate-0.01_seed-0_test.json");
    }
}
