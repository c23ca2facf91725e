//! Level 3 for C: a step of an optimizer, from C's list of tensors.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::{Element, ElementType, Outcome, Tensor, bf16, f16};

use crate::border::failure::{Failure, Text, fail, prefix};
use crate::border::growing::{Array, Output, growing};
use crate::border::guard::guarded;
use crate::border::pointers::{check, check_array, known};
use crate::border::ranges::{NOTHING, Named, Range, bytes_at, check_apart, range_of};
use crate::border::status::koala_status;
use crate::kernel::tensor::check_buffer;
use crate::optimizer::apart::{BUFFERS, Occupied};
use crate::optimizer::handle::{Handle, Inner, Log, koala_optimizer};
use crate::words::report::{koala_report, koala_tensor_report};
use crate::words::settings::{koala_copy_type, koala_element_type, koala_loss};

/// The parameters and the gradient of one of an optimizer's tensors, for one step. Begin with zeros, then set `size`,
/// and what applies.
///
/// The buffers are aligned for their elements, have `length` of them, and overlap no other one that is written in the
/// same call; all may be NULL if `length` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_parameters {
    /// sizeof(koala_parameters).
    pub size: usize,
    /// The tensor's number, from koala_optimizer_add_tensor.
    pub tensor: usize,
    /// Its number of parameters, which must be the one that it was added with.
    pub length: usize,
    /// What they are stored in, which must be what it was added with.
    pub r#type: MaybeUninit<koala_element_type>,
    /// What `copy` is stored in: KOALA_COPY_TYPE_NONE if there is none, and then `copy` is not looked at.
    pub copy_type: MaybeUninit<koala_copy_type>,
    /// θ: read and written.
    pub parameters: *mut c_void,
    /// g = ∂L/∂θ of the minibatch's mean loss: read. koala_optimizer_predict does not look at it.
    pub gradient: *const c_void,
    /// Written with the new parameters, rounded, if the tensor steps; what is too large for it becomes infinite.
    pub copy: *mut c_void,
}

growing!(koala_parameters, up to copy);

/// Steps the given tensors, which may be some or all of the optimizer's, in any order, each once; with the order in
/// which they were added, finding them is cheapest. Allocates nothing, and uses no thread but the calling one unless
/// the optimizer was made with more.
///
/// `reports`, unless NULL, receives `count` reports, in the order of the tensors; `report`, unless NULL, the sum.
///
/// Returns KOALA_STATUS_SETTING if the loss's second moment is negative, KOALA_STATUS_NOT_PREDICTED if KOALA-M has not
/// predicted for this step, and what the optimizer's policies make an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_step(
    optimizer: *mut koala_optimizer,
    loss: *const koala_loss,
    tensors: *const koala_parameters,
    count: usize,
    reports: *mut koala_tensor_report,
    report: *mut koala_report,
) -> koala_status {
    guarded(|| {
        check(loss, "loss")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let measured = unsafe { *loss };
        if !reports.is_null() {
            check_array(reports, count, "reports")?;
        }
        // SAFETY: the caller's promise.
        let report = unsafe { Output::optional(report) }?;
        let others = [("reports", range_of(reports, count)), ("report", report.range())];
        // SAFETY: the caller's promise.
        let list = unsafe { Array::new(tensors, count, "tensors") }?;
        check_apart(&others, &[("loss", range_of(loss, 1)), ("tensors", list.range())])?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        // SAFETY: emptied below, whatever comes of the step; and the caller's promise.
        unsafe { inner.take(list, &others, ("loss", range_of(loss, 1)), false) }?;
        let stepped = inner.optimizer.step(measured.into(), &mut inner.given);
        if stepped.is_ok() && !reports.is_null() {
            for (place, tensor) in inner.given.iter().enumerate() {
                // SAFETY: there is room for as many as there are tensors.
                unsafe { reports.add(place).write(tensor.report().into()) };
            }
        }
        if let (Ok(_), Some(log)) = (&stepped, inner.log) {
            inner.given.iter().for_each(|tensor| tell(log, tensor));
        }
        inner.given.clear();
        let found = stepped?;
        let mut sum = koala_report { step: found.step, ..koala_report::empty(inner.backend, found.noise) };
        sum.gradient_norm = found.gradient_norm.unwrap_or(f64::NAN);
        sum.count(&found);
        report.write(&sum)
    })
}

/// KOALA-M's prediction, which has to precede each of its steps, before the gradient of that step is taken: the
/// parameters move by their velocities. Give the tensors of the step; their gradients are not looked at. Does nothing
/// for another method.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_predict(
    optimizer: *mut koala_optimizer,
    tensors: *const koala_parameters,
    count: usize,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let list = unsafe { Array::new(tensors, count, "tensors") }?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        // SAFETY: emptied below, whatever comes of the prediction; and the caller's promise.
        unsafe { inner.take(list, &[], NOTHING, true) }?;
        let predicted = inner.optimizer.predict(&mut inner.given);
        inner.given.clear();
        Ok(predicted?)
    })
}

fn tell(log: Log, tensor: &Tensor<'_>) {
    let what = match tensor.report().outcome {
        Outcome::Restarted => "its filter restarted: the innovation variance would not have been positive",
        Outcome::NonFinite => {
            "kept as it is: its gradient, the loss or a scalar is not finite, or an element of its new state or \
             parameters would not be"
        }
        Outcome::Breakdown => "kept as it is: the innovation variance would not have been positive",
        _ => return,
    };
    let text = Text::of(format_args!("tensor {:?}: {what}", tensor.name()));
    (log.function)(log.context, text.as_c().as_ptr());
}

impl koala_parameters {
    /// Whether it may be used by itself.
    fn check(&self, predicts: bool) -> Result<(), Failure> {
        let size = ElementType::from(known(self.r#type)?).size();
        let copy_type = known(self.copy_type)?;
        if self.length == 0 {
            return Ok(());
        }
        check_buffer(self.parameters, self.length, size, "parameters")?;
        if !predicts {
            check_buffer(self.gradient, self.length, size, "gradient")?;
        }
        match copy_type {
            koala_copy_type::None => Ok(()),
            _ => check_buffer(self.copy, self.length, 2, "copy"),
        }
    }

    /// What its buffers occupy; nothing if it may not be used.
    pub(crate) fn ranges(&self, predicts: bool) -> [Range; BUFFERS.len()] {
        let (Ok(element_type), Ok(copy_type)) = (known(self.r#type), known(self.copy_type)) else { return [(0, 0); 3] };
        let range = |pointer: *const c_void, size: usize| bytes_at(pointer, self.length * size);
        let size = ElementType::from(element_type).size();
        let copy = if copy_type == koala_copy_type::None { (0, 0) } else { range(self.copy, 2) };
        let gradient = if predicts { (0, 0) } else { range(self.gradient, size) };
        [range(self.parameters, size), gradient, copy]
    }
}

impl Inner {
    /// Looks at C's list, and makes the library's of it, in `given`: without gradients, for a prediction. `others` are
    /// written besides, `read` is read.
    ///
    /// # Safety
    /// `given` is emptied before the call ends, and nobody else uses the tensors' buffers until then.
    pub(crate) unsafe fn take(
        &mut self,
        list: Array<koala_parameters>,
        others: &[Named],
        read: Named,
        predicts: bool,
    ) -> Result<(), Failure> {
        self.given.clear();
        self.names.check_count(list.count)?;
        for place in 0..list.count {
            // SAFETY: within the list.
            let tensor = unsafe { list.get(place) }?;
            let name = self.names.get(tensor.tensor)?;
            tensor.check(predicts).inspect_err(|_| prefix(format_args!("tensor {name:?}: ")))?;
        }
        self.check_apart(list, others, read, predicts)?;
        for place in 0..list.count {
            // SAFETY: within the list.
            let tensor = unsafe { list.get(place) }?;
            let name: *const str = self.names.get(tensor.tensor)?;
            // SAFETY: a name lives as long as the optimizer and is never changed, and `given` is emptied before the
            // call ends.
            let name: &'static str = unsafe { &*name };
            let copy_type = known(tensor.copy_type)?;
            // SAFETY: looked at above, with the sizes of these types.
            self.given.push(unsafe {
                match known(tensor.r#type)?.into() {
                    ElementType::F32 => typed::<f32>(name, tensor, copy_type, predicts),
                    ElementType::F64 => typed::<f64>(name, tensor, copy_type, predicts),
                    ElementType::Bf16 => typed::<bf16>(name, tensor, copy_type, predicts),
                    ElementType::F16 => typed::<f16>(name, tensor, copy_type, predicts),
                }
            });
        }
        Ok(())
    }

    /// Whether what is written overlaps nothing else; all tensors have been looked at by themselves.
    fn check_apart(
        &mut self,
        list: Array<koala_parameters>,
        others: &[Named],
        read: Named,
        predicts: bool,
    ) -> Result<(), Failure> {
        // SAFETY: within the list, here and below.
        let tensor = |place| unsafe { list.get(place) };
        let ranges = |place| tensor(place).map_or([(0, 0); BUFFERS.len()], |tensor| tensor.ranges(predicts));
        let overlap = self.sorted.overlap(list.count, ranges);
        let name_of = |one: &Occupied| tensor(one.place).and_then(|tensor| self.names.get(tensor.tensor));
        if let Some((left, right)) = overlap {
            let (left_name, right_name) = (name_of(&left)?, name_of(&right)?);
            let (left, right) = (BUFFERS[left.buffer], BUFFERS[right.buffer]);
            let text = format_args!("{left} of tensor {left_name:?} and {right} of tensor {right_name:?} overlap");
            return Err(fail(koala_status::Overlap, text));
        }
        let over_written = others.iter().find_map(|(other, range)| Some((*other, self.sorted.overlapping(*range)?)));
        let over_read = || Some((read.0, self.sorted.writing(read.1)?));
        let Some((other, one)) = over_written.or_else(over_read) else { return Ok(()) };
        let (name, buffer) = (name_of(&one)?, BUFFERS[one.buffer]);
        Err(fail(koala_status::Overlap, format_args!("{other} and {buffer} of tensor {name:?} overlap")))
    }
}

/// # Safety
/// The buffers have been looked at, for elements of type `P`; the result is dropped before the call ends.
unsafe fn typed<P: Element>(
    name: &'static str,
    given: &koala_parameters,
    copy_type: koala_copy_type,
    predicts: bool,
) -> Tensor<'static> {
    let length = given.length;
    if length == 0 {
        return Tensor::new::<P>(name, &mut [], &[]);
    }
    // SAFETY: the caller's promise; a prediction has no gradient to look at.
    unsafe {
        let parameters = std::slice::from_raw_parts_mut(given.parameters.cast(), length);
        let gradient: &[P] = if predicts { &[] } else { std::slice::from_raw_parts(given.gradient.cast(), length) };
        let tensor = Tensor::new::<P>(name, parameters, gradient);
        match copy_type {
            koala_copy_type::None => tensor,
            koala_copy_type::Bf16 => tensor.with_bf16_copy(std::slice::from_raw_parts_mut(given.copy.cast(), length)),
            koala_copy_type::F16 => tensor.with_f16_copy(std::slice::from_raw_parts_mut(given.copy.cast(), length)),
        }
    }
}
