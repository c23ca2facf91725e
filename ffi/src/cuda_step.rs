//! A step of an optimizer on a CUDA device for C, from C's list of tensors.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::Loss;
use koala_optim::cuda::{DeviceLoss, StepLoss, Tensor};

use crate::cuda::{OnDevice, address, koala_cuda, stream_of};
use crate::failure::{Failure, prefix};
use crate::growing::Array;
use crate::guard::guarded;
use crate::handle::Handle;
use crate::optimizer_step::koala_parameters;
use crate::pointers::{check, known, null};
use crate::settings::{koala_copy_type, koala_element_type, koala_loss};
use crate::status::koala_status;

/// Puts a step of the given tensors on the stream: some or all of the optimizer's, in any order, each once. Their buffers
/// are on the device, and overlap nothing else that the step writes; that they are on it and aligned is looked at. The
/// host does not wait if these are the tensors of the step before, whose gradients and learning rates may be others.
///
/// Returns KOALA_STATUS_SETTING if the loss's second moment is negative, and KOALA_STATUS_FOREIGN_DEVICE for a stream or a
/// buffer elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_step(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    loss: *const koala_loss,
    tensors: *const koala_parameters,
    count: usize,
) -> koala_status {
    guarded(|| {
        check(loss, "loss")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let loss: Loss = unsafe { *loss }.into();
        // SAFETY: the caller's promise.
        unsafe { step(optimizer, stream, loss.into(), tensors, count) }
    })
}

/// The same with a loss that only the device knows: `mean` and `second_moment` are addresses there, of an element of
/// `type` each. `second_moment` may be NULL with KOALA_NOISE_FIXED. A second moment below zero is taken as one that is not
/// finite. Such a step may be captured in a graph, once a step has been taken with the same tensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_step_device_loss(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    r#type: MaybeUninit<koala_element_type>,
    mean: *const c_void,
    second_moment: *const c_void,
    tensors: *const koala_parameters,
    count: usize,
) -> koala_status {
    guarded(|| {
        if mean.is_null() {
            return Err(null("mean"));
        }
        let second_moment = (!second_moment.is_null()).then(|| address(second_moment));
        // SAFETY: the caller's promise.
        let loss = unsafe { DeviceLoss::new(known(r#type)?.into(), address(mean), second_moment) };
        // SAFETY: the caller's promise.
        unsafe { step(optimizer, stream, loss.into(), tensors, count) }
    })
}

/// Puts settings that have changed, and restarts, on the stream without a step. A step does it first. A step that was
/// captured in a graph does what it did then each time the graph is launched, so this comes before a capture, and before
/// a launch for which settings have changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_write_changes(optimizer: *mut koala_cuda, stream: *mut c_void) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let stream = unsafe { stream_of(stream) };
        // SAFETY: the caller's promise.
        unsafe { koala_cuda::changed(optimizer, |inner| Ok(inner.optimizer.write_changes(stream)?)) }
    })
}

/// # Safety
/// The promise of the caller of a step.
unsafe fn step(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    loss: StepLoss,
    tensors: *const koala_parameters,
    count: usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let (stream, list) = unsafe { (stream_of(stream), Array::new(tensors, count, "tensors")?) };
    let step = |OnDevice { optimizer, names, .. }: &mut OnDevice| {
        let tensor = |place| {
            // SAFETY: within the list.
            let given = unsafe { list.get(place) }?;
            let name = names.get(given.tensor)?;
            // SAFETY: the caller's promise.
            unsafe { on_device(name, given) }.inspect_err(|_| prefix(format_args!("tensor {name:?}: ")))
        };
        let given = (0..count).map(tensor).collect::<Result<Vec<Tensor>, Failure>>()?;
        Ok(optimizer.step(stream, loss, &given)?)
    };
    // SAFETY: the caller's promise.
    unsafe { koala_cuda::changed(optimizer, step) }
}

/// # Safety
/// The buffers are on the device, as the caller of a step has promised.
unsafe fn on_device<'a>(name: &'a str, given: &koala_parameters) -> Result<Tensor<'a>, Failure> {
    let (parameters, gradient) = (address(given.parameters), address(given.gradient));
    let (element_type, copy_type) = (known(given.r#type)?.into(), known(given.copy_type)?);
    // SAFETY: the caller's promise.
    unsafe {
        let tensor = Tensor::new(name, element_type, given.length, parameters, gradient);
        Ok(match copy_type {
            koala_copy_type::None => tensor,
            koala_copy_type::Bf16 => tensor.with_bf16_copy(address(given.copy)),
            koala_copy_type::F16 => tensor.with_f16_copy(address(given.copy)),
        })
    }
}
