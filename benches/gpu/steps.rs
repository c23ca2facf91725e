//! What a step over whole models takes: launches, waits and time, put on a stream and as a graph.

use std::error::Error;

use koala_measure::models::{Architecture, gpt_2_small, resnet_50, resnet_50_normalizations};
use koala_measure::statistics::{median, spread};
use koala_measure::{LOSS, NOISE, numbers, settings};
use koala_optim::cuda::{Config, Driver, Error as CudaError, Optimizer, Tensor};
use koala_optim::{ElementType, Noise, StateType};

use crate::gpu::Gpu;
use crate::plan::Plan;
use crate::table::{Figure, Outcome, Table};

/// How a model is stepped.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    state: StateType,
    weight_decay: f64,
    /// See [`Config::group_bytes`].
    group_bytes: Option<usize>,
}

const USUAL: Way = Way { name: "", state: StateType::Same, weight_decay: 1e-3, group_bytes: None };

pub fn measure(plan: &Plan, gpu: &Gpu, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let models = if plan.quick { vec![resnet_50_normalizations()] } else { vec![resnet_50(), gpt_2_small()] };
    let l2_bytes = gpu.device.l2_bytes();
    let grouped = |name, group_bytes| Way { name, group_bytes: Some(group_bytes), ..USUAL };
    let ways = [
        USUAL,
        Way { name: ", state in bf16", state: StateType::Bf16, ..USUAL },
        Way { name: ", no weight decay", weight_decay: 0.0, ..USUAL },
        grouped(", groups of a quarter of the L2", l2_bytes / 4),
        grouped(", groups of the whole L2", l2_bytes),
        grouped(", one group", usize::MAX),
    ];
    let ways = if plan.quick { &ways[..2] } else { &ways };
    for (model, way) in models.iter().flat_map(|model| ways.iter().map(move |way| (model, *way))) {
        let name = format!("{}{}", model.name, way.name);
        if plan.is_over() {
            table.note(Outcome::Skipped, name, "out of time");
        } else if let Err(error) = of_model(plan, gpu, model, way, &name, table) {
            match error.downcast_ref() {
                Some(CudaError::Memory { .. }) => table.note(Outcome::Skipped, name, error.to_string()),
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

fn of_model(
    plan: &Plan,
    gpu: &Gpu,
    model: &Architecture,
    way: Way,
    name: &str,
    table: &mut Table,
) -> Result<(), Box<dyn Error>> {
    // Each tensor begins where large loads want it.
    let room = |length: usize| length.next_multiple_of(64);
    let total = model.shapes.iter().map(|shape| room(shape.length())).sum();
    let (parameters, gradients) = (gpu.floats(total, 1e-3)?, gpu.floats(total, 1e-4)?);
    let config = Config { noise: Noise::Fixed(NOISE), group_bytes: way.group_bytes, ..Config::default() };
    let mut optimizer = Optimizer::new(gpu.device.clone(), config)?;
    let group = optimizer.add_group_with(settings(way.weight_decay), numbers())?;
    let mut tensors = Vec::new();
    let mut offset = 0;
    for shape in &model.shapes {
        let (name, length) = (&*shape.name, shape.length());
        optimizer.add_tensor(name, length, ElementType::F32, way.state, group)?;
        let [parameters, gradient] = [&parameters, &gradients].map(|memory| memory.address + offset);
        // SAFETY: both live until the report below, which waits for all steps.
        tensors.push(unsafe { Tensor::new(name, ElementType::F32, length, parameters, gradient) });
        offset += 4 * room(length) as u64;
    }

    let stream = gpu.stream();
    optimizer.step(stream, LOSS, &tensors)?;
    let before = optimizer.counts();
    optimizer.step(stream, LOSS, &tensors)?;
    let (counts, groups) = (optimizer.counts(), optimizer.cache_groups());
    let (launches, waits) = (counts.launches - before.launches, counts.waits - before.waits);
    let as_designed = launches == 3 * groups as u64 && waits == 0;
    table.note(
        if as_designed { Outcome::Passed } else { Outcome::Failed },
        format!("launches and waits of a step, {name}"),
        format!("{launches} launches, {groups} groups of 3; {waits} waits; {} tensors", tensors.len()),
    );

    let graph = gpu.captured(|| optimizer.step(stream, LOSS, &tensors))?;
    let (mut on_stream, mut as_graph) = (Vec::new(), Vec::new());
    let (rounds, steps) = if plan.quick { (3, 1) } else { (20, 10) };
    for _ in 0..rounds {
        on_stream.push(gpu.time(|| (0..steps).try_for_each(|_| optimizer.step(stream, LOSS, &tensors)))?);
        as_graph.push(gpu.time(|| (0..steps).try_for_each(|_| graph.launch()))?);
    }
    let report = optimizer.report(stream)?;
    if report.stepped != tensors.len() {
        return Err(format!("{name}: not all tensors have stepped: {report:?}").into());
    }
    for (how, times) in [("put on a stream", on_stream), ("as a graph", as_graph)] {
        let nanoseconds = median(&times) / f64::from(steps);
        table.figure(
            format!("a step of {} parameters {how}, {name}", model.parameters()),
            format!("{:.3} ms; rounds' quartiles {:.0} % apart", nanoseconds / 1e6, 100.0 * spread(&times)),
            Figure { value: nanoseconds, goal: None },
        );
    }
    Ok(())
}
