//! Verifies and measures the CUDA backend on a GPU, and prints one table: `backends/cuda/bundle.sh` makes a folder in
//! which this is the program `run`, beside the tests that it runs. From a clone, `cargo bench --features cuda --bench gpu`
//! measures only. `KOALA_CUDA_DEVICE` is the number of the device, or it is 0.
//!
//! `--quick` takes small sizes and few tests: for a look, and for the stub driver that stands for a GPU in CI.

mod c;
mod gpu;
mod passes;
mod steps;
mod table;
mod tests;
mod torch;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gpu::Gpu;
use table::{Outcome, Table};

/// What a run is to do, and until when.
pub struct Plan {
    /// Where this program is, and what belongs to it.
    folder: PathBuf,
    quick: bool,
    /// The number of the device.
    device: usize,
    end: Instant,
}

/// The time of a whole run.
const LIMIT: Duration = Duration::from_secs(295);

impl Plan {
    fn new() -> Result<Self, Box<dyn Error>> {
        let mut quick = false;
        // `cargo bench` says so.
        for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
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
    fn part(&self, file: &str, name: &str, table: &mut Table) -> Option<PathBuf> {
        let path = self.folder.join(file);
        if path.exists() {
            return Some(path);
        }
        table.note(Outcome::Skipped, name, format!("{} is not there", path.display()));
        None
    }

    /// Whether there is no time left for another measurement.
    fn is_over(&self) -> bool {
        self.seconds(1 << 20) < 10
    }

    /// The seconds left, at most so many; at least one, as none would be no limit.
    fn seconds(&self, most: u64) -> u64 {
        self.end.saturating_duration_since(Instant::now()).as_secs().clamp(1, most)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed.
fn run() -> Result<bool, Box<dyn Error>> {
    let plan = Plan::new()?;
    let gpu = Gpu::open(plan.device)?;
    let description = gpu.description()?;
    let memory_bytes = description.memory_bytes;
    let mut table = Table::new(description);
    table.print_head();
    tests::run(&plan, &mut table, memory_bytes)?;
    c::run(&plan, &mut table)?;
    passes::measure(&plan, &gpu, &mut table)?;
    steps::measure(&plan, &gpu, &mut table)?;
    // What this process holds is of no more use, and takes memory from PyTorch.
    drop(gpu);
    torch::run(&plan, &mut table)?;
    tests::run_under_sanitizer(&plan, &mut table)?;
    for path in table.write(&plan.folder, plan.quick)? {
        println!("written: {}", path.display());
    }
    Ok(table.is_good())
}
