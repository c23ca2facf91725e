//! A CUDA device: the one place where the driver is called. Its library is looked for when the program runs.

use std::ffi::{CStr, CString, c_void};
use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUfunction, CUmodule, CUpointer_attribute, CUresult, CUstream,
    CUstreamCaptureStatus,
};
use libloading::Library;

use super::driver::{Driver, Kernel, Stream};
use super::error::Error;
use super::structs::THREADS;

/// What `ptx.py` made of the kernels, for compute capability 8.0 and whatever comes after it.
const PTX: &str = include_str!("kernels.ptx");

/// The CUDA version of the oldest driver that takes that: 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// A CUDA device, with the kernels loaded into its primary context: the one that PyTorch, JAX and the CUDA runtime use.
#[derive(Debug)]
pub struct Device {
    number: usize,
    primary: Primary,
    functions: [CUfunction; 4],
    l2_bytes: usize,
    module: CUmodule,
}

// SAFETY: the handles are the driver's, which any thread may use; each call makes the context current for itself.
unsafe impl Send for Device {}
// SAFETY: as above: the driver's functions may be called at once.
unsafe impl Sync for Device {}

/// Whether there is a driver that can be loaded, by a name that cudarc tries too, which panics where there is none. Where
/// a program is linked with the driver instead, because another user of cudarc in it wants that, it is there.
fn driver_is_there() -> bool {
    // SAFETY: loading the driver runs what NVIDIA has it do then, as every use of it does.
    ["libcuda.so", "libcuda.so.1", "nvcuda.dll"].iter().any(|name| unsafe { Library::new(*name) }.is_ok())
}

impl Device {
    /// The device of that number, from 0.
    ///
    /// # Errors
    /// [`Error::NoDriver`] without a driver, [`Error::NoDevice`] without that device, [`Error::OldDriver`] and
    /// [`Error::OldDevice`] if one can't run the kernels, [`Error::Driver`] for any other trouble.
    ///
    /// ```
    /// use koala_optim::cuda::Device;
    /// match Device::new(0) {
    ///     Ok(device) => println!("{device:?}"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    pub fn new(number: usize) -> Result<Self, Error> {
        if !driver_is_there() {
            return Err(Error::NoDriver);
        }
        // SAFETY: the library is there; 0 is the only value there is.
        let status = unsafe { sys::cuInit(0) };
        if status == CUresult::CUDA_ERROR_NO_DEVICE {
            return Err(Error::NoDevice { device: number, devices: 0 });
        }
        checked("cuInit", status)?;
        let version = initialized("cuDriverGetVersion", 0, |version| {
            // SAFETY: `version` is valid.
            unsafe { sys::cuDriverGetVersion(version) }
        })?;
        // An older one may lack functions that are called below.
        if version < OLDEST_DRIVER {
            return Err(Error::OldDriver { version: (version / 1000, version % 1000 / 10) });
        }
        let devices = initialized("cuDeviceGetCount", 0, |count| {
            // SAFETY: `count` is valid.
            unsafe { sys::cuDeviceGetCount(count) }
        })?;
        let devices = usize::try_from(devices).unwrap_or(0);
        let ordinal = i32::try_from(number).ok().filter(|_| number < devices);
        let ordinal = ordinal.ok_or(Error::NoDevice { device: number, devices })?;
        let device = initialized("cuDeviceGet", 0, |device| {
            // SAFETY: `device` is valid.
            unsafe { sys::cuDeviceGet(device, ordinal) }
        })?;
        let attribute = |attribute| {
            initialized("cuDeviceGetAttribute", 0, |value| {
                // SAFETY: `value` is valid, and the device the driver's.
                unsafe { sys::cuDeviceGetAttribute(value, attribute, device) }
            })
        };
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < (8, 0) {
            return Err(Error::OldDevice { device: number, capability });
        }
        let l2_bytes = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let l2_bytes = usize::try_from(l2_bytes).unwrap_or(0);

        let primary = Primary::retained(device)?;
        let (module, functions) = {
            let _current = primary.current()?;
            loaded()?
        };
        Ok(Device { number, primary, functions, l2_bytes, module })
    }
}

/// The module, and its functions in the order of [`Kernel`].
fn loaded() -> Result<(CUmodule, [CUfunction; 4]), Error> {
    let text = CString::new(PTX).map_err(|error| driver_error("cuModuleLoadData", error.to_string()))?;
    let module = initialized("cuModuleLoadData", std::ptr::null_mut(), |module| {
        // SAFETY: the text ends with a zero, and a context is current.
        unsafe { sys::cuModuleLoadData(module, text.as_ptr().cast()) }
    })?;
    let function = |name: &CStr| {
        initialized("cuModuleGetFunction", std::ptr::null_mut(), |function| {
            // SAFETY: the module was just loaded, and the name ends with a zero.
            unsafe { sys::cuModuleGetFunction(function, module, name.as_ptr()) }
        })
    };
    let functions = [c"koala_dots", c"koala_recursion", c"koala_update", c"koala_change"].map(function);
    let [dots, recursion, update, change] = functions;
    Ok((module, [dots?, recursion?, update?, change?]))
}

impl Driver for Device {
    fn l2_bytes(&self) -> usize {
        self.l2_bytes
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let _current = self.primary.current()?;
        let mut address = 0;
        // SAFETY: `address` is valid, and the context current.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(Error::Memory { bytes }),
            status => checked("cuMemAlloc", status)?,
        }
        let zeroed = || {
            let stream = std::ptr::null_mut();
            // SAFETY: the memory was just allocated, of that size.
            checked("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(address, 0, bytes, stream) })?;
            // SAFETY: the default stream.
            checked("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream) })
        };
        match zeroed() {
            Ok(()) => Ok(address),
            Err(error) => {
                // SAFETY: nobody else has the address.
                unsafe { sys::cuMemFree_v2(address) };
                Err(error)
            }
        }
    }

    unsafe fn free(&self, address: u64) {
        if let Ok(_current) = self.primary.current() {
            // SAFETY: the caller's address came from `allocate`, and nothing runs any more. A context that is in trouble
            // has nothing that could be given back, so what these return is of no use.
            unsafe {
                sys::cuCtxSynchronize();
                sys::cuMemFree_v2(address);
            }
        }
    }

    fn check_stream(&self, stream: Stream) -> Result<(), Error> {
        let _current = self.primary.current()?;
        let context = initialized("cuStreamGetCtx", std::ptr::null_mut(), |context| {
            // SAFETY: a stream, as `Stream::from_raw` was promised; the default one belongs to the current context.
            unsafe { sys::cuStreamGetCtx(handle(stream), context) }
        })?;
        if context == self.primary.context { Ok(()) } else { Err(Error::ForeignStream) }
    }

    fn is_captured(&self, stream: Stream) -> Result<bool, Error> {
        let _current = self.primary.current()?;
        let status =
            initialized("cuStreamIsCapturing", CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE, |status| {
                // SAFETY: a stream of this context.
                unsafe { sys::cuStreamIsCapturing(handle(stream), status) }
            })?;
        match status {
            CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(false),
            CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => Ok(true),
            spoilt => Err(driver_error("cuStreamIsCapturing", format!("{spoilt:?}"))),
        }
    }

    fn is_on_device(&self, address: u64) -> bool {
        // Of managed memory, the other attributes say where it is just now.
        let attribute = |attribute| -> Option<i32> {
            initialized("cuPointerGetAttribute", 0_i32, |value| {
                // SAFETY: `value` has room for any of the attributes asked for; the driver knows foreign addresses.
                unsafe { sys::cuPointerGetAttribute(std::ptr::from_mut(value).cast(), attribute, address) }
            })
            .ok()
        };
        let Ok(_current) = self.primary.current() else { return false };
        let managed = attribute(CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED).is_some_and(|flag| flag & 1 == 1);
        let on_device = attribute(CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            == Some(sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as i32);
        let ordinal = attribute(CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
        managed || on_device && ordinal.and_then(|ordinal| usize::try_from(ordinal).ok()) == Some(self.number)
    }

    unsafe fn upload(&self, stream: Stream, from: &[u8], to: u64) -> Result<(), Error> {
        let _current = self.primary.current()?;
        // SAFETY: both are so long; `from` is borrowed until the copy is known to be done.
        let status = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), handle(stream)) };
        checked("cuMemcpyHtoDAsync", status)?;
        // SAFETY: a stream of this context.
        checked("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(handle(stream)) })
    }

    unsafe fn download(&self, stream: Stream, from: u64, to: &mut [u8]) -> Result<(), Error> {
        let _current = self.primary.current()?;
        // SAFETY: both are so long; `to` is borrowed until the copy is known to be done.
        let status = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), handle(stream)) };
        checked("cuMemcpyDtoHAsync", status)?;
        // SAFETY: a stream of this context.
        checked("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(handle(stream)) })
    }

    unsafe fn launch(&self, stream: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error> {
        let _current = self.primary.current()?;
        let mut arguments = [argument.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the function is of this context, its only argument is that structure, which the driver copies.
        let status = unsafe {
            sys::cuLaunchKernel(
                self.functions[kernel as usize],
                blocks,
                1,
                1,
                THREADS,
                1,
                1,
                0,
                handle(stream),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        checked("cuLaunchKernel", status)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Ok(_current) = self.primary.current() {
            // SAFETY: it was loaded, and its functions are called no more.
            unsafe { sys::cuModuleUnload(self.module) };
        }
    }
}

/// The primary context of a device, kept for as long as this lives.
#[derive(Debug)]
struct Primary {
    device: CUdevice,
    context: CUcontext,
}

impl Primary {
    fn retained(device: CUdevice) -> Result<Self, Error> {
        let context = initialized("cuDevicePrimaryCtxRetain", std::ptr::null_mut(), |context| {
            // SAFETY: `context` is valid, and the device the driver's.
            unsafe { sys::cuDevicePrimaryCtxRetain(context, device) }
        })?;
        Ok(Primary { device, context })
    }

    /// Makes it the calling thread's current context, until the result is dropped: then it is again what it was.
    fn current(&self) -> Result<Current, Error> {
        // SAFETY: the context is retained.
        checked("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.context) })?;
        Ok(Current)
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: it was retained once.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

struct Current;

impl Drop for Current {
    fn drop(&mut self) {
        let mut context = MaybeUninit::uninit();
        // SAFETY: `context` is valid; the context was pushed.
        unsafe { sys::cuCtxPopCurrent_v2(context.as_mut_ptr()) };
    }
}

fn handle(stream: Stream) -> CUstream {
    stream.as_raw().cast()
}

/// What a driver's function writes into a value.
fn initialized<T>(call: &'static str, mut value: T, function: impl FnOnce(&mut T) -> CUresult) -> Result<T, Error> {
    checked(call, function(&mut value))?;
    Ok(value)
}

fn checked(call: &'static str, status: CUresult) -> Result<(), Error> {
    if status == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut name = std::ptr::null();
    // SAFETY: `name` is valid; the driver's names live for ever.
    let known = unsafe { sys::cuGetErrorName(status, &mut name) } == CUresult::CUDA_SUCCESS && !name.is_null();
    // SAFETY: the name ends with a zero.
    let name = known.then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    Err(driver_error(call, name.unwrap_or_else(|| format!("{status:?}"))))
}

fn driver_error(call: &'static str, error: String) -> Error {
    Error::Driver { call, error }
}
