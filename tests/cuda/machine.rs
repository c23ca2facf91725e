//! The devices that the kernels' bits are compared on, and buffers there.

use std::sync::Arc;

use koala_optim::cuda::{Device, Driver, Stream};

use crate::shim::Fake;

/// A device to test on.
pub struct Machine {
    pub name: String,
    pub driver: Arc<dyn Driver>,
}

const GIBIBYTE: usize = 1 << 30;

/// The shim, where there is a g++; and the GPU whose number `KOALA_CUDA_DEVICE` is.
pub fn machines() -> Vec<Machine> {
    let fake = Fake::new(GIBIBYTE, GIBIBYTE);
    let mut machines: Vec<Machine> =
        fake.into_iter().map(|fake| Machine { name: "the shim".into(), driver: Arc::new(fake) }).collect();
    match std::env::var("KOALA_CUDA_DEVICE") {
        Ok(number) => {
            let device = Device::new(number.parse().expect("KOALA_CUDA_DEVICE is the number of a device")).unwrap();
            machines.push(Machine { name: format!("CUDA device {number}"), driver: Arc::new(device) });
        }
        Err(_) => println!("not run on a GPU: KOALA_CUDA_DEVICE names none"),
    }
    machines
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
