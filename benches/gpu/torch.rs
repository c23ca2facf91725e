//! PyTorch on the same GPU, if there is one: the tests of `ffi/python` that need one, and `torch_steps.py`, which
//! writes a line of JSON for each line of the table.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::plan::Plan;
use crate::table::{Figure, Goal, Outcome, Table};
use crate::tests::{End, limited, logged, out_of_time};

const SECONDS: u64 = 100;
const TESTS_SECONDS: u64 = 60;

pub fn run(plan: &Plan, table: &mut Table) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "PyTorch";
    let Some(script) = plan.part("torch_steps.py", NAME, table) else { return Ok(()) };
    if Command::new("python3").arg("--version").output().is_err() {
        table.note(Outcome::Skipped, NAME, "there is no python3 on the PATH");
        return Ok(());
    }
    let limit = plan.seconds(SECONDS).to_string();
    let mut command = limited(plan, &limit, Path::new("python3"));
    command.arg(script).args(plan.quick.then_some("--quick"));
    let (text, end) = logged(&mut command, &plan.folder.join("torch.log"))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for line in &lines {
        let (name, text) = (string(&line["name"]), string(&line["text"]));
        match (line["outcome"].as_str(), line["value"].as_f64()) {
            (_, Some(value)) => {
                let most = line["at_most"].as_f64().map(Goal::AtMost);
                let goal = most.or(line["at_least"].as_f64().map(Goal::AtLeast));
                table.figure(name, text, Figure { value, goal });
            }
            (Some("skipped"), _) => table.note(Outcome::Skipped, name, text),
            (Some("passed"), _) => table.note(Outcome::Passed, name, text),
            _ => table.note(Outcome::Failed, name, text),
        }
    }
    match end {
        End::OutOfTime => table.note(Outcome::Skipped, NAME, out_of_time(&limit)),
        End::Good if !lines.is_empty() => run_tests(plan, table)?,
        _ => table.note(Outcome::Failed, NAME, "python3 did not end well: see torch.log"),
    }
    Ok(())
}

/// Those that need a GPU, by the pytest of the bundle.
fn run_tests(plan: &Plan, table: &mut Table) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "PyTorch: the tests of the package that need a GPU";
    /// pytest's, if no test was there to run.
    const NO_TEST: &str = "no tests ran";
    let python = plan.folder.join("python");
    let limit = plan.seconds(TESTS_SECONDS).to_string();
    let mut command = limited(plan, &limit, Path::new("python3"));
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "gpu or graph"]).arg(python.join("tests"));
    command.env("PYTHONPATH", &python).env("CUDA_VISIBLE_DEVICES", plan.device.to_string());
    let (text, end) = logged(&mut command, &plan.folder.join("pytest.log"))?;
    let last = text.lines().rev().find(|line| line.contains(" in ")).unwrap_or("see pytest.log");
    let has_run = last.contains(" passed") || last.contains(" failed");
    match end {
        End::OutOfTime => table.note(Outcome::Skipped, NAME, out_of_time(&limit)),
        End::Good if has_run => table.note(Outcome::Passed, NAME, last),
        End::Good => table.note(Outcome::Skipped, NAME, last),
        End::Bad if text.contains(NO_TEST) => table.note(Outcome::Skipped, NAME, last),
        End::Bad => table.note(Outcome::Failed, NAME, format!("{last}: see pytest.log")),
    }
    Ok(())
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
