//! The tensors of a file, and their names there.

use std::borrow::Cow;

use crate::types::element::ElementType;

/// The elements of a tensor, as bytes. Their number is what type and shape ask for.
#[derive(Clone, Debug)]
pub struct TensorData<'a> {
    pub element_type: ElementType,
    pub shape: Vec<usize>,
    pub bytes: Cow<'a, [u8]>,
}

/// The name in the file of a part of a tensor's state.
pub fn state_name(tensor: &str, part: &str) -> String {
    format!("state/{tensor}/{part}")
}

/// The name in the file of a tensor of the caller's.
pub fn tensor_name(name: &str) -> String {
    format!("tensor/{name}")
}
