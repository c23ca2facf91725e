//! What can be wrong with a checkpoint. After any of these, the optimizer is as it was.

use std::fmt::{Display, Formatter, Result, Write};
use std::path::{Path, PathBuf};

use crate::methods::Method;
use crate::types::element::ElementType;

/// Why a checkpoint was not written, or not restored. The path is that of its file, and empty if it is of none.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a checkpoint of this library, or it is damaged so early that this does not show.
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file was cut short, or its bytes have changed.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version of this library has written the file.
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: u64,
        /// The latest version that can be read.
        supported: u64,
    },
    /// A tensor of the optimizer has only its place in a list for a name, and the next run may have another one there.
    Nameless {
        /// The file.
        path: PathBuf,
        /// The place.
        tensor: String,
    },
    /// The checkpoint is not one of this optimizer.
    Mismatch {
        /// The file.
        path: PathBuf,
        /// All of them.
        differences: Vec<Difference>,
    },
    /// A tensor of the caller's is not as asked for.
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What there is.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

/// What a checkpoint has otherwise than an optimizer. `found` is the checkpoint's, `expected` the optimizer's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Difference {
    /// The checkpoint lacks the tensor.
    Missing {
        /// Its name.
        tensor: String,
    },
    /// The optimizer lacks the tensor.
    Extra {
        /// Its name.
        tensor: String,
    },
    /// The tensor has another number of elements.
    #[allow(missing_docs)]
    Length { tensor: String, found: usize, expected: usize },
    /// The tensor has another shape. Its number of elements may be the same.
    #[allow(missing_docs)]
    Shape { tensor: String, found: Vec<usize>, expected: Vec<usize> },
    /// The tensor's parameters, or the state vector of that name, are of another type.
    #[allow(missing_docs)]
    Type { tensor: String, part: &'static str, found: ElementType, expected: ElementType },
    /// The tensor is in another group, counted from 0.
    #[allow(missing_docs)]
    Group { tensor: String, found: usize, expected: usize },
    /// The number of groups is another.
    #[allow(missing_docs)]
    Groups { found: usize, expected: usize },
    /// The method is another, or one that keeps other vectors, as SGD without momentum keeps none.
    #[allow(missing_docs)]
    Method { found: Method, expected: Method },
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (of, found, expected) = match self {
            Difference::Missing { tensor } => return write!(f, "tensor {tensor:?} is only in the optimizer"),
            Difference::Extra { tensor } => return write!(f, "tensor {tensor:?} is only in the checkpoint"),
            Difference::Length { tensor, found, expected } => {
                (format!("tensor {tensor:?} has"), format!("{found} elements"), expected.to_string())
            }
            Difference::Shape { tensor, found, expected } => {
                (format!("tensor {tensor:?} has shape"), format!("{found:?}"), format!("{expected:?}"))
            }
            Difference::Type { tensor, part, found, expected } => {
                (format!("tensor {tensor:?} has {part} of type"), found.to_string(), expected.to_string())
            }
            Difference::Group { tensor, found, expected } => {
                (format!("tensor {tensor:?} is in group"), found.to_string(), expected.to_string())
            }
            Difference::Groups { found, expected } => {
                ("the number of groups is".into(), found.to_string(), expected.to_string())
            }
            Difference::Method { found, expected } => ("the method is".into(), described(found), described(expected)),
        };
        write!(f, "{of} {found} in the checkpoint, {expected} in the optimizer")
    }
}

/// A method and the number of its state vectors.
fn described(method: &Method) -> String {
    let vectors = method.state_vectors().iter().flatten().count();
    format!("{} with {vectors} state vectors", method.name())
}

/// The file, or what has none.
struct Named<'a>(&'a Path);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0.as_os_str().is_empty() {
            true => f.write_str("the checkpoint"),
            false => write_path(self.0, f),
        }
    }
}

/// A path as it is, but for what would break a line, or a terminal, or is no text: those are escaped.
fn write_path(path: &Path, f: &mut Formatter<'_>) -> Result {
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => f.write_char(c)?,
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Error::File { path, source } => write!(f, "{}: {source}", Named(path)),
            Error::NotACheckpoint { path, reason } => write!(f, "{} is not a checkpoint: {reason}", Named(path)),
            Error::Damaged { path, reason } => write!(f, "{} is damaged: {reason}", Named(path)),
            Error::Newer { path, found, supported } => write!(
                f,
                "{} has format version {found}, and this version of koala-optim reads up to {supported}",
                Named(path)
            ),
            Error::Nameless { path, tensor } => write!(
                f,
                "{}: tensor {tensor:?} of the optimizer has only its place for a name, by which another run may have \
                 another tensor: of_map or add_variable give names that stay",
                Named(path)
            ),
            Error::Mismatch { path, differences } => {
                write!(f, "{} is of another model:", Named(path))?;
                differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
            }
            Error::Tensor { path, tensor, found, expected } => {
                write!(f, "{}: tensor {tensor:?}: expected {expected}, found {found}", Named(path))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } => Some(source),
            _ => None,
        }
    }
}
