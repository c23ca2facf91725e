//! Level 1: steps of tensors whose buffers the caller owns.

pub(crate) mod call;
pub(crate) mod halves;
pub(crate) mod list;
pub(crate) mod predict;
pub(crate) mod tensor;
pub(crate) mod whole;
