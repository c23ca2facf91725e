//! Structs that begin with their size, so that members can be added at their end. A caller with a newer header gives a
//! longer one, which is good as long as the members that this library lacks are zero. A caller with an older header gives a
//! shorter one, whose missing members have their defaults.

use crate::border::failure::{Failure, fail};
use crate::border::pointers::{check, check_array};
use crate::border::ranges::Range;
use crate::border::status::koala_status;

/// What no struct will ever be larger than: a size above is no size.
const LARGEST: usize = 4096;

/// A struct whose first member is its size.
///
/// # Safety
/// `repr(C)`, begins with a `size: usize`, and any bytes are a value of it.
pub(crate) unsafe trait Growing: Copy {
    /// For error texts.
    const NAME: &'static str;
    /// Its size in the first version of the library: up to the last member that it had then.
    const FIRST_SIZE: usize;
}

/// Says that a struct begins with its size and may grow, and which member was its last one in the first version.
macro_rules! growing {
    ($struct:ident, up to $member:ident) => {
        // SAFETY: a struct of C's, of numbers and pointers, so any bytes are a value.
        unsafe impl $crate::border::growing::Growing for $struct {
            const NAME: &'static str = stringify!($struct);
            const FIRST_SIZE: usize = (std::mem::offset_of!($struct, $member)
                + $crate::border::growing::size_of_member(|all: &$struct| &all.$member))
            .next_multiple_of(align_of::<$struct>());
        }
        const _: () = assert!(std::mem::offset_of!($struct, size) == 0);
    };
}
pub(crate) use growing;

pub(crate) const fn size_of_member<T, M>(_: fn(&T) -> &M) -> usize {
    size_of::<M>()
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
fn check_size<T: Growing>(size: usize) -> Result<(), Failure> {
    // A multiple, so that the next one in an array is aligned too.
    let possible = size >= T::FIRST_SIZE && size <= LARGEST && size.is_multiple_of(align_of::<T>());
    if possible { Ok(()) } else { Err(impossible_size(size, size_of::<T>(), T::NAME)) }
}

#[cold]
fn impossible_size(size: usize, expected: usize, name: &str) -> Failure {
    fail(koala_status::StructSize, format_args!("the size in a {name} is {size}, expected {expected}"))
}

/// A struct that the caller gives, where it is: members are read one by one, as they were written, since a wide copy
/// would have to wait for the writes.
///
/// # Safety
/// `pointer` is NULL, or points to as many bytes as the size there says, which stay as they are for as long as the
/// result is used.
#[inline(always)]
pub(crate) unsafe fn look<'a, T: Growing>(pointer: *const T) -> Result<&'a T, Failure> {
    // A struct that has grown is not there as a whole if the caller's header is older: that is what `with` is for.
    const { assert!(T::FIRST_SIZE == size_of::<T>()) };
    // SAFETY: the caller's promise.
    let size = unsafe { size_of_given(pointer) }?;
    if size != size_of::<T>() {
        // SAFETY: the caller's promise.
        unsafe { check_beyond(pointer, size) }?;
    }
    // SAFETY: not NULL, aligned, at least as long as a `T`; any bytes are a value; and the caller's promise.
    Ok(unsafe { &*pointer })
}

/// Calls `work` with a struct that the caller gives, where it is, or with a copy that has the defaults of those members
/// which the caller's header lacks.
///
/// # Safety
/// As [`look`].
#[inline(always)]
pub(crate) unsafe fn with<T: Growing + Default, R>(
    pointer: *const T,
    work: impl FnOnce(&T) -> R,
) -> Result<R, Failure> {
    // SAFETY: the caller's promise.
    let size = unsafe { size_of_given(pointer) }?;
    if size < size_of::<T>() {
        // SAFETY: the caller's promise.
        return Ok(work(&unsafe { grown(pointer, size) }));
    }
    if size > size_of::<T>() {
        // SAFETY: the caller's promise.
        unsafe { check_beyond(pointer, size) }?;
    }
    // SAFETY: not NULL, aligned, at least as long as a `T`; any bytes are a value; and the caller's promise.
    Ok(work(unsafe { &*pointer }))
}

/// A copy of a shorter struct, with the defaults beyond its size.
///
/// # Safety
/// `pointer` points to `size` bytes, fewer than a `T` has.
#[cold]
unsafe fn grown<T: Growing + Default>(pointer: *const T, size: usize) -> T {
    let mut whole = T::default();
    // SAFETY: there are `size` bytes at both; any bytes are a value.
    unsafe { (&raw mut whole).cast::<u8>().copy_from_nonoverlapping(pointer.cast(), size) };
    whole
}

/// Whether a struct is zero where this library does not know it.
///
/// # Safety
/// `pointer` points to `size` bytes.
#[cold]
unsafe fn check_beyond<T: Growing>(pointer: *const T, size: usize) -> Result<(), Failure> {
    let known = size_of::<T>();
    // SAFETY: there are `size` bytes, by the caller's promise, and `size` is not below `known`.
    let beyond = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    match beyond.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(fail(
            koala_status::StructSize,
            format_args!("a {} of {size} bytes has members set that this library, which knows {known}, lacks", T::NAME),
        )),
    }
}

/// A struct that the caller gives, or the default for NULL.
///
/// # Safety
/// As [`look`].
pub(crate) unsafe fn copy_or_default<T: Growing + Default>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(T::default()) } else { unsafe { with(pointer, |given| *given) } }
}

/// An array of such structs, which all have the size of the first one.
pub(crate) struct Array<T> {
    first: *const T,
    pub count: usize,
    stride: usize,
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<T> {}

impl<T: Growing> Array<T> {
    /// # Safety
    /// `first` is NULL or an array of `count` structs, which stay as they are for as long as the result is used.
    #[inline(always)]
    pub unsafe fn new(first: *const T, count: usize, name: &str) -> Result<Self, Failure> {
        check_array(first, count, name)?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let stride = if count == 0 { 0 } else { unsafe { size_of_given(first) }? };
        Ok(Array { first, count, stride })
    }

    /// # Safety
    /// `place` is below the count.
    #[inline(always)]
    pub unsafe fn pointer(&self, place: usize) -> *const T {
        // SAFETY: within the array, by the caller's promise.
        unsafe { self.first.byte_add(place * self.stride) }
    }

    /// # Safety
    /// `place` is below the count.
    #[inline(always)]
    pub unsafe fn get<'a>(&self, place: usize) -> Result<&'a T, Failure> {
        // SAFETY: the caller's promise, and the promise to `new`.
        unsafe { look(self.checked(place)?) }
    }

    /// As [`get`](Self::get), for a struct that has grown: see [`with`].
    ///
    /// # Safety
    /// `place` is below the count.
    #[inline(always)]
    pub unsafe fn with<R>(&self, place: usize, work: impl FnOnce(&T) -> R) -> Result<R, Failure>
    where
        T: Default,
    {
        // SAFETY: the caller's promise, and the promise to `new`.
        unsafe { with(self.checked(place)?, work) }
    }

    /// # Safety
    /// `place` is below the count.
    #[inline(always)]
    unsafe fn checked(&self, place: usize) -> Result<*const T, Failure> {
        // SAFETY: the caller's promise; aligned, since the first one is and a stride is a multiple of its alignment.
        let (pointer, size) = unsafe { (self.pointer(place), self.pointer(place).cast::<usize>().read()) };
        if size == self.stride { Ok(pointer) } else { Err(unequal_sizes(size, self.stride, place, T::NAME)) }
    }

    /// The address of the first byte, and of the one after the last.
    pub fn range(&self) -> Range {
        (self.first.addr(), self.first.addr() + self.count * self.stride)
    }
}

#[cold]
fn unequal_sizes(size: usize, stride: usize, place: usize, name: &str) -> Failure {
    fail(
        koala_status::StructSize,
        format_args!(
            "the size in element {place} of an array of {name} is {size}, not that of the first one, {stride}"
        ),
    )
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

    /// Writes as much of the value as the caller has room for, zeros beyond it, and leaves the size as it is. Returns
    /// success, so that a call can end with it.
    pub fn write(self, value: &T) -> Result<(), Failure> {
        if self.pointer.is_null() {
            return Ok(());
        }
        let header = size_of::<usize>();
        let known = self.size.min(size_of::<T>());
        // SAFETY: there are `size` bytes, which may be written, by the constructors' callers' promise.
        unsafe {
            let bytes = self.pointer.cast::<u8>();
            bytes.add(known).write_bytes(0, self.size - known);
            bytes.add(header).copy_from_nonoverlapping((&raw const *value).cast::<u8>().add(header), known - header);
        }
        Ok(())
    }

    /// The address of the first byte, and of the one after the last.
    pub fn range(&self) -> Range {
        (self.pointer.addr(), self.pointer.addr() + self.size)
    }
}

/// Fills a struct of `size` bytes with the defaults, and with zeros beyond the members that this library knows.
///
/// # Safety
/// `pointer` is NULL, or points to `size` bytes that may be written.
pub(crate) unsafe fn initialize<T: Growing + Default>(pointer: *mut T, size: usize) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { initialize_with(pointer, size, &T::default()) }
}

/// Fills a struct of `size` bytes with these values, and with zeros beyond the members that this library knows.
///
/// # Safety
/// As [`initialize`].
pub(crate) unsafe fn initialize_with<T: Growing>(pointer: *mut T, size: usize, value: &T) -> Result<(), Failure> {
    check(pointer, T::NAME)?;
    check_size::<T>(size)?;
    // SAFETY: the caller's promise.
    unsafe { pointer.cast::<usize>().write(size) };
    Output { pointer, size }.write(value)
}
