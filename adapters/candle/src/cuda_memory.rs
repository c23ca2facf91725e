//! Memory that candle has on a device, lent to a step: the unsafe part of this crate.

use std::ops::Range;
use std::sync::Arc;
use std::thread::ThreadId;

use candle_core::{self as candle, CudaStorage};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use koala_optim::cuda::{Config, Device, DeviceLoss, Optimizer, StepLoss, Stream, Tensor};
use koala_optim::{ElementType, Loss, Report, bf16, f16};

/// What candle's memory on a device can do only where candle was built for CUDA, which no feature of ours can tell.
/// There, a type's own methods come first, and these are never called. Elsewhere, there is no such memory.
#[allow(dead_code)]
trait WithoutCuda {
    fn as_cuda_slice<T>(&self) -> candle::Result<&CudaSlice<T>> {
        Err(candle::Error::NotCompiledWithCudaSupport)
    }

    fn as_cuda_slice_mut<T>(&mut self) -> candle::Result<&mut CudaSlice<T>> {
        Err(candle::Error::NotCompiledWithCudaSupport)
    }
}

impl WithoutCuda for CudaStorage {}

/// An optimizer whose steps are on the stream on which candle does everything with a device.
#[derive(Debug)]
pub struct OnStream {
    pub optimizer: Optimizer,
    pub stream: Arc<CudaStream>,
    /// The one that has used the stream last.
    thread: ThreadId,
}

impl OnStream {
    /// On the stream and the device of such memory, of bytes.
    pub fn of(bytes: &CudaStorage, config: Config) -> candle::Result<Self> {
        let stream = bytes.as_cuda_slice::<u8>()?.stream().clone();
        let device = Device::new(stream.context().ordinal()).map_err(candle::Error::wrap)?;
        let optimizer = Optimizer::new(device, config).map_err(candle::Error::wrap)?;
        Ok(OnStream { optimizer, stream, thread: std::thread::current().id() })
    }

    /// Puts a step on the stream.
    pub fn step(&mut self, step: Step<'_>) -> candle::Result<()> {
        let stream = self.stream_of_this_thread()?;
        self.optimizer.step(stream, step.loss, &step.tensors).map_err(candle::Error::wrap)
    }

    /// What the last step did. The host waits for it.
    pub fn report(&mut self) -> candle::Result<Report> {
        let stream = self.stream_of_this_thread()?;
        self.optimizer.report(stream).map_err(candle::Error::wrap)
    }

    /// The stream. By the handle that candle usually has, each thread has a stream of its own, whose work nothing
    /// orders: so the host waits for what another thread has put on that one.
    fn stream_of_this_thread(&mut self) -> candle::Result<Stream> {
        let thread = std::thread::current().id();
        if self.thread != thread {
            self.stream.context().synchronize().map_err(candle::Error::wrap)?;
            self.thread = thread;
        }
        // SAFETY: it is a stream, which lives as long as `self`, and of several behind one handle, the work is ordered.
        Ok(unsafe { Stream::from_raw(self.stream.cu_stream().cast()) })
    }
}

/// A step that is being prepared: the memory is lent until it is on the stream.
pub struct Step<'a> {
    stream: &'a CudaStream,
    loss: StepLoss,
    tensors: Vec<Tensor<'a>>,
    /// When these are dropped, candle takes the memory to be in use by what is on the stream then.
    uses: Vec<SyncOnDrop<'a>>,
}

impl<'a> Step<'a> {
    pub fn new(stream: &'a CudaStream, loss: Loss) -> Self {
        Step { stream, loss: loss.into(), tensors: Vec::new(), uses: Vec::new() }
    }

    /// The parameters and the part of other memory that is their gradient, if both are of that type and as long.
    pub fn add(
        &mut self,
        name: &'a str,
        element_type: ElementType,
        parameters: &'a mut CudaStorage,
        gradient: (&'a CudaStorage, Range<usize>),
    ) -> Option<()> {
        let (parameters, length, writing) = match element_type {
            ElementType::F32 => written::<f32>(parameters.as_cuda_slice_mut().ok()?, self.stream),
            ElementType::F64 => written::<f64>(parameters.as_cuda_slice_mut().ok()?, self.stream),
            ElementType::Bf16 => written::<bf16>(parameters.as_cuda_slice_mut().ok()?, self.stream),
            ElementType::F16 => written::<f16>(parameters.as_cuda_slice_mut().ok()?, self.stream),
        };
        if length != gradient.1.len() {
            return None;
        }
        let gradient = self.read(element_type, gradient)?;
        self.uses.push(writing);
        // SAFETY: both are memory of that many such elements, and not the same, as one is lent for writing. It is
        // given back on the stream, so behind the step, where candle also puts what it does with it next; on another
        // stream, that waits for the events that `uses` record. Where candle has none, it relies on its own kernels
        // being on one stream too.
        self.tensors.push(unsafe { Tensor::new(name, element_type, length, parameters, gradient) });
        Some(())
    }

    /// The loss, as f64 that are to be computed on the stream: its mean, and the mean of its squares.
    pub fn set_loss(&mut self, [mean, second_moment]: [(&'a CudaStorage, usize); 2]) -> Option<()> {
        let mut number = |(storage, place): (&'a CudaStorage, usize)| {
            self.read(ElementType::F64, (storage, place..place.checked_add(1)?))
        };
        let (mean, second_moment) = (number(mean)?, number(second_moment)?);
        // SAFETY: as above.
        self.loss = unsafe { DeviceLoss::new(ElementType::F64, mean, Some(second_moment)) }.into();
        Some(())
    }

    /// The address of elements that the step reads, if they are of that type, and there.
    fn read(&mut self, element_type: ElementType, (storage, range): (&'a CudaStorage, Range<usize>)) -> Option<u64> {
        let (address, length, reading) = match element_type {
            ElementType::F32 => read::<f32>(storage.as_cuda_slice().ok()?, self.stream),
            ElementType::F64 => read::<f64>(storage.as_cuda_slice().ok()?, self.stream),
            ElementType::Bf16 => read::<bf16>(storage.as_cuda_slice().ok()?, self.stream),
            ElementType::F16 => read::<f16>(storage.as_cuda_slice().ok()?, self.stream),
        };
        if range.start > range.end || range.end > length {
            return None;
        }
        self.uses.push(reading);
        Some(address + (range.start * element_type.size()) as u64)
    }
}

fn written<'a, T>(memory: &'a mut CudaSlice<T>, stream: &'a CudaStream) -> (u64, usize, SyncOnDrop<'a>) {
    let length = memory.len();
    let (address, writing) = memory.device_ptr_mut(stream);
    (address, length, writing)
}

fn read<'a, T>(memory: &'a CudaSlice<T>, stream: &'a CudaStream) -> (u64, usize, SyncOnDrop<'a>) {
    let (address, reading) = memory.device_ptr(stream);
    (address, memory.len(), reading)
}
