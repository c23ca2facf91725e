//! The border: what a call returns, and that no panic crosses it or prints.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Once, OnceLock};

use crate::border::failure::{Failure, fail};
use crate::border::status::koala_status;

thread_local! {
    /// Whether this thread is in a call, or is one of an optimizer's own.
    static OURS: Cell<bool> = const { Cell::new(false) };
    /// Whether the text of a panic on this thread has been kept.
    static TOLD: Cell<bool> = const { Cell::new(false) };
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
        Err(panic) => tell(panic),
    }
}

/// For the threads that an optimizer starts.
pub(crate) fn mark_thread() {
    OURS.set(true);
}

/// Keeps a panic's text for `koala_last_error`, if it comes from another thread.
#[cold]
fn tell(panic: Box<dyn Any + Send>) -> koala_status {
    if !TOLD.take() {
        fail(koala_status::Panic, format_args!("a mistake in the library: {}", text_of(&*panic)));
    }
    koala_status::Panic
}

fn text_of(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(|text| &**text).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no text")
}

/// What is called where a thread panics.
type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// Panics in a call do not print: their texts and places are kept for `koala_last_error`. Other panics go to the hook
/// that was there before.
#[inline(always)]
fn keep_panics_silent() {
    static ONCE: Once = Once::new();
    // Not in the hook itself, which then has nothing to allocate memory for.
    static BEFORE: OnceLock<Hook> = OnceLock::new();
    ONCE.call_once(|| {
        BEFORE.get_or_init(take_hook);
        set_hook(Box::new(|panic| {
            if !OURS.get() {
                return BEFORE.get().map_or((), |before| before(panic));
            }
            let place = panic.location().map_or(("no place", 0), |place| (place.file(), place.line()));
            let text = text_of(panic.payload());
            fail(koala_status::Panic, format_args!("a mistake in the library, at {}:{}: {text}", place.0, place.1));
            TOLD.set(true);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> String {
        let mut text = [0; 512];
        let mut length = 0;
        // SAFETY: the buffer has that capacity.
        unsafe { crate::border::last_error::koala_last_error(text.as_mut_ptr().cast(), text.len(), &mut length) };
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        assert_eq!(guarded(|| panic!("the koala fell off its tree")), koala_status::Panic);
        let text = last_error();
        assert!(text.starts_with("a mistake in the library, at ") && text.contains("guard.rs:"), "{text}");
        assert!(text.ends_with(": the koala fell off its tree"), "{text}");
        assert_eq!(guarded(|| Ok(())), koala_status::Ok);
    }

    #[test]
    fn a_panic_of_another_thread_too() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).start_handler(|_| mark_thread()).build().unwrap();
        assert_eq!(guarded(|| pool.install(|| panic!("{} koalas fell", 2))), koala_status::Panic);
        assert_eq!(last_error(), "a mistake in the library: 2 koalas fell");
    }
}
