//! A device without a GPU: memory of the host, and the kernels of `backends/cuda/kernels.cu` compiled for it by g++. A
//! capture keeps what is launched, to be launched again; and nothing may be allocated, freed or waited for meanwhile.

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
    /// What is being captured.
    captured: Mutex<Option<Graph>>,
}

/// What was captured: kernels, their thread blocks and arguments.
pub type Graph = Vec<(Kernel, u32, Vec<u8>)>;

#[derive(Debug)]
struct Memory {
    left: usize,
    allocations: BTreeMap<u64, Allocation>,
    /// What was freed, which nothing may use, so that it is seen if something does.
    freed: Vec<Allocation>,
}

/// Memory of some bytes, behind and before some that nothing writes.
#[derive(Debug)]
struct Allocation {
    words: Vec<u128>,
    bytes: usize,
}

/// What is before and behind each allocation.
const GUARD: [u8; 64] = [0xa5; 64];

impl Allocation {
    fn new(bytes: usize) -> Self {
        let mut allocation = Allocation { words: vec![0; (bytes + 2 * GUARD.len()).div_ceil(16)], bytes };
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut allocation.words);
        all[..GUARD.len()].fill(GUARD[0]);
        all[GUARD.len() + bytes..].fill(GUARD[0]);
        allocation
    }

    fn address(&self) -> u64 {
        self.words.as_ptr().expose_provenance() as u64 + GUARD.len() as u64
    }

    /// Its bytes; it is looked at whether those around are what they were.
    fn bytes(&mut self) -> &mut [u8] {
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        let (before, rest) = all.split_at_mut(GUARD.len());
        let (bytes, behind) = rest.split_at_mut(self.bytes);
        assert!(before.iter().chain(&*behind).all(|byte| *byte == GUARD[0]), "written around an allocation");
        bytes
    }
}

/// A stream that belongs to another device.
pub fn foreign_stream() -> Stream {
    // SAFETY: only the fake driver gets it, which does nothing with it but compare it.
    unsafe { Stream::from_raw(std::ptr::without_provenance_mut(0xf00)) }
}

/// A stream that is captured while [`Fake::capture`] runs.
pub fn captured_stream() -> Stream {
    // SAFETY: as above.
    unsafe { Stream::from_raw(std::ptr::without_provenance_mut(0xca0)) }
}

impl Fake {
    /// A device with an L2 cache and a memory of that many bytes, where there is a g++.
    pub fn new(l2_bytes: usize, memory: usize) -> Option<Self> {
        let memory = Mutex::new(Memory { left: memory, allocations: BTreeMap::new(), freed: Vec::new() });
        let (launches, captured) = (Mutex::default(), Mutex::default());
        Some(Fake(Arc::new(Inner { shim: shim()?, l2_bytes, memory, launches, captured })))
    }

    /// What the call puts on the [`captured_stream`], which does not run.
    pub fn capture(&self, call: impl FnOnce(Stream)) -> Graph {
        *self.0.captured.lock().unwrap() = Some(Graph::new());
        call(captured_stream());
        self.0.captured.lock().unwrap().take().expect("it was being captured")
    }

    /// Runs what was captured.
    pub fn replay(&self, graph: &Graph) {
        for (kernel, blocks, argument) in graph {
            self.run(*kernel, *blocks, argument).unwrap();
        }
    }

    fn run(&self, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error> {
        // Held while the kernel writes into the allocations.
        let _memory = self.0.memory.lock().unwrap();
        match self.0.shim.launch(kernel, blocks, argument) {
            0 => Ok(()),
            status => Err(Error::Driver { call: "koala_shim_launch", error: format!("status {status}") }),
        }
    }

    /// What waits for the device spoils a capture.
    fn waits(&self) {
        assert!(self.0.captured.lock().unwrap().is_none(), "no capture allows to allocate, to free or to wait");
    }

    /// All memory, to see whether a call has written anything.
    pub fn everything(&self) -> Vec<Vec<u8>> {
        self.0.memory.lock().unwrap().allocations.values_mut().map(|allocation| allocation.bytes().to_vec()).collect()
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        self.0.memory.lock().unwrap().allocations.len()
    }

    /// The bytes of memory in use.
    pub fn used(&self) -> usize {
        self.0.memory.lock().unwrap().allocations.values().map(|allocation| allocation.bytes).sum()
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
        &mut allocation.bytes()[(address - start) as usize..]
    }
}

impl Driver for Fake {
    fn l2_bytes(&self) -> usize {
        self.0.l2_bytes
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.waits();
        let mut memory = self.0.memory.lock().unwrap();
        memory.left = memory.left.checked_sub(bytes).ok_or(Error::Memory { bytes })?;
        let allocation = Allocation::new(bytes);
        let address = allocation.address();
        memory.allocations.insert(address, allocation);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        self.waits();
        let mut memory = self.0.memory.lock().unwrap();
        let mut allocation = memory.allocations.remove(&address).expect("freed, and never allocated");
        allocation.bytes().fill(0xff);
        memory.left += allocation.bytes;
        memory.freed.push(allocation);
    }

    fn check_stream(&self, stream: Stream) -> Result<(), Error> {
        if stream == foreign_stream() { Err(Error::ForeignStream) } else { Ok(()) }
    }

    fn is_captured(&self, stream: Stream) -> Result<bool, Error> {
        Ok(stream == captured_stream() && self.0.captured.lock().unwrap().is_some())
    }

    fn is_on_device(&self, address: u64) -> bool {
        let memory = self.0.memory.lock().unwrap();
        let before = memory.allocations.range(..=address).next_back();
        before.is_some_and(|(start, allocation)| address < start + allocation.bytes as u64)
    }

    unsafe fn upload(&self, _: Stream, from: &[u8], to: u64) -> Result<(), Error> {
        self.waits();
        self.0.memory.lock().unwrap().at(to)[..from.len()].copy_from_slice(from);
        Ok(())
    }

    unsafe fn download(&self, _: Stream, from: u64, to: &mut [u8]) -> Result<(), Error> {
        self.waits();
        to.copy_from_slice(&self.0.memory.lock().unwrap().at(from)[..to.len()]);
        Ok(())
    }

    unsafe fn launch(&self, stream: Stream, kernel: Kernel, blocks: u32, argument: &[u8]) -> Result<(), Error> {
        self.0.launches.lock().unwrap().push(kernel);
        if let Some(graph) = self.0.captured.lock().unwrap().as_mut().filter(|_| stream == captured_stream()) {
            graph.push((kernel, blocks, argument.to_vec()));
            return Ok(());
        }
        self.run(kernel, blocks, argument)
    }
}
