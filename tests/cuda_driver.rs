//! `backends/cuda/device.rs`, the calls of the CUDA driver, on a driver of our own: `backends/cuda/shim/libcuda.cpp`. In a
//! process of its own, which has loaded that one before any other could be. Needs g++ and Linux.
#![cfg(target_os = "linux")]

#[path = "common/compiled.rs"]
mod compiled;

use std::ffi::c_void;
use std::sync::Arc;

use compiled::{DRIVER, compiled};
use cudarc::driver::CudaContext;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use koala_optim::cuda::{Config, Device, Driver, Error, Optimizer, Stream, Tensor};
use koala_optim::{
    Config as CpuConfig, ElementType, Loss, Optimizer as CpuOptimizer, Settings, StateType, Tensor as CpuTensor,
};

/// The driver's side of a test.
struct Stub(libloading::Library);

impl Stub {
    /// `None`, with a line that says so, where there is no g++.
    fn load() -> Option<Self> {
        compiled("koala-driver", &DRIVER, &["-Wl,-soname,libcuda.so"]).map(Stub)
    }

    fn set(&self, devices: i32, version: i32, major: i32, memory: usize) {
        // SAFETY: the function has this type in libcuda.cpp.
        unsafe {
            let set = self.0.get::<unsafe extern "C" fn(i32, i32, i32, usize)>(b"stub_set").unwrap();
            set(devices, version, major, memory);
        }
    }

    fn number(&self, name: &str) -> i32 {
        // SAFETY: the functions have this type in libcuda.cpp.
        unsafe { self.0.get::<unsafe extern "C" fn() -> i32>(name.as_bytes()).unwrap()() }
    }

    fn stream(&self, device: i32) -> Stream {
        // SAFETY: the function has this type in libcuda.cpp, and its streams live for ever.
        unsafe {
            Stream::from_raw(self.0.get::<unsafe extern "C" fn(i32) -> *mut c_void>(b"stub_stream").unwrap()(device))
        }
    }
}

const N: usize = 1500;
const LOSS: Loss = Loss::new(0.7, 0.6);

fn vectors() -> [Vec<f32>; 2] {
    let vector = |seed: u32| (0..N as u32).map(|i| ((i * seed) % 97) as f32 / 97.0 - 0.5).collect();
    [vector(31), vector(43)]
}

#[test]
fn the_driver_is_called_as_it_wants_to_be() {
    let Some(stub) = Stub::load() else { return };
    what_is_missing_is_said(&stub);
    steps_on_a_stream(&stub);
    what_is_refused(&stub);
    // Last, as cudarc leaves its context with the thread.
    steps_in_a_graph(&stub);
    // The one that was made on purpose.
    assert_eq!(stub.number("stub_mistakes"), 1);
}

fn what_is_missing_is_said(stub: &Stub) {
    stub.set(0, 12_000, 8, 1 << 20);
    assert_eq!(Device::new(0).unwrap_err(), Error::NoDevice { device: 0, devices: 0 });
    stub.set(2, 11_080, 8, 1 << 20);
    assert_eq!(Device::new(0).unwrap_err(), Error::OldDriver { version: (11, 8) });
    stub.set(2, 12_000, 7, 1 << 20);
    assert_eq!(Device::new(0).unwrap_err(), Error::OldDevice { device: 0, capability: (7, 0) });
    stub.set(2, 12_000, 8, 1 << 20);
    for device in [2, usize::MAX] {
        assert_eq!(Device::new(device).unwrap_err(), Error::NoDevice { device, devices: 2 });
    }
    assert_eq!(stub.number("stub_held"), 0);
}

/// Two steps have the CPU's bits, nothing is held afterwards, and no call waited during the second.
fn steps_on_a_stream(stub: &Stub) {
    let [mut parameters, gradient] = vectors();
    let memory = Device::new(1).unwrap();
    let buffer = |elements: &[f32]| {
        let address = memory.allocate(4 * N).unwrap();
        // SAFETY: it was just allocated, of that size.
        unsafe { memory.upload(Stream::DEFAULT, bytemuck::cast_slice(elements), address).unwrap() };
        address
    };
    let (device_parameters, device_gradient, device_bias) = (buffer(&parameters), buffer(&gradient), buffer(&[0.5]));

    let before = stub.number("stub_synchronizations");
    let mut optimizer = Optimizer::new(Device::new(1).unwrap(), Config::default()).unwrap();
    let group = optimizer.add_group(Settings::default()).unwrap();
    optimizer.add_tensor("weight", N, ElementType::F32, StateType::Bf16, group).unwrap();
    optimizer.add_tensor("bias", 1, ElementType::F32, StateType::Same, group).unwrap();
    // SAFETY: the buffers were made above, of that length, and live until the steps have run.
    let (tensor, small) = unsafe {
        (
            Tensor::new("weight", ElementType::F32, N, device_parameters, device_gradient),
            Tensor::new("bias", ElementType::F32, 1, device_bias, device_gradient),
        )
    };
    let stream = stub.stream(1);
    // What it describes the first one in is too small for both, and is given back.
    optimizer.step(stream, LOSS, std::slice::from_ref(&small)).unwrap();
    optimizer.step(stream, LOSS, &[small, tensor.clone()]).unwrap();
    optimizer.step(stream, LOSS, std::slice::from_ref(&tensor)).unwrap();
    let waits = (optimizer.counts().waits, stub.number("stub_synchronizations"));
    assert_eq!(waits.0, (waits.1 - before) as u64);
    optimizer.step(stream, LOSS, &[tensor]).unwrap();
    assert_eq!((optimizer.counts().waits, stub.number("stub_synchronizations")), waits);

    let mut cpu = CpuOptimizer::new(CpuConfig::default()).unwrap();
    let group = cpu.add_group(Settings::default()).unwrap();
    cpu.add_tensor("weight", N, ElementType::F32, StateType::Bf16, group).unwrap();
    cpu.add_tensor("bias", 1, ElementType::F32, StateType::Same, group).unwrap();
    let mut bias = [0.5];
    cpu.step(LOSS, &mut [CpuTensor::new("bias", &mut bias, &gradient[..1])]).unwrap();
    let small = CpuTensor::new("bias", &mut bias, &gradient[..1]);
    cpu.step(LOSS, &mut [small, CpuTensor::new("weight", &mut parameters, &gradient)]).unwrap();
    cpu.step(LOSS, &mut [CpuTensor::new("weight", &mut parameters, &gradient)]).unwrap();
    let report = cpu.step(LOSS, &mut [CpuTensor::new("weight", &mut parameters, &gradient)]).unwrap();
    assert_eq!(optimizer.report(stream).unwrap(), report);
    let mut found = vec![0.0_f32; N];
    // SAFETY: it was allocated with that size.
    unsafe { memory.download(stream, device_parameters, bytemuck::cast_slice_mut(&mut found)).unwrap() };
    assert_eq!(found, parameters);
    let state = optimizer.state(stream, "weight").unwrap();
    assert_eq!([&*state.v, &*state.h], cpu.state("weight").unwrap().bytes());

    drop(optimizer);
    for address in [device_parameters, device_gradient, device_bias] {
        // SAFETY: it came from `allocate`, and is used no more.
        unsafe { memory.free(address) };
    }
    drop(memory);
    assert_eq!(stub.number("stub_held"), 0);
}

/// A step is captured without a call that a driver refuses then, among steps that are not.
fn steps_in_a_graph(stub: &Stub) {
    let [mut parameters, gradient] = vectors();
    let context = CudaContext::new(1).unwrap();
    let recorded = context.new_stream().unwrap();
    let device = Arc::new(Device::new(1).unwrap());
    let buffer = |elements: &[f32]| {
        let address = device.allocate(4 * N).unwrap();
        // SAFETY: it was just allocated, of that size.
        unsafe { device.upload(Stream::DEFAULT, bytemuck::cast_slice(elements), address).unwrap() };
        address
    };
    let mut optimizer = Optimizer::new(device.clone(), Config::default()).unwrap();
    let group = optimizer.add_group(Settings::default()).unwrap();
    optimizer.add_tensor("weight", N, ElementType::F32, StateType::Same, group).unwrap();
    let [on_device, first, second] = [&parameters, &gradient, &gradient].map(|elements| buffer(elements));
    // SAFETY: the buffers were just made, of that length, and live until the steps have run.
    let tensor = |gradient| unsafe { Tensor::new("weight", ElementType::F32, N, on_device, gradient) };
    // SAFETY: it lives until the end of this test.
    let stream = unsafe { Stream::from_raw(recorded.cu_stream().cast()) };
    optimizer.step(stream, LOSS, &[tensor(first)]).unwrap();
    recorded.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    assert!(matches!(optimizer.report(stream), Err(Error::Captured { .. })));
    assert!(matches!(optimizer.step(stream, LOSS, &[]), Err(Error::Captured { .. })));
    optimizer.step(stream, LOSS, &[tensor(second)]).unwrap();
    let graph = recorded.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    for _ in 0..2 {
        optimizer.step(stream, LOSS, &[tensor(first)]).unwrap();
        graph.launch().unwrap();
    }
    let mut cpu = CpuOptimizer::new(CpuConfig::default()).unwrap();
    let group = cpu.add_group(Settings::default()).unwrap();
    cpu.add_tensor("weight", N, ElementType::F32, StateType::Same, group).unwrap();
    for _ in 0..5 {
        cpu.step(LOSS, &mut [CpuTensor::new("weight", &mut parameters, &gradient)]).unwrap();
    }
    let mut found = vec![0.0_f32; N];
    // SAFETY: it was allocated with that size.
    unsafe { device.download(stream, on_device, bytemuck::cast_slice_mut(&mut found)).unwrap() };
    assert_eq!(found, parameters);
    assert_eq!(optimizer.report(stream).unwrap().step, 5);
    // What was captured before a call that allocates is of no use, and the driver says so.
    recorded.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    let mistakes = stub.number("stub_mistakes");
    assert!(device.allocate(1).is_err() && stub.number("stub_mistakes") == mistakes + 1);
    let spoilt = optimizer.step(stream, LOSS, &[tensor(first)]);
    assert!(matches!(spoilt, Err(Error::Driver { call: "cuStreamIsCapturing", .. })), "{spoilt:?}");
    assert!(recorded.end_capture(CUgraphInstantiate_flags(0)).is_err());
    optimizer.step(stream, LOSS, &[tensor(first)]).unwrap();
    drop((optimizer, graph));
    for address in [on_device, first, second] {
        // SAFETY: it came from `allocate`, and is used no more.
        unsafe { device.free(address) };
    }
}

fn what_is_refused(stub: &Stub) {
    let mut optimizer = Optimizer::new(Device::new(0).unwrap(), Config::default()).unwrap();
    let group = optimizer.add_group(Settings::default()).unwrap();
    let error = optimizer.add_tensor("large", 1 << 20, ElementType::F32, StateType::Same, group).unwrap_err();
    assert!(matches!(error, Error::Memory { bytes } if bytes > 8 << 20), "{error}");
    assert_eq!(optimizer.report(stub.stream(1)).unwrap_err(), Error::ForeignStream);
    optimizer.add_tensor("weight", N, ElementType::F32, StateType::Same, group).unwrap();
    let on_host = vectors();
    let [parameters, gradient] = on_host.each_ref().map(|vector| vector.as_ptr().expose_provenance() as u64);
    // SAFETY: it is refused.
    let tensor = unsafe { Tensor::new("weight", ElementType::F32, N, parameters, gradient) };
    let error = optimizer.step(Stream::DEFAULT, LOSS, &[tensor]).unwrap_err();
    assert!(matches!(error, Error::NotOnDevice { buffer: "parameters", .. }), "{error}");
    drop(optimizer);
    assert_eq!(stub.number("stub_held"), 0);
}
