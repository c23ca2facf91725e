//! The committed header is the one that cbindgen makes of the source. `KOALA_WRITE_HEADER=1` writes it anew.

use std::path::Path;

/// In the order in which a reader wants them.
const FILES: [&str; 25] = [
    "border/version",
    "border/status",
    "border/last_error",
    "words/backends",
    "words/settings",
    "words/method",
    "words/report",
    "words/scalars",
    "kernel/tensor",
    "words/step",
    "kernel/whole",
    "kernel/predict",
    "kernel/halves",
    "optimizer/handle",
    "optimizer/config",
    "optimizer/groups",
    "optimizer/tensors",
    "optimizer/shared",
    "optimizer/step",
    "optimizer/checkpoint",
    "cuda/handle",
    "cuda/create",
    "cuda/numbers",
    "cuda/step",
    "cuda/reading",
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
