//! Compares the counts with the record and says what is above it, or writes the record anew.

mod clock;
mod counter;
mod parts;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;

use koala_optim::Backend;
use parts::{COLUMNS, COUNTS, TYPES, columns};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded.txt");
const HEADER: &str = "\
# Instructions per element of both passes, with weight decay and without, and instructions of a step of 7 elements.
# Written by `cargo run --release -p koala-instructions -- --record`; what is counted later may be 25 % above.
";
/// What a compiler may change without anybody asking why. A lost inline costs far more, and so does a doubled loop.
const ALLOWED: f64 = 1.25;

/// Architecture, backend and types; then the columns.
type Table = BTreeMap<[String; 3], [f64; COLUMNS.len()]>;

pub fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [counter::PARTS] => parts::run(),
        [counter::TRACED_PARTS] => counter::run_traced_parts()?,
        [] => compare(None)?,
        ["--emulator", emulator] => compare(Some(emulator))?,
        ["--record"] => record(None)?,
        ["--record", "--emulator", emulator] => record(Some(emulator))?,
        _ => return Err("usage: koala-instructions [--record] [--emulator COMMAND]".into()),
    }
    Ok(())
}

fn compare(emulator: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (counted, recorded) = (count(emulator)?, read()?);
    let mut failures = Vec::new();
    print!("{}", written(&counted));
    for (row, counts) in &counted {
        let Some(limits) = recorded.get(row) else {
            failures.push(format!("{}: not in the record", row.join(" ")));
            continue;
        };
        for ((column, count), recorded) in COLUMNS.iter().zip(counts).zip(limits) {
            let comparison = format!("{} {column}: {count:.2}, recorded are {recorded}", row.join(" "));
            if *count > ALLOWED * recorded {
                failures.push(comparison);
            } else if ALLOWED * count < *recorded {
                println!("better; record it: {comparison}");
            }
        }
    }
    match emulator {
        None => failures.extend(clock::slow_backends()),
        Some(_) => println!("skipped: the clock: an emulator's says nothing"),
    }
    failures.iter().for_each(|failure| eprintln!("failed: {failure}"));
    if failures.is_empty() { Ok(()) } else { Err("more instructions or time than the bounds allow".into()) }
}

fn record(emulator: Option<&str>) -> Result<(), Box<dyn Error>> {
    let mut table = read()?;
    table.extend(count(emulator)?);
    fs::write(RECORD, written(&table))?;
    Ok(())
}

fn count(emulator: Option<&str>) -> Result<Table, Box<dyn Error>> {
    if cfg!(debug_assertions) {
        return Err("counts of an unoptimized build say nothing: cargo run --release".into());
    }
    for status in Backend::statuses() {
        if let Some(reason) = status.absent_because {
            println!("skipped: {}: {reason}", status.name);
        }
    }
    let counts = match emulator {
        None => counter::by_single_steps()?,
        Some(emulator) => counter::in_log_of(emulator)?,
    };
    let rows: Vec<_> = Backend::present()
        .iter()
        .flat_map(|backend| {
            TYPES.iter().map(|(types, ..)| [std::env::consts::ARCH, backend.name(), types].map(String::from))
        })
        .collect();
    if counts.len() != rows.len() * COUNTS {
        return Err(format!("{} parts were counted instead of {}", counts.len(), rows.len() * COUNTS).into());
    }
    Ok(rows.into_iter().zip(counts.chunks(COUNTS).map(columns)).collect())
}

fn read() -> Result<Table, Box<dyn Error>> {
    let mut table = Table::new();
    for line in fs::read_to_string(RECORD)?.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [architecture, backend, types, counts @ ..] = &words[..] else {
            return Err(format!("this is no line of {RECORD}: {line}").into());
        };
        let counts = counts.iter().map(|count| count.parse()).collect::<Result<Vec<f64>, _>>()?;
        let counts = counts.try_into().map_err(|_| format!("this is no line of {RECORD}: {line}"))?;
        table.insert([architecture, backend, types].map(|word| word.to_string()), counts);
    }
    Ok(table)
}

fn written(table: &Table) -> String {
    let mut text = format!("{HEADER}#{:>9} {:8} {:8}", "", "", "");
    COLUMNS.iter().for_each(|column| write!(text, " {column:>12}").unwrap());
    for ([architecture, backend, types], counts) in table {
        write!(text, "\n{architecture:10} {backend:8} {types:8}").unwrap();
        counts.iter().for_each(|count| write!(text, " {count:12.2}").unwrap());
    }
    text + "\n"
}
