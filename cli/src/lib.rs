//! The parts of the `koala` command, as a library so that tests can reach them.

pub mod bench;
pub mod check;
pub mod info;
pub mod output;
pub mod processor;
pub mod task;
pub mod train;
