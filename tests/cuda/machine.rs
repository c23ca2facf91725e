//! The devices that the kernels' bits are compared on, and buffers there.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use koala_optim::cuda::{Device, Driver, Stream};

use crate::shim::{self, Fake};

/// A device to test on.
pub struct Machine {
    pub name: String,
    pub driver: Arc<dyn Driver>,
    kind: Kind,
}

enum Kind {
    Gpu(Arc<CudaContext>),
    Shim(Fake),
}

const GIBIBYTE: usize = 1 << 30;

/// The GPU whose number `KOALA_CUDA_DEVICE` is; without one the shim, where there is a g++.
pub fn machine() -> Option<Machine> {
    if let Ok(number) = std::env::var("KOALA_CUDA_DEVICE") {
        let name = format!("CUDA device {number}");
        let number = number.parse().expect("KOALA_CUDA_DEVICE is the number of a device");
        let driver = Arc::new(Device::new(number).unwrap());
        return Some(Machine { name, driver, kind: Kind::Gpu(CudaContext::new(number).unwrap()) });
    }
    println!("not run on a GPU: KOALA_CUDA_DEVICE names none");
    let fake = Fake::new(GIBIBYTE, 2 * GIBIBYTE)?;
    Some(Machine { name: "the shim".into(), driver: Arc::new(fake.clone()), kind: Kind::Shim(fake) })
}

impl Machine {
    /// The GPU's primary context.
    pub fn context(&self) -> Option<&Arc<CudaContext>> {
        match &self.kind {
            Kind::Gpu(context) => Some(context),
            Kind::Shim(_) => None,
        }
    }

    /// What captures graphs.
    pub fn recorder(&self) -> Recorder {
        match &self.kind {
            Kind::Gpu(context) => Recorder::Gpu(context.new_stream().unwrap()),
            Kind::Shim(fake) => Recorder::Shim(fake.clone()),
        }
    }
}

/// A stream whose work can be captured, to be launched again and again.
pub enum Recorder {
    Gpu(Arc<CudaStream>),
    Shim(Fake),
}

/// What was captured.
pub enum Graph {
    Gpu(CudaGraph),
    Shim(shim::Graph),
}

impl Recorder {
    pub fn stream(&self) -> Stream {
        match self {
            // SAFETY: it lives as long as `self`, which outlives what the tests put on it.
            Recorder::Gpu(stream) => unsafe { Stream::from_raw(stream.cu_stream().cast()) },
            Recorder::Shim(_) => shim::captured_stream(),
        }
    }

    /// Captures what the call puts on the stream.
    pub fn capture(&self, call: impl FnOnce(Stream)) -> Graph {
        match self {
            Recorder::Gpu(stream) => {
                // Other threads' tests allocate meanwhile.
                let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                stream.begin_capture(mode).unwrap();
                call(self.stream());
                let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap();
                Graph::Gpu(graph.expect("something was captured"))
            }
            Recorder::Shim(fake) => Graph::Shim(fake.capture(call)),
        }
    }

    /// Launches what was captured, and waits for it.
    pub fn launch(&self, graph: &Graph) {
        match (self, graph) {
            (Recorder::Gpu(stream), Graph::Gpu(graph)) => {
                graph.launch().unwrap();
                stream.synchronize().unwrap();
            }
            (Recorder::Shim(fake), Graph::Shim(graph)) => fake.replay(graph),
            _ => unreachable!("the graph is this recorder's"),
        }
    }
}

/// Memory on a device, for buffers of a test.
pub trait Buffers: Driver {
    /// A buffer with these bytes, which is the caller's to give back.
    fn buffer(&self, bytes: &[u8]) -> u64 {
        // An empty buffer has an address too.
        let address = self.allocate(bytes.len().max(1)).unwrap();
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

/// A buffer among bytes that nothing may write.
pub struct Area {
    driver: Arc<dyn Driver>,
    start: u64,
    before: usize,
    bytes: usize,
}

/// What is before and behind each, at least.
const GUARD: [u8; 64] = [0x5a; 64];

impl Area {
    /// A buffer with these bytes, so many bytes off from where its memory begins and every type is aligned.
    pub fn new(driver: &Arc<dyn Driver>, bytes: &[u8], offset: usize) -> Self {
        let before = GUARD.len() + offset;
        let all = [&vec![GUARD[0]; before], bytes, &GUARD].concat();
        Area { start: driver.buffer(&all), driver: driver.clone(), before, bytes: bytes.len() }
    }

    pub fn address(&self) -> u64 {
        self.start + self.before as u64
    }

    /// Its bytes; it is looked at whether those around are what they were.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.driver.get(self.start, self.before + self.bytes + GUARD.len());
        let behind = all.split_off(self.before + self.bytes);
        let bytes = all.split_off(self.before);
        assert!(all.iter().chain(&behind).all(|byte| *byte == GUARD[0]), "written around a buffer");
        bytes
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: it came from `buffer`, and is used no more.
        unsafe { self.driver.free(self.start) };
    }
}
