//! An optimizer on a CUDA device: how it is made and ended, its groups and its tensors.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use koala_optim::cuda::{Config, Device, Optimizer, StateBuffers};
use koala_optim::{ElementType, KoalaPlusPlus, Method, Scaling, Settings, StateType};

use crate::border::failure::{Failure, fail, no_memory};
use crate::border::growing::{copy_or_default, growing, look, with};
use crate::border::guard::guarded;
use crate::border::pointers::{Place, check, flag, known, text, too_long};
use crate::border::ranges::{bytes_at, check_apart, end_of, range_of, range_of_text};
use crate::border::status::koala_status;
use crate::cuda::handle::{BUFFERS_ON_DEVICE, OnDevice, address, koala_cuda};
use crate::optimizer::config::koala_config;
use crate::optimizer::handle::Handle;
use crate::words::method::method_of;
use crate::words::scalars::koala_scalars;
use crate::words::settings::{koala_element_type, koala_settings, koala_state_type, noise_rule, policy, settings_of};

/// Makes an optimizer without tensors on the device of that number, from 0. `config` may be NULL, for the defaults;
/// its `backend` and `threads` are not looked at. `group_bytes` is how many bytes of parameters, gradients and states
/// are worked on together. They should fit into a cache; 0 stands for half of the device's L2. The host waits.
///
/// Returns KOALA_STATUS_ABSENT_DEVICE if there is no driver or no such device, which koala_last_error tells apart;
/// KOALA_STATUS_SETTING also for another method than KOALA++, for gradients that are to be clipped by their norm, and
/// for a policy that makes an error of what only the device knows: KOALA_ON_NON_FINITE_ERROR,
/// KOALA_ON_BREAKDOWN_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_create(
    config: *const koala_config,
    device: u32,
    group_bytes: usize,
    optimizer: *mut *mut koala_cuda,
) -> koala_status {
    guarded(|| {
        check(optimizer, "optimizer")?;
        let place = config;
        // SAFETY: the caller's promise.
        let config = unsafe { copy_or_default(place) }?;
        let read = [("config", bytes_at(place, config.size)), ("method", range_of(config.method, 1))];
        check_apart(&[("optimizer", range_of(optimizer, 1))], &read)?;
        // SAFETY: the caller's promise.
        check_method(&config, unsafe { method_of(config.method) }?)?;
        let scaling = Scaling { factor: config.gradient_factor, limit: config.gradient_limit };
        let config = Config {
            noise: noise_rule(config.noise, config.noise_decay, config.initial_noise)?,
            policy: policy(config.on_non_finite, config.on_breakdown)?,
            details: flag(config.norms, "norms")?,
            group_bytes: (group_bytes > 0).then_some(group_bytes),
        };
        scaling.validate()?;
        let mut made = Optimizer::new(Device::new(device as usize)?, config)?;
        made.set_scaling(scaling)?;
        let inner = OnDevice {
            optimizer: made,
            groups: Default::default(),
            names: Default::default(),
            states: Vec::new(),
            numbers: Default::default(),
            given: Vec::new(),
            sorted: Default::default(),
        };
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { koala_cuda::give(inner, optimizer) }
    })
}

/// On a GPU there is KOALA++, without a norm to clip by.
fn check_method(config: &koala_config, method: Method) -> Result<(), Failure> {
    let clip_norm = config.clip_norm;
    if matches!(method, Method::KoalaPlusPlus(_)) && clip_norm == f64::INFINITY {
        return Ok(());
    }
    let name = method.name();
    let text =
        format_args!("a koala_cuda steps by koala++ and clips by no norm, not by {name} and by the norm {clip_norm}");
    Err(fail(koala_status::Setting, text))
}

/// The settings of a group, and its numbers of KOALA++.
fn settings_on_device(given: &koala_settings) -> Result<(Settings, KoalaPlusPlus), Failure> {
    match settings_of(given, Method::default())? {
        (settings, Method::KoalaPlusPlus(numbers)) => Ok((settings, numbers)),
        (_, other) => Err(fail(koala_status::Method, format_args!("a koala_cuda does not step by {}", other.name()))),
    }
}

/// Waits for what it has put on streams, ends an optimizer, and frees its memory. NULL does nothing. The pointer is of
/// no use afterwards, nor is a graph in which a step was captured. Not to be called while a stream is being captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_destroy(optimizer: *mut koala_cuda) -> koala_status {
    // SAFETY: from `koala_cuda_create`, and not destroyed before, by the caller's promise.
    guarded(|| unsafe { koala_cuda::destroy(optimizer) })
}

/// Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers
/// from 0 on, in the order in which they are made. The host waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_add_group(
    optimizer: *mut koala_cuda,
    settings: *const koala_settings,
    group: *mut u32,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (group, given) = unsafe { (Place::needed(group, "group")?, copy_or_default(settings)?) };
        check_apart(&[("group", group.range())], &[("settings", bytes_at(settings, given.size))])?;
        let (settings, numbers) = settings_on_device(&given)?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        let number = inner.groups.add(|| inner.optimizer.add_group_with(settings, numbers))?;
        group.write(number)
    })
}

/// Changes the settings of a group from the next step on, which writes them on its stream. A learning rate on the
/// device stays: see koala_cuda_set_device_learning_rate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_set_settings(
    optimizer: *mut koala_cuda,
    group: u32,
    settings: *const koala_settings,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (settings, numbers) = settings_on_device(&unsafe { with(settings, |given| *given) }?)?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        let group = inner.groups.get(group)?;
        settings.validate()?;
        inner.optimizer.set_numbers(group, numbers)?;
        Ok(inner.optimizer.set_settings(group, settings)?)
    })
}

/// Changes the learning rate of a group from the next step on, which writes it on its stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_set_learning_rate(
    optimizer: *mut koala_cuda,
    group: u32,
    learning_rate: f64,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        inner.optimizer.set_learning_rate(inner.groups.get(group)?, learning_rate)?;
        inner.numbers.set_rate(group as usize, (0, 0));
        Ok(())
    })
}

/// Where a tensor's filter is on the device, if the caller owns it. Begin with zeros, then set all. It has to live for
/// as long as the tensor is stepped, restarted or read; between two steps it may be copied, and be written with what
/// was copied before.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_cuda_state {
    /// sizeof(koala_cuda_state).
    pub size: usize,
    /// v: as many elements of the state's type as the tensor has. It need not be initialized before the first step.
    pub v: *mut c_void,
    /// h: as many elements of the state's type as the tensor has. It need not be initialized before the first step.
    pub h: *mut c_void,
    /// The scalars: all zero before the first step.
    pub scalars: *mut koala_scalars,
}

growing!(koala_cuda_state, up to scalars);

/// Makes a tensor of `length` parameters known, at most 2^32. `name` is copied; no two tensors have the same. `state`
/// says where its filter is; NULL: it is allocated, for which the host waits. Tensors have the numbers from 0 on, in
/// the order in which they are added; `number`, unless NULL, receives it. A tensor may be added at any time.
/// Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_add_tensor(
    optimizer: *mut koala_cuda,
    name: *const c_char,
    length: usize,
    r#type: MaybeUninit<koala_element_type>,
    state_type: MaybeUninit<koala_state_type>,
    group: u32,
    state: *const koala_cuda_state,
    number: *mut usize,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (number, name) = unsafe { (Place::optional(number, "number")?, text(name, "name")?) };
        let (element_type, state_type): (ElementType, StateType) = (known(r#type)?.into(), known(state_type)?.into());
        let place = state;
        let state = match place.is_null() {
            true => None,
            // SAFETY: the caller's promise.
            false => Some(unsafe { look(place) }?),
        };
        let read = [("name", range_of_text(name)), ("state", bytes_at(place, state.map_or(0, |state| state.size)))];
        check_apart(&[("number", number.range())], &read)?;
        let size = state_type.beside(element_type).size();
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        let (group, tensors) = (inner.groups.get(group)?, inner.names.len() + 1);
        let copy = inner.names.make_room(name)?;
        inner.states.try_reserve(1).map_err(|_| no_memory("a tensor"))?;
        // So that a step does not allocate.
        inner.given.try_reserve(tensors).map_err(|_| no_memory("a tensor"))?;
        inner.sorted.make_room(tensors, BUFFERS_ON_DEVICE.len())?;
        let mut ranges = [(0, 0); 3];
        match state {
            None => inner.optimizer.add_tensor(name, length, element_type, state_type, group)?,
            Some(koala_cuda_state { v, h, scalars, .. }) => {
                let end = |pointer: *mut c_void| end_of(pointer.addr(), length, size);
                if end(*v).is_none() || end(*h).is_none() {
                    return Err(too_long(length, "v and h"));
                }
                ranges = [bytes_at(*v, length * size), bytes_at(*h, length * size), range_of(*scalars, 1)];
                let [v_range, h_range, scalars_range] = ranges;
                check_apart(&[("v", v_range), ("h", h_range), ("scalars", scalars_range)], &[])?;
                // SAFETY: the caller's promise.
                let buffers = unsafe { StateBuffers::new(address(*v), address(*h), address(scalars.cast())) };
                inner.optimizer.add_tensor_with_state(name, length, element_type, state_type, group, buffers)?;
            }
        }
        inner.states.push(ranges);
        let added = inner.names.add(copy);
        number.write(added)
    })
}

/// Restarts the filter of a tensor: its next step will be a first step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_restart(optimizer: *mut koala_cuda, tensor: usize) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        Ok(inner.optimizer.restart(inner.names.get(tensor)?)?)
    })
}
