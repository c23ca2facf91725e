//! libkoala as a Python package loads it: the functions of koala.h, and the step as an operation of XLA.

mod xla;

pub use koala::*;
pub use xla::koala_xla_step;
