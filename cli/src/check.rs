//! `koala check`: recorded trajectories on every backend of this machine, in every precision.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use koala_optim::{Backend, Error, Threads};
use koala_trajectory::{Errors, Precision, Trajectory, embedded, run};
use serde::Serialize;

use crate::output::{log, say};
use crate::{input, printable};

/// The longest file that is read.
const MOST_BYTES: u64 = 1 << 30;

/// Check this machine's backends against recorded trajectories
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Files in the format koala-trajectory-1, plain or gzipped [default: a set that is part of the program]
    files: Vec<PathBuf>,
    /// Print everything that was measured as JSON
    #[arg(long)]
    json: bool,
}

/// All that a check found.
#[derive(Serialize)]
struct Record {
    passed: bool,
    backends: Vec<&'static str>,
    files: Vec<File>,
}

/// What it found out about one file.
#[derive(Serialize)]
struct File {
    file: String,
    precisions: Vec<Measured>,
    failures: Vec<String>,
}

/// One file in one precision: the worst of all backends.
#[derive(Serialize)]
struct Measured {
    precision: &'static str,
    tolerance: Option<f64>,
    theta: f64,
    v: f64,
    s: f64,
    r: f64,
    backends_agree: bool,
}

/// Runs the command. False if anything failed.
pub fn execute(arguments: &Arguments) -> Result<bool> {
    let backends = Backend::present();
    let files: Vec<File> = if arguments.files.is_empty() {
        embedded().map(|(name, trajectory)| check(name.to_owned(), &trajectory, &backends)).collect()
    } else {
        let checked = arguments.files.iter().map(|path| match read(path) {
            Ok(trajectory) => check(printable::path(path), &trajectory, &backends),
            Err(error) => {
                File { file: printable::path(path), precisions: Vec::new(), failures: vec![error.to_string()] }
            }
        });
        checked.collect()
    };
    let record = Record {
        passed: files.iter().all(|file| file.failures.is_empty()),
        backends: backends.iter().map(Backend::name).collect(),
        files,
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&record)?)?;
    } else {
        print(&record)?;
    }
    Ok(record.passed)
}

fn read(path: &Path) -> Result<Trajectory> {
    Ok(Trajectory::parse(&input::read(path, MOST_BYTES)?)?)
}

fn check(file: String, trajectory: &Trajectory, backends: &[Backend]) -> File {
    let (mut precisions, mut failures) = (Vec::new(), Vec::new());
    for precision in Precision::ALL {
        match measure(trajectory, precision, backends, &mut failures) {
            Ok(measured) => precisions.push(measured),
            Err(error) => failures.push(format!("{}: {error}", precision.name())),
        }
    }
    File { file, precisions, failures }
}

fn measure(
    trajectory: &Trajectory,
    precision: Precision,
    backends: &[Backend],
    failures: &mut Vec<String>,
) -> Result<Measured, Error> {
    let reference = run(trajectory, Backend::scalar(), precision, Threads::One)?;
    let mut worst = reference.errors;
    let mut backends_agree = true;
    for &backend in backends {
        let run = run(trajectory, backend, precision, Threads::One)?;
        worst = worst.max(run.errors);
        if run != reference {
            backends_agree = false;
            failures.push(format!("{}: {} differs from scalar", precision.name(), backend.name()));
        }
    }
    let Errors { theta, v, s, r } = worst;
    let tolerance = precision.tolerance();
    for (quantity, error) in [("theta", theta), ("v", v), ("s", s), ("r", r)] {
        if let Some(tolerance) = tolerance.filter(|&tolerance| error > tolerance) {
            failures.push(format!("{}: {quantity} is off by {error:.1e}, more than {tolerance:.0e}", precision.name()));
        }
    }
    Ok(Measured { precision: precision.name(), tolerance, theta, v, s, r, backends_agree })
}

fn print(record: &Record) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let names = Precision::ALL.map(|precision| match precision.tolerance() {
        Some(tolerance) => format!("{}\n(to {tolerance:.0e})", precision.name()),
        None => precision.name().replace(", ", ",\n"),
    });
    table.set_header(["file".to_owned()].into_iter().chain(names).chain(["backends\nagree".to_owned()]));
    for file in &record.files {
        let cell =
            |measured: &Measured| format!("{:.1e}", measured.theta.max(measured.v).max(measured.s).max(measured.r));
        let agree = match &file.precisions[..] {
            [] => "not run",
            all if all.iter().all(|measured| measured.backends_agree) => "to the bit",
            _ => "NO",
        };
        let mut cells = vec![file.file.clone()];
        cells.extend(file.precisions.iter().map(cell));
        cells.resize(Precision::ALL.len() + 1, "-".to_owned());
        cells.push(agree.to_owned());
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say("Largest error of theta, v, s and r against float64, relative to the largest entry of each.")?;
    say(table)?;
    say(format_args!("Backends: {}.", record.backends.join(", ")))?;
    for file in &record.files {
        for failure in &file.failures {
            log(format_args!("{}: {failure}", file.file));
        }
    }
    say(if record.passed { "Everything is in order." } else { "FAILED." })
}
