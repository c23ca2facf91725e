//! Where the caller's buffers are in memory, and whether they lie apart.

use crate::border::failure::{Failure, fail};
use crate::border::status::koala_status;

/// Addresses from the first byte to the one after the last; of nothing, zero and zero.
pub(crate) type Range = (usize, usize);

/// Where a buffer of that many bytes is.
#[inline(always)]
pub(crate) fn bytes_at<T>(pointer: *const T, bytes: usize) -> Range {
    if pointer.is_null() || bytes == 0 { (0, 0) } else { (pointer.addr(), pointer.addr() + bytes) }
}

/// Where `count` elements are. The count of what is NULL may be any.
#[inline(always)]
pub(crate) fn range_of<T>(pointer: *const T, count: usize) -> Range {
    if pointer.is_null() { (0, 0) } else { bytes_at(pointer, count * size_of::<T>()) }
}

/// Where a text and its NUL are.
pub(crate) fn range_of_text(text: &str) -> Range {
    bytes_at(text.as_ptr(), text.len() + 1)
}

/// Whether two ranges have a byte in common.
#[inline(always)]
pub(crate) fn overlaps(left: Range, right: Range) -> bool {
    (left.0 < right.1) & (right.0 < left.1)
}

/// The address after the last byte of a buffer, if memory can hold it.
#[inline(always)]
pub(crate) fn end_of(address: usize, count: usize, size: usize) -> Option<usize> {
    let bytes = count.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize);
    bytes.and_then(|bytes| address.checked_add(bytes))
}

/// A part of the caller's memory, and its name.
pub(crate) type Named = (&'static str, Range);

/// No memory.
pub(crate) const NOTHING: Named = ("nothing", (0, 0));

/// Whether what is written lies apart from each other, and from what is read.
pub(crate) fn check_apart(written: &[Named], read: &[Named]) -> Result<(), Failure> {
    for (place, (name, range)) in written.iter().enumerate() {
        let others = written[place + 1..].iter().chain(read);
        if let Some((other, _)) = others.into_iter().find(|(_, other)| overlaps(*range, *other)) {
            return Err(fail(koala_status::Overlap, format_args!("{name} and {other} overlap")));
        }
    }
    Ok(())
}
