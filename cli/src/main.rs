//! The `koala` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use koala_cli::{bench, check, info, output, rerun, train};

/// KOALA++, the optimizer: train with it, check and measure its backends on this machine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::Arguments>),
    Check(check::Arguments),
    Bench(bench::Arguments),
    /// Describe this machine: processor, features, caches, backends
    Info,
}

fn main() -> ExitCode {
    // Alone, it shows what it can do.
    let arguments = match std::env::args_os().len() {
        0 | 1 => Arguments::parse_from(["koala", "train"]),
        _ => Arguments::parse(),
    };
    let result = match arguments.command {
        Command::Train(arguments) => train_with_one_thread(&arguments),
        Command::Check(arguments) => {
            check::execute(&arguments).map(|good| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Bench(arguments) => bench::execute(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Info => info::execute().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::log(format_args!("koala: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// candle divides products of matrices among as many threads as this variable says. With one, the digits that a seed
/// gives can not hang on the number of cores; and these networks are so small that more would only slow them down.
fn train_with_one_thread(arguments: &train::Arguments) -> anyhow::Result<ExitCode> {
    match rerun::with_variable("RAYON_NUM_THREADS", "1")? {
        Some(code) => Ok(code),
        None => train::execute(arguments).map(|()| ExitCode::SUCCESS),
    }
}
