//! The optimizer behind C's pointer: what is kept beside the library's own, and what a panic does to it.

use std::ffi::{c_char, c_void};
use std::ops::{Deref, DerefMut};
use std::thread::panicking;

use koala_optim::{Optimizer, Tensor};

use crate::border::failure::{Failure, fail, no_memory};
use crate::border::pointers::check;
use crate::border::status::koala_status;
use crate::optimizer::apart::Sorted;
use crate::optimizer::names::{Groups, Names};
use crate::words::backends::koala_backend;

/// KOALA++, or another method, over a model: named tensors in groups, their filters, the noise that they share. Made by
/// koala_optimizer_create, ended by koala_optimizer_destroy.
///
/// Several threads may be in functions that take a pointer to const at once. Any other function has to have the
/// optimizer for itself. It need not be called by the thread that made the optimizer.
pub struct koala_optimizer(());

impl Handle for koala_optimizer {
    type Inner = Inner;
}

/// All of it but the poison.
pub(crate) struct Inner {
    pub optimizer: Optimizer,
    pub backend: koala_backend,
    pub groups: Groups,
    pub names: Names,
    pub log: Option<Log>,
    /// What the last load did not load, a line each.
    pub differences: String,
    /// Empty between calls; kept so that a step does not allocate.
    pub given: Vec<Tensor<'static>>,
    pub sorted: Sorted,
}

/// Where the caller wants to hear of troubles.
#[derive(Clone, Copy)]
pub(crate) struct Log {
    pub function: extern "C" fn(*mut c_void, *const c_char),
    pub context: *mut c_void,
}

/// An object, and whether a panic has left it half-changed.
pub(crate) struct Guarded<T> {
    poisoned: bool,
    inner: T,
}

impl<T> Guarded<T> {
    fn sound(&self) -> Result<(), Failure> {
        match self.poisoned {
            false => Ok(()),
            true => Err(fail(
                koala_status::Poisoned,
                format_args!(
                    "an earlier call on this optimizer met a mistake in the library; it can only be destroyed"
                ),
            )),
        }
    }
}

/// What C has a pointer to, which is really one to a `Guarded<Inner>`.
pub(crate) trait Handle: Sized {
    /// All of it but the poison.
    type Inner;

    /// Gives C one to destroy.
    ///
    /// # Safety
    /// `place` may be written.
    unsafe fn give(inner: Self::Inner, place: *mut *mut Self) -> Result<(), Failure> {
        // A slice of one, whose memory is a box's: a box itself can only be made where there is memory.
        let mut one = Vec::new();
        one.try_reserve_exact(1).map_err(|_| no_memory("an optimizer"))?;
        one.push(Guarded { poisoned: false, inner });
        // SAFETY: the caller's promise.
        unsafe { place.write(Box::into_raw(one.into_boxed_slice()).cast()) };
        Ok(())
    }

    /// # Safety
    /// `pointer` is NULL or from [`give`](Self::give), not destroyed, and nobody uses it.
    unsafe fn destroy(pointer: *mut Self) -> Result<(), Failure> {
        if pointer.is_null() {
            return Ok(());
        }
        check(pointer.cast::<Guarded<Self::Inner>>(), "optimizer")?;
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(pointer.cast::<Guarded<Self::Inner>>()) });
        Ok(())
    }

    /// Lends it to what only reads.
    ///
    /// # Safety
    /// `pointer` is NULL or from [`give`](Self::give), not destroyed, and nobody changes it at the same time.
    unsafe fn shared<'a>(pointer: *const Self) -> Result<&'a Self::Inner, Failure>
    where
        Self: 'a,
    {
        let pointer = pointer.cast::<Guarded<Self::Inner>>();
        check(pointer, "optimizer")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let guarded = unsafe { &*pointer };
        guarded.sound()?;
        Ok(&guarded.inner)
    }

    /// Lends it to what changes it. If that panics, the optimizer is of no use any more.
    ///
    /// # Safety
    /// `pointer` is NULL or from [`give`](Self::give), not destroyed, and nobody uses it as long as the result is used.
    #[inline(always)]
    unsafe fn changed<'a>(pointer: *mut Self) -> Result<Lent<'a, Self::Inner>, Failure>
    where
        Self: 'a,
    {
        let pointer = pointer.cast::<Guarded<Self::Inner>>();
        check(pointer, "optimizer")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let guarded = unsafe { &mut *pointer };
        guarded.sound()?;
        Ok(Lent { guarded, was_panicking: panicking() })
    }
}

/// An object that a call may change. It is poisoned when a panic ends the call.
pub(crate) struct Lent<'a, T> {
    guarded: &'a mut Guarded<T>,
    /// Whether the caller was already cleaning up after a panic of its own.
    was_panicking: bool,
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.guarded.inner
    }
}

impl<T> DerefMut for Lent<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guarded.inner
    }
}

impl<T> Drop for Lent<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if panicking() && !self.was_panicking {
            self.guarded.poisoned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Handle;
    use crate::border::guard::guarded;
    use crate::*;

    #[test]
    fn a_panic_poisons_it() {
        let mut optimizer = std::ptr::null_mut();
        let mut noise = -1.0;
        // SAFETY: the pointers are this test's own.
        unsafe {
            assert_eq!(koala_optimizer_create(std::ptr::null(), &mut optimizer), koala_status::Ok);
            assert_eq!(koala_optimizer_noise(optimizer, &mut noise), koala_status::Ok);
            let panicking = || {
                let _lent = koala_optimizer::changed(optimizer)?;
                panic!("in the middle of a change")
            };
            assert_eq!(guarded(panicking), koala_status::Panic);
            assert_eq!(koala_optimizer_noise(optimizer, &mut noise), koala_status::Poisoned);
            assert_eq!(koala_optimizer_set_threads(optimizer, 1), koala_status::Poisoned);
            assert_eq!(koala_optimizer_destroy(optimizer), koala_status::Ok);
        }
        assert_eq!(noise, 1.0);
    }
}
