//! What an optimizer knows of its tensors: their names, groups, shapes and states.

use crate::methods::Method;
use crate::optimizer::state::TensorState;
use crate::types::settings::Settings;

/// A group of tensors with the same settings; made by [`Optimizer::add_group`](crate::Optimizer::add_group).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub(crate) usize);

/// The settings of a group, and the numbers of its method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) settings: Settings,
    pub(crate) method: Method,
}

/// A tensor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Box<str>,
    /// Whether the name is but its place in a list, which may be another tensor's in the next run.
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code, reason = "only a checkpoint asks for it"))]
    pub(crate) is_nameless: bool,
    pub(crate) group: usize,
    /// If it was told.
    pub(crate) shape: Option<Box<[usize]>>,
    pub(crate) given_in_call: u64,
    pub(crate) state: TensorState,
}

/// The number of elements of a tensor of that shape, if there can be so many.
pub(crate) fn count_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1, |product: usize, &length| product.checked_mul(length))
}
