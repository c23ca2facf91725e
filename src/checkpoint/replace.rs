//! Writes a file so that its name leads to the old contents or to the new ones at any time, never to a part.
//!
//! The new contents are in a temporary file at first, `.koala-HASH-*.tmp` with a hash of the file's name: so names of
//! any length that a file system takes can be saved to, and what a killed process left is known by its name to be of this
//! file. It is locked while it is written: the system gives up the lock with the process, however that ends.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};
use xxhash_rust::xxh3::xxh3_64;

const SUFFIX: &str = ".tmp";

/// Replaces the file, or makes it, by what `write` writes. After an error nothing is left of that, but for the error of
/// a folder that cannot be synchronized.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let (target, old) = target(path)?;
    remove_leftovers(&target);
    // From here on, it is removed by whatever returns.
    let file = make_temporary(&target, old.is_some())?;

    let mut out = BufWriter::new(file.as_file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    if let Some(old) = old {
        make_like(file.as_file(), &old)?;
    }
    file.as_file().sync_all()?;
    file.persist(&target)?;
    // A rename is on the disk when its folder is.
    #[cfg(unix)]
    File::open(folder(&target))?.sync_all()?;
    Ok(())
}

/// Whether a file can be replaced, or made: to be asked before the work whose result it is to hold.
pub fn can_replace(path: &Path) -> io::Result<()> {
    make_temporary(&target(path)?.0, true).map(drop)
}

/// An error unless that is what a checkpoint can be read from, and replaced by. To open anything else may wait for ever.
pub fn check_regular(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// The place that a path leads to, links followed, and what is there: the same for all paths to one file.
pub fn target(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    match fs::metadata(path) {
        Ok(old) => {
            check_regular(&old)?;
            Ok((fs::canonicalize(path)?, Some(old)))
        }
        // Nothing is there yet. A link that leads there is followed by hand; those in a circle are another error.
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_link(path) {
            Ok(next) => target(&path.parent().unwrap_or(path).join(next)),
            Err(_) => Ok((place_of_new(path)?.ok_or(error)?, None)),
        },
        Err(error) => Err(error),
    }
}

/// Where a file would be that is not there yet. None if the path is not that of a file.
fn place_of_new(path: &Path) -> io::Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default();
    // With a separator after it, it is the name of a folder.
    if name.is_empty() || !path.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes()) {
        return Ok(None);
    }
    Ok(Some(fs::canonicalize(folder(path))?.join(name)))
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What the names of all temporary files for this one begin with.
fn prefix(file: &Path) -> String {
    format!(".koala-{:016x}-", xxh3_64(file.file_name().unwrap_or_default().as_encoded_bytes()))
}

/// A new file that is locked. What is to replace another file is private until it has that file's permissions; what is
/// new has those of any file: the user's mask takes from them what others may not do.
fn make_temporary(target: &Path, is_private: bool) -> io::Result<NamedTempFile> {
    let prefix = prefix(target);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(if is_private { 0o600 } else { 0o666 }));
    #[cfg(not(unix))]
    let _ = is_private;
    loop {
        let file = builder.tempfile_in(folder(target))?;
        // Where files cannot be locked, nobody can take it for a leftover.
        let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        // Before it was locked, somebody else may have removed it as one.
        if !is_taken && file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the temporary files of processes that were killed. What cannot be removed stays: that is no reason not to save.
fn remove_leftovers(target: &Path) {
    let Ok(entries) = fs::read_dir(folder(target)) else { return };
    let prefix = prefix(target);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_ours = name.starts_with(prefix.as_bytes()) && name.ends_with(SUFFIX.as_bytes());
        if is_ours
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::options().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            // Still locked: so who has just made it, and not locked it yet, sees that it is gone.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives a file the permissions of another one, and its owner and group where the system lets this user do that.
fn make_like(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let (owner, group) = (Some(old.uid()), Some(old.gid()));
        // Mostly only root may give files away, and others may do so to a group of theirs.
        let _ = fchown(file, owner, group).or_else(|_| fchown(file, None, group));
    }
    file.set_permissions(old.permissions())
}
