//! Checkpoints: a run that goes on from one is a run that never stopped, to the bit; and a file that is not whole, or not
//! of this model, changes nothing.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod format;
mod matching;
mod model;
mod resuming;
mod writing;
