//! Statuses.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use crate::border::values::{from_c, value_of};

/// What a call came to. Zero is success; after anything else nothing has been written, and koala_last_error has a text
/// that names the tensor and the numbers.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_status {
    /// All was done.
    Ok = 0,
    /// A pointer is NULL that may not be.
    NullPointer = 1,
    /// A pointer is not aligned as its type has to be.
    Misaligned = 2,
    /// Two buffers overlap, one of which would be written.
    Overlap = 3,
    /// The size in a struct's first member is none that this library knows: it was not set, or it is of a newer header
    /// and a member that this library lacks is not zero.
    StructSize = 4,
    /// An enum or a flag has a value that is none of its own.
    UnknownValue = 5,
    /// A length is not the tensor's, or larger than memory can be.
    Length = 6,
    /// The parameters' type is not the one that the tensor was added with.
    Type = 7,
    /// A text is not UTF-8.
    Encoding = 8,
    /// A number is outside of its range.
    Setting = 9,
    /// A loss was to be made from no samples.
    NoSamples = 10,
    /// A loss, gradient, parameter or scalar is NaN or infinite, or a parameter, v or h would be, and
    /// KOALA_ON_NON_FINITE_ERROR is set.
    NonFinite = 11,
    /// An innovation variance would not be positive, and KOALA_ON_BREAKDOWN_ERROR is set.
    Breakdown = 12,
    /// There is no tensor of that name or number.
    UnknownTensor = 13,
    /// A tensor was added, or given, before.
    DuplicateTensor = 14,
    /// There is no group of that number.
    UnknownGroup = 15,
    /// There is no backend of that name or number.
    UnknownBackend = 16,
    /// The backend cannot run on this processor.
    AbsentBackend = 17,
    /// There is not enough memory.
    Memory = 18,
    /// The threads could not be had.
    Threads = 19,
    /// The header and the library do not fit.
    Version = 20,
    /// There is a mistake in the library, and the call was given up: what it was to write may be half-written. Please
    /// report it. A koala_optimizer or koala_cuda is poisoned by it.
    Panic = 21,
    /// An earlier call on this koala_optimizer or koala_cuda ended with KOALA_STATUS_PANIC. It can only be destroyed.
    Poisoned = 22,
    /// There is no CUDA driver, no device of that number, or one of them is too old.
    AbsentDevice = 23,
    /// A buffer or a stream is not the device's.
    ForeignDevice = 24,
    /// A call of the CUDA driver failed: after this, what was put on the stream may have run in part. Or the stream is
    /// being captured, and the call cannot be: then nothing has been put there.
    Driver = 25,
    /// A step in halves was to be another one than of KOALA++ with gradients as they are: nothing else is offered so.
    Halves = 26,
    /// KOALA-M was to step before koala_optimizer_predict was called for that step.
    NotPredicted = 27,
    /// A file cannot be read or written.
    File = 28,
    /// A file is not a checkpoint, or it was cut short, or its bytes have changed.
    Damaged = 29,
    /// A later version of this library wrote the checkpoint, in a format that this one does not know.
    Newer = 30,
    /// The checkpoint is of another model or method, and KOALA_LOADING_EXACT is set.
    Mismatch = 31,
    /// Something else is wrong, for which this version of the C interface has no status: koala_last_error says what.
    Other = 32,
    /// A group's method is not one that it can have.
    Method = 33,
}

from_c! { koala_status {
    Ok: c"success",
    NullPointer: c"a pointer is NULL",
    Misaligned: c"a pointer is misaligned",
    Overlap: c"buffers overlap",
    StructSize: c"a struct has an unknown size",
    UnknownValue: c"a value is none of its type",
    Length: c"a length is wrong",
    Type: c"an element type is wrong",
    Encoding: c"a text is not UTF-8",
    Setting: c"a number is out of range",
    NoSamples: c"there are no samples",
    NonFinite: c"a number is not finite",
    Breakdown: c"an innovation variance is not positive",
    UnknownTensor: c"there is no such tensor",
    DuplicateTensor: c"a tensor is given twice",
    UnknownGroup: c"there is no such group",
    UnknownBackend: c"there is no such backend",
    AbsentBackend: c"the backend cannot run here",
    Memory: c"out of memory",
    Threads: c"the threads could not be had",
    Version: c"header and library do not fit",
    Panic: c"a mistake in the library",
    Poisoned: c"the optimizer is poisoned",
    AbsentDevice: c"there is no such device",
    ForeignDevice: c"a buffer or a stream is not the device's",
    Driver: c"a call of the CUDA driver failed",
    Halves: c"no step to be taken in halves",
    NotPredicted: c"the prediction is missing",
    File: c"a file cannot be read or written",
    Damaged: c"a file is not a sound checkpoint",
    Newer: c"a checkpoint has a newer format",
    Mismatch: c"a checkpoint is of another model",
    Other: c"something else is wrong",
    Method: c"a group cannot have the method",
} }

/// A few words on a status, in English, for ever valid; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn koala_status_string(status: MaybeUninit<koala_status>) -> *const c_char {
    value_of(status).map_or(c"an unknown status", koala_status::text).as_ptr()
}
