//! Where results go: standard output, and files that nobody ever sees half written; and where the rest goes.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Error, Result, bail, ensure};

/// Prints a line. Unlike `println!` it does not panic when the reader has gone.
pub fn say(line: impl Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Writes a line to standard error, where progress and the like goes. Nobody has to read it.
pub fn log(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Whether the reader of the output has gone, as `head` does when it has enough. That is no fault.
pub fn is_closed_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The same for a command that goes on when the reader has gone, since there are files to be written.
pub fn tell(line: impl Display) -> Result<()> {
    match say(line) {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        told => told,
    }
}

/// Whether [`write()`] can write this file: to be asked before the work whose result it is to hold.
pub fn check(path: &Path) -> Result<()> {
    let part = beside(path)?;
    ensure!(!path.is_dir(), "{}: this is a folder", path.display());
    fs::write(&part, []).and_then(|()| fs::remove_file(&part)).with_context(|| cannot_be_written(path))
}

/// Writes beside the file and renames.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = beside(path)?;
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .inspect_err(|_| drop(fs::remove_file(&part)))
        .with_context(|| cannot_be_written(path))
}

fn beside(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else { bail!("{}: this names no file", path.display()) };
    Ok(path.with_file_name(format!(".{}.{}.part", name.display(), std::process::id())))
}

fn cannot_be_written(path: &Path) -> String {
    format!("{}: cannot be written", path.display())
}
