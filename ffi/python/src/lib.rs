//! libkoala as a Python package loads it: the functions of koala.h, the step as an operation of XLA, and a quick look at
//! many tensors.

mod exchange;
mod xla;

pub use exchange::{koala_compare_layouts, koala_layout_size, koala_record_layouts};
pub use koala::*;
pub use xla::koala_xla_step;
