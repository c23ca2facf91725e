//! Where state vectors live: zeroed memory on 64-byte boundaries, so that no load of a backend crosses a cache line.
//!
//! Large vectors are pages of their own, which nobody touches before the first step does: so they lie near the
//! processor whose thread writes them first, and are no resident memory until then. The system is asked for huge pages.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::types::element::{Element, ElementType};
use crate::types::error::Error;

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u8; 64]);

/// A vector of elements whose type is a value.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    memory: Memory,
    length: usize,
    element_type: ElementType,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    #[cfg(target_os = "linux")]
    Pages(memmap2::MmapMut),
}

/// From this size on, huge pages are worth their while: two of them on x86-64.
#[cfg(target_os = "linux")]
const LARGE: usize = 4 << 20;

impl Memory {
    fn zeroed(bytes: usize) -> Option<Self> {
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            let pages = memmap2::MmapMut::map_anon(bytes).ok()?;
            // Advice only: where the system has no huge pages, small ones do.
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Some(Memory::Pages(pages));
        }
        bytemuck::allocation::try_zeroed_vec(bytes.div_ceil(64)).ok().map(Memory::Lines)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => pages,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => pages,
        }
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        let length = self.bytes().len();
        // Without pages, the allocator has the last word, as for any clone.
        let mut copy =
            Memory::zeroed(length).unwrap_or_else(|| Memory::Lines(vec![Line([0; 64]); length.div_ceil(64)]));
        copy.bytes_mut()[..length].copy_from_slice(self.bytes());
        copy
    }
}

impl Storage {
    /// `length` zeros, or `None` if there is no memory for them.
    pub fn zeroed(length: usize, element_type: ElementType) -> Option<Self> {
        let bytes = length.checked_mul(element_type.size())?;
        Some(Storage { memory: Memory::zeroed(bytes)?, length, element_type })
    }

    /// Makes all elements zero again.
    pub fn clear(&mut self) {
        self.memory.bytes_mut().fill(0);
    }

    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// The elements; none if the type is not `T`.
    #[inline]
    pub fn elements<T: Element>(&self) -> &[T] {
        debug_assert_eq!(T::TYPE, self.element_type);
        if T::TYPE != self.element_type {
            return &[];
        }
        bytemuck::cast_slice(self.bytes())
    }

    /// The elements; none if the type is not `T`.
    #[inline]
    pub fn elements_mut<T: Element>(&mut self) -> &mut [T] {
        debug_assert_eq!(T::TYPE, self.element_type);
        if T::TYPE != self.element_type {
            return &mut [];
        }
        let bytes = self.length * size_of::<T>();
        bytemuck::cast_slice_mut(&mut self.memory.bytes_mut()[..bytes])
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
        &self.memory.bytes()[..self.length * self.element_type.size()]
    }

    #[cfg(feature = "checkpoint")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The elements' bytes, in the machine's order.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.length * self.element_type.size()]
    }
}

/// A gradient in memory of its own, which a step may exchange for the filter's old h:
/// [`Tensor::exchanging`](crate::Tensor::exchanging), [`TensorState::step_exchanging`](crate::TensorState::step_exchanging).
/// It is a slice of elements on a 64-byte boundary. After a step it holds what is of no use.
///
/// ```
/// let mut gradient = koala_optim::Gradient::<f32>::zeroed(3)?;
/// gradient.copy_from_slice(&[0.1, 0.2, -0.3]);
/// assert_eq!(gradient[1], 0.2);
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Gradient<P> {
    pub(crate) storage: Storage,
    element: PhantomData<P>,
}

impl<P: Element> Gradient<P> {
    /// `length` zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none for them.
    ///
    /// See the [type's example](Self).
    pub fn zeroed(length: usize) -> Result<Self, Error> {
        let memory = Error::Memory { tensor: String::new(), elements: length };
        Ok(Gradient { storage: Storage::zeroed(length, P::TYPE).ok_or(memory)?, element: PhantomData })
    }
}

impl<P: Element> Deref for Gradient<P> {
    type Target = [P];

    fn deref(&self) -> &[P] {
        self.storage.elements()
    }
}

impl<P: Element> DerefMut for Gradient<P> {
    fn deref_mut(&mut self) -> &mut [P] {
        self.storage.elements_mut()
    }
}
