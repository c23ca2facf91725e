//! What `koala train` leaves behind as JSON: one file with everything, or one for each run with all that is needed to
//! repeat it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use koala_optim::checkpoint::target;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::output::{self, write};
use crate::printable;
use crate::task::{self, Part};
use crate::train::outcome::Run;
use crate::train::plan::Plan;
use crate::train::search::Search;
use crate::train::summary::rate_text;

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
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", printable::path(folder)))?;
    output::check(&folder.join("run.json"))
}

/// Writes one run into such a folder by a name that says which run it is.
pub fn write_run(folder: &Path, plan: &Plan, run: &Run) -> Result<()> {
    let file = folder.join(file_name(plan, run)?);
    write(&file, &serde_json::to_vec_pretty(&Single { experiment: Experiment::new(plan), run })?)
}

/// Such as `uci-digits_mlp_koala_rate-0.1_seed-3_validation_5e0c1f27.json`. The last part stands for all that the others
/// leave out, so that only the same run has the same name.
fn file_name(plan: &Plan, run: &Run) -> Result<String> {
    let plain = |c: char| if c.is_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    // Names may have 255 bytes, and a character four of them.
    let data: String = plan.task.data().chars().take(32).map(plain).collect();
    let (network, held_out) = (plan.task.network().name(), plan.task.held_out().title());
    let (optimizer, rate) = (run.optimizer.name(), rate_text(run.settings.learning_rate));
    let rest = (plan.identity(), plan.backend.name(), plan.threads, &run.method, run.settings, run.stopped);
    let rest = xxh3_64(&serde_json::to_vec(&rest)?) as u32;
    Ok(format!("{data}_{network}_{optimizer}_rate-{rate}_seed-{}_{held_out}_{rest:08x}.json", run.seed))
}

/// Whether a path leads into such a folder, to a name that ends as the runs' do.
pub fn may_be_of_run(folder: &Path, path: &Path) -> bool {
    let (Ok(folder), Ok((place, _))) = (folder.canonicalize(), target(path)) else { return false };
    let name = place.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let sum = name.strip_suffix(".json").and_then(|stem| stem.rsplit_once('_'));
    let is_sum = |text: &str| text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    place.parent() == Some(&folder) && sum.is_some_and(|(_, sum)| is_sum(sum))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use koala_optim::Backend;

    use super::*;
    use crate::task::classifier::{Classifier, Model};
    use crate::task::digits;
    use crate::task::images::Data;
    use crate::train::method::{Method, Settings};
    use crate::train::outcome::tests::run_with;
    use crate::train::schedule::Schedule;

    fn plan(name: &str) -> Result<Plan> {
        let task = Box::new(Classifier::new(Data { name: name.to_owned(), ..digits::load()? }, Model::Mlp));
        Ok(Plan { task, epochs: 40, samples_per_epoch: 100, batch: 32, backend: Backend::scalar(), threads: 1 })
    }

    #[test]
    fn names_say_which_run() -> Result<()> {
        let name = file_name(&plan("A text/of Æ.txt")?, &run_with(Method::AdamW, &[1.0]))?;
        let (start, end) = name.split_at(name.len() - 13);
        assert_eq!(start, "a-text-of-Æ.txt_mlp_adamw_rate-0.01_seed-0_test_");
        assert!(end.ends_with(".json") && end[..8].chars().all(|digit| digit.is_ascii_hexdigit()), "{end}");
        Ok(())
    }

    #[test]
    fn runs_that_differ_have_names_that_do() -> Result<()> {
        let (run, other) = (run_with(Method::Koala, &[1.0]), digits::load()?.validation()?);
        let settings = run.settings;
        let mut names = BTreeSet::new();
        for settings in [
            settings,
            Settings { learning_rate: 0.5, ..settings },
            Settings { schedule: Schedule::Cosine, ..settings },
            Settings { weight_decay: 0.1, ..settings },
            Settings { initial_variance: Some(0.1), ..settings },
            Settings { process_noise: Some(0.1), ..settings },
            Settings { clip_norm: Some(1.0), ..settings },
        ] {
            names.insert(file_name(&plan("digits")?, &Run { settings, ..run.clone() })?);
        }
        for run in [
            Run { seed: 1, ..run.clone() },
            Run { stopped: true, ..run.clone() },
            Run { optimizer: Method::KoalaV, ..run.clone() },
        ] {
            names.insert(file_name(&plan("digits")?, &run)?);
        }
        for plan in [
            Plan { epochs: 41, ..plan("digits")? },
            Plan { samples_per_epoch: 101, ..plan("digits")? },
            Plan { batch: 33, ..plan("digits")? },
            Plan { threads: 2, ..plan("digits")? },
            Plan { backend: Backend::portable(), ..plan("digits")? },
            Plan { task: Box::new(Classifier::new(digits::load()?, Model::Conv)), ..plan("digits")? },
            Plan {
                task: Box::new(Classifier::new(Data { name: "digits".to_owned(), ..other }, Model::Mlp)),
                ..plan("")?
            },
        ] {
            names.insert(file_name(&plan, &run)?);
        }
        assert_eq!(names.len(), 7 + 3 + 7, "{names:?}");
        // What was measured, and when, makes no other run.
        let again = Run { microseconds_per_step: 9.0, ..run };
        assert!(names.contains(&file_name(&plan("digits")?, &again)?));
        Ok(())
    }

    /// With the ending of the file that is written first, no more than a file system takes.
    #[test]
    fn names_are_never_too_long() -> Result<()> {
        let mut run = Run { seed: u64::MAX, ..run_with(Method::Nesterov, &[1.0]) };
        for rate in [1e-300, 1e300, 1.0 / 3.0] {
            run.settings.learning_rate = rate;
            let name = file_name(&plan(&"𝔄".repeat(300))?, &run)?;
            assert!(name.len() < 255 - ".part".len() - 12, "{name}");
        }
        Ok(())
    }
}
