//! Writes koala.h, without what only a C compiler needs, where maturin looks for the header of a cffi package.

use std::path::PathBuf;

fn main() {
    // A link to the one in include/, so that a source distribution, which has the files of packages only, has it too.
    const HEADER: &str = "koala.h";
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rerun-if-changed=build.rs");
    let header = std::fs::read_to_string(HEADER).expect("the header is part of the package");
    let out: PathBuf = std::env::var_os("OUT_DIR").expect("cargo sets it").into();
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out, or one folder deeper for another platform.
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let target = target.or(out.ancestors().nth(4)).expect("it is that deep");
    std::fs::write(target.join("header.h"), plain(&header)).expect("the target folder can be written");
}

/// What is left of a header for a compiler of C99.
fn plain(header: &str) -> String {
    let mut text = String::new();
    // Whether each of the conditions around a line holds.
    let mut holds = Vec::new();
    for line in header.lines() {
        let line = line.trim();
        if line.starts_with("#ifndef") {
            holds.push(true);
        } else if line.starts_with("#if") {
            holds.push(false);
        } else if line.starts_with("#else") {
            let last = holds.pop().unwrap_or(true);
            holds.push(!last);
        } else if line.starts_with("#endif") {
            holds.pop();
        } else if holds.iter().all(|holds| *holds) && !line.starts_with("#include") && line != "#define KOALA_H" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
