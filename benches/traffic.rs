//! The bytes that a step brings in from memory for each parameter: `cargo bench --bench traffic`. They are counted by
//! valgrind's cachegrind, in a cache that it simulates, so they are the same however busy the machine is; more than the
//! cost model has for the vectors that are read is a failure. What is written back is not counted: that is what a step
//! writes, by whichever way.
#![allow(missing_docs)]

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use koala_measure::{Model, step};
use koala_optim::{AdamW, Config, Method, OnNonFinite, Policy, Scaling, Sgd, StateType};

/// The last cache of 1 MiB, below one of 32 KiB.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"];

/// Both of 2^20 parameters of f32: tensors whose four vectors are in the cache together, and one that is far larger.
const MODELS: [(&str, usize, usize); 2] = [("64 tensors of 2^14", 64, 1 << 14), ("one tensor of 2^20", 1, 1 << 20)];

/// What a step may bring in besides: the tables of tensors, and lines that fall out of the cache too early.
const ALLOWED: f64 = 1.05;

/// How to step, and the bytes that this reads for each parameter of either model.
fn ways() -> Vec<(&'static str, Config, [f64; 2])> {
    let of_method = |method| Config { method, ..Config::default() };
    let with = |config, non_finite| Config { policy: Policy { non_finite, ..Policy::default() }, ..config };
    let adamw = || of_method(Method::AdamW(AdamW::default()));
    let sgd = || of_method(Method::Sgd(Sgd::default()));
    vec![
        // The gradient, the parameters, h and v, by both passes; by the second from the cache, if they are there.
        ("KOALA++", Config::default(), [16.0, 32.0]),
        (
            "scaled and limited",
            Config { scaling: Scaling { factor: 0.5, limit: 1.0 }, ..Config::default() },
            [16.0, 32.0],
        ),
        // Here by both passes in any case, as the first goes over all tensors.
        ("all looked at first", with(Config::default(), OnNonFinite::KeepAll), [32.0, 32.0]),
        ("clipped by the norm of all", Config { clip_norm: Some(1e-3), ..Config::default() }, [32.0, 32.0]),
        // The gradient twice, and the other three once.
        ("AdamW", adamw(), [16.0, 20.0]),
        ("AdamW, gradient not looked at", with(adamw(), OnNonFinite::Unchecked), [16.0, 16.0]),
        ("AdamW, clipped by the norm of all", Config { clip_norm: Some(1e-3), ..adamw() }, [20.0, 20.0]),
        ("SGD with momentum", sgd(), [12.0, 16.0]),
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [step, way, model, count] if step == "--step" => take_steps(way, model, count),
        _ => compare(),
    };
    done.map_or_else(
        |error| {
            eprintln!("traffic: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// The program that is watched.
fn take_steps(way: &str, model: &str, count: &str) -> Result<(), Box<dyn Error>> {
    let (_, config, _) = ways().swap_remove(way.parse()?);
    let (_, tensors, length) = MODELS[model.parse::<usize>()?];
    let mut model = Model::of_equal(tensors, length);
    let mut optimizer = model.optimizer_of(StateType::Same, config)?;
    let mut tensors = model.tensors();
    (0..count.parse()?).for_each(|_| step(&mut optimizer, &mut tensors));
    Ok(())
}

fn compare() -> Result<(), Box<dyn Error>> {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        println!("skipped: the bytes of a step: valgrind counts them, which can't be run: {error}");
        return Ok(());
    }
    println!("{:34}  {:>20}  {:>20}", "bytes read per parameter", MODELS[0].0, MODELS[1].0);
    let mut more = Vec::new();
    for (way, (name, _, expected)) in ways().iter().enumerate() {
        print!("{name:34}");
        for (model, &(model_name, tensors, length)) in MODELS.iter().enumerate() {
            // The first step is one of its own, and what comes before it is no step.
            let [one, three] = [1, 3].map(|count| bytes_read(way, model, count));
            let bytes = (three? - one?) as f64 / (2 * tensors * length) as f64;
            print!("  {bytes:20.2}");
            if bytes > ALLOWED * expected[model] {
                more.push(format!("{name}, {model_name}: {bytes:.2} instead of {}", expected[model]));
            }
        }
        println!();
    }
    if more.is_empty() { Ok(()) } else { Err(more.join("; ").into()) }
}

/// What a process that takes so many steps reads from memory, in bytes.
fn bytes_read(way: usize, model: usize, count: usize) -> Result<u64, Box<dyn Error>> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("traffic-{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=yes"])
        .args(CACHES)
        .arg(format!("--cachegrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--step", &way.to_string(), &model.to_string(), &count.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let counted = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    let words = |key| counted.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").split_whitespace();
    // Lines that a read or a write did not find in the last cache.
    let misses = words("events:").zip(words("summary:")).filter(|(event, _)| ["DLmr", "DLmw"].contains(event));
    let counts: Vec<u64> = misses.map(|(_, count)| count.parse()).collect::<Result<_, _>>()?;
    if counts.len() == 2 { Ok(counts.iter().sum::<u64>() * 64) } else { Err("cachegrind did not count misses".into()) }
}
