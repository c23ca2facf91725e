//! The committed header is the one that cbindgen makes of the source. `KOALA_WRITE_HEADER=1` writes it anew.

use std::path::Path;

/// In the order in which a reader wants them.
const FILES: [&str; 20] = [
    "version",
    "status",
    "failure",
    "backends",
    "settings",
    "method",
    "report",
    "tensor",
    "step",
    "kernel",
    "predict",
    "halves",
    "handle",
    "optimizer",
    "optimizer_step",
    "checkpoint",
    "cuda",
    "cuda_numbers",
    "cuda_step",
    "cuda_reading",
];

const INTRODUCTION: &str = include_str!("../src/header.txt");

#[test]
fn the_header_is_that_of_the_source() {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = cbindgen::Config::from_file(ffi.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config).with_header(INTRODUCTION);
    for file in FILES {
        builder = builder.with_src(ffi.join(format!("src/{file}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();

    let path = ffi.join("../include/koala.h");
    if std::env::var_os("KOALA_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "include/koala.h is old: KOALA_WRITE_HEADER=1 cargo test -p koala-header");
}
