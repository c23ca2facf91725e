//! Verifies and measures the CUDA backend on a GPU, and prints one table: `benches/gpu/bundle.sh` makes a folder in
//! which this is the program `run`, beside the tests that it runs. From a clone, `cargo run --release -p koala-gpu`
//! measures only. `KOALA_CUDA_DEVICE` is the number of the device, or it is 0.
//!
//! `--quick` takes small sizes and few tests: for a look, and for the stub driver that stands for a GPU in CI.

mod c;
mod gpu;
mod passes;
mod plan;
mod steps;
mod table;
mod tests;
mod torch;

use std::error::Error;
use std::process::ExitCode;

use gpu::Gpu;
use plan::Plan;
use table::Table;

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
