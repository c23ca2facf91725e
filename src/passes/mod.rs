//! The passes over a tensor of any length: pass 1 takes dots, pass 2 updates. They know no method.

pub mod dots;
pub mod staging;
pub mod update;
