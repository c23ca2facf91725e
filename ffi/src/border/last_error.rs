//! How C reads texts: that of the last failure, and any other.

use std::ffi::c_char;

use crate::border::failure::{Failure, with_text};
use crate::border::pointers::{check_array, check_optional};
use crate::border::ranges::{check_apart, end_of, overlaps, range_of};
use crate::border::status::koala_status;

/// Copies the text of the last call on this thread that did not succeed: English, UTF-8, one line, such as
/// `tensor "weight": expected 3 elements, found 2 in the gradient`. Empty if there was none.
///
/// `buffer` receives at most `capacity` bytes, the last of them NUL, and may be NULL if `capacity` is 0. A text that is
/// too long is cut. `length`, unless NULL, receives the length of the whole text without NUL: at most 512, but for what
/// is wrong with a checkpoint, since that names a path, or lists all that differs.
///
/// If this call itself does not succeed, the text stays the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_last_error(buffer: *mut c_char, capacity: usize, length: *mut usize) -> koala_status {
    if buffer.is_null() && capacity > 0 {
        return koala_status::NullPointer;
    }
    if !length.is_aligned() {
        return koala_status::Misaligned;
    }
    let Some(end) = end_of(buffer.addr(), capacity, 1) else { return koala_status::Length };
    if overlaps((buffer.addr(), end), range_of(length, 1)) {
        return koala_status::Overlap;
    }
    // SAFETY: the caller's promise for both.
    with_text(|text| unsafe { copy_text(text, buffer, capacity, length) });
    koala_status::Ok
}

/// Whether there is a place for a text, and one for its length, which may be NULL.
pub(crate) fn check_text(buffer: *mut c_char, capacity: usize, length: *mut usize) -> Result<(), Failure> {
    check_array(buffer, capacity, "buffer")?;
    check_optional(length, "length")?;
    check_apart(&[("buffer", range_of(buffer, capacity)), ("length", range_of(length, 1))], &[])
}

/// Copies a text and a NUL to C.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `length` is NULL or may be written.
pub(crate) unsafe fn copy_text(text: &[u8], buffer: *mut c_char, capacity: usize, length: *mut usize) {
    if capacity > 0 {
        let mut end = text.len().min(capacity - 1);
        // Not in the middle of a character.
        while end < text.len() && end > 0 && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        // SAFETY: `end` is below the capacity, and the text is this thread's own.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), end);
            buffer.add(end).write(0);
        }
    }
    if !length.is_null() {
        // SAFETY: the caller's promise.
        unsafe { length.write(text.len()) };
    }
}
