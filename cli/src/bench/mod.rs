//! `koala bench`: a report about this processor. What each backend reaches of the memory's streaming limit, what whole
//! models cost, and which backend to use; or the reports of several machines side by side.

pub mod compare;
pub mod page;
pub mod record;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::output::{say, write};
use record::Record;

/// Measure what this processor reaches of its streaming limits, and say which backend to use
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Where to write what was measured
    #[arg(long, value_name = "FILE", default_value = "koala-bench.json")]
    json: PathBuf,
    /// Where to write the same as a page for a browser
    #[arg(long, value_name = "FILE", default_value = "koala-bench.html")]
    page: PathBuf,
    /// Measure nothing: compare what was measured before, on several machines, say
    #[arg(long, value_name = "JSON", num_args = 1..)]
    compare: Vec<PathBuf>,
}

/// Runs the command.
pub fn execute(arguments: &Arguments) -> Result<()> {
    if arguments.compare.is_empty() {
        bail!("not yet");
    }
    let records = arguments.compare.iter().map(|path| Record::read(path)).collect::<Result<Vec<_>>>()?;
    say(compare::tables(&records))?;
    write(&arguments.page, page::page(&records)?.as_bytes())?;
    say(format_args!("Page: {}", arguments.page.display()))
}
