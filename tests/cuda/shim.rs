//! A device without a GPU: memory of the host, and the kernels of `backends/cuda/kernels.cu` compiled for it by g++.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use koala_optim::cuda::{Driver, Error, Kernel, Stream};

use crate::compiled::compiled;

type Launch = unsafe extern "C" fn(u32, u32, *const u8) -> i32;

/// The compiled kernels.
#[derive(Debug)]
struct Shim {
    library: libloading::Library,
    /// One kernel at a time: the threads of a thread block are global.
    running: Mutex<()>,
}

/// The shim, built once; `None`, with a line that says so, where it cannot be.
fn shim() -> Option<&'static Shim> {
    static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
    SHIM.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            println!("skipped: the CUDA kernels are compiled for this processor on Linux only");
            return None;
        }
        let library = compiled("koala-shim", &["shim.cpp"], &[])?;
        Some(Shim { library, running: Mutex::new(()) })
    })
    .as_ref()
}

impl Shim {
    fn launch(&self, kernel: Kernel, blocks: u32, argument: &[u8]) -> i32 {
        let _running = self.running.lock().unwrap();
        // SAFETY: the function has this type in shim.cpp, and the argument is the kernel's.
        unsafe {
            let launch = self.library.get::<Launch>(b"koala_shim_launch").unwrap();
            launch(kernel as u32, blocks, argument.as_ptr())
        }
    }
}

/// f16 to f32 and back, as the shim has them.
pub fn half_conversions() -> Option<(impl Fn(u16) -> f32, impl Fn(f32) -> u16)> {
    let library = &shim()?.library;
    // SAFETY: the functions have these types in shim.cpp.
    let (from, to) = unsafe {
        (
            library.get::<unsafe extern "C" fn(u16) -> f32>(b"koala_shim_from_half").unwrap(),
            library.get::<unsafe extern "C" fn(f32) -> u16>(b"koala_shim_to_half").unwrap(),
        )
    };
    // SAFETY: they only compute.
    Some((move |bits| unsafe { from(bits) }, move |value| unsafe { to(value) }))
}

/// What stands for a device.
#[derive(Clone, Debug)]
pub struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shim: &'static Shim,
    l2_bytes: usize,
    memory: Mutex<Memory>,
    launches: Mutex<Vec<Kernel>>,
}

#[derive(Debug)]
struct Memory {
    left: usize,
    allocations: BTreeMap<u64, Vec<u128>>,
}

/// A stream that belongs to another device.
pub fn foreign_stream() -> Stream {
    // SAFETY: only the fake driver gets it, which does nothing with it but compare it.
    unsafe { Stream::from_raw(std::ptr::without_provenance_mut(0xf00)) }
}

impl Fake {
    /// A device with an L2 cache and a memory of that many bytes, where there is a g++.
    pub fn new(l2_bytes: usize, memory: usize) -> Option<Self> {
        let memory = Mutex::new(Memory { left: memory, allocations: BTreeMap::new() });
        Some(Fake(Arc::new(Inner { shim: shim()?, l2_bytes, memory, launches: Mutex::default() })))
    }

    /// All memory, to see whether a call has written anything.
    pub fn everything(&self) -> Vec<Vec<u128>> {
        self.0.memory.lock().unwrap().allocations.values().cloned().collect()
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        self.0.memory.lock().unwrap().allocations.len()
    }

    /// The bytes of memory in use.
    pub fn used(&self) -> usize {
        self.0.memory.lock().unwrap().allocations.values().map(|allocation| 16 * allocation.len()).sum()
    }

    /// Gives the device more memory.
    pub fn add_memory(&self, bytes: usize) {
        self.0.memory.lock().unwrap().left += bytes;
    }

    /// The kernels launched since the last call.
    pub fn launches(&self) -> Vec<Kernel> {
        std::mem::take(&mut self.0.launches.lock().unwrap())
    }
}

impl Memory {
    /// The bytes of an allocation from that address on.
    fn at(&mut self, address: u64) -> &mut [u8] {
        let (start, allocation) = self.allocations.range_mut(..=address).next_back().expect("no memory of the device");
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(allocation);
        &mut bytes[(address - start) as usize..]
    }
}

impl Driver for Fake {
    fn l2_bytes(&self) -> usize {
        self.0.l2_bytes
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let mut memory = self.0.memory.lock().unwrap();
        let whole = bytes.div_ceil(16).saturating_mul(16);
        memory.left = memory.left.checked_sub(whole).ok_or(Error::Memory { bytes })?;
        let allocation = vec![0_u128; bytes.div_ceil(16)];
        let address = allocation.as_ptr().expose_provenance() as u64;
        memory.allocations.insert(address, allocation);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        let mut memory = self.0.memory.lock().unwrap();
        let allocation = memory.allocations.remove(&address).expect("freed, and never allocated");
        memory.left += 16 * allocation.len();
    }

    fn check_stream(&self, stream: Stream) -> Result<(), Error> {
        if stream == foreign_stream() { Err(Error::ForeignStream) } else { Ok(()) }
    }

    fn is_on_device(&self, address: u64) -> bool {
        let memory = self.0.memory.lock().unwrap();
        let before = memory.allocations.range(..=address).next_back();
        before.is_some_and(|(start, allocation)| address < start + 16 * allocation.len() as u64)
    }

    unsafe fn upload(&self, _: Stream, from: &[u8], to: u64) -> Result<(), Error> {
        self.0.memory.lock().unwrap().at(to)[..from.len()].copy_from_slice(from);
        Ok(())
    }

    unsafe fn download(&self, _: Stream, from: u64, to: &mut [u8]) -> Result<(), Error> {
        to.copy_from_slice(&self.0.memory.lock().unwrap().at(from)[..to.len()]);
        Ok(())
    }

    unsafe fn launch(&self, _: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error> {
        // Held while the kernel writes into the allocations.
        let _memory = self.0.memory.lock().unwrap();
        self.0.launches.lock().unwrap().push(kernel);
        match self.0.shim.launch(kernel, blocks, argument) {
            0 => Ok(()),
            status => Err(Error::Driver { call: "koala_shim_launch", error: format!("status {status}") }),
        }
    }
}
