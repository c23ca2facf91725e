//! A model of three tensors on a device, and the same on the CPU.

use std::sync::Arc;

use koala_optim::cuda::{Config, Driver, Optimizer, Stream, Tensor};
use koala_optim::{
    Config as CpuConfig, ElementType, GroupId, Loss, Optimizer as CpuOptimizer, Report, Settings, StateType,
    Tensor as CpuTensor,
};

use crate::common::{offset_vector, random_vector, scalar_bits};
use crate::machine::{Buffers, machine};
use crate::shim::Fake;

pub const N: usize = 100;
pub const NAMES: [&str; 3] = ["first", "second", "third"];
pub const LOSS: Loss = Loss::new(0.7, 0.6);
/// The bytes of two of the three tensors.
pub const GROUP_BYTES: usize = 2 * 16 * N;

/// Three tensors of f32 on the device.
pub struct OnDevice<D> {
    pub driver: D,
    pub optimizer: Optimizer,
    pub group: GroupId,
    /// Where all is done.
    pub stream: Stream,
    pub parameters: Vec<u64>,
    pub gradients: Vec<u64>,
}

pub fn vector(seed: usize) -> Vec<f32> {
    offset_vector(&random_vector(seed as u64, N, 1.0), 0)
}

impl OnDevice<Fake> {
    /// On a device whose cache has room for two of them; `None` where there is no g++.
    pub fn on_fake(config: Config) -> Option<Self> {
        Some(Self::on(Fake::new(GROUP_BYTES * 2, 1 << 20)?, config))
    }
}

impl OnDevice<Arc<dyn Driver>> {
    /// On the GPU, or the shim.
    pub fn on_machine(config: Config) -> Option<Self> {
        Some(Self::on(machine()?.driver, config))
    }
}

impl<D: Driver + Clone + 'static> OnDevice<D> {
    pub fn on(driver: D, config: Config) -> Self {
        let buffer = |seed| driver.buffer(bytemuck::cast_slice(&vector(seed)));
        let (parameters, gradients) = ((0..3).map(buffer).collect(), (3..6).map(buffer).collect());
        let mut optimizer = Optimizer::new(driver.clone(), config).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        for name in NAMES {
            optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group).unwrap();
        }
        OnDevice { driver, optimizer, group, stream: Stream::DEFAULT, parameters, gradients }
    }

    pub fn tensor(&self, i: usize) -> Tensor<'static> {
        // SAFETY: the buffers are the device's, of that length, and never given back.
        unsafe { Tensor::new(NAMES[i], ElementType::F32, N, self.parameters[i], self.gradients[i]) }
    }

    pub fn tensors(&self) -> Vec<Tensor<'static>> {
        (0..3).map(|i| self.tensor(i)).collect()
    }

    pub fn step(&mut self) {
        self.optimizer.step(self.stream, LOSS, &self.tensors()).unwrap();
    }

    pub fn report(&self) -> Report {
        self.optimizer.report(self.stream).unwrap()
    }

    pub fn parameters(&self, i: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4 * N];
        // SAFETY: the buffer is that long.
        unsafe { self.driver.download(self.stream, self.parameters[i], &mut bytes).unwrap() };
        bytes
    }

    /// Other gradients, elsewhere; the old ones' memory is not touched.
    pub fn move_gradients(&mut self, seed: usize) {
        self.gradients = (seed..seed + 3).map(|seed| self.driver.buffer(bytemuck::cast_slice(&vector(seed)))).collect();
    }
}

/// The same three tensors on the CPU.
pub struct OnCpu {
    pub optimizer: CpuOptimizer,
    pub group: GroupId,
    parameters: Vec<Vec<f32>>,
    /// Of the first tensor's gradient.
    pub seed: usize,
}

impl OnCpu {
    pub fn new() -> Self {
        let mut optimizer = CpuOptimizer::new(CpuConfig::default()).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        for name in NAMES {
            optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group).unwrap();
        }
        OnCpu { optimizer, group, parameters: (0..3).map(vector).collect(), seed: 3 }
    }

    /// Steps those tensors.
    pub fn step(&mut self, which: &[usize], loss: Loss) -> Report {
        let gradients: Vec<Vec<f32>> = (self.seed..self.seed + 3).map(vector).collect();
        let parameters = self.parameters.iter_mut().enumerate().filter(|(i, _)| which.contains(i));
        let mut tensors: Vec<CpuTensor> =
            parameters.map(|(i, parameters)| CpuTensor::new(NAMES[i], parameters, &gradients[i])).collect();
        self.optimizer.step(loss, &mut tensors).unwrap()
    }

    pub fn bytes(&self, i: usize) -> &[u8] {
        bytemuck::cast_slice(&self.parameters[i])
    }
}

pub fn assert_same<D: Driver + Clone + 'static>(device: &mut OnDevice<D>, cpu: &OnCpu) {
    for (i, name) in NAMES.iter().enumerate() {
        assert_eq!(device.parameters(i), cpu.bytes(i), "{name}");
        let state = device.optimizer.state(device.stream, name).unwrap();
        let expected = cpu.optimizer.state(name).unwrap();
        assert_eq!([&*state.v, &*state.h], expected.bytes(), "{name}");
        assert_eq!(scalar_bits(&state.scalars), scalar_bits(&expected.scalars()), "{name}");
        assert_eq!(state.element_type, ElementType::F32);
    }
}
