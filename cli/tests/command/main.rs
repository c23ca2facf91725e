//! The `koala` command as a user meets it: its output, its files, its exit status.

mod bench;
mod check;
mod data;
mod info;
mod outputs;
mod printable;
mod resume;
mod search;
mod text;
mod train;

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// What a run of the command left behind.
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The command with these arguments, separated by spaces.
fn koala(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_koala"));
    command.args(arguments.split_whitespace());
    command
}

fn outcome(mut command: Command) -> Outcome {
    let output = command.output().expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    Outcome { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).expect("it is ours");
    }
    fs::create_dir_all(&path).expect("the folder above is for this");
    path
}

#[test]
fn the_usage_is_explained_where_it_is_wrong() {
    let wrong = outcome(koala("fly"));
    assert_eq!(wrong.status, Some(2));
    assert!(wrong.stderr.contains("unrecognized subcommand 'fly'"), "{}", wrong.stderr);
    let help = outcome(koala("--help"));
    assert_eq!(help.status, Some(0));
    for command in ["train", "check", "bench", "info"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
    }
}

/// As `koala check --json | head` does.
#[test]
fn a_reader_that_leaves_is_no_fault() {
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    drop(reader);
    let mut command = koala("check --json");
    command.stdout(writer).stderr(std::process::Stdio::piped());
    let output = command.spawn().and_then(|child| child.wait_with_output()).expect("the command starts");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
