//! The C ABI on the same GPU: its example (`ffi/c/examples/cuda.c`), which is an executable beside this program.

use std::error::Error;

use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType, Tensor};

use crate::plan::Plan;
use crate::table::{Outcome, Table};
use crate::tests::{End, limited, logged, out_of_time};

const SECONDS: u64 = 20;

pub fn run(plan: &Plan, table: &mut Table) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "a step from C, as on the processor";
    let Some(program) = plan.part("example", NAME, table) else { return Ok(()) };
    // It takes the first device that it is shown.
    let limit = plan.seconds(SECONDS).to_string();
    let mut command = limited(plan, &limit, &program);
    command.env("CUDA_VISIBLE_DEVICES", plan.device.to_string());
    let (text, end) = logged(&mut command, &plan.folder.join("example.log"))?;
    // As printf has six digits of them.
    let digits = |number: f64| format!("{number:.5e}");
    let found: Vec<String> = text.split_whitespace().filter_map(|word| word.parse().ok()).map(digits).collect();
    let expected: Vec<String> = on_processor()?.iter().map(|number| digits((*number).into())).collect();
    match end {
        End::OutOfTime => table.note(Outcome::Skipped, NAME, out_of_time(&limit)),
        End::Good if text.starts_with("cuda: ") && found == expected => table.note(Outcome::Passed, NAME, ""),
        _ => table.note(Outcome::Failed, NAME, format!("expected {}: see example.log", expected.join(" "))),
    }
    Ok(())
}

/// What the example's step makes of its parameters.
fn on_processor() -> Result<[f32; 3], koala_optim::Error> {
    let (mut parameters, gradient) = ([1.0, -2.0, 3.0], [0.1, 0.2, -0.3]);
    let mut optimizer = Optimizer::new(Config::default())?;
    let group = optimizer.add_group(Settings::default())?;
    optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
    optimizer.step(Loss::new(0.7, 0.53), &mut [Tensor::new("weight", &mut parameters, &gradient)])?;
    Ok(parameters)
}
