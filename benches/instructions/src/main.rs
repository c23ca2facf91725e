//! Counts the instructions that each backend takes per element, and compares them with `recorded.txt`. Unlike a time, a
//! count is the same on a busy machine, so it can fail a build: a function that is no longer inlined shows.
//!
//! `cargo run --release -p koala-instructions` compares, `-- --record` writes the lines of the backends here anew, and
//! `-- [--record] --emulator COMMAND` counts in an emulator's log: `.ci/run` has the command for Arm.

#[cfg(target_os = "linux")]
mod guard;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    guard::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<(), &'static str> {
    Err("instructions are counted by Linux's ptrace, or in the log of an emulator that runs on Linux")
}
