//! The tests on the GPU, which are executables beside this program: a line for each test.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::plan::Plan;
use crate::table::{Outcome, Table};

/// The bits, steps among graphs, numbers on the device, the driver's refusals, and a device that is not there.
const TESTS: [&str; 7] =
    ["bits::", "driver::", "graphs::", "numbers::", "scaling::", "steps::", "host::a_device_that_is_not_there"];

/// Those that take no minute where a processor stands for the GPU.
const QUICK_TESTS: [&str; 7] = [
    "bits::skipped",
    "bits::steps_of_a_graph",
    "driver::",
    "graphs::a_graph_keeps_its_gradients",
    "host::a_device_that_is_not_there",
    "numbers::",
    "steps::some_tensors_in_any_order",
];

/// Those that a sanitizer, under which all is slow, looks at: every kernel, each type, and addresses that change.
const SANITIZED_TESTS: [&str; 3] =
    ["bits::skipped", "graphs::a_graph_keeps_its_gradients", "steps::some_tensors_in_any_order"];

const SANITIZERS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];

/// Which needs that many bytes of the device's memory, more than the stub driver has.
const LARGE: &str = "more_than_2_to_the_31_elements";
const LARGE_BYTES: usize = 18 << 30;

/// The shim is not there.
const NOT_HERE: &str = "the_shim";

/// What all tests are given at most, and those under each sanitizer.
const SECONDS: u64 = 150;
const SANITIZER_SECONDS: u64 = 40;

pub fn run(plan: &Plan, table: &mut Table, memory_bytes: usize) -> io::Result<()> {
    let Some(program) = plan.part("tests", "all tests", table) else { return Ok(()) };
    let tests = if plan.quick { &QUICK_TESTS[..] } else { &TESTS };
    let limit = plan.seconds(SECONDS).to_string();
    let mut command = limited(plan, &limit, &program);
    // One after the other: so a failure tells whose it is.
    command.args(tests).args(["--include-ignored", "--test-threads=1", "--skip", NOT_HERE]);
    if plan.quick || memory_bytes < LARGE_BYTES {
        command.args(["--skip", LARGE]);
        let why = if plan.quick { "--quick" } else { "it takes 18 GiB of the device's memory" };
        table.note(Outcome::Skipped, format!("driver: a tensor of {}", LARGE.replace('_', " ")), why);
    }
    let (text, end) = logged(&mut command, &plan.folder.join("tests.log"))?;
    let mut count = 0;
    for (name, outcome) in text.lines().filter_map(test_line) {
        count += 1;
        let text = if outcome == Outcome::Failed { "see tests.log" } else { "" };
        table.note(outcome, name.replace("::", ": ").replace('_', " "), text);
    }
    match end {
        End::OutOfTime => table.note(Outcome::Skipped, "the other tests", out_of_time(&limit)),
        End::Bad if table.is_good() => table.note(Outcome::Failed, "all tests have run", "see tests.log"),
        End::Good if count == 0 => table.note(Outcome::Failed, "all tests have run", "there were none: see tests.log"),
        _ => {}
    }
    Ok(())
}

pub fn run_under_sanitizer(plan: &Plan, table: &mut Table) -> io::Result<()> {
    const TOOL: &str = "compute-sanitizer";
    let name = |tool: &str| format!("bits, under {TOOL}'s {tool}");
    if Command::new(TOOL).arg("--version").output().is_err() {
        table.note(Outcome::Skipped, name("tools"), format!("there is no {TOOL} on the PATH"));
        return Ok(());
    }
    for tool in SANITIZERS {
        let limit = plan.seconds(SANITIZER_SECONDS).to_string();
        let log = format!("{tool}.log");
        let mut command = limited(plan, &limit, Path::new(TOOL));
        command.args(["--tool", tool, "--error-exitcode", "9"]).arg(plan.folder.join("tests"));
        command.args(SANITIZED_TESTS).args(["--include-ignored", "--test-threads=1", "--skip", NOT_HERE]);
        match logged(&mut command, &plan.folder.join(&log))?.1 {
            End::Good => table.note(Outcome::Passed, name(tool), ""),
            End::OutOfTime => table.note(Outcome::Skipped, name(tool), out_of_time(&limit)),
            End::Bad => table.note(Outcome::Failed, name(tool), format!("see {log}")),
        }
    }
    Ok(())
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Good,
    Bad,
    OutOfTime,
}

pub fn out_of_time(seconds: &str) -> String {
    format!("out of time, after {seconds} s")
}

/// A program that is ended after so many seconds.
pub fn limited(plan: &Plan, seconds: &str, program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", seconds]).arg(program).env("KOALA_CUDA_DEVICE", plan.device.to_string());
    command
}

/// What it writes, which goes into a file too; and how it ended. `timeout` says by 124 or 137 that it ended it.
pub fn logged(command: &mut Command, log: &Path) -> io::Result<(String, End)> {
    let output = command.output()?;
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    std::fs::write(log, format!("{command:?}\n{text}{}\n", output.status))?;
    let end = match output.status.code() {
        Some(0) => End::Good,
        Some(124 | 137) => End::OutOfTime,
        _ => End::Bad,
    };
    Ok((text, end))
}

/// A test's name and outcome, if the line has them.
fn test_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name, if outcome == "ok" { Outcome::Passed } else { Outcome::Failed }))
}
