//! Structs that begin with their size, so that members can be added at their end: a caller with an older header gives a
//! shorter one, and the members that it lacks are at their defaults; one with a newer header gives a longer one, which is
//! good as long as the members that this library lacks are zero.

use crate::pointers::check;
use crate::status::{Failure, fail, koala_status};

/// What no struct will ever be larger than: a size above is no size.
const LARGEST: usize = 4096;

/// A struct whose first member is its size.
///
/// # Safety
/// `repr(C)`, begins with a `size: usize`, has no padding, and any bytes are a value of it.
pub(crate) unsafe trait Growing: Copy {
    /// For error texts.
    const NAME: &'static str;
    /// Its size in the first version of the library.
    const FIRST_SIZE: usize;
    /// What it is where the caller says nothing; its size is that of the type.
    fn default() -> Self;
}

/// Whether the size that a struct begins with is possible. Returns it.
///
/// # Safety
/// `pointer` is NULL or points to a struct that begins with its size.
#[inline(always)]
unsafe fn size_of_given<T: Growing>(pointer: *const T) -> Result<usize, Failure> {
    check(pointer, T::NAME)?;
    // SAFETY: not NULL, aligned, and the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(size)?;
    Ok(size)
}

#[inline(always)]
pub(crate) fn check_size<T: Growing>(size: usize) -> Result<(), Failure> {
    if (T::FIRST_SIZE..=LARGEST).contains(&size) {
        return Ok(());
    }
    Err(fail(
        koala_status::StructSize,
        format_args!("the size in a {} is {size}, expected {}", T::NAME, size_of::<T>()),
    ))
}

/// A struct that the caller gives.
///
/// # Safety
/// `pointer` is NULL, or points to as many bytes as the size there says.
#[inline(always)]
pub(crate) unsafe fn read<T: Growing>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { size_of_given(pointer) }?;
    if size == size_of::<T>() {
        // SAFETY: the caller's promise; any bytes are a value.
        return Ok(unsafe { pointer.read() });
    }
    // SAFETY: the caller's promise.
    unsafe { read_other_version(pointer, size) }
}

/// # Safety
/// `pointer` points to `size` bytes, and is aligned.
#[cold]
unsafe fn read_other_version<T: Growing>(pointer: *const T, size: usize) -> Result<T, Failure> {
    let mut value = T::default();
    let known = size.min(size_of::<T>());
    // SAFETY: both have that many bytes.
    unsafe { (&raw mut value).cast::<u8>().copy_from_nonoverlapping(pointer.cast::<u8>(), known) };
    // SAFETY: there are `size` bytes.
    let beyond = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    match beyond.iter().all(|byte| *byte == 0) {
        true => Ok(value),
        false => Err(fail(
            koala_status::StructSize,
            format_args!(
                "a {} of {size} bytes has members set that this library, to which it has {}, does not know",
                T::NAME,
                size_of::<T>(),
            ),
        )),
    }
}

/// A struct that the caller gives, or the default for NULL.
///
/// # Safety
/// As [`read`].
#[inline(always)]
pub(crate) unsafe fn read_or_default<T: Growing>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(T::default()) } else { unsafe { read(pointer) } }
}

/// A place for a struct whose size the caller has set, NULL where it is not wanted. Nothing is written before
/// [`write`](Self::write).
pub(crate) struct Output<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Growing> Output<T> {
    /// # Safety
    /// `pointer` is NULL, or points to as many bytes as the size there says, which may be written.
    pub unsafe fn optional(pointer: *mut T) -> Result<Self, Failure> {
        if pointer.is_null() {
            return Ok(Output { pointer, size: 0 });
        }
        // SAFETY: the caller's promise.
        unsafe { Self::needed(pointer) }
    }

    /// # Safety
    /// As [`optional`](Self::optional).
    pub unsafe fn needed(pointer: *mut T) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        Ok(Output { pointer, size: unsafe { size_of_given(pointer) }? })
    }

    /// Writes as much of the value as the caller has room for, zeros beyond it, and leaves the size as it is.
    pub fn write(self, value: &T) {
        if self.pointer.is_null() {
            return;
        }
        let header = size_of::<usize>();
        let known = self.size.min(size_of::<T>());
        // SAFETY: there are `size` bytes, which may be written, by the constructors' callers' promise.
        unsafe {
            let bytes = self.pointer.cast::<u8>();
            bytes.add(known).write_bytes(0, self.size - known);
            bytes.add(header).copy_from_nonoverlapping((&raw const *value).cast::<u8>().add(header), known - header);
        }
    }

    /// The address of the first byte, and of the one after the last.
    pub fn range(&self) -> (usize, usize) {
        (self.pointer.addr(), self.pointer.addr() + self.size)
    }
}

/// Fills a struct of `size` bytes with the defaults, zeros beyond those that this library knows.
///
/// # Safety
/// `pointer` is NULL, or points to `size` bytes that may be written.
pub(crate) unsafe fn initialize<T: Growing>(pointer: *mut T, size: usize) -> Result<(), Failure> {
    check(pointer, T::NAME)?;
    check_size::<T>(size)?;
    // SAFETY: the caller's promise.
    unsafe { pointer.cast::<usize>().write(size) };
    Output { pointer, size }.write(&T::default());
    Ok(())
}
