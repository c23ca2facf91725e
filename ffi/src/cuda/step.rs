//! A step of an optimizer on a CUDA device for C, from C's list of tensors.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::cuda::{DeviceLoss, Error, Optimizer, Stream, Tensor};
use koala_optim::{ElementType, Loss};

use crate::border::failure::{Failure, fail, prefix};
use crate::border::growing::Array;
use crate::border::guard::guarded;
use crate::border::pointers::{check, known, null, too_long};
use crate::border::ranges::{Range, end_of};
use crate::border::status::koala_status;
use crate::cuda::handle::{BUFFERS_ON_DEVICE, OnDevice, address, koala_cuda, number_at, stream_of};
use crate::optimizer::apart::Occupied;
use crate::optimizer::handle::Handle;
use crate::optimizer::step::koala_parameters;
use crate::words::settings::{koala_copy_type, koala_element_type, koala_loss};

/// Puts a step of the given tensors on the stream: some or all of the optimizer's, in any order, each once. Their
/// buffers are on the device. The host does not wait if these are the tensors of the step before, whose gradients and
/// learning rates may be others; for other tensors it allocates, too.
///
/// On a stream that is being captured, the step is captured, if its tensors were prepared or stepped before and no
/// settings or restarts are left to write. What was captured keeps the addresses of the call: parameters, gradients,
/// copies, states and a scaler's numbers have to stay where they are for as long as the graph is launched, and the
/// optimizer must not be destroyed. Other steps may be taken meanwhile, with any tensors and with gradients elsewhere.
/// A loss from the host stays what it was.
///
/// Returns KOALA_STATUS_SETTING if the loss's second moment is negative, KOALA_STATUS_FOREIGN_DEVICE for a stream or a
/// buffer elsewhere, and KOALA_STATUS_DRIVER if the step cannot be captured; the capture goes on without it.
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
        unsafe {
            with_list(optimizer, stream, tensors, count, NO_LOSS, |optimizer, stream, list| {
                optimizer.step(stream, loss, list)
            })
        }
    })
}

/// Puts a step on the stream as koala_cuda_step does, with a loss that only the device knows: `mean` and
/// `second_moment` are addresses there, of an element of `type` each. `second_moment` may be NULL with
/// KOALA_NOISE_FIXED. A second moment below zero is taken as one that is not finite. It is the step to be captured in
/// a graph: each launch reads the loss.
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
        let element_type = known(r#type)?.into();
        let places = [mean, second_moment].map(|place| number_at(place, element_type));
        let second_moment = (!second_moment.is_null()).then(|| address(second_moment));
        // SAFETY: the caller's promise.
        let loss = unsafe { DeviceLoss::new(element_type, address(mean), second_moment) };
        // SAFETY: the caller's promise.
        unsafe {
            with_list(optimizer, stream, tensors, count, places, |optimizer, stream, list| {
                optimizer.step(stream, loss, list)
            })
        }
    })
}

/// Does all for a step of these tensors but the step: checks and describes them, allocates, and writes changed
/// settings. So the step after it can be captured in a graph, though none was taken before, and returns no error that
/// is about its tensors. The host waits, unless these are the tensors of the step before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_prepare(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    tensors: *const koala_parameters,
    count: usize,
) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        with_list(optimizer, stream, tensors, count, NO_LOSS, |optimizer, stream, list| optimizer.prepare(stream, list))
    })
}

/// Puts settings that have changed, and restarts, on the stream without a step. A step does it first, but for one that
/// is captured in a graph, or launched by it: so this comes before a capture, and before a launch for which settings
/// have changed. While the stream is being captured, it returns KOALA_STATUS_DRIVER if there is something to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_write_changes(optimizer: *mut koala_cuda, stream: *mut c_void) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let stream = unsafe { stream_of(stream) };
        // SAFETY: the caller's promise.
        let mut inner = unsafe { koala_cuda::changed(optimizer) }?;
        Ok(inner.optimizer.write_changes(stream)?)
    })
}

/// Where a loss is that the host knows.
const NO_LOSS: [Range; 2] = [(0, 0); 2];

/// Has the optimizer do something with C's list of tensors and a loss there.
///
/// # Safety
/// The promise of the caller of a step.
unsafe fn with_list(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    tensors: *const koala_parameters,
    count: usize,
    loss: [Range; 2],
    act: impl FnOnce(&mut Optimizer, Stream, &[Tensor<'_>]) -> Result<(), Error>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let (stream, list) = unsafe { (stream_of(stream), Array::new(tensors, count, "tensors")?) };
    // SAFETY: the caller's promise.
    let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
    // SAFETY: the caller's promise; the list is emptied before the call ends.
    let taken = unsafe { inner.take(list, loss) };
    let done = taken.and_then(|()| Ok(act(&mut inner.optimizer, stream, &inner.given)?));
    inner.given.clear();
    done
}

impl OnDevice {
    /// Looks at C's list, and makes the library's of it, in `given`.
    ///
    /// # Safety
    /// `given` is emptied before the call ends; and the promise of the caller of a step.
    unsafe fn take(&mut self, list: Array<koala_parameters>, loss: [Range; 2]) -> Result<(), Failure> {
        self.given.clear();
        self.names.check_count(list.count)?;
        for place in 0..list.count {
            // SAFETY: within the list.
            let given = unsafe { list.get(place) }?;
            let name: *const str = self.names.get(given.tensor)?;
            // SAFETY: a name lives as long as the optimizer and is never changed, and `given` is emptied before the
            // call ends.
            let name: &'static str = unsafe { &*name };
            // SAFETY: the caller's promise.
            let tensor = unsafe { on_device(name, given) };
            self.given.push(tensor.inspect_err(|_| prefix(format_args!("tensor {name:?}: ")))?);
        }
        self.check_apart(list, loss)
    }

    /// Whether what is written overlaps nothing else.
    fn check_apart(&mut self, list: Array<koala_parameters>, loss: [Range; 2]) -> Result<(), Failure> {
        let OnDevice { names, states, numbers, sorted, .. } = self;
        // SAFETY: within the list, here and below.
        let tensor = |place| unsafe { list.get(place) };
        let ranges = |place| {
            let Ok(given) = tensor(place) else { return [(0, 0); BUFFERS_ON_DEVICE.len()] };
            let ([parameters, gradient, copy], [v, h, scalars]) = (given.ranges(false), states[given.tensor]);
            [parameters, gradient, copy, v, h, scalars]
        };
        let name_of = |one: &Occupied| tensor(one.place).and_then(|tensor| names.get(tensor.tensor));
        if let Some((left, right)) = sorted.overlap(list.count, ranges) {
            let (left_name, right_name) = (name_of(&left)?, name_of(&right)?);
            let (left, right) = (BUFFERS_ON_DEVICE[left.buffer], BUFFERS_ON_DEVICE[right.buffer]);
            let text = format_args!("{left} of tensor {left_name:?} and {right} of tensor {right_name:?} overlap");
            return Err(fail(koala_status::Overlap, text));
        }
        for (number, place) in numbers.with_loss(loss) {
            if let Some(one) = sorted.writing(place) {
                let (buffer, name) = (BUFFERS_ON_DEVICE[one.buffer], name_of(&one)?);
                let text = format_args!("{number} and {buffer} of tensor {name:?} overlap");
                return Err(fail(koala_status::Overlap, text));
            }
        }
        Ok(())
    }
}

/// # Safety
/// The buffers are on the device, as the caller of a step has promised.
unsafe fn on_device<'a>(name: &'a str, given: &koala_parameters) -> Result<Tensor<'a>, Failure> {
    let (parameters, gradient) = (address(given.parameters), address(given.gradient));
    let (element_type, copy_type): (ElementType, _) = (known(given.r#type)?.into(), known(given.copy_type)?);
    let copy_size = if copy_type == koala_copy_type::None { 0 } else { 2 };
    let (size, length) = (element_type.size(), given.length);
    let ends = [(parameters, size), (gradient, size), (address(given.copy), copy_size)];
    if ends.into_iter().any(|(address, size)| end_of(address as usize, length, size).is_none()) {
        return Err(too_long(length, "it"));
    }
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
