//! What the optimizer needs of a device, as a trait: so that tests can run the host's side without one.

use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::{NoUninit, Pod};

use super::error::Error;

/// A stream of the device, in whose order things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(usize);

impl Stream {
    /// The default stream.
    pub const DEFAULT: Stream = Stream(0);

    /// The stream of that handle, a `CUstream` or `cudaStream_t`.
    ///
    /// # Safety
    /// It is one, it lives until its work is done, and what an optimizer is given to do on several streams is ordered
    /// among them.
    ///
    /// ```
    /// use koala_optim::cuda::Stream;
    /// // SAFETY: this is the handle of the default stream.
    /// assert_eq!(unsafe { Stream::from_raw(std::ptr::null_mut()) }, Stream::DEFAULT);
    /// ```
    pub unsafe fn from_raw(handle: *mut c_void) -> Self {
        Stream(handle.expose_provenance())
    }

    /// The handle.
    ///
    /// ```
    /// assert!(koala_optim::cuda::Stream::DEFAULT.as_raw().is_null());
    /// ```
    pub fn as_raw(self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(self.0)
    }
}

/// The functions of `kernels.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The dot products of a group's tensors.
    Dots,
    /// The scalar recursion of each.
    Recursion,
    /// The update of all.
    Update,
    /// New settings or scalars, and addresses of gradients that have moved.
    Change,
}

/// A device, or what stands for one. [`Device`](super::Device) is the real one.
pub trait Driver: Debug + Send + Sync {
    /// The size of the L2 cache in bytes.
    fn l2_bytes(&self) -> usize;

    /// Zeroed memory, at an address that every element type is aligned at. The host waits for it.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Driver`].
    fn allocate(&self, bytes: usize) -> Result<u64, Error>;

    /// Gives memory back, once nothing runs that uses it: the host waits for it.
    ///
    /// # Safety
    /// The address is one that [`allocate`](Self::allocate) returned, and is not used from now on.
    unsafe fn free(&self, address: u64);

    /// Whether the stream belongs to this device.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], [`Error::Driver`].
    fn check_stream(&self, stream: Stream) -> Result<(), Error>;

    /// Whether what is put on the stream is captured in a graph, and does not run.
    ///
    /// # Errors
    /// [`Error::Driver`], also if the capture is spoilt already.
    fn is_captured(&self, stream: Stream) -> Result<bool, Error>;

    /// Whether the address is one of this device's memory.
    fn is_on_device(&self, address: u64) -> bool;

    /// Copies to the device, after what is on the stream. The host waits for it.
    ///
    /// # Errors
    /// [`Error::Driver`].
    ///
    /// # Safety
    /// That many bytes at `to` are memory of the device which nothing else uses meanwhile.
    unsafe fn upload(&self, stream: Stream, from: &[u8], to: u64) -> Result<(), Error>;

    /// Copies from the device, after what is on the stream. The host waits for it.
    ///
    /// # Errors
    /// [`Error::Driver`].
    ///
    /// # Safety
    /// That many bytes at `from` are memory of the device which nothing else writes meanwhile.
    unsafe fn download(&self, stream: Stream, from: u64, to: &mut [u8]) -> Result<(), Error>;

    /// Puts a kernel on the stream: that many thread blocks, and the structure that is its argument. The host does not
    /// wait.
    ///
    /// # Errors
    /// [`Error::Driver`].
    ///
    /// # Safety
    /// The argument is the kernel's, and what it points to lives until the kernel has run.
    unsafe fn launch(&self, stream: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error>;
}

/// A device that several optimizers share.
impl<D: Driver + ?Sized> Driver for Arc<D> {
    fn l2_bytes(&self) -> usize {
        (**self).l2_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        (**self).allocate(bytes)
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller keeps the contract.
        unsafe { (**self).free(address) }
    }

    fn check_stream(&self, stream: Stream) -> Result<(), Error> {
        (**self).check_stream(stream)
    }

    fn is_captured(&self, stream: Stream) -> Result<bool, Error> {
        (**self).is_captured(stream)
    }

    fn is_on_device(&self, address: u64) -> bool {
        (**self).is_on_device(address)
    }

    unsafe fn upload(&self, stream: Stream, from: &[u8], to: u64) -> Result<(), Error> {
        // SAFETY: the caller keeps the contract.
        unsafe { (**self).upload(stream, from, to) }
    }

    unsafe fn download(&self, stream: Stream, from: u64, to: &mut [u8]) -> Result<(), Error> {
        // SAFETY: the caller keeps the contract.
        unsafe { (**self).download(stream, from, to) }
    }

    unsafe fn launch(&self, stream: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error> {
        // SAFETY: the caller keeps the contract.
        unsafe { (**self).launch(stream, kernel, blocks, argument) }
    }
}

/// A driver, and what was asked of it.
#[derive(Debug)]
pub(super) struct Counted {
    pub driver: Box<dyn Driver>,
    launches: AtomicU64,
    waits: AtomicU64,
}

impl Counted {
    pub fn new(driver: Box<dyn Driver>) -> Arc<Self> {
        Arc::new(Counted { driver, launches: 0.into(), waits: 0.into() })
    }

    /// Launches, and waits of the host.
    pub fn counts(&self) -> (u64, u64) {
        (self.launches.load(Relaxed), self.waits.load(Relaxed))
    }

    /// # Safety
    /// As [`Driver::launch`].
    pub unsafe fn launch(
        &self,
        stream: Stream,
        kernel: Kernel,
        blocks: u32,
        argument: &impl NoUninit,
    ) -> Result<(), Error> {
        self.launches.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { self.driver.launch(stream, kernel, blocks, bytemuck::bytes_of(argument)) }
    }

    /// Fills elements from that address.
    ///
    /// # Safety
    /// So many are there, and what writes them is on the stream.
    pub unsafe fn read<T: Pod>(&self, stream: Stream, from: u64, elements: &mut [T]) -> Result<(), Error> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(elements);
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.wait().download(stream, from, bytes) }
    }

    fn wait(&self) -> &dyn Driver {
        self.waits.fetch_add(1, Relaxed);
        &*self.driver
    }
}

/// Memory of the device that belongs to the optimizer.
#[derive(Debug)]
pub(super) struct Memory {
    counted: Arc<Counted>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// Zeros. No memory at all has the address 0.
    pub fn zeroed(counted: &Arc<Counted>, bytes: usize) -> Result<Self, Error> {
        let address = if bytes == 0 { 0 } else { counted.wait().allocate(bytes)? };
        Ok(Memory { counted: counted.clone(), address, bytes })
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies elements to the beginning: as many as fit.
    pub fn write<T: NoUninit>(&mut self, stream: Stream, elements: &[T]) -> Result<(), Error> {
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        let bytes = &bytes[..bytes.len().min(self.bytes)];
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: so many bytes are there, and it belongs to `self`; kernels that use it are on the stream.
        unsafe { self.counted.wait().upload(stream, bytes, self.address) }
    }

    /// Fills elements from the beginning: as many as are there; the others stay as they are.
    pub fn read<T: Pod>(&self, stream: Stream, elements: &mut [T]) -> Result<(), Error> {
        let there = elements.len().min(self.bytes / size_of::<T>().max(1));
        // SAFETY: so many are there; kernels that write them are on the stream.
        unsafe { self.counted.read(stream, self.address, &mut elements[..there]) }
    }
}

/// So many zeros of the host's memory.
pub(super) fn zeros<T: Pod>(count: usize) -> Result<Vec<T>, Error> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(count).map_err(|_| Error::HostMemory { bytes: count.saturating_mul(size_of::<T>()) })?;
    zeros.resize(count, T::zeroed());
    Ok(zeros)
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: it came from `allocate`, and nobody else has it.
            unsafe { self.counted.wait().free(self.address) };
        }
    }
}
