//! Where results go: standard output, and files that nobody ever sees half written.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Error, Result, bail};

/// Prints a line. Unlike `println!` it does not panic when the reader has gone.
pub fn say(line: impl Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Whether the reader of the output has gone, as `head` does when it has enough. That is no fault.
pub fn is_closed_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes beside the file and renames.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name() else { bail!("{}: this names no file", path.display()) };
    let part = path.with_file_name(format!(".{}.{}.part", name.display(), std::process::id()));
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .inspect_err(|_| drop(fs::remove_file(&part)))
        .with_context(|| format!("{}: cannot be written", path.display()))
}
