//! libkoala as a Python package loads it: the functions of koala.h, the step as an operation of XLA, and a quick look at
//! many tensors.

mod exchange;
mod known;
mod walk;
mod xla;

pub use exchange::{koala_compare_layouts, koala_layout_size, koala_record_layouts};
pub use known::{
    koala_compare_entries, koala_compare_lists, koala_compare_tensors, koala_record_size, koala_record_tensors,
};
pub use koala::*;
pub use walk::koala_walk;
pub use xla::koala_xla_step;
