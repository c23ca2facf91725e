//! Where state vectors live: zeroed memory on 64-byte boundaries, so that no load of a backend crosses a cache line.

use crate::element::{Element, ElementType};

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u8; 64]);

/// A vector of elements whose type is a value.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    lines: Vec<Line>,
    length: usize,
    element_type: ElementType,
}

impl Storage {
    /// `length` zeros, or `None` if there is no memory for them.
    pub fn zeroed(length: usize, element_type: ElementType) -> Option<Self> {
        let bytes = length.checked_mul(element_type.size())?;
        let lines = bytemuck::allocation::try_zeroed_vec(bytes.div_ceil(64)).ok()?;
        Some(Storage { lines, length, element_type })
    }

    /// No elements, no memory: what is left behind while the real one is lent.
    pub const fn empty() -> Self {
        Storage { lines: Vec::new(), length: 0, element_type: ElementType::F32 }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// The elements; none if the type is not `T`.
    pub fn elements<T: Element>(&self) -> &[T] {
        debug_assert_eq!(T::TYPE, self.element_type);
        if T::TYPE != self.element_type {
            return &[];
        }
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }

    /// The elements; none if the type is not `T`.
    pub fn elements_mut<T: Element>(&mut self) -> &mut [T] {
        debug_assert_eq!(T::TYPE, self.element_type);
        if T::TYPE != self.element_type {
            return &mut [];
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }

    /// The elements, widened.
    pub fn to_f64(&self) -> Vec<f64> {
        fn widened<T: Element>(storage: &Storage) -> Vec<f64> {
            storage.elements::<T>().iter().map(|element| element.to_f64()).collect()
        }
        match self.element_type {
            ElementType::F32 => widened::<f32>(self),
            ElementType::F64 => widened::<f64>(self),
            ElementType::Bf16 => widened::<half::bf16>(self),
            ElementType::F16 => widened::<half::f16>(self),
        }
    }

    /// The elements' bytes, in the machine's order.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.length * self.element_type.size()]
    }
}
