//! libkoala as a Python package loads it: the functions of koala.h.

pub use koala::*;
