//! `koala bench`: a report about this processor. What each backend reaches of the memory's streaming limit, what whole
//! models cost, and which backend to use; or the reports of several machines side by side.

mod advice;
pub mod compare;
mod long;
mod measure;
pub mod page;
mod passes;
mod plan;
pub mod record;
mod report;
mod small;
mod text;
mod whole;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use koala_optim::{Backend, ENVIRONMENT_VARIABLE};

use crate::output::{check, check_distinct, say, write};
use crate::{info, printable, processor};
use plan::Plan;
use record::Record;

/// What is taken for free where the system does not say.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// Measure what this processor reaches of its streaming limits, and say which backend to use
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Less of everything, in less than a minute
    #[arg(long)]
    quick: bool,
    /// Where to write what was measured
    #[arg(long, value_name = "FILE", default_value = "koala-bench.json")]
    json: PathBuf,
    /// Where to write the same as a page for a browser
    #[arg(long, value_name = "FILE", default_value = "koala-bench.html")]
    page: PathBuf,
    /// Threads, for what is measured with several too [default: 0, which is all that this process may use]
    #[arg(long, value_parser = processor::parse_threads)]
    threads: Option<usize>,
    /// No tensor and no model of more than 2^POWER parameters [default: 26 for tensors, 22 with --quick; any model]
    #[arg(long, value_name = "POWER", value_parser = clap::value_parser!(u32).range(6..=40))]
    largest: Option<u32>,
    /// These backends only [default: KOALA_BACKEND if set, or all that are present]
    #[arg(long, value_name = "BACKEND", num_args = 1..)]
    only: Vec<String>,
    /// Measure everything so many times [default: as often as some seconds allow, and 5 times at least]
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// Measure nothing: print what was measured before, on several machines, say, side by side
    #[arg(long, value_name = "JSON", num_args = 1.., conflicts_with_all = ["quick", "json", "threads", "largest", "only", "rounds"])]
    compare: Vec<PathBuf>,
}

/// Runs the command.
pub fn execute(arguments: &Arguments) -> Result<()> {
    if !arguments.compare.is_empty() {
        return compare(arguments);
    }
    check_distinct(&[("json", &arguments.json), ("page", &arguments.page)])?;
    check(&arguments.json)?;
    check(&arguments.page)?;
    let threads = arguments.threads.unwrap_or_else(processor::threads);
    let available = processor::memory().map_or(UNKNOWN_MEMORY, |(_, available)| available);
    let plan = Plan::new(arguments, backends(arguments)?, threads, available);
    say(info::text(&processor::describe()))?;
    plan.left_out.iter().try_for_each(|what| say(format_args!("Left out: {what}")))?;
    let seconds: f64 = plan.tasks.iter().map(|task| plan.seconds(task)).sum();
    let minutes = seconds / 60.0;
    let long = if minutes < 1.5 { format!("{seconds:.0} s") } else { format!("{minutes:.0} minutes") };
    say(format_args!("This takes about {long}.\n"))?;

    let record = measure::run(&plan)?;
    let page = page::page(std::slice::from_ref(&record))?;
    write(&arguments.json, &serde_json::to_vec_pretty(&record)?)?;
    write(&arguments.page, page.as_bytes())?;
    say(report::report(&record))?;
    say(format_args!("\nRecord: {}\nPage: {}", printable::path(&arguments.json), printable::path(&arguments.page)))
}

fn compare(arguments: &Arguments) -> Result<()> {
    for record in &arguments.compare {
        check_distinct(&[("compare", record), ("page", &arguments.page)])?;
    }
    check(&arguments.page)?;
    let records = arguments.compare.iter().map(|path| Record::read(path)).collect::<Result<Vec<_>>>()?;
    let page = page::page(&records)?;
    write(&arguments.page, page.as_bytes())?;
    say(compare::tables(&records))?;
    say(format_args!("Page: {}", printable::path(&arguments.page)))
}

/// Those to measure, slowest first and each once.
fn backends(arguments: &Arguments) -> Result<Vec<Backend>> {
    let chosen = match &arguments.only[..] {
        [] if std::env::var_os(ENVIRONMENT_VARIABLE).is_some() => vec![Backend::from_environment()?],
        [] => return Ok(Backend::present()),
        names => names.iter().map(|name| Backend::by_name(name)).collect::<Result<_, _>>()?,
    };
    Ok(Backend::present().into_iter().filter(|backend| chosen.contains(backend)).collect())
}
