//! The border: what a call returns, and that no panic crosses it or prints.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::status::{Failure, fail, koala_status};

thread_local! {
    /// Whether this thread is in a call, or one of an optimizer's own.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of a call.
#[inline(always)]
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> koala_status {
    keep_panics_silent();
    let before = OURS.replace(true);
    // Whoever has an object that a panic may have left half-changed marks it: see `handle`.
    let result = catch_unwind(AssertUnwindSafe(body));
    OURS.set(before);
    match result {
        Ok(Ok(())) => koala_status::Ok,
        Ok(Err(Failure(status))) => status,
        Err(_) => koala_status::Panic,
    }
}

/// For the threads that an optimizer starts.
pub(crate) fn mark_thread() {
    OURS.set(true);
}

/// A panic's text goes where `koala_last_error` finds it, not to the terminal. Panics of others are left to them.
#[inline(always)]
fn keep_panics_silent() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| match OURS.get() {
            true => {
                fail(koala_status::Panic, format_args!("a mistake in the library: {panic}"));
            }
            false => before(panic),
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        assert_eq!(guarded(|| panic!("the koala fell off its tree")), koala_status::Panic);
        let mut text = [0; 512];
        let mut length = 0;
        // SAFETY: the buffer has that capacity.
        unsafe { crate::koala_last_error(text.as_mut_ptr().cast(), text.len(), &mut length) };
        let text = std::str::from_utf8(&text[..length]).unwrap();
        assert!(text.contains("the koala fell off its tree") && text.contains("guard.rs"), "{text}");
        assert_eq!(guarded(|| Ok(())), koala_status::Ok);
    }
}
