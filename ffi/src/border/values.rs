//! Values as C gives and takes them.

use std::mem::MaybeUninit;

/// An enum that C names by a number, from 0 on without a gap. C may give any number, so such a value comes as
/// `MaybeUninit` until it has been looked at.
pub(crate) trait FromC: Copy + 'static {
    /// For error texts.
    const NAME: &'static str;
    /// Every value, in the order of their numbers.
    const ALL: &'static [Self];
}

/// The number that C gave.
#[inline(always)]
pub(crate) fn number_of<T: FromC>(value: MaybeUninit<T>) -> i32 {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: `repr(i32)` by the trait's users, all of which are here; and C passes some number.
    unsafe { value.as_ptr().cast::<i32>().read() }
}

/// An out-pointer.
pub(crate) trait COutput<T> {
    /// Writes there, unless it is NULL.
    ///
    /// # Safety
    /// The pointer is NULL, or may be written.
    unsafe fn write_where_wanted(self, value: T);
}

impl<T> COutput<T> for *mut T {
    #[inline(always)]
    unsafe fn write_where_wanted(self, value: T) {
        if !self.is_null() {
            // SAFETY: the caller's promise.
            unsafe { self.write(value) };
        }
    }
}
