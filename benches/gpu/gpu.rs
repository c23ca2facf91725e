//! The device that is measured: its memory, a stream, and times by its own clock.

use std::error::Error;
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result, sys};
use koala_measure::saw_tooth;
use koala_optim::cuda::{self, Device, Driver, Kernel, Stream};

use crate::table::Description;

/// The device, its primary context, and a stream.
pub struct Gpu {
    pub device: Arc<Device>,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
}

/// The stub driver's devices have this in their name.
const NO_GPU: &str = "not a GPU";

impl Gpu {
    /// The device of that number.
    pub fn open(number: usize) -> Result<Self, Box<dyn Error>> {
        // It says what is missing. Below, it would be a panic.
        let device = Arc::new(Device::new(number)?);
        let context = CudaContext::new(number)?;
        let stream = context.new_stream()?;
        Ok(Gpu { device, context, stream })
    }

    pub fn description(&self) -> Result<Description, DriverError> {
        let attribute = |attribute| self.context.attribute(attribute);
        let mut version = 0;
        // SAFETY: `version` is valid.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        let kernel_module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
        let kernel_module = kernel_module.lines().next().unwrap_or("unknown kernel module").trim();
        let name = self.context.name()?;
        Ok(Description {
            is_gpu: !name.contains(NO_GPU),
            name,
            driver: format!("for CUDA {}.{}, {kernel_module}", version / 1000, version % 1000 / 10),
            capability: (
                attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            l2_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            memory_bytes: self.context.total_mem()?,
        })
    }

    /// The stream that all is put on.
    pub fn stream(&self) -> Stream {
        // SAFETY: it lives as long as `self`, and the program waits for what they put on it.
        unsafe { Stream::from_raw(self.stream.cu_stream().cast()) }
    }

    /// Memory of that many floats, filled with small ones about zero.
    pub fn floats(&self, count: usize, scale: f64) -> Result<Memory, Box<dyn Error>> {
        let bytes = 4 * count;
        let memory = Memory { address: self.device.allocate(bytes)?, device: self.device.clone() };
        let value = saw_tooth(scale, 251);
        let first: Vec<f32> = (0..count.min(1 << 16)).map(|i| value(i) as f32).collect();
        let first: &[u8] = bytemuck::cast_slice(&first);
        // SAFETY: the memory was just allocated, and is that long.
        unsafe { self.device.upload(self.stream(), first, memory.address)? };
        let mut filled = first.len();
        while filled < bytes {
            let more = filled.min(bytes - filled);
            self.copy(memory.address, memory.address + filled as u64, more)?;
            filled += more;
        }
        self.stream.synchronize()?;
        Ok(memory)
    }

    /// Puts a copy on the stream.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: the callers' memory has that many bytes at both, which do not overlap.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
    }

    /// What the call puts on the stream, as a graph.
    pub fn captured<E: Error + 'static>(
        &self,
        call: impl FnOnce() -> Result<(), E>,
    ) -> Result<CudaGraph, Box<dyn Error>> {
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)?;
        let called = call();
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0));
        called?;
        Ok(graph?.ok_or("nothing was captured")?)
    }

    /// Marks the time on the stream.
    pub fn mark(&self) -> Result<CudaEvent, DriverError> {
        self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
    }

    /// The nanoseconds from when the device comes to what the call puts on the stream until it has done it.
    pub fn time<E: Error + 'static>(&self, call: impl FnOnce() -> Result<(), E>) -> Result<f64, Box<dyn Error>> {
        let begin = self.mark()?;
        call()?;
        let end = self.mark()?;
        nanoseconds(&begin, &end)
    }
}

/// Between two marks; the host waits for the second one.
pub fn nanoseconds(begin: &CudaEvent, end: &CudaEvent) -> Result<f64, Box<dyn Error>> {
    Ok(f64::from(begin.elapsed_ms(end)?) * 1e6)
}

/// Memory of the device, given back when it is dropped.
pub struct Memory {
    pub address: u64,
    device: Arc<Device>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it came from `allocate`, and the device waits for what uses it.
        unsafe { self.device.free(self.address) };
    }
}

/// A device that marks the time before and after each launch.
#[derive(Debug)]
pub struct Marking {
    device: Arc<Device>,
    stream: Arc<CudaStream>,
    marks: Arc<Marks>,
}

/// The launches since they were last taken.
pub type Marks = std::sync::Mutex<Vec<(Kernel, CudaEvent, CudaEvent)>>;

impl Marking {
    pub fn new(gpu: &Gpu) -> (Self, Arc<Marks>) {
        let marks = Arc::new(Marks::default());
        (Marking { device: gpu.device.clone(), stream: gpu.stream.clone(), marks: marks.clone() }, marks)
    }

    fn mark(&self) -> Result<CudaEvent, cuda::Error> {
        let mark = self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        mark.map_err(|error| cuda::Error::Driver { call: "cuEventRecord", error: error.to_string() })
    }
}

impl Driver for Marking {
    fn l2_bytes(&self) -> usize {
        self.device.l2_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, cuda::Error> {
        self.device.allocate(bytes)
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller keeps the contract.
        unsafe { self.device.free(address) }
    }

    fn check_stream(&self, stream: Stream) -> Result<(), cuda::Error> {
        self.device.check_stream(stream)
    }

    fn is_captured(&self, stream: Stream) -> Result<bool, cuda::Error> {
        self.device.is_captured(stream)
    }

    fn is_on_device(&self, address: u64) -> bool {
        self.device.is_on_device(address)
    }

    unsafe fn upload(&self, stream: Stream, from: &[u8], to: u64) -> Result<(), cuda::Error> {
        // SAFETY: the caller keeps the contract.
        unsafe { self.device.upload(stream, from, to) }
    }

    unsafe fn download(&self, stream: Stream, from: u64, to: &mut [u8]) -> Result<(), cuda::Error> {
        // SAFETY: the caller keeps the contract.
        unsafe { self.device.download(stream, from, to) }
    }

    unsafe fn launch(&self, stream: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), cuda::Error> {
        let begin = self.mark()?;
        // SAFETY: the caller keeps the contract.
        unsafe { self.device.launch(stream, kernel, blocks, argument)? };
        let end = self.mark()?;
        if let Ok(mut marks) = self.marks.lock() {
            marks.push((kernel, begin, end));
        }
        Ok(())
    }
}
