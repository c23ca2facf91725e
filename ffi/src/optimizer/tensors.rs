//! The tensors of an optimizer: their names and their filters.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use koala_optim::TensorState;
use koala_optim::kernel::Scalars;

use crate::border::failure::{Failure, fail, no_memory};
use crate::border::guard::guarded;
use crate::border::last_error::{check_text, copy_text};
use crate::border::pointers::{Place, check_array, known, text};
use crate::border::ranges::{check_apart, range_of, range_of_text};
use crate::border::status::koala_status;
use crate::optimizer::apart::BUFFERS;
use crate::optimizer::handle::{Handle, Inner, koala_optimizer};
use crate::words::scalars::koala_scalars;
use crate::words::settings::{koala_element_type, koala_state_type};

impl Inner {
    fn state(&self, tensor: usize) -> Result<&TensorState, Failure> {
        let name = self.names.get(tensor)?;
        self.optimizer.state(name).ok_or_else(|| unknown_tensor(name))
    }
}

/// Makes a tensor of `length` parameters known, and allocates its state. `name` is copied; no two tensors have the
/// same. Tensors have the numbers from 0 on, in the order in which they are added; `number`, unless NULL, receives it.
/// A tensor may be added at any time. Allocates.
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
        // SAFETY: the caller's promise.
        let (number, name) = unsafe { (Place::optional(number, "number")?, text(name, "name")?) };
        check_apart(&[("number", number.range())], &[("name", range_of_text(name))])?;
        let (element_type, state_type) = (known(r#type)?.into(), known(state_type)?.into());
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let (group, tensors) = (inner.groups.get(group)?, inner.names.len() + 1);
        let copy = inner.names.make_room(name)?;
        // So that a step does not allocate.
        inner.given.try_reserve(tensors).map_err(|_| no_memory("a tensor"))?;
        inner.sorted.make_room(tensors, BUFFERS.len())?;
        inner.optimizer.add_tensor(name, length, element_type, state_type, group)?;
        let added = inner.names.add(copy);
        number.write(added)
    })
}

/// How many tensors there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_tensor_count(
    optimizer: *const koala_optimizer,
    count: *mut usize,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (count, inner) = unsafe { (Place::needed(count, "count")?, koala_optimizer::shared(optimizer)?) };
        count.write(inner.names.len())
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
        // SAFETY: the caller's promise.
        let number = unsafe { Place::needed(number, "number") }?;
        // SAFETY: the caller's promise.
        let (inner, name) = unsafe { (koala_optimizer::shared(optimizer)?, text(name, "name")?) };
        check_apart(&[("number", number.range())], &[("name", range_of_text(name))])?;
        let place = inner.names.position(name);
        let place = place.ok_or_else(|| unknown_tensor(name))?;
        number.write(place)
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
        // SAFETY: the caller's promise.
        let (scalars, inner) = unsafe { (Place::needed(scalars, "scalars")?, koala_optimizer::shared(optimizer)?) };
        let found: Scalars = inner.state(tensor)?.scalars();
        scalars.write(found.into())
    })
}

/// Copies v and h of a tensor's filter, as they are stored: each to a buffer of exactly `bytes` bytes, the tensor's
/// length times the size of its state's type, or 0 where the method has no such vector. Either may be NULL, if it is
/// not wanted. Before the first step they are zero.
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
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        Ok(inner.optimizer.restart(inner.names.get(tensor)?)?)
    })
}
