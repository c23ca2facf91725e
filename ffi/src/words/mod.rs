//! The words that C and Rust share: settings, methods, backends, reports, and what a step is told.

pub(crate) mod backends;
pub(crate) mod method;
pub(crate) mod report;
pub(crate) mod scalars;
pub(crate) mod settings;
pub(crate) mod step;
