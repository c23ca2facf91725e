//! What all tensors of an optimizer share: scaling, threads, noise, method, backend and log.

use std::ffi::{c_char, c_void};

use koala_optim::Scaling;

use crate::border::growing::Output;
use crate::border::guard::guarded;
use crate::border::pointers::Place;
use crate::border::status::koala_status;
use crate::optimizer::config::threads;
use crate::optimizer::handle::{Handle, Log, koala_optimizer};
use crate::words::backends::koala_backend;
use crate::words::method::koala_method;

/// Changes what becomes of gradients as they are loaded, from the next step on: see koala_config's gradient_factor,
/// which is one over the factor that the loss was scaled by, and gradient_limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_scaling(
    optimizer: *mut koala_optimizer,
    factor: f64,
    limit: f64,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        Ok(inner.optimizer.set_scaling(Scaling { factor, limit })?)
    })
}

/// Changes how many threads a step uses, from the next one on: see koala_config's threads. The threads of before are
/// joined. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_threads(optimizer: *mut koala_optimizer, count: u32) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        Ok(inner.optimizer.set_threads(threads(count))?)
    })
}

/// R, as the last step used it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_noise(optimizer: *const koala_optimizer, noise: *mut f64) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (noise, inner) = unsafe { (Place::needed(noise, "noise")?, koala_optimizer::shared(optimizer)?) };
        noise.write(inner.optimizer.noise())
    })
}

/// The method, with its shared numbers as they are after the last step; numbers of other kinds are zero. Set
/// `method->size` before the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_method(
    optimizer: *const koala_optimizer,
    method: *mut koala_method,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (inner, output) = unsafe { (koala_optimizer::shared(optimizer)?, Output::needed(method)?) };
        output.write(&(&inner.optimizer.method()).into())
    })
}

/// The backend that an optimizer's steps run on: never KOALA_BACKEND_FASTEST.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_backend(
    optimizer: *const koala_optimizer,
    backend: *mut koala_backend,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (backend, inner) = unsafe { (Place::needed(backend, "backend")?, koala_optimizer::shared(optimizer)?) };
        backend.write(inner.backend)
    })
}

/// Hears of a tensor that a step restarted or kept because of trouble: a text of one line, of at most 512 bytes, valid
/// during the call, and the context that was given with the function. It is called by the thread that called
/// koala_optimizer_step, after all tensors have stepped. It must not call that optimizer, and must return: no
/// exception, no longjmp.
pub type koala_log = Option<extern "C" fn(context: *mut c_void, text: *const c_char)>;

/// Has `function` called for every tensor whose filter restarts, or which is kept because something is not finite or
/// because of a breakdown. NULL: nothing is called any more, as at first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_log(
    optimizer: *mut koala_optimizer,
    function: koala_log,
    context: *mut c_void,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        inner.log = function.map(|function| Log { function, context });
        Ok(())
    })
}
