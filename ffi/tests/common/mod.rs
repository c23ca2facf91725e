//! Compiles C and C++ programs of ffi/ against the library that cargo has just built, and runs them.
//!
//! `CC` and `CXX` choose the compilers, `KOALA_TEST_FLAGS` adds options to them (sanitizers, say), and
//! `KOALA_TEST_RUNNER` runs the programs (`valgrind --error-exitcode=1`, say).

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const STRICT: [&str; 6] = ["-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles a program that a test wrote.
#[allow(dead_code)]
pub fn compile_text(name: &str, text: &str) -> PathBuf {
    let source = folder_of(name).join(name);
    std::fs::write(&source, text).unwrap();
    compile(source.to_str().expect("made of UTF-8"), &[])
}

/// Compiles a program of ffi/, by its path there, and gives its path.
pub fn compile(source: &str, options: &[&str]) -> PathBuf {
    let cpp = source.ends_with(".cpp");
    let compiler = match cpp {
        true => std::env::var("CXX").unwrap_or("c++".into()),
        false => std::env::var("CC").unwrap_or("cc".into()),
    };
    let folder = folder_of(source);
    let program = folder.join("program");
    let flags = std::env::var("KOALA_TEST_FLAGS").unwrap_or_default();
    let mut command = Command::new(&compiler);
    command
        .arg(if cpp { "-std=c++17" } else { "-std=c11" })
        .args(STRICT)
        .args(options)
        .args(flags.split_whitespace())
        .arg("-I")
        .arg(here().join("../include"))
        .arg("-o")
        .arg(&program)
        .arg(here().join(source))
        .arg("-L")
        .arg(&folder)
        .arg("-lkoala")
        .arg("-lm")
        .arg(format!("-Wl,-rpath,{}", folder.display()));
    let done = command.output().unwrap_or_else(|error| panic!("a C compiler is needed: {compiler}: {error}"));
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&done.stderr));
    program
}

/// Runs a program, which has to succeed, and gives what it printed.
pub fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let runner = std::env::var("KOALA_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(Into::into).chain([program.as_os_str().to_owned()]);
    let mut command = Command::new(words.next().expect("the program itself"));
    command.args(words).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    // A program need not read all of its input.
    let _ = writer.join();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    if std::str::from_utf8(&stdout).is_ok() {
        print!("{out}");
    }
    stdout
}

/// A folder for a program, in which the library lies under both of its names.
fn folder_of(source: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap();
    let folder = built.join("../koala-programs").join(source.replace(['/', '.'], "-"));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["libkoala.so", concat!("libkoala.so.0.", env!("CARGO_PKG_VERSION_MINOR"))] {
        let link = folder.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(built.join("libkoala.so"), &link).unwrap();
    }
    folder
}

/// The UCI digits, as `ffi/c/examples/digits.c` reads them.
#[allow(dead_code)]
pub fn digits() -> Vec<u8> {
    let file = std::fs::File::open(here().join("../cli/data/digits.csv.gz")).unwrap();
    let mut lines = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut lines).unwrap();
    lines
}
