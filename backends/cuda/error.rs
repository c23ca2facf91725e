//! What can be wrong with a call on a device. After any error, nothing of parameters and state has changed.

use crate::types::error::Error as CallError;

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// What would be wrong on the CPU too.
    Call(CallError),
    /// The CUDA driver's library, libcuda or nvcuda, is not on this machine.
    NoDriver,
    /// The device that was asked for is not there.
    NoDevice {
        /// Its number.
        device: usize,
        /// How many there are.
        devices: usize,
    },
    /// The driver is too old for the kernels.
    OldDriver {
        /// The CUDA version that it is for, major and minor.
        version: (i32, i32),
    },
    /// The device is too old for the kernels.
    OldDevice {
        /// Its number.
        device: usize,
        /// Its compute capability, major and minor.
        capability: (i32, i32),
    },
    /// A call of the CUDA driver failed.
    Driver {
        /// Which one.
        call: &'static str,
        /// The driver's name for the error.
        error: String,
    },
    /// The device has not enough memory.
    Memory {
        /// The bytes that were asked for.
        bytes: usize,
    },
    /// The memory that reports are read from holds none: something else has written there.
    UnknownOutcome {
        /// The number that is no outcome's.
        number: u32,
    },
    /// The host has not enough memory for what was to be read.
    HostMemory {
        /// The bytes that were asked for.
        bytes: usize,
    },
    /// A buffer of the caller has not as many bytes as a tensor's state.
    StateBytes {
        /// The tensor's name.
        tensor: String,
        /// The buffer's bytes.
        found: usize,
        /// The state's.
        expected: usize,
    },
    /// The stream is being captured in a graph, and the call is none that can be: the capture goes on without it.
    Captured {
        /// What has to be otherwise.
        expected: &'static str,
    },
    /// The stream belongs to another device or context.
    ForeignStream,
    /// A buffer is not memory of the device.
    NotOnDevice {
        /// The tensor's name; empty where it belongs to none.
        tensor: String,
        /// Which buffer.
        buffer: &'static str,
        /// Its address.
        address: u64,
    },
    /// A buffer's address is not a multiple of its elements' size.
    Misaligned {
        /// The tensor's name; empty where it belongs to none.
        tensor: String,
        /// Which buffer.
        buffer: &'static str,
        /// Its address.
        address: u64,
    },
    /// A tensor is longer than the kernels can count.
    TooLong {
        /// Its name.
        tensor: String,
        /// Its elements.
        length: usize,
        /// The elements that it may have.
        longest: u64,
    },
    /// A policy that would make an error of what is only known on the device.
    Policy {
        /// Which one.
        policy: &'static str,
    },
    /// The noise is averaged, and the loss on the device has no second moment.
    NoSecondMoment,
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Error::Call(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |tensor: &str| if tensor.is_empty() { String::new() } else { format!("tensor {tensor:?}: ") };
        match self {
            Error::Call(error) => error.fmt(f),
            Error::NoDriver => f.write_str("there is no CUDA driver on this machine (libcuda.so.1 or nvcuda.dll)"),
            Error::NoDevice { device, devices } => write!(f, "there is no CUDA device {device}, of {devices} in all"),
            Error::OldDriver { version: (major, minor) } => {
                write!(f, "the driver is for CUDA {major}.{minor}, expected 12.0 at least")
            }
            Error::OldDevice { device, capability: (major, minor) } => {
                write!(f, "CUDA device {device} has compute capability {major}.{minor}, expected 8.0 at least")
            }
            Error::Driver { call, error } => write!(f, "{call} failed: {error}"),
            Error::Memory { bytes } => write!(f, "the device has no {bytes} bytes of memory left"),
            Error::UnknownOutcome { number } => {
                write!(
                    f,
                    "a report on the device has the outcome {number}, which is none: something else has written there"
                )
            }
            Error::HostMemory { bytes } => write!(f, "the host has no {bytes} bytes of memory left"),
            Error::StateBytes { tensor, found, expected } => {
                write!(f, "{}{found} bytes for its state, expected {expected}", of(tensor))
            }
            Error::Captured { expected } => write!(f, "the stream is being captured in a graph, expected {expected}"),
            Error::ForeignStream => f.write_str("the stream belongs to another device or context"),
            Error::NotOnDevice { tensor, buffer, address } => {
                write!(f, "{}the {buffer} at {address:#x} is not in the device's memory", of(tensor))
            }
            Error::Misaligned { tensor, buffer, address } => {
                write!(f, "{}the {buffer} at {address:#x} is not aligned to its elements", of(tensor))
            }
            Error::TooLong { tensor, length, longest } => {
                write!(f, "{}{length} elements, expected at most {longest}", of(tensor))
            }
            Error::Policy { policy } => {
                write!(f, "{policy} cannot be had on a device: the host would have to wait for each step")
            }
            Error::NoSecondMoment => f.write_str("averaged noise needs the second moment of the loss"),
        }
    }
}

impl std::error::Error for Error {}
