//! The tests on the GPU, which are executables beside this program: a line for each test.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::Plan;
use crate::table::{Outcome, Table};

/// The bits, the driver's refusals, and a device that is not there.
const TESTS: [&str; 3] = ["bits::", "driver::", "host::a_device_that_is_not_there"];

/// Those that take no minute where a processor stands for the GPU.
const QUICK_TESTS: [&str; 4] =
    ["bits::skipped", "bits::steps_of_a_graph", "driver::", "host::a_device_that_is_not_there"];

/// The shim is not there.
const NOT_HERE: &str = "the_shim";

/// What each run of the tests is given at most.
const SECONDS: u64 = 150;

pub fn run(plan: &Plan, table: &mut Table) -> io::Result<()> {
    let program = plan.folder.join("tests");
    if !program.exists() {
        table.note(Outcome::Skipped, "all tests", format!("{} is not there", program.display()));
        return Ok(());
    }
    let tests = if plan.quick { &QUICK_TESTS[..] } else { &TESTS };
    let limit = plan.seconds(SECONDS).to_string();
    let mut command = limited(plan, &limit, &program);
    // One after the other: so a failure tells whose it is.
    command.args(tests).args(["--include-ignored", "--test-threads=1", "--skip", NOT_HERE]);
    let (text, good) = logged(&mut command, &plan.folder.join("tests.log"))?;
    let mut count = 0;
    for (name, outcome) in text.lines().filter_map(test_line) {
        count += 1;
        let text = if outcome == Outcome::Failed { "see tests.log" } else { "" };
        table.note(outcome, name.replace("::", ": ").replace('_', " "), text);
    }
    if !good && table.is_good() || count == 0 {
        let text = format!("it did not end well within {limit} s: see tests.log");
        table.note(Outcome::Failed, "all tests have run", text);
    }
    Ok(())
}

pub fn run_under_sanitizer(plan: &Plan, table: &mut Table) -> io::Result<()> {
    const TOOL: &str = "compute-sanitizer";
    let name = |tool: &str| format!("bits, under {TOOL}'s {tool}");
    if Command::new(TOOL).arg("--version").output().is_err() {
        table.note(Outcome::Skipped, name("memcheck"), format!("there is no {TOOL} on the PATH"));
        return Ok(());
    }
    for (tool, tests) in [("memcheck", "bits::"), ("racecheck", "bits::every_type_and_length")] {
        let limit = plan.seconds(SECONDS).to_string();
        let log = format!("{tool}.log");
        let mut command = limited(plan, &limit, Path::new(TOOL));
        command.args(["--tool", tool, "--error-exitcode", "9"]).arg(plan.folder.join("tests"));
        command.args([tests, "--include-ignored", "--test-threads=1", "--skip", NOT_HERE]);
        let (_, good) = logged(&mut command, &plan.folder.join(&log))?;
        match good {
            true => table.note(Outcome::Passed, name(tool), ""),
            false => table.note(Outcome::Failed, name(tool), format!("or more than {limit} s: see {log}")),
        }
    }
    Ok(())
}

/// A program that is ended after so many seconds.
pub fn limited(plan: &Plan, seconds: &str, program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", seconds]).arg(program).env("KOALA_CUDA_DEVICE", plan.device.to_string());
    command
}

/// What it writes, which goes into a file too; and whether it ended well.
pub fn logged(command: &mut Command, log: &Path) -> io::Result<(String, bool)> {
    let output = command.output()?;
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    std::fs::write(log, format!("{command:?}\n{text}{}\n", output.status))?;
    Ok((text, output.status.success()))
}

/// A test's name and outcome, if the line has them.
fn test_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name, if outcome == "ok" { Outcome::Passed } else { Outcome::Failed }))
}
