//! The optimizer on a CUDA device behind C's pointer.

use std::ffi::c_void;

use koala_optim::cuda::{Optimizer, Stream, Tensor};

use crate::border::ranges::{Range, bytes_at};
use crate::optimizer::apart::Sorted;
use crate::optimizer::handle::Handle;
use crate::optimizer::names::{Groups, Names};

/// KOALA++ over a model on an NVIDIA GPU. It does what koala_optimizer does on the processor, and gives the same bits.
/// Made by koala_cuda_create, ended by koala_cuda_destroy.
///
/// It needs the driver (of CUDA 12.0 or later) and a GPU of compute capability 8.0 or later, and no library of CUDA;
/// it works in the device's primary context, as the CUDA runtime and the frameworks do. Parameters, gradients and
/// states are addresses on the device. `stream` is a CUstream or cudaStream_t, and NULL is the default stream; work
/// that is put on several streams has to be ordered among them. A step only puts kernels on the stream: the host does
/// not wait, unless a function says so. What a step is given has to live, and stay as it is, until the step has run.
///
/// Functions that take a pointer to const may be called by several threads at once, as long as no thread is in one that
/// does not.
pub struct koala_cuda(());

pub(crate) struct OnDevice {
    pub optimizer: Optimizer,
    pub groups: Groups,
    pub names: Names,
    /// Where each tensor's filter is, if the caller owns it: v, h and the scalars.
    pub states: Vec<[Range; 3]>,
    pub numbers: Numbers,
    /// Empty between calls; kept so that a step does not allocate.
    pub given: Vec<Tensor<'static>>,
    pub sorted: Sorted,
}

impl Handle for koala_cuda {
    type Inner = OnDevice;
}

/// The stream of a handle that C gives.
///
/// # Safety
/// It is NULL or a stream, which lives until its work is done.
pub(crate) unsafe fn stream_of(handle: *mut c_void) -> Stream {
    // SAFETY: the caller's promise.
    unsafe { Stream::from_raw(handle) }
}

/// An address on the device.
pub(crate) fn address(pointer: *const c_void) -> u64 {
    pointer.expose_provenance() as u64
}

/// Where the numbers are that steps read: of each group its learning rate, the scale of the loss, and the flag.
#[derive(Default)]
pub(crate) struct Numbers {
    rates: Vec<Range>,
    pub scale: Range,
    pub found_infinite: Range,
}

impl Numbers {
    /// Each of these numbers and of a loss's that is on the device, and what it is.
    pub fn with_loss(&self, [mean, second_moment]: [Range; 2]) -> impl Iterator<Item = (&'static str, Range)> {
        let named = [
            ("the mean loss", mean),
            ("the second moment of the loss", second_moment),
            ("the scale", self.scale),
            ("found_infinite", self.found_infinite),
        ];
        let rates = self.rates.iter().map(|rate| ("a learning rate", *rate));
        named.into_iter().chain(rates).filter(|(_, place)| *place != (0, 0))
    }

    /// Where the learning rate of a group is, if it is on the device.
    pub fn set_rate(&mut self, group: usize, place: Range) {
        if self.rates.len() <= group {
            self.rates.resize(group + 1, (0, 0));
        }
        self.rates[group] = place;
    }
}

/// Where an element of that type is on the device. If the pointer is NULL, the range is empty.
pub(crate) fn number_at(pointer: *const c_void, element_type: koala_optim::ElementType) -> Range {
    bytes_at(pointer, element_type.size())
}

pub(crate) fn given(pointer: *const c_void) -> Option<u64> {
    (!pointer.is_null()).then(|| address(pointer))
}

/// The buffers of a tensor, as [`Sorted`](crate::optimizer::apart::Sorted) has them: all but the gradient are written.
pub(crate) const BUFFERS_ON_DEVICE: [&str; 6] = ["parameters", "gradient", "copy", "v", "h", "scalars"];
