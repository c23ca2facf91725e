//! What a real driver refuses, by errors that say so: nothing is written then. Needs `KOALA_CUDA_DEVICE`.

use std::sync::Arc;

use cudarc::driver::result::{ctx, stream};
use cudarc::driver::{CudaContext, sys};
use koala_optim::cuda::{Config, Driver, Error, Optimizer, Stream, Tensor};
use koala_optim::{ElementType, GroupId, Loss, Settings, StateType, bf16};

use crate::machine::{Buffers, machine};

const N: usize = 1000;
const LOSS: Loss = Loss::new(0.7, 0.6);

/// A tensor of f32 that has taken a step.
struct Stepped {
    driver: Arc<dyn Driver>,
    context: Arc<CudaContext>,
    optimizer: Optimizer,
    group: GroupId,
    parameters: u64,
    gradient: u64,
}

impl Stepped {
    fn new() -> Self {
        let machine = machine().unwrap();
        let context = machine.context().expect("KOALA_CUDA_DEVICE names a device").clone();
        let driver = machine.driver;
        let buffer = |value: f32| driver.buffer(bytemuck::cast_slice(&[value; N]));
        let (parameters, gradient) = (buffer(1.0), buffer(0.5));
        let mut optimizer = Optimizer::new(driver.clone(), Config::default()).unwrap();
        let group = optimizer.add_group(Settings::default()).unwrap();
        optimizer.add_tensor("weight", N, ElementType::F32, StateType::Same, group).unwrap();
        let mut stepped = Stepped { driver, context, optimizer, group, parameters, gradient };
        stepped.step(Stream::DEFAULT, parameters, gradient).unwrap();
        stepped
    }

    fn step(&mut self, stream: Stream, parameters: u64, gradient: u64) -> Result<(), Error> {
        // SAFETY: the buffers are the device's, of that length, and given back after the steps; or they are refused.
        let tensor = unsafe { Tensor::new("weight", ElementType::F32, N, parameters, gradient) };
        self.optimizer.step(stream, LOSS, &[tensor])
    }

    /// Parameters, state and report.
    fn everything(&mut self) -> String {
        let state = self.optimizer.state(Stream::DEFAULT, "weight").unwrap();
        let report = self.optimizer.report(Stream::DEFAULT).unwrap();
        format!("{:?} {state:?} {report:?}", self.driver.get(self.parameters, 4 * N))
    }

    /// Refuses these, and is as before.
    fn refuses(&mut self, stream: Stream, parameters: u64, gradient: u64, expected: Error) {
        let before = self.everything();
        assert_eq!(self.step(stream, parameters, gradient), Err(expected));
        assert_eq!(self.everything(), before);
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        for address in [self.parameters, self.gradient] {
            // SAFETY: it came from `buffer`, and is used no more.
            unsafe { self.driver.free(address) };
        }
    }
}

#[test]
#[ignore = "needs a driver: KOALA_CUDA_DEVICE names a device, or the bundle runs it"]
fn addresses_that_are_not_the_devices() {
    let mut stepped = Stepped::new();
    let (parameters, gradient) = (stepped.parameters, stepped.gradient);
    let on_host = vec![0.5_f32; N];
    let on_host = on_host.as_ptr().expose_provenance() as u64;
    for address in [on_host, 0, 64] {
        let error = |buffer| Error::NotOnDevice { tensor: "weight".into(), buffer, address };
        stepped.refuses(Stream::DEFAULT, address, gradient, error("parameters"));
        stepped.refuses(Stream::DEFAULT, parameters, address, error("gradient"));
    }
    let address = gradient + 2;
    let error = Error::Misaligned { tensor: "weight".into(), buffer: "gradient", address };
    stepped.refuses(Stream::DEFAULT, parameters, address, error);
}

/// Tensors of the greatest length, 64 GiB of state each, until there is no memory left.
#[test]
#[ignore = "needs a driver: KOALA_CUDA_DEVICE names a device, or the bundle runs it"]
fn memory_that_the_device_has_not() {
    let mut stepped = Stepped::new();
    let before = stepped.everything();
    let mut add = |i: usize| {
        let group = stepped.group;
        stepped.optimizer.add_tensor(&i.to_string(), 1 << 32, ElementType::F64, StateType::Same, group)
    };
    let refused = (0..64).find_map(|i| add(i).err());
    assert!(matches!(refused, Some(Error::Memory { bytes }) if bytes > 1 << 36), "{refused:?}");
    assert_eq!(stepped.everything(), before);
}

/// More elements than 32 bits with a sign can count. All begin equal, so they stay equal, and it is seen if some do not
/// step. It takes 18 GiB of the device's memory.
#[test]
#[ignore = "needs a driver: KOALA_CUDA_DEVICE names a device, or the bundle runs it"]
fn a_tensor_of_more_than_2_to_the_31_elements() {
    const LENGTH: usize = (1 << 31) + 8193;
    const LOOK: usize = 20_000;
    let driver = machine().unwrap().driver;
    // Zeros.
    let parameters = driver.allocate(4 * LENGTH).unwrap();
    let gradient = parameters + 2 * LENGTH as u64;
    let mut optimizer = Optimizer::new(driver.clone(), Config::default()).unwrap();
    let group = optimizer.add_group(Settings::default()).unwrap();
    optimizer.add_tensor("large", LENGTH, ElementType::Bf16, StateType::Same, group).unwrap();
    let part = vec![bf16::from_f32(0.0625); 1 << 24];
    for first in (0..LENGTH).step_by(part.len()) {
        let part = &part[..part.len().min(LENGTH - first)];
        driver.set(gradient + 2 * first as u64, bytemuck::cast_slice(part));
    }
    // SAFETY: the buffers are the device's, of that length, and given back after the steps.
    let tensor = unsafe { Tensor::new("large", ElementType::Bf16, LENGTH, parameters, gradient) };
    for _ in 0..2 {
        optimizer.step(Stream::DEFAULT, LOSS, std::slice::from_ref(&tensor)).unwrap();
    }
    assert_eq!(optimizer.report(Stream::DEFAULT).unwrap().stepped, 1);
    let first = driver.get(parameters, 2 * LOOK);
    assert!(first.iter().any(|byte| *byte != 0));
    for place in [1 << 30, (1 << 31) - LOOK / 2, LENGTH - LOOK] {
        let found = driver.get(parameters + 2 * place as u64, 2 * LOOK);
        assert!(found == first, "from element {place} on");
    }
    // SAFETY: it came from `allocate`, and is used no more.
    unsafe { driver.free(parameters) };
}

#[test]
#[ignore = "needs a driver: KOALA_CUDA_DEVICE names a device, or the bundle runs it"]
fn a_stream_of_another_context() {
    let mut stepped = Stepped::new();
    // SAFETY: the device is there; the context becomes the thread's current one, so the stream is made in it.
    let (other, handle) = unsafe {
        let other = ctx::create_v3(0, stepped.context.cu_device()).unwrap();
        (other, stream::create(stream::StreamKind::NonBlocking).unwrap())
    };
    stepped.context.bind_to_thread().unwrap();
    // SAFETY: it lives until the end of this test.
    let foreign = unsafe { Stream::from_raw(handle.cast()) };
    stepped.refuses(foreign, stepped.parameters, stepped.gradient, Error::ForeignStream);
    assert_eq!(stepped.optimizer.report(foreign), Err(Error::ForeignStream));
    // SAFETY: both were made above, and are used no more.
    unsafe {
        stream::destroy(handle).unwrap();
        assert_eq!(sys::cuCtxDestroy_v2(other), sys::CUresult::CUDA_SUCCESS);
    }
}
