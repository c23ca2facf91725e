//! Checkpoints of a run: the parameters, the optimizer with its state, and the record so far, so that a run which goes on
//! from one ends with the same bits as one that never stopped.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use koala_optim::checkpoint::{Checkpoint, Loading, can_replace};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::output;
use crate::printable;
use crate::train::method::{Method, Settings};
use crate::train::outcome::Run;
use crate::train::plan::Plan;
use crate::train::run::Training;

/// The key of the note with all that is neither a parameter nor of the optimizer.
const NOTE: &str = "koala-train";

/// That note.
#[derive(Serialize, Deserialize)]
struct Note {
    /// What must be the same for the run to go on.
    plan: Value,
    run: Run,
}

/// Whether [`save`] can write this file.
pub fn check(path: &Path) -> Result<()> {
    let named = printable::path(path);
    can_replace(path).with_context(|| format!("{named}: cannot be written"))?;
    ensure!(!output::is_printed_to(path), "{named}: standard output goes there, and --save would replace it");
    Ok(())
}

/// Writes a run as it is between two epochs. Whoever reads the file meanwhile finds the last one, whole.
pub fn save(training: &Training, path: &Path) -> Result<()> {
    let note = Note { plan: training.plan.identity(), run: training.run.clone() };
    let mut checkpoint = Checkpoint::of(&training.stepper.optimizer).with_note(NOTE, serde_json::to_string(&note)?);
    for parameter in &training.parameters {
        checkpoint = checkpoint.with_tensor(&parameter.name, &parameter.shape, &parameter.values)?;
    }
    Ok(checkpoint.write(path)?)
}

/// Goes on from such a file, which must be of this run.
pub fn resume<'a>(plan: &'a Plan, method: Method, settings: Settings, seed: u64, path: &Path) -> Result<Training<'a>> {
    let checkpoint = Checkpoint::read(path)?;
    let mut training = Training::new(plan, method, settings, seed)?;
    let note = checkpoint.note(NOTE).with_context(|| format!("{}: it is not by koala train", printable::path(path)))?;
    let Note { plan: saved, run } =
        serde_json::from_str(note).with_context(|| format!("{}: what it says of the run", printable::path(path)))?;
    compare(&plan.identity(), &saved).with_context(|| printable::path(path))?;
    let told = |run: &Run| -> Result<String> {
        let settings = serde_json::to_string(&run.settings)?;
        Ok(format!("{} with seed {} and {settings}", run.optimizer.title(), run.seed))
    };
    let (expected, found) = (told(&training.run)?, told(&run)?);
    ensure!(expected == found, "{}: it is of a run of {found}, not {expected}", printable::path(path));
    run.check(plan, training.parameters.len()).with_context(|| printable::path(path))?;

    for parameter in &mut training.parameters {
        parameter.values = checkpoint.tensor(&parameter.name, &parameter.shape)?;
    }
    checkpoint.restore(&mut training.stepper.optimizer, Loading::Exact)?;
    training.go_on_from(run);
    Ok(training)
}

/// Whether what was saved is what is now: the first difference is the error.
fn compare(expected: &Value, found: &Value) -> Result<()> {
    for (name, expected) in expected.as_object().into_iter().flatten() {
        ensure!(expected == &found[name], "it is of a run whose {name} is {}, not {expected}", found[name]);
    }
    Ok(())
}
