//! What C reads of an optimizer on a CUDA device: reports, filters, and what it has cost.

use std::ffi::c_void;

use crate::border::failure::fail;
use crate::border::growing::{Output, growing};
use crate::border::guard::guarded;
use crate::border::pointers::{Place, check_array};
use crate::border::ranges::{check_apart, range_of};
use crate::border::status::koala_status;
use crate::cuda::handle::{koala_cuda, stream_of};
use crate::optimizer::handle::Handle;
use crate::words::backends::koala_backend;
use crate::words::report::{koala_report, koala_tensor_report};
use crate::words::scalars::koala_scalars;

/// What the last step on the stream did. Set `report->size` before the call. The host waits for it, so the stream must
/// not be one that is being captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_report(
    optimizer: *const koala_cuda,
    stream: *mut c_void,
    report: *mut koala_report,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (output, inner) = unsafe { (Output::needed(report)?, koala_cuda::shared(optimizer)?) };
        // SAFETY: the caller's promise.
        let found = inner.optimizer.report(unsafe { stream_of(stream) })?;
        let mut sum = koala_report { step: found.step, ..koala_report::empty(koala_backend::Fastest, found.noise) };
        sum.count(&found);
        output.write(&sum)
    })
}

/// What the last step did with each of its `count` tensors, in the order in which they were given; if that was
/// captured, what the last launch of its graph did. The host waits for it. Allocates.
///
/// Returns KOALA_STATUS_LENGTH if it had another number of tensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_details(
    optimizer: *const koala_cuda,
    stream: *mut c_void,
    reports: *mut koala_tensor_report,
    count: usize,
) -> koala_status {
    guarded(|| {
        check_array(reports, count, "reports")?;
        // SAFETY: the caller's promise.
        let (inner, stream) = unsafe { (koala_cuda::shared(optimizer)?, stream_of(stream)) };
        let found = inner.optimizer.details(stream)?;
        if found.len() != count {
            let stepped = found.len();
            let text = format_args!("room for {count} reports, but the last step had {stepped} tensors");
            return Err(fail(koala_status::Length, text));
        }
        for (place, report) in found.into_iter().enumerate() {
            // SAFETY: there is room for as many.
            unsafe { reports.add(place).write(report.into()) };
        }
        Ok(())
    })
}

/// Copies the filter of a tensor to the host, as it is stored: v and h each to a buffer of exactly `bytes` bytes, the
/// tensor's length times the size of its state's type. Each of the three may be NULL, if it is not wanted. The host
/// waits.
///
/// Returns KOALA_STATUS_LENGTH if `bytes` is another number. After KOALA_STATUS_DRIVER, v and h may have been written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_read_state(
    optimizer: *mut koala_cuda,
    stream: *mut c_void,
    tensor: usize,
    v: *mut c_void,
    h: *mut c_void,
    bytes: usize,
    scalars: *mut koala_scalars,
) -> koala_status {
    guarded(|| {
        let (v, h) = (v.cast::<u8>(), h.cast::<u8>());
        check_array(v, if v.is_null() { 0 } else { bytes }, "v")?;
        check_array(h, if h.is_null() { 0 } else { bytes }, "h")?;
        // SAFETY: the caller's promise.
        let scalars = unsafe { Place::optional(scalars, "scalars") }?;
        let ranges = [("v", range_of(v, bytes)), ("h", range_of(h, bytes)), ("scalars", scalars.range())];
        check_apart(&ranges, &[])?;
        // SAFETY: the caller's promise.
        let stream = unsafe { stream_of(stream) };
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_cuda::changed(optimizer) }?;
        let name = inner.names.get(tensor)?;
        // SAFETY: NULL, or as many bytes of the caller's, apart from the other, that it lets be written.
        let (v, h) = unsafe { (bytes_of(v, bytes), bytes_of(h, bytes)) };
        let found = inner.optimizer.read_state(stream, name, v, h)?;
        scalars.write(found.into())
    })
}

/// # Safety
/// `pointer` is NULL, or of that many bytes that nobody else uses for as long as the result is used.
unsafe fn bytes_of<'a>(pointer: *mut u8, bytes: usize) -> Option<&'a mut [u8]> {
    // SAFETY: the caller's promise; the device writes them all, or the call fails and nothing is read.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(pointer, bytes) })
}

/// What an optimizer has asked of its device until now. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_cuda_counts {
    /// sizeof(koala_cuda_counts).
    pub size: usize,
    /// Steps put on a stream; captured ones are not counted, nor is what a graph's launches do.
    pub steps: u64,
    /// Kernels put on a stream, or captured: three for each group of a step's tensors, and one for every 255 words
    /// that change before it: seven for a group's settings, four for a filter that restarts, one for a gradient that
    /// has moved, or that is captured.
    pub launches: u64,
    /// Calls of the driver for which the host waited: to allocate and to free, to describe tensors that are not those
    /// of the step before, and to read.
    pub waits: u64,
}

growing!(koala_cuda_counts, up to waits);

/// What has been asked of the device until now. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_cuda_count(
    optimizer: *const koala_cuda,
    counts: *mut koala_cuda_counts,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (output, inner) = unsafe { (Output::needed(counts)?, koala_cuda::shared(optimizer)?) };
        let koala_optim::cuda::Counts { steps, launches, waits } = inner.optimizer.counts();
        output.write(&koala_cuda_counts { size: size_of::<koala_cuda_counts>(), steps, launches, waits })
    })
}
