//! What C hands over, looked at before it is used: pointers, enums, texts.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use crate::border::failure::{Failure, fail};
use crate::border::ranges::{Range, end_of, range_of};
use crate::border::status::koala_status;
use crate::border::values::{FromC, number_of, value_of};

/// The value, or a failure that names the number.
#[inline(always)]
pub(crate) fn known<T: FromC>(value: MaybeUninit<T>) -> Result<T, Failure> {
    match value_of(value) {
        Some(value) => Ok(value),
        None => Err(unknown(number_of(value).into(), T::NAME)),
    }
}

/// A flag, 0 or 1.
#[inline(always)]
pub(crate) fn flag(value: u32, name: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(unknown_flag(value, name)),
    }
}

/// Whether a pointer to `T` may be used, as far as can be seen.
#[inline(always)]
pub(crate) fn check<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(misaligned(pointer.addr(), align_of::<T>(), name));
    }
    Ok(())
}

/// Whether a pointer to an array may be used, as far as can be seen. It may be NULL if the array has no elements.
#[inline(always)]
pub(crate) fn check_array<T>(pointer: *const T, count: usize, name: &str) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    check(pointer, name)?;
    match end_of(pointer.addr(), count, size_of::<T>()) {
        Some(_) => Ok(()),
        None => Err(too_long(count, name)),
    }
}

// Out of the way of calls that are right: what a text is made of would be written to memory before it is needed.

#[cold]
fn unknown(number: i64, name: &str) -> Failure {
    fail(koala_status::UnknownValue, format_args!("{number} is no {name}"))
}

#[cold]
fn unknown_flag(value: u32, name: &str) -> Failure {
    fail(koala_status::UnknownValue, format_args!("the flag {name} is {value}, expected 0 or 1"))
}

#[cold]
pub(crate) fn null(name: &str) -> Failure {
    fail(koala_status::NullPointer, format_args!("{name} is NULL"))
}

#[cold]
pub(crate) fn misaligned(address: usize, alignment: usize, name: &str) -> Failure {
    fail(koala_status::Misaligned, format_args!("{name} is at {address:#x}, expected a multiple of {alignment}"))
}

#[cold]
pub(crate) fn too_long(count: usize, name: &str) -> Failure {
    fail(koala_status::Length, format_args!("{count} elements in {name} are more than memory can hold"))
}

/// Whether a pointer may be used that is NULL if the caller does not want what goes there.
#[inline(always)]
pub(crate) fn check_optional<T>(pointer: *mut T, name: &str) -> Result<(), Failure> {
    if pointer.is_null() { Ok(()) } else { check(pointer, name) }
}

/// A text that ends with NUL.
///
/// # Safety
/// `pointer` is NULL or such a text, which stays as it is for as long as the result is used.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    check(pointer, name)?;
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| fail(koala_status::Encoding, format_args!("{name} is not UTF-8: {text:?}: {error}")))
}

/// A place that the caller gives for a value. NULL, where it may be: the value is not wanted.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// # Safety
    /// The pointer is NULL, or leads to a `T` that may be written as long as the result is used.
    #[inline(always)]
    pub unsafe fn needed(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        check(pointer, name)?;
        Ok(Place(pointer))
    }

    /// # Safety
    /// As [`needed`](Self::needed).
    #[inline(always)]
    pub unsafe fn optional(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        check_optional(pointer, name)?;
        Ok(Place(pointer))
    }

    /// Writes there. Returns success, so that a call can end with it.
    #[inline(always)]
    pub fn write(self, value: T) -> Result<(), Failure> {
        if !self.0.is_null() {
            // SAFETY: aligned, and by the promise to the constructor.
            unsafe { self.0.write(value) };
        }
        Ok(())
    }

    /// What it occupies.
    #[inline(always)]
    pub fn range(&self) -> Range {
        range_of(self.0, 1)
    }
}
