//! Reads a trajectory, and says which file it could not read, where in it, and why.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::format::{Settings, Trajectory};

const FORMAT: &str = "koala-trajectory-1";
const ALGORITHMS: [&str; 3] = ["koala++", "koala-v", "koala-m"];

/// A file that could not be read.
#[derive(Debug)]
pub struct ReadError {
    /// Which.
    pub path: PathBuf,
    /// Where and why.
    pub problem: Problem,
}

/// What is wrong with a trajectory.
#[derive(Debug)]
pub enum Problem {
    /// The file can't be read, or its compression is damaged.
    Io(io::Error),
    /// It is not JSON, or a field is missing or of a wrong type.
    Json {
        /// The field, such as `steps[3].grads[0]`; `.` or `?` where no field had begun.
        field: String,
        /// What is wrong there, with line and column.
        error: serde_json::Error,
    },
    /// It is of another format.
    Format(String),
    /// It is of an algorithm that this version does not have.
    Algorithm(String),
    /// A length differs from what `sizes` says, or nothing is expected of any step.
    Content {
        /// The field.
        field: String,
        /// What is wrong there.
        reason: String,
    },
}

impl Trajectory {
    /// Reads a file, which may be gzipped.
    pub fn read(path: impl AsRef<Path>) -> Result<Trajectory, ReadError> {
        let path = path.as_ref();
        fs::read(path)
            .map_err(Problem::Io)
            .and_then(|bytes| Trajectory::parse(&bytes))
            .map_err(|problem| ReadError { path: path.into(), problem })
    }

    /// Reads the content of a file, which may be gzipped.
    pub fn parse(bytes: &[u8]) -> Result<Trajectory, Problem> {
        let mut unpacked = Vec::new();
        let json = if bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(bytes).read_to_end(&mut unpacked).map_err(Problem::Io)?;
            &unpacked
        } else {
            bytes
        };
        // First of all what it is, so that another format is not called a faulty one.
        let header: Header = parse_json(json)?;
        if header.format != FORMAT {
            return Err(Problem::Format(header.format));
        }
        let trajectory = match &*header.algorithm {
            "koala++" => parse_json::<Trajectory<_>>(json)?.of_any(Settings::KoalaPlusPlus),
            "koala-v" => parse_json::<Trajectory<_>>(json)?.of_any(Settings::KoalaV),
            "koala-m" => parse_json::<Trajectory<_>>(json)?.of_any(Settings::KoalaM),
            _ => return Err(Problem::Algorithm(header.algorithm)),
        };
        trajectory.validate()?;
        Ok(trajectory)
    }

    fn validate(&self) -> Result<(), Problem> {
        self.check_lengths("theta0", &self.theta0)?;
        for (i, step) in self.steps.iter().enumerate() {
            self.check_lengths(&format!("steps[{i}].grads"), &step.grads)?;
            if let Some(expected) = &step.expect {
                self.check_lengths(&format!("steps[{i}].expect.theta"), &expected.theta)?;
                if matches!(self.config, Settings::KoalaPlusPlus(_)) {
                    self.check_lengths(&format!("steps[{i}].expect.v"), &expected.v)?;
                    check_length(&format!("steps[{i}].expect.s"), expected.s.len(), self.sizes.len())?;
                }
            }
        }
        if self.steps.iter().all(|step| step.expect.is_none()) {
            let reason = "no step has expected values, so there is nothing to check".into();
            return Err(Problem::Content { field: "steps".into(), reason });
        }
        Ok(())
    }

    fn check_lengths(&self, field: &str, tensors: &[Vec<f64>]) -> Result<(), Problem> {
        check_length(field, tensors.len(), self.sizes.len())?;
        for (i, (tensor, &size)) in tensors.iter().zip(&self.sizes).enumerate() {
            check_length(&format!("{field}[{i}]"), tensor.len(), size)?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Header {
    format: String,
    algorithm: String,
}

fn parse_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| Problem::Json { field: error.path().to_string(), error: error.into_inner() })?;
    deserializer.end().map_err(|error| Problem::Json { field: ".".into(), error })?;
    Ok(value)
}

fn check_length(field: &str, found: usize, expected: usize) -> Result<(), Problem> {
    if found == expected {
        return Ok(());
    }
    let reason = format!("has {found} entries, but by `sizes` it should have {expected}");
    Err(Problem::Content { field: field.into(), reason })
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Io(error) => error.fmt(f),
            Problem::Json { field, error } if field == "." || field == "?" => error.fmt(f),
            Problem::Json { field, error } => write!(f, "{field}: {error}"),
            Problem::Format(format) => write!(f, "format: it is `{format}`, but only `{FORMAT}` can be read"),
            Problem::Algorithm(algorithm) => write!(
                f,
                "algorithm: it is `{algorithm}`, which this version does not have, so it could not be run; {} can",
                ALGORITHMS.map(|known| format!("`{known}`")).join(", ")
            ),
            Problem::Content { field, reason } => write!(f, "{field}: {reason}"),
        }
    }
}

impl std::error::Error for ReadError {}
impl std::error::Error for Problem {}
