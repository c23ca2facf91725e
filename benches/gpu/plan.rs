//! What a run is told, where its files are, and how much time it has left.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::table::{Outcome, Table};

/// What a run is to do, and until when.
pub struct Plan {
    /// Where this program is, and what belongs to it.
    pub folder: PathBuf,
    pub quick: bool,
    /// The number of the device.
    pub device: usize,
    end: Instant,
}

/// The time of a whole run.
const LIMIT: Duration = Duration::from_secs(295);

impl Plan {
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let mut quick = false;
        for argument in std::env::args().skip(1) {
            match &*argument {
                "--quick" => quick = true,
                other => return Err(format!("unknown option {other:?}; there is --quick").into()),
            }
        }
        let number = std::env::var("KOALA_CUDA_DEVICE").unwrap_or_else(|_| "0".into());
        let device = number.parse().map_err(|_| format!("KOALA_CUDA_DEVICE is {number:?}, expected a number"))?;
        let program = std::env::current_exe()?;
        let folder = program.parent().ok_or("this program is in no folder")?.into();
        Ok(Plan { folder, quick, device, end: Instant::now() + LIMIT })
    }

    /// A file that belongs to this program; or none, which the table then says of what needs it.
    pub fn part(&self, file: &str, name: &str, table: &mut Table) -> Option<PathBuf> {
        let path = self.folder.join(file);
        if path.exists() {
            return Some(path);
        }
        table.note(Outcome::Skipped, name, format!("{} is not there", path.display()));
        None
    }

    /// Whether there is no time left for another measurement.
    pub fn is_over(&self) -> bool {
        self.seconds(1 << 20) < 10
    }

    /// The seconds left, at most so many; at least one, as none would be no limit.
    pub fn seconds(&self, most: u64) -> u64 {
        self.end.saturating_duration_since(Instant::now()).as_secs().clamp(1, most)
    }
}
