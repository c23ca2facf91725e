//! Runs the command anew in another environment, since changing that of a process that runs already is unsafe.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, io};

use anyhow::{Context, Result};

/// Returns none where the variable has this value. Where it has not, the command runs anew with it, and what is returned
/// is how that ended; on Unix this never returns then, as the same process goes on as the other.
pub fn with_variable(name: &str, value: &str) -> Result<Option<ExitCode>> {
    if env::var_os(name).is_some_and(|found| found == value) {
        return Ok(None);
    }
    let mut command = Command::new(this_program().context("where this program lies")?);
    command.args(env::args_os().skip(1)).env(name, value);
    run(command).map(Some).context("this program can not be started anew")
}

/// The program's path; where Linux has no /proc, which tells it, the name that the program was called by.
fn this_program() -> io::Result<PathBuf> {
    env::current_exe().or_else(|error| env::args_os().next().map(PathBuf::from).ok_or(error))
}

#[cfg(unix)]
fn run(mut command: Command) -> io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn run(mut command: Command) -> io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
