//! Libraries that g++ makes of `backends/cuda/shim` for a test.

use std::path::Path;
use std::process::Command;

use libloading::Library;

/// What the driver of our own is made of.
#[allow(dead_code)]
pub const DRIVER: [&str; 3] = ["shim.cpp", "libcuda.cpp", "libcuda_streams.cpp"];

/// Compiles those files of the folder and loads what comes of it; `None` where there is no g++ and need not be.
#[allow(dead_code)]
pub fn compiled(name: &str, files: &[&str], options: &[&str]) -> Option<Library> {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", std::process::id()));
    if !build(&library, files, options) {
        return None;
    }
    // SAFETY: it was just built from this repository's sources, and loading it runs only C++'s own initialization.
    let loaded = unsafe { Library::new(&library) };
    // Once it is loaded, its file is of no use.
    std::fs::remove_file(&library).unwrap();
    Some(loaded.unwrap())
}

/// Compiles those files of the folder to a library. Without a g++ that is a failure, unless `KOALA_WITHOUT_SHIM` is set:
/// then it is false, with a line that says so.
pub fn build(library: &Path, files: &[&str], options: &[&str]) -> bool {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("backends/cuda/shim"));
    let folder = folders.find(|folder| folder.exists()).expect("the repository has it");
    let mut command = Command::new("g++");
    command.args(["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]);
    command.args(["-shared", "-fPIC"]).args(options).arg("-I").arg(&folder).arg("-o").arg(library);
    command.args(files.iter().map(|file| folder.join(file)));
    match command.status() {
        Ok(status) => assert!(status.success(), "g++ does not compile {files:?}: {command:?}"),
        Err(error) => {
            let advice = "install it, or set KOALA_WITHOUT_SHIM=1 to have tests of CUDA do nothing";
            assert!(std::env::var_os("KOALA_WITHOUT_SHIM").is_some(), "there is no g++ ({error}): {advice}");
            println!("skipped: there is no g++ to compile {files:?} for this processor: {error}");
            return false;
        }
    }
    true
}
