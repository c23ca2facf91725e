//! What becomes of gradients on a CUDA device, and numbers of a step that only the device knows, for C.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::Scaling;
use koala_optim::cuda::{DeviceLearningRate, DeviceScaler};

use crate::border::guard::guarded;
use crate::border::pointers::known;
use crate::border::status::koala_status;
use crate::cuda::handle::{given, koala_cuda, number_at};
use crate::optimizer::handle::Handle;
use crate::words::settings::koala_element_type;

/// Changes what becomes of gradients as they are loaded, from the next step on: see koala_config's gradient_factor and
/// gradient_limit. A step that was captured in a graph keeps what held then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_set_scaling(optimizer: *mut koala_cuda, factor: f64, limit: f64) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        Ok(inner.optimizer.set_scaling(Scaling { factor, limit })?)
    })
}

/// Has every step from the next one on read, when it runs, what a gradient scaler keeps on the device: addresses of an
/// element of `type` each, and NULL for what is not to be read any more.
///
/// `scale` is what the loss that was differentiated was multiplied by: gradients are multiplied by the factor of
/// koala_cuda_set_scaling divided by it. The loss that a step is given is the one that was not multiplied. If the
/// quotient is no factor that koala_cuda_set_scaling takes, no gradient counts as finite. `found_infinite` is zero, or
/// the step does nothing, and counts every tensor as not finite. Both are read whenever a step runs, or a graph that
/// it was captured in while they were set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_set_device_scaler(
    optimizer: *mut koala_cuda,
    r#type: MaybeUninit<koala_element_type>,
    scale: *const c_void,
    found_infinite: *const c_void,
) -> koala_status {
    guarded(|| {
        let element_type = known(r#type)?.into();
        // SAFETY: the caller's promise.
        let scaler = unsafe { DeviceScaler::new(element_type, given(scale), given(found_infinite)) };
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        inner.optimizer.set_device_scaler(Some(scaler))?;
        inner.numbers.scale = number_at(scale, element_type);
        inner.numbers.found_infinite = number_at(found_infinite, element_type);
        Ok(())
    })
}

/// Has every step from the next one on read the learning rate of a group on the device, when it runs: an element of
/// `type` at that address. NULL, or koala_cuda_set_learning_rate, ends it; koala_cuda_set_settings does not. A rate
/// below zero, NaN or infinite keeps the group's tensors as they are, and counts them as not finite. As all settings,
/// the address is written by the next step that is not captured, or by koala_cuda_write_changes; the launches of a
/// graph read what is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_set_device_learning_rate(
    optimizer: *mut koala_cuda,
    group: u32,
    r#type: MaybeUninit<koala_element_type>,
    learning_rate: *const c_void,
) -> koala_status {
    guarded(|| {
        let element_type = known(r#type)?.into();
        // SAFETY: the caller's promise.
        let rate = given(learning_rate).map(|address| unsafe { DeviceLearningRate::new(element_type, address) });
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        inner.optimizer.set_device_learning_rate(inner.groups.get(group)?, rate)?;
        inner.numbers.set_rate(group as usize, number_at(learning_rate, element_type));
        Ok(())
    })
}
