//! The devices that the kernels' bits are compared on, and buffers there.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use koala_optim::cuda::{Device, Driver, Stream};

use crate::shim::Fake;

/// A device to test on.
pub struct Machine {
    pub name: String,
    pub driver: Arc<dyn Driver>,
    /// Its primary context, which has streams: not the shim's.
    pub context: Option<Arc<CudaContext>>,
}

const GIBIBYTE: usize = 1 << 30;

/// The GPU whose number `KOALA_CUDA_DEVICE` is; without one the shim, where there is a g++.
pub fn machine() -> Option<Machine> {
    if let Ok(number) = std::env::var("KOALA_CUDA_DEVICE") {
        let name = format!("CUDA device {number}");
        let number = number.parse().expect("KOALA_CUDA_DEVICE is the number of a device");
        let driver = Arc::new(Device::new(number).unwrap());
        return Some(Machine { name, driver, context: Some(CudaContext::new(number).unwrap()) });
    }
    println!("not run on a GPU: KOALA_CUDA_DEVICE names none");
    let fake = Fake::new(GIBIBYTE, GIBIBYTE)?;
    Some(Machine { name: "the shim".into(), driver: Arc::new(fake), context: None })
}

/// What is captured on a stream of its own, to be launched again and again.
pub struct Captured {
    stream: Arc<CudaStream>,
    graph: Option<CudaGraph>,
}

impl Captured {
    /// Nothing yet.
    pub fn on(context: &Arc<CudaContext>) -> Self {
        Captured { stream: context.new_stream().unwrap(), graph: None }
    }

    pub fn stream(&self) -> Stream {
        // SAFETY: it lives as long as `self`, which outlives what the tests put on it.
        unsafe { Stream::from_raw(self.stream.cu_stream().cast()) }
    }

    /// Captures what the call puts on the stream.
    pub fn capture(&mut self, call: impl FnOnce(Stream)) {
        // Other threads' tests allocate meanwhile.
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        call(self.stream());
        self.graph = self.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
    }

    /// Launches what was captured.
    pub fn launch(&self) {
        self.graph.as_ref().expect("something was captured").launch().unwrap();
    }
}

/// Memory on a device, for buffers of a test.
pub trait Buffers: Driver {
    /// A buffer with these bytes, which is the caller's to give back.
    fn buffer(&self, bytes: &[u8]) -> u64 {
        // One byte more, so that an empty buffer has an address too.
        let address = self.allocate(bytes.len() + 1).unwrap();
        self.set(address, bytes);
        address
    }

    /// Overwrites a buffer's beginning.
    fn set(&self, address: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            // SAFETY: the tests write no more than a buffer has, and steps have run by then.
            unsafe { self.upload(Stream::DEFAULT, bytes, address).unwrap() };
        }
    }

    /// A buffer's first bytes.
    fn get(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        if count > 0 {
            // SAFETY: the tests read no more than a buffer has.
            unsafe { self.download(Stream::DEFAULT, address, &mut bytes).unwrap() };
        }
        bytes
    }
}

impl<D: Driver + ?Sized> Buffers for D {}
