//! The parts of the `koala` command, as a library so that tests can reach them.

pub mod baselines;
pub mod bench;
pub mod check;
pub mod digits;
pub mod idx;
pub mod images;
pub mod info;
pub mod method;
pub mod network;
pub mod output;
pub mod plot;
pub mod processor;
pub mod run;
pub mod train;
