//! Level 3 for C: everything about an optimizer but its step.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use koala_optim::kernel::Scalars;
use koala_optim::{Config, Optimizer, Scaling, TensorState, Threads};

use crate::apart::BUFFERS;
use crate::backends::{chosen, koala_backend, number};
use crate::call::check_apart;
use crate::failure::{Failure, check_text, copy_text, fail, no_memory};
use crate::growing::{Growing, Output, copy_or_default, initialize, look, size_up_to};
use crate::guard::{guarded, mark_thread};
use crate::handle::{Handle, Inner, Log, koala_optimizer};
use crate::method::{koala_method, method_of};
use crate::pointers::{bytes_at, check, check_array, check_optional, flag, known, range_of, range_of_text, text};
use crate::settings::{
    from_c, koala_element_type, koala_noise, koala_on_breakdown, koala_on_non_finite, koala_settings, koala_state_type,
    noise_rule, policy, to_c,
};
use crate::status::koala_status;
use crate::tensor::koala_scalars;

/// What an optimizer is made with. koala_config_init fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_config {
    /// sizeof(koala_config).
    pub size: usize,
    /// Which optimizer steps; it is copied. NULL, the default: KOALA++.
    pub method: *const koala_method,
    /// At least 1e-37: what gradients are multiplied by as they are loaded, at no pass over memory. Default 1. See
    /// koala_optimizer_set_scaling.
    pub gradient_factor: f64,
    /// At least 1e-37: no element of a gradient, scaled, is taken to be farther from zero. Default infinite, which is no
    /// limit. What is NaN or infinite before it counts as that.
    pub gradient_limit: f64,
    /// Above 0: the Euclidean norm of all gradients of a step together, scaled, above which they are shrunk to that norm.
    /// The first pass then goes over all tensors before any is written. Default infinite, which is no limit.
    pub clip_norm: f64,
    /// R before the first step, at least 0; with KOALA_NOISE_FIXED, R for ever. Default 1, the paper's.
    pub initial_noise: f64,
    /// The decay of KOALA_NOISE_AVERAGED, in [0, 1]. Default 0.9, the paper's.
    pub noise_decay: f64,
    /// Default KOALA_NOISE_AVERAGED.
    pub noise: MaybeUninit<koala_noise>,
    /// Where steps run. Default KOALA_BACKEND_FASTEST.
    pub backend: MaybeUninit<koala_backend>,
    /// Default KOALA_ON_NON_FINITE_KEEP_TENSOR.
    pub on_non_finite: MaybeUninit<koala_on_non_finite>,
    /// Default KOALA_ON_BREAKDOWN_RESTART.
    pub on_breakdown: MaybeUninit<koala_on_breakdown>,
    /// How many threads a step uses, at most 512 (255 where pointers have 32 bits); 0 is as many as there are
    /// processors that this process may use. Default 1: the calling one, and none is started. No bit of the results
    /// depends on it.
    pub threads: u32,
    /// 1: the reports of tensors have their norms, which may cost a pass more over gradient and parameters. Default 0.
    pub norms: u32,
}

// SAFETY: numbers and pointers; any bytes are a value.
unsafe impl Growing for koala_config {
    const NAME: &'static str = "koala_config";
    const FIRST_SIZE: usize = size_up_to!(koala_config.norms);
}

impl Default for koala_config {
    fn default() -> Self {
        koala_config {
            size: size_of::<Self>(),
            method: std::ptr::null(),
            gradient_factor: 1.0,
            gradient_limit: f64::INFINITY,
            clip_norm: f64::INFINITY,
            initial_noise: 1.0,
            noise_decay: 0.9,
            noise: MaybeUninit::new(koala_noise::Averaged),
            backend: MaybeUninit::new(koala_backend::Fastest),
            on_non_finite: MaybeUninit::new(koala_on_non_finite::KeepTensor),
            on_breakdown: MaybeUninit::new(koala_on_breakdown::Restart),
            threads: 1,
            norms: 0,
        }
    }
}

/// Their panics do not print.
fn threads(count: u32) -> Threads {
    Threads::CountWith(count as usize, mark_thread)
}

/// Fills `config` with the defaults. `size` is sizeof(koala_config).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_config_init(config: *mut koala_config, size: usize) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { initialize(config, size) })
}

/// Makes an optimizer without tensors. `config` may be NULL, for the defaults. `*optimizer` is the caller's to destroy.
/// Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_create(
    config: *const koala_config,
    optimizer: *mut *mut koala_optimizer,
) -> koala_status {
    guarded(|| {
        check(optimizer, "optimizer")?;
        let place = config;
        // SAFETY: the caller's promise.
        let config = unsafe { copy_or_default(place) }?;
        let read = [("config", bytes_at(place, config.size)), ("method", range_of(config.method, 1))];
        check_apart(&[("optimizer", range_of(optimizer, 1))], &read)?;
        let backend = chosen(config.backend)?;
        let noise = noise_rule(config.noise, config.noise_decay, config.initial_noise)?;
        let policy = policy(config.on_non_finite, config.on_breakdown)?;
        let details = flag(config.norms, "norms")?;
        let threads = threads(config.threads);
        // SAFETY: the caller's promise.
        let method = unsafe { method_of(config.method) }?;
        let scaling = Scaling { factor: config.gradient_factor, limit: config.gradient_limit };
        let clip_norm = Some(config.clip_norm).filter(|norm| *norm != f64::INFINITY);
        let config = Config { method, noise, policy, scaling, clip_norm, backend, threads, details };
        let made = Optimizer::new(config)?;
        let inner = Inner {
            optimizer: made,
            backend: number(backend),
            groups: Default::default(),
            names: Default::default(),
            log: None,
            differences: String::new(),
            given: Vec::new(),
            sorted: Default::default(),
        };
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { koala_optimizer::give(inner, optimizer) }
    })
}

/// Ends an optimizer, frees its memory, and joins its threads. NULL does nothing. The pointer is of no use afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_destroy(optimizer: *mut koala_optimizer) -> koala_status {
    // SAFETY: from `koala_optimizer_create`, and not destroyed before, by the caller's promise.
    guarded(|| unsafe { koala_optimizer::destroy(optimizer) })
}

/// Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers from
/// 0 on, in the order in which they are made. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_add_group(
    optimizer: *mut koala_optimizer,
    settings: *const koala_settings,
    group: *mut u32,
) -> koala_status {
    guarded(|| {
        check(group, "group")?;
        // SAFETY: the caller's promise.
        let given = unsafe { copy_or_default(settings) }?;
        check_apart(&[("group", range_of(group, 1))], &[("settings", bytes_at(settings, given.size))])?;
        let settings = from_c(&given)?;
        let add = |Inner { optimizer, groups, .. }: &mut Inner| groups.add(|| optimizer.add_group(settings));
        // SAFETY: the caller's promise.
        let number = unsafe { koala_optimizer::changed(optimizer, add) }?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { group.write(number) };
        Ok(())
    })
}

impl Inner {
    fn state(&self, tensor: usize) -> Result<&TensorState, Failure> {
        let name = self.names.get(tensor)?;
        self.optimizer.state(name).ok_or_else(|| unknown_tensor(name))
    }
}

/// The settings of a group. Set `settings->size` before the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_settings(
    optimizer: *const koala_optimizer,
    group: u32,
    settings: *mut koala_settings,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (inner, output) = unsafe { (koala_optimizer::shared(optimizer)?, Output::needed(settings)?) };
        output.write(&to_c(&inner.optimizer.settings(inner.groups.get(group)?)?));
        Ok(())
    })
}

/// Changes the settings of a group from the next step on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_settings(
    optimizer: *mut koala_optimizer,
    group: u32,
    settings: *const koala_settings,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let settings = from_c(unsafe { look(settings) }?)?;
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_settings(inner.groups.get(group)?, settings)?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}

/// Changes the learning rate of a group from the next step on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_learning_rate(
    optimizer: *mut koala_optimizer,
    group: u32,
    learning_rate: f64,
) -> koala_status {
    guarded(|| {
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_learning_rate(inner.groups.get(group)?, learning_rate)?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}

/// Changes what becomes of gradients as they are loaded, from the next step on: see koala_config's gradient_factor, which
/// is one over the factor that the loss was scaled by, and gradient_limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_scaling(
    optimizer: *mut koala_optimizer,
    factor: f64,
    limit: f64,
) -> koala_status {
    guarded(|| {
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_scaling(Scaling { factor, limit })?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}

/// Changes how many threads a step uses, from the next one on: see koala_config's threads. Those that there were are
/// joined. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_threads(optimizer: *mut koala_optimizer, count: u32) -> koala_status {
    guarded(|| {
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_threads(threads(count))?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}

/// Makes a tensor of `length` parameters known, and allocates its state. `name` is copied; no two tensors have the same.
/// Tensors have the numbers from 0 on, in the order in which they are added; `number`, unless NULL, receives it. A tensor
/// may be added at any time. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_add_tensor(
    optimizer: *mut koala_optimizer,
    name: *const c_char,
    length: usize,
    r#type: MaybeUninit<koala_element_type>,
    state_type: MaybeUninit<koala_state_type>,
    group: u32,
    number: *mut usize,
) -> koala_status {
    guarded(|| {
        check_optional(number, "number")?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name, "name") }?;
        check_apart(&[("number", range_of(number, 1))], &[("name", range_of_text(name))])?;
        let (element_type, state_type) = (known(r#type)?.into(), known(state_type)?.into());
        let add = |inner: &mut Inner| {
            let (group, tensors) = (inner.groups.get(group)?, inner.names.len() + 1);
            let copy = inner.names.make_room(name)?;
            // So that a step does not allocate.
            inner.given.try_reserve(tensors).map_err(|_| no_memory("a tensor"))?;
            inner.sorted.make_room(tensors, BUFFERS.len())?;
            inner.optimizer.add_tensor(name, length, element_type, state_type, group)?;
            Ok(inner.names.add(copy))
        };
        // SAFETY: the caller's promise.
        let added = unsafe { koala_optimizer::changed(optimizer, add) }?;
        // SAFETY: NULL, or aligned and the caller's to write.
        unsafe { crate::values::COutput::write_where_wanted(number, added) };
        Ok(())
    })
}

/// How many tensors there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_tensor_count(
    optimizer: *const koala_optimizer,
    count: *mut usize,
) -> koala_status {
    guarded(|| {
        check(count, "count")?;
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { count.write(inner.names.len()) };
        Ok(())
    })
}

#[cold]
fn unknown_tensor(name: &str) -> Failure {
    fail(koala_status::UnknownTensor, format_args!("tensor {name:?} was never added to this optimizer"))
}

/// The number of the tensor of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_find_tensor(
    optimizer: *const koala_optimizer,
    name: *const c_char,
    number: *mut usize,
) -> koala_status {
    guarded(|| {
        check(number, "number")?;
        // SAFETY: the caller's promise.
        let (inner, name) = unsafe { (koala_optimizer::shared(optimizer)?, text(name, "name")?) };
        check_apart(&[("number", range_of(number, 1))], &[("name", range_of_text(name))])?;
        let place = inner.names.position(name);
        let place = place.ok_or_else(|| unknown_tensor(name))?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { number.write(place) };
        Ok(())
    })
}

/// Copies the name of a tensor, as koala_last_error copies its text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_tensor_name(
    optimizer: *const koala_optimizer,
    tensor: usize,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> koala_status {
    guarded(|| {
        check_text(buffer, capacity, length)?;
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        let name = inner.names.get(tensor)?.as_bytes();
        // SAFETY: the caller's promise.
        unsafe { copy_text(name, buffer, capacity, length) };
        Ok(())
    })
}

/// The scalars of a tensor's filter after the last step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_scalars(
    optimizer: *const koala_optimizer,
    tensor: usize,
    scalars: *mut koala_scalars,
) -> koala_status {
    guarded(|| {
        check(scalars, "scalars")?;
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        let found: Scalars = inner.state(tensor)?.scalars();
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { scalars.write(found.into()) };
        Ok(())
    })
}

/// Copies v and h of a tensor's filter, as they are stored: each to a buffer of exactly `bytes` bytes, the tensor's length
/// times the size of its state's type, or 0 where the method has no such vector. Either may be NULL, if it is not wanted.
/// Before the first step they are zero.
///
/// Returns KOALA_STATUS_LENGTH if `bytes` is another number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_state(
    optimizer: *const koala_optimizer,
    tensor: usize,
    v: *mut c_void,
    h: *mut c_void,
    bytes: usize,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        let found = inner.state(tensor)?.bytes();
        for (name, vector, buffer) in [("v", found[0], v), ("h", found[1], h)] {
            if !buffer.is_null() && vector.len() != bytes {
                let (tensor, expected) = (inner.names.get(tensor)?, vector.len());
                let text = format_args!("tensor {tensor:?}: {bytes} bytes for {name}, expected {expected}");
                return Err(fail(koala_status::Length, text));
            }
        }
        check_array(v.cast::<u8>(), if v.is_null() { 0 } else { bytes }, "v")?;
        check_array(h.cast::<u8>(), if h.is_null() { 0 } else { bytes }, "h")?;
        check_apart(&[("v", range_of(v.cast::<u8>(), bytes)), ("h", range_of(h.cast::<u8>(), bytes))], &[])?;
        for (bytes, buffer) in found.into_iter().zip([v, h]) {
            if !buffer.is_null() {
                // SAFETY: the caller's promise; the state is the library's own memory.
                unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
        }
        Ok(())
    })
}

/// Restarts the filter of a tensor: its next step will be a first step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_restart(optimizer: *mut koala_optimizer, tensor: usize) -> koala_status {
    guarded(|| {
        let restart = |Inner { optimizer, names, .. }: &mut Inner| Ok(optimizer.restart(names.get(tensor)?)?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, restart) }
    })
}

/// R, as the last step used it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_noise(optimizer: *const koala_optimizer, noise: *mut f64) -> koala_status {
    guarded(|| {
        check(noise, "noise")?;
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { noise.write(inner.optimizer.noise()) };
        Ok(())
    })
}

/// The method, with its shared numbers as they are after the last step; numbers of other kinds are zero. Set `method->size`
/// before the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_method(
    optimizer: *const koala_optimizer,
    method: *mut koala_method,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (inner, output) = unsafe { (koala_optimizer::shared(optimizer)?, Output::needed(method)?) };
        output.write(&(&inner.optimizer.method()).into());
        Ok(())
    })
}

/// The backend that an optimizer's steps run on: never KOALA_BACKEND_FASTEST.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_backend(
    optimizer: *const koala_optimizer,
    backend: *mut koala_backend,
) -> koala_status {
    guarded(|| {
        check(backend, "backend")?;
        // SAFETY: the caller's promise.
        let inner = unsafe { koala_optimizer::shared(optimizer) }?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { backend.write(inner.backend) };
        Ok(())
    })
}

/// Hears of a tensor that a step restarted or kept because of trouble: a text of one line, of at most 512 bytes, valid
/// during the call, and the context that was given with the function. It is called by the thread that called
/// koala_optimizer_step, after all tensors have stepped. It must not call that optimizer, and must return: no exception,
/// no longjmp.
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
        let set = |inner: &mut Inner| {
            inner.log = function.map(|function| Log { function, context });
            Ok(())
        };
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}
