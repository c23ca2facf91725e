//! The `koala` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use koala_cli::{bench, check, info, output, train};

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
    // candle divides products of matrices among this many threads. With one, the digits that a seed gives can not hang
    // on the number of cores; and these networks are so small that more would only slow them down.
    // SAFETY: no other thread runs yet that could read the environment meanwhile.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };

    // Alone, it shows what it can do.
    let arguments = match std::env::args_os().len() {
        0 | 1 => Arguments::parse_from(["koala", "train"]),
        _ => Arguments::parse(),
    };
    let result = match arguments.command {
        Command::Train(arguments) => train::execute(&arguments).map(|()| true),
        Command::Check(arguments) => check::execute(&arguments),
        Command::Bench(arguments) => bench::execute(&arguments).map(|()| true),
        Command::Info => info::execute().map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("koala: {error:#}");
            ExitCode::FAILURE
        }
    }
}
