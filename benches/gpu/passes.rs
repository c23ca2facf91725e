//! How fast both passes over one tensor are, beside a copy within the device's memory: in one run, and in turn.

use std::error::Error;

use koala_measure::statistics::{median, ratios, spread};
use koala_measure::{LOSS, NOISE, numbers, settings};
use koala_optim::cuda::{Config, Error as CudaError, Kernel, Optimizer, Tensor};
use koala_optim::{ElementType, Noise, StateType};

use crate::gpu::{Gpu, Marking, nanoseconds};
use crate::plan::Plan;
use crate::table::{Figure, Goal, Outcome, Table};

/// The bytes that a pass reads and writes for a parameter, f32 with weight decay.
const PASSES: [(&str, Kernel, usize); 2] = [("pass 1", Kernel::Dots, 16), ("pass 2", Kernel::Update, 28)];

/// And that the copy does.
const COPY_BYTES: usize = 16;

/// The share of a copy's speed that each pass should have.
const GOAL: f64 = 0.9;

pub fn measure(plan: &Plan, gpu: &Gpu, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let (sizes, rounds) = if plan.quick { ([1 << 14, 1 << 16], 3) } else { ([1 << 24, 1 << 28], 30) };
    for length in sizes {
        match times(gpu, length, rounds) {
            Ok(times) => report(length, &times, table),
            Err(error) => match error.downcast_ref() {
                Some(CudaError::Memory { .. }) => {
                    table.note(Outcome::Skipped, format!("both passes, {length} parameters"), error.to_string());
                }
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// Nanoseconds in each round.
struct Times {
    copy: Vec<f64>,
    passes: [Vec<f64>; 2],
}

fn times(gpu: &Gpu, length: usize, rounds: usize) -> Result<Times, Box<dyn Error>> {
    let (parameters, gradient) = (gpu.floats(length, 1e-3)?, gpu.floats(length, 1e-4)?);
    let copied = gpu.floats(length * COPY_BYTES / 4, 1.0)?;
    let half = COPY_BYTES / 2 * length;
    let (device, marks) = Marking::new(gpu);
    let mut optimizer = Optimizer::new(device, Config { noise: Noise::Fixed(NOISE), ..Config::default() })?;
    let group = optimizer.add_group_with(settings(1e-3), numbers())?;
    optimizer.add_tensor("tensor", length, ElementType::F32, StateType::Same, group)?;
    // SAFETY: both live until the report below, which waits for all steps.
    let tensor = unsafe { Tensor::new("tensor", ElementType::F32, length, parameters.address, gradient.address) };
    let mut times = Times { copy: Vec::new(), passes: [Vec::new(), Vec::new()] };
    // The first rounds are not looked at: the device may have slept.
    const IDLE: usize = 3;
    for round in 0..rounds + IDLE {
        let copy = || gpu.copy(copied.address, copied.address + half as u64, half);
        // While this one runs, all of the following is put on the stream: so none of it waits for the host.
        copy()?;
        let begin = gpu.mark()?;
        copy()?;
        let end = gpu.mark()?;
        optimizer.step(gpu.stream(), LOSS, std::slice::from_ref(&tensor))?;
        let launches = marks.lock().map_or(Vec::new(), |mut marks| std::mem::take(&mut *marks));
        if round < IDLE {
            continue;
        }
        times.copy.push(nanoseconds(&begin, &end)?);
        for ((_, kernel, _), times) in PASSES.iter().zip(&mut times.passes) {
            for (_, begin, end) in launches.iter().filter(|launch| launch.0 == *kernel) {
                times.push(nanoseconds(begin, end)?);
            }
        }
    }
    let report = optimizer.report(gpu.stream())?;
    if report.stepped != 1 {
        return Err(format!("the tensor that was measured has not stepped: {report:?}").into());
    }
    Ok(times)
}

fn report(length: usize, times: &Times, table: &mut Table) {
    let copy_rate = (COPY_BYTES * length) as f64 / median(&times.copy);
    table.figure(
        format!("a copy within the device's memory, {} bytes", COPY_BYTES / 2 * length),
        format!("{copy_rate:.0} GB/s read and written; rounds' quartiles {:.0} % apart", 100.0 * spread(&times.copy)),
        Figure { value: copy_rate, goal: None },
    );
    for ((name, _, bytes), pass) in PASSES.iter().zip(&times.passes) {
        let share = median(&ratios(&times.copy, pass)) * *bytes as f64 / COPY_BYTES as f64;
        let rate = (bytes * length) as f64 / median(pass);
        table.figure(
            format!("{name}, {length} parameters of f32"),
            format!("{:.0} % of that copy's speed, {rate:.0} GB/s; goal {:.0} %", 100.0 * share, 100.0 * GOAL),
            Figure { value: share, goal: Some(Goal::AtLeast(GOAL)) },
        );
    }
}
