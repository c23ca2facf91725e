//! Runs a plan: one task after the other, all of a task interleaved.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use koala_optim::Backend;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::plan::{Plan, Task};
use super::record::{Advice, Record, SCHEMA};
use super::{advice, long, passes, small, whole};
use crate::processor;

/// Measures all of it.
pub(super) fn run(plan: &Plan) -> Result<Record> {
    let start = Instant::now();
    let mut record = Record {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        quick: plan.quick,
        seconds: 0.0,
        processor: processor::describe(),
        limits: Vec::new(),
        passes: Vec::new(),
        small: Vec::new(),
        models: Vec::new(),
        long: None,
        left_out: plan.left_out.clone(),
        advice: Advice { backend: String::new(), slower_by: Vec::new(), noise: None },
    };
    let pool = match plan.threads {
        0 | 1 => None,
        threads => Some(Arc::new(ThreadPoolBuilder::new().num_threads(threads).build().context("starting threads")?)),
    };
    // In thousandths of a second, so that it goes forward as time does.
    let weight = |task: &Task| (plan.seconds(task) * 1e3) as u64;
    let bar = ProgressBar::new(plan.tasks.iter().map(weight).sum())
        .with_style(ProgressStyle::with_template("{bar:32} {percent:>3} %, {eta} left  {msg}")?);
    for task in &plan.tasks {
        bar.set_message(task.name());
        measure(task, plan, pool.as_ref(), &mut record).with_context(|| format!("measuring {}", task.name()))?;
        bar.inc(weight(task));
    }
    bar.finish_and_clear();
    record.advice = advice::advise(&record.passes);
    record.seconds = start.elapsed().as_secs_f64();
    Ok(record)
}

fn measure(task: &Task, plan: &Plan, pool: Option<&Arc<ThreadPool>>, record: &mut Record) -> Result<()> {
    let (budget, backends) = (plan.budget(task), &plan.backends[..]);
    // They are listed slowest first.
    let fastest = backends.last().copied().unwrap_or_else(Backend::detect);
    match task {
        Task::Tensor(tensor) => {
            let pool = pool.filter(|_| plan.threads_at(tensor.length).is_some());
            let (limits, passes) = passes::measure(tensor, backends, pool, budget)?;
            record.limits.extend(limits);
            record.passes.extend(passes);
        }
        Task::Small(length) => record.small.extend(small::measure(*length, backends, budget)?),
        Task::Model(model, states) => {
            let rows = whole::measure(model, states, fastest, pool, budget)?;
            // A model whose states were measured one after the other has had its AdamW.
            let again = record.models.iter().any(|row| row.name == model.name);
            record.models.extend(rows.into_iter().filter(|row| row.backend.is_some() || !again));
        }
        Task::Long(tensors) => record.long = Some(long::measure(*tensors, fastest, budget)),
    }
    Ok(())
}
