//! Writes a file so that its name leads to the old contents or to the new ones at any time, never to a part.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// Replaces the file, or makes it, by what `write` writes. After an error nothing is left of that, but for the error of
/// a folder that cannot be synchronized.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let (target, old) = target(path)?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // As any program makes files; the user's mask takes from it what others may not do.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // From here on, it is removed by whatever returns.
    let file = builder.tempfile_in(folder)?;
    if let Some(old) = old {
        file.as_file().set_permissions(old.permissions())?;
    }

    let mut out = BufWriter::new(file.as_file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(&target)?;
    // A rename is on the disk when its folder is.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Where a path leads, links followed, and what is there.
fn target(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        // Nothing is there yet. A link that leads there is followed by hand; those in a circle are another error.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match fs::read_link(path) {
                Ok(next) => target(&path.parent().unwrap_or(path).join(next)),
                Err(_) => Ok((path.into(), None)),
            };
        }
        Err(error) => return Err(error),
    };
    let old = fs::metadata(&target)?;
    match old.is_file() {
        true => Ok((target, Some(old))),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
    }
}
