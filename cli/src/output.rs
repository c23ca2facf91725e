//! Where results go: standard output, and files that nobody ever sees half written; and where the rest goes.

use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use koala_optim::checkpoint::{can_replace, replace, target};

use crate::printable;

/// Prints a line. Unlike `println!` it does not panic when the reader has gone.
pub fn say(line: impl Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{}", printable::lines(&line.to_string()))?)
}

/// Writes a line to standard error, where progress and the like goes. Nobody has to read it.
pub fn log(line: impl Display) {
    drop(writeln!(io::stderr(), "{}", printable::lines(&line.to_string())));
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

/// What a path leads to.
enum Target {
    /// Nothing yet, or a regular file: it is replaced, links to it are followed, and its permissions stay.
    File,
    /// A device such as a terminal, or a FIFO: it is written to.
    Stream,
    /// Whatever standard output is: a file that is being written to must not be replaced.
    StandardOutput,
}

impl Target {
    fn of(path: &Path) -> Result<Target> {
        let named = || printable::path(path);
        ensure!(path.file_name().is_some(), "{}: this names no file", named());
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => bail!("{}: this is a folder", named()),
            Ok(found) if is_standard_output(&found) => Ok(Target::StandardOutput),
            Ok(found) if is_stream(&found) => Ok(Target::Stream),
            Ok(found) if found.is_file() => Ok(Target::File),
            Ok(_) => bail!("{}: this is neither a file nor a device or FIFO that takes text", named()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Target::File),
            Err(error) => Err(error).with_context(|| cannot_be_written(path)),
        }
    }
}

/// Whether what is printed goes to this file.
pub fn is_printed_to(path: &Path) -> bool {
    matches!(Target::of(path), Ok(Target::StandardOutput))
}

/// Whether [`write()`] can write this file: to be asked before the work whose result it is to hold.
pub fn check(path: &Path) -> Result<()> {
    match Target::of(path)? {
        Target::File => can_replace(path).with_context(|| cannot_be_written(path)),
        Target::Stream | Target::StandardOutput => Ok(()),
    }
}

/// Writes a file, [all of it or nothing](koala_optim::checkpoint#how-it-is-written); or to what is no file, as it is.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match Target::of(path)? {
        Target::File => replace(path, |out| out.write_all(bytes)),
        Target::Stream => File::options().write(true).open(path).and_then(|mut stream| stream.write_all(bytes)),
        Target::StandardOutput => match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
            // As `tell` has it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        },
    };
    // As a text: that a FIFO's reader has gone is a fault, other than that standard output's has.
    written.map_err(|error| anyhow!("{}: {error}", cannot_be_written(path)))
}

/// Whether all of these paths, each with the option that it was given by, lead to different files: two results in one
/// file would be none.
pub fn check_distinct(files: &[(&str, &Path)]) -> Result<()> {
    for (i, (option, path)) in files.iter().enumerate() {
        let place = Place::of(path);
        let same = files[..i].iter().find(|(_, earlier)| place.is_some() && Place::of(earlier) == place);
        if let Some((earlier, _)) = same {
            bail!("--{earlier} and --{option} lead to the same file, {}", printable::path(path));
        }
    }
    Ok(())
}

/// By what two paths to the same file are known.
#[derive(PartialEq)]
enum Place {
    Path(PathBuf),
    /// A file system's number, and that of the file there.
    #[cfg(unix)]
    Number(u64, u64),
}

impl Place {
    /// None for a device: whoever sends two results to a terminal, or to nowhere, means it. None too for what is nowhere,
    /// which is another error.
    fn of(path: &Path) -> Option<Place> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => number(&found),
            _ => target(path).ok().map(|(place, _)| Place::Path(place)),
        }
    }
}

#[cfg(unix)]
fn number(found: &Metadata) -> Option<Place> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    (!found.file_type().is_char_device()).then(|| Place::Number(found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> Option<Place> {
    None
}

#[cfg(unix)]
fn is_stream(found: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_char_device() || found.file_type().is_fifo()
}

#[cfg(not(unix))]
fn is_stream(found: &Metadata) -> bool {
    !found.is_file()
}

#[cfg(unix)]
fn is_standard_output(found: &Metadata) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let own = io::stdout().as_fd().try_clone_to_owned().and_then(|own| File::from(own).metadata());
    own.is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn is_standard_output(_: &Metadata) -> bool {
    false
}

fn cannot_be_written(path: &Path) -> String {
    format!("{}: cannot be written", printable::path(path))
}
