//! PyTorch on the same GPU, if there is one: `torch_steps.py` writes a line of JSON for each line of the table.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Plan;
use crate::table::{Figure, Goal, Outcome, Table};
use crate::tests::{limited, logged};

const SECONDS: u64 = 100;

pub fn run(plan: &Plan, table: &mut Table) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "PyTorch";
    let script = plan.folder.join("torch_steps.py");
    if !script.exists() {
        table.note(Outcome::Skipped, NAME, format!("{} is not there", script.display()));
        return Ok(());
    }
    if Command::new("python3").arg("--version").output().is_err() {
        table.note(Outcome::Skipped, NAME, "there is no python3 on the PATH");
        return Ok(());
    }
    let limit = plan.seconds(SECONDS).to_string();
    let mut command = limited(plan, &limit, Path::new("python3"));
    command.arg(script).args(plan.quick.then_some("--quick"));
    let (text, good) = logged(&mut command, &plan.folder.join("torch.log"))?;
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
    if !good || lines.is_empty() {
        let text = format!("python3 did not end well within {limit} s: see torch.log");
        table.note(Outcome::Failed, NAME, text);
    }
    Ok(())
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
