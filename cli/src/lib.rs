//! The parts of the `koala` command, as a library so that tests can reach them.

#![forbid(unsafe_code)]

pub mod bench;
pub mod check;
pub mod info;
pub mod input;
pub mod output;
pub mod printable;
pub mod processor;
pub mod rerun;
pub mod task;
pub mod train;
