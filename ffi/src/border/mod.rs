//! The border between C and Rust: pointers, statuses, texts, growing structs, and panics that do not cross.

pub(crate) mod failure;
pub(crate) mod growing;
pub(crate) mod guard;
pub(crate) mod last_error;
pub(crate) mod pointers;
pub(crate) mod ranges;
pub(crate) mod status;
pub(crate) mod values;
pub(crate) mod version;
