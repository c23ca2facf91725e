//! Two ways to count the instructions between marks: single steps, which know every instruction that the processor
//! knows (valgrind has no AVX-512) and need nothing installed, and an emulator's log for processors that are not there.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::parts;

/// The options by which this program runs the parts instead of counting them.
pub const PARTS: &str = "--parts";
pub const TRACED_PARTS: &str = "--traced-parts";

/// Counts each part, one instruction at a time.
pub fn by_single_steps() -> Result<Vec<u64>, Box<dyn Error>> {
    let child = Command::new(std::env::current_exe()?).arg(TRACED_PARTS).spawn()?;
    let child = Pid::from_raw(child.id().try_into()?);
    let mut counter = Counter::default();
    loop {
        match waitpid(child, None)? {
            WaitStatus::Stopped(_, parts::MARK) => counter.mark(),
            WaitStatus::Stopped(_, Signal::SIGTRAP) => counter.instruction(),
            WaitStatus::Exited(_, 0) => return Ok(counter.counts),
            other => return Err(format!("the process that runs the parts did not end as it should: {other:?}").into()),
        }
        if counter.running.is_some() { ptrace::step(child, None)? } else { ptrace::cont(child, None)? }
    }
}

/// Lets the parent count.
pub fn run_traced_parts() -> Result<(), Box<dyn Error>> {
    ptrace::traceme().map_err(|error| format!("this system lets no program be traced by its parent: {error}"))?;
    parts::run();
    Ok(())
}

/// Counts each part in the log of an emulator that writes a line that begins with "Trace" for every instruction and
/// one that names the signal for every mark.
pub fn in_log_of(emulator: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut words = emulator.split_whitespace();
    let mut child = Command::new(words.next().ok_or("the emulator's command is empty")?)
        .args(words)
        .arg(std::env::current_exe()?)
        .arg(PARTS)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut log = BufReader::new(child.stderr.take().ok_or("the emulator has no log")?);
    let mut counter = Counter::default();
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(b"Trace") {
            counter.instruction();
        } else if line.windows(6).any(|word| word == b"SIGURG") {
            counter.mark();
        }
        line.clear();
    }
    match child.wait()? {
        status if status.success() => Ok(counter.counts),
        status => Err(format!("the emulator ended with {status}").into()),
    }
}

#[derive(Default)]
struct Counter {
    /// The instructions of the part that runs, if one does.
    running: Option<u64>,
    counts: Vec<u64>,
}

impl Counter {
    fn mark(&mut self) {
        match self.running.take() {
            None => self.running = Some(0),
            Some(count) => self.counts.push(count),
        }
    }

    fn instruction(&mut self) {
        if let Some(count) = &mut self.running {
            *count += 1;
        }
    }
}
