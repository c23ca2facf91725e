//! The host's side: what is launched, what is waited for, what is refused, and that nothing is written then.

use koala_optim::cuda::{Config, Device, DeviceLoss, Error, Kernel, Optimizer, StateBuffers, StepLoss, Stream, Tensor};
use koala_optim::{
    Config as CpuConfig, ElementType, Error as CallError, GroupId, Loss, Noise, OnBreakdown, OnNonFinite,
    Optimizer as CpuOptimizer, Outcome, Policy, Report, Settings, StateType, Tensor as CpuTensor, bf16, f16,
};

use crate::common::{offset_vector, random_vector, scalar_bits};
use crate::machine::Buffers;
use crate::shim::{Fake, foreign_stream};

const N: usize = 100;
const NAMES: [&str; 3] = ["first", "second", "third"];
const LOSS: Loss = Loss::new(0.7, 0.6);
/// The bytes of two of the three tensors.
const GROUP_BYTES: usize = 2 * 16 * N;

/// Three tensors of f32 on the device.
struct OnDevice {
    fake: Fake,
    optimizer: Optimizer,
    group: GroupId,
    parameters: Vec<u64>,
    gradients: Vec<u64>,
}

fn vector(seed: usize) -> Vec<f32> {
    offset_vector(&random_vector(seed as u64, N, 1.0), 0)
}

impl OnDevice {
    /// `None` where there is no g++.
    fn new(config: Config) -> Option<Self> {
        Some(Self::on(Fake::new(GROUP_BYTES * 2, 1 << 20)?, config))
    }

    fn on(fake: Fake, config: Config) -> Self {
        let buffer = |seed| fake.buffer(bytemuck::cast_slice(&vector(seed)));
        let (parameters, gradients) = ((0..3).map(buffer).collect(), (3..6).map(buffer).collect());
        let mut optimizer = Optimizer::new(fake.clone(), config).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        for name in NAMES {
            optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group).unwrap();
        }
        OnDevice { fake, optimizer, group, parameters, gradients }
    }

    fn tensor(&self, i: usize) -> Tensor<'static> {
        // SAFETY: the buffers are the fake device's, of that length, and never given back.
        unsafe { Tensor::new(NAMES[i], ElementType::F32, N, self.parameters[i], self.gradients[i]) }
    }

    fn tensors(&self) -> Vec<Tensor<'static>> {
        (0..3).map(|i| self.tensor(i)).collect()
    }

    fn step(&mut self) {
        self.optimizer.step(Stream::DEFAULT, LOSS, &self.tensors()).unwrap();
    }

    fn report(&self) -> Report {
        self.optimizer.report(Stream::DEFAULT).unwrap()
    }

    fn parameters(&self, i: usize) -> Vec<u8> {
        self.fake.get(self.parameters[i], 4 * N)
    }
}

/// The same three tensors on the CPU.
struct OnCpu {
    optimizer: CpuOptimizer,
    group: GroupId,
    parameters: Vec<Vec<f32>>,
}

impl OnCpu {
    fn new() -> Self {
        let mut optimizer = CpuOptimizer::new(CpuConfig::default()).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        for name in NAMES {
            optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group).unwrap();
        }
        OnCpu { optimizer, group, parameters: (0..3).map(vector).collect() }
    }

    /// Steps those tensors.
    fn step(&mut self, which: &[usize], loss: Loss) -> Report {
        let gradients: Vec<Vec<f32>> = (3..6).map(vector).collect();
        let parameters = self.parameters.iter_mut().enumerate().filter(|(i, _)| which.contains(i));
        let mut tensors: Vec<CpuTensor> =
            parameters.map(|(i, parameters)| CpuTensor::new(NAMES[i], parameters, &gradients[i])).collect();
        self.optimizer.step(loss, &mut tensors).unwrap()
    }

    fn bytes(&self, i: usize) -> &[u8] {
        bytemuck::cast_slice(&self.parameters[i])
    }
}

fn assert_same(device: &mut OnDevice, cpu: &OnCpu) {
    for (i, name) in NAMES.iter().enumerate() {
        assert_eq!(device.parameters(i), cpu.bytes(i), "{name}");
        let state = device.optimizer.state(Stream::DEFAULT, name).unwrap();
        let expected = cpu.optimizer.state(name).unwrap();
        assert_eq!([&*state.v, &*state.h], expected.bytes(), "{name}");
        assert_eq!(scalar_bits(&state.scalars), scalar_bits(&expected.scalars()), "{name}");
        assert_eq!(state.element_type, ElementType::F32);
    }
}

#[test]
fn three_launches_for_each_group_and_no_wait() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    device.step();
    device.fake.launches();
    let before = device.optimizer.counts();
    device.step();
    let after = device.optimizer.counts();
    // Half of the L2 cache has room for two of the tensors.
    assert_eq!(device.optimizer.cache_groups(), 2);
    let group = [Kernel::Dots, Kernel::Recursion, Kernel::Update];
    assert_eq!(device.fake.launches(), [group, group].concat());
    assert_eq!((after.steps - before.steps, after.launches - before.launches, after.waits - before.waits), (1, 6, 0));
    device.report();
    assert_eq!(device.optimizer.counts().waits, after.waits + 1);
}

#[test]
fn changed_settings_are_one_launch_more() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    device.fake.launches();
    device.optimizer.set_learning_rate(device.group, 0.25).unwrap();
    cpu.optimizer.set_learning_rate(cpu.group, 0.25).unwrap();
    // To what it is already.
    device.optimizer.set_learning_rate(device.group, 0.25).unwrap();
    device.optimizer.restart("second").unwrap();
    cpu.optimizer.restart("second").unwrap();
    let before = device.optimizer.counts();
    device.step();
    let report = cpu.step(&[0, 1, 2], LOSS);
    assert_eq!(device.fake.launches()[..2], [Kernel::Change, Kernel::Dots]);
    assert_eq!(device.optimizer.counts().waits, before.waits);
    assert_eq!(device.report(), report);
    assert_eq!((report.stepped, report.first_steps), (3, 1));
    assert_same(&mut device, &cpu);

    device.optimizer.set_learning_rate(device.group, 0.125).unwrap();
    device.optimizer.write_changes(Stream::DEFAULT).unwrap();
    device.fake.launches();
    device.step();
    assert_eq!(device.fake.launches().len(), 6);
}

#[test]
fn some_tensors_in_any_order() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    for which in [vec![0, 1, 2], vec![2, 0], vec![], vec![1], vec![2, 1, 0]] {
        let tensors: Vec<Tensor> = which.iter().map(|i| device.tensor(*i)).collect();
        device.optimizer.step(Stream::DEFAULT, LOSS, &tensors).unwrap();
        assert_eq!(device.report(), cpu.step(&which, LOSS));
        assert_eq!(device.optimizer.details(Stream::DEFAULT).unwrap().len(), which.len());
        assert_same(&mut device, &cpu);
    }
}

#[test]
fn gradients_that_move_are_one_launch_more_and_no_wait() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    for moved in [&[1][..], &[0, 2]] {
        for i in moved {
            // The old one is of no use any more.
            device.fake.set(device.gradients[*i], &[0xff; 4 * N]);
            device.gradients[*i] = device.fake.buffer(bytemuck::cast_slice(&vector(3 + i)));
        }
        device.fake.launches();
        let before = device.optimizer.counts();
        device.step();
        assert_eq!(device.fake.launches().len(), 7);
        assert_eq!(device.optimizer.counts().waits, before.waits);
        cpu.step(&[0, 1, 2], LOSS);
    }
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    assert_same(&mut device, &cpu);
    // One that is not where it may be: nothing has changed, the other one included.
    let known = device.gradients.clone();
    device.gradients[0] = device.fake.buffer(&[0; 4 * N]);
    device.gradients[1] += 2;
    device.fake.launches();
    let misaligned = device.optimizer.step(Stream::DEFAULT, LOSS, &device.tensors());
    assert!(matches!(misaligned, Err(Error::Misaligned { .. })));
    assert!(device.fake.launches().is_empty());
    device.gradients = known;
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    assert_same(&mut device, &cpu);
}

/// What is copied out of the caller's buffers after a step goes on in another optimizer's, to the bit.
#[test]
fn state_in_memory_of_the_caller() {
    let Some(fake) = Fake::new(GROUP_BYTES, 1 << 20) else { return };
    let noise = |initial| Config { noise: Noise::Averaged { decay: 0.9, initial }, ..Config::default() };
    let with_state = |initial, state: &[Vec<u8>; 3]| {
        let mut device = OnDevice::on(fake.clone(), noise(initial));
        let addresses = state.each_ref().map(|bytes| fake.buffer(bytes));
        let [v, h, scalars] = addresses;
        // SAFETY: the buffers are the fake device's, of these lengths, and never given back.
        let buffers = unsafe { StateBuffers::new(v, h, scalars) };
        let (group, allocations) = (device.group, fake.allocations());
        device.optimizer.add_tensor_with_state("own", N, ElementType::F32, StateType::Same, group, buffers).unwrap();
        assert_eq!(fake.allocations(), allocations);
        (device, addresses)
    };
    // SAFETY: the buffers are the fake device's, of that length, and never given back.
    let tensor = |device: &OnDevice| unsafe {
        Tensor::new("own", ElementType::F32, N, device.parameters[0], device.gradients[0])
    };
    // v and h need not be initialized before the first step.
    let (mut device, addresses) = with_state(1.0, &[vec![0xff; 4 * N], vec![0xff; 4 * N], vec![0; 32]]);
    let mut cpu = OnCpu::new();
    device.optimizer.step(Stream::DEFAULT, LOSS, &[tensor(&device)]).unwrap();
    let report = cpu.step(&[0], LOSS);
    let parameters = device.parameters(0);
    assert_eq!(parameters, cpu.bytes(0));
    let saved = [0, 1, 2].map(|i| fake.get(addresses[i], [4 * N, 4 * N, 32][i]));
    let state = device.optimizer.state(Stream::DEFAULT, "own").unwrap();
    assert_eq!([&saved[0], &saved[1]], [&state.v, &state.h]);
    let scalars = cpu.optimizer.state("first").unwrap().scalars();
    assert_eq!(scalar_bits(&state.scalars), scalar_bits(&scalars));
    let doubles = [scalars.h_h, scalars.h_v, scalars.innovation_variance, scalars.steps as f64];
    assert_eq!(saved[2], bytemuck::cast_slice::<f64, u8>(&doubles));

    let (mut resumed, _) = with_state(report.noise, &saved);
    fake.set(resumed.parameters[0], &parameters);
    resumed.optimizer.step(Stream::DEFAULT, LOSS, &[tensor(&resumed)]).unwrap();
    let report = cpu.step(&[0], LOSS);
    assert_eq!(resumed.report(), Report { step: 1, ..report });
    assert_eq!(resumed.parameters(0), cpu.bytes(0));
    resumed.optimizer.restart("own").unwrap();
    cpu.optimizer.restart("first").unwrap();
    resumed.optimizer.step(Stream::DEFAULT, LOSS, &[tensor(&resumed)]).unwrap();
    assert_eq!(resumed.report(), Report { step: 2, ..cpu.step(&[0], LOSS) });
    assert_eq!(resumed.parameters(0), cpu.bytes(0));
}

#[test]
fn state_that_is_refused() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    let on_host = vector(3);
    let [place, host] = [device.parameters[0], on_host.as_ptr().expose_provenance() as u64];
    let group = device.group;
    let mut add = |name, length, [v, h, scalars]: [u64; 3]| {
        // SAFETY: it is refused, or never stepped.
        let buffers = unsafe { StateBuffers::new(v, h, scalars) };
        device.optimizer.add_tensor_with_state(name, length, ElementType::F32, StateType::Same, group, buffers)
    };
    let tensor = || "own".to_string();
    for (buffer, places) in
        [("v", [host, place, place]), ("h", [place, host, place]), ("scalars", [place, place, host])]
    {
        assert_eq!(add("own", N, places), Err(Error::NotOnDevice { tensor: tensor(), buffer, address: host }));
    }
    for (buffer, address, places) in
        [("h", place + 2, [place, place + 2, place]), ("scalars", place + 4, [place, place, place + 4])]
    {
        assert_eq!(add("own", N, places), Err(Error::Misaligned { tensor: tensor(), buffer, address }));
    }
    let known = CallError::DuplicateTensor { tensor: "first".into() };
    assert_eq!(add("first", N, [place; 3]), Err(known.into()));
    assert!(matches!(add("own", (1 << 32) + 1, [place; 3]), Err(Error::TooLong { .. })));
    assert_eq!(add("own", 0, [0, 0, place]), Ok(()));
}

/// More words than one launch takes.
#[test]
fn many_changes_at_once() {
    const TENSORS: usize = 300;
    let Some(fake) = Fake::new(1 << 20, 1 << 24) else { return };
    let mut optimizer = Optimizer::new(fake.clone(), Config::default()).unwrap();
    let mut cpu = CpuOptimizer::new(CpuConfig::default()).unwrap();
    let names: Vec<String> = (0..TENSORS).map(|i| i.to_string()).collect();
    let mut groups = Vec::new();
    for name in &names {
        let group = (optimizer.add_group(Settings::default()).unwrap(), cpu.add_group(Settings::default()).unwrap());
        optimizer.add_tensor(name, N, ElementType::F32, StateType::Same, group.0).unwrap();
        cpu.add_tensor(name, N, ElementType::F32, StateType::Same, group.1).unwrap();
        groups.push(group);
    }
    let mut parameters: Vec<Vec<f32>> = (0..TENSORS).map(vector).collect();
    let on_device: Vec<u64> = parameters.iter().map(|vector| fake.buffer(bytemuck::cast_slice(vector))).collect();
    for step in 1..4 {
        let gradients: Vec<Vec<f32>> = (0..TENSORS).map(|i| vector(i + step * TENSORS)).collect();
        let tensors: Vec<Tensor> = (0..TENSORS)
            .map(|i| {
                let gradient = fake.buffer(bytemuck::cast_slice(&gradients[i]));
                // SAFETY: the buffers are the fake device's, of that length, and never given back.
                unsafe { Tensor::new(&names[i], ElementType::F32, N, on_device[i], gradient) }
            })
            .collect();
        for (i, (group, cpu_group)) in groups.iter().enumerate() {
            optimizer.set_learning_rate(*group, 1.0 / (i + step) as f64).unwrap();
            cpu.set_learning_rate(*cpu_group, 1.0 / (i + step) as f64).unwrap();
        }
        fake.launches();
        optimizer.step(Stream::DEFAULT, LOSS, &tensors).unwrap();
        let changes = fake.launches().iter().filter(|kernel| **kernel == Kernel::Change).count();
        let moved = if step == 1 { 0 } else { TENSORS };
        assert_eq!(changes, (5 * TENSORS + moved).div_ceil(255));
        let mut cpu_tensors: Vec<CpuTensor> = parameters
            .iter_mut()
            .zip(&gradients)
            .zip(&names)
            .map(|((parameters, gradient), name)| CpuTensor::new(name, parameters, gradient))
            .collect();
        assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), cpu.step(LOSS, &mut cpu_tensors).unwrap());
    }
    for (address, expected) in on_device.iter().zip(&parameters) {
        assert_eq!(fake.get(*address, 4 * N), bytemuck::cast_slice::<_, u8>(expected));
    }
}

#[test]
fn a_loss_on_the_device() {
    type InBytes = fn(f64) -> Vec<u8>;
    let losses: [(ElementType, InBytes); 4] = [
        (ElementType::F32, |loss| (loss as f32).to_ne_bytes().into()),
        (ElementType::F64, |loss| loss.to_ne_bytes().into()),
        (ElementType::Bf16, |loss| bf16::from_f64(loss).to_ne_bytes().into()),
        (ElementType::F16, |loss| f16::from_f64(loss).to_ne_bytes().into()),
    ];
    for (element_type, bytes) in losses {
        let Some(mut device) = OnDevice::new(Config::default()) else { return };
        let mut cpu = OnCpu::new();
        let (mean, second_moment) = (device.fake.buffer(&bytes(0.75)), device.fake.buffer(&bytes(0.625)));
        // SAFETY: the buffers are the fake device's, and never given back.
        let loss = unsafe { DeviceLoss::new(element_type, mean, Some(second_moment)) };
        for (found_mean, found_second_moment) in [(0.75, 0.625), (f64::NAN, 0.5), (0.5, f64::INFINITY), (0.5, 0.25)] {
            device.fake.set(mean, &bytes(found_mean));
            device.fake.set(second_moment, &bytes(found_second_moment));
            device.optimizer.step(Stream::DEFAULT, loss, &device.tensors()).unwrap();
            let report = cpu.step(&[0, 1, 2], Loss::new(found_mean, found_second_moment));
            assert_eq!(device.report(), report, "{element_type}");
        }
        assert_same(&mut device, &cpu);
        // From the host, this is an error.
        device.fake.set(second_moment, &bytes(-0.5));
        device.optimizer.step(Stream::DEFAULT, loss, &device.tensors()).unwrap();
        assert_eq!(device.report().non_finite, 3);
        assert_same(&mut device, &cpu);
    }
}

#[test]
fn without_tensors_the_noise_goes_forward() {
    let Some(fake) = Fake::new(0, 1 << 20) else { return };
    let mut optimizer = Optimizer::new(fake, Config::default()).unwrap();
    assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), Report { noise: 1.0, ..Report::default() });
    optimizer.step(Stream::DEFAULT, LOSS, &[]).unwrap();
    let mut cpu = CpuOptimizer::new(CpuConfig::default()).unwrap();
    assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), cpu.step(LOSS, &mut []).unwrap());
    assert!(optimizer.details(Stream::DEFAULT).unwrap().is_empty());
}

/// What a step refuses: nothing is launched or written, and the next step is as if it had not been asked.
#[test]
fn what_a_step_refuses() {
    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    device.step();
    let first = device.tensor(0);
    let host = vector(3);
    // SAFETY: none of these is ever stepped.
    let new = |name, element_type, length, parameters, gradient| unsafe {
        Tensor::new(name, element_type, length, parameters, gradient)
    };
    let [parameters, gradient] = [device.parameters[0], device.gradients[0]];
    let host_address = host.as_ptr().expose_provenance() as u64;
    let named = |name: &str| name.to_string();
    let second_moment_below_zero = CallError::Setting {
        setting: "second moment of the loss",
        value: -1.0,
        expected: "a finite number, at least 0",
    };
    // SAFETY: they are refused.
    let (no_second_moment, mean_on_host) = unsafe {
        (
            DeviceLoss::new(ElementType::F32, gradient, None),
            DeviceLoss::new(ElementType::F32, host_address, Some(gradient)),
        )
    };
    let good = StepLoss::from(LOSS);
    let on = Stream::DEFAULT;
    // SAFETY: they are refused.
    let (copy_on_host, misaligned_copy) =
        unsafe { (first.clone().with_bf16_copy(host_address), first.clone().with_f16_copy(parameters + 1)) };
    let not_on_device = |buffer, address| Error::NotOnDevice { tensor: named("first"), buffer, address };
    let misaligned = |buffer, address| Error::Misaligned { tensor: named("first"), buffer, address };
    let cases: Vec<(Stream, StepLoss, Vec<Tensor>, Error)> = vec![
        (foreign_stream(), good, device.tensors(), Error::ForeignStream),
        (on, Loss::new(0.5, -1.0).into(), device.tensors(), second_moment_below_zero.into()),
        (on, no_second_moment.into(), device.tensors(), Error::NoSecondMoment),
        (
            on,
            mean_on_host.into(),
            device.tensors(),
            Error::NotOnDevice { tensor: named(""), buffer: "mean", address: host_address },
        ),
        (
            on,
            good,
            vec![device.tensor(1), first.clone(), first.clone()],
            CallError::DuplicateTensor { tensor: named("first") }.into(),
        ),
        (
            on,
            good,
            vec![first.clone(), new("fourth", ElementType::F32, N, parameters, gradient)],
            CallError::UnknownTensor { tensor: named("fourth") }.into(),
        ),
        (
            on,
            good,
            vec![new("first", ElementType::Bf16, N, parameters, gradient)],
            CallError::Type { tensor: named("first"), found: ElementType::Bf16, expected: ElementType::F32 }.into(),
        ),
        (
            on,
            good,
            vec![new("first", ElementType::F32, N + 1, parameters, gradient)],
            CallError::Length { tensor: named("first"), buffer: "parameters", found: N + 1, expected: N }.into(),
        ),
        (
            on,
            good,
            vec![new("first", ElementType::F32, N, host_address, gradient)],
            not_on_device("parameters", host_address),
        ),
        (on, good, vec![new("first", ElementType::F32, N, parameters, 0)], not_on_device("gradient", 0)),
        (on, good, vec![copy_on_host], not_on_device("half-precision copy", host_address)),
        (
            on,
            good,
            vec![new("first", ElementType::F32, N, parameters, gradient + 2)],
            misaligned("gradient", gradient + 2),
        ),
        (on, good, vec![misaligned_copy], misaligned("half-precision copy", parameters + 1)),
    ];
    device.fake.launches();
    let (before, report) = (device.fake.everything(), device.report());
    for (stream, loss, tensors, expected) in cases {
        let error = device.optimizer.step(stream, loss, &tensors).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().is_empty());
        assert!(device.fake.everything() == before && device.fake.launches().is_empty(), "{error}");
        assert_eq!(device.report(), report);
    }
    assert_eq!(device.optimizer.report(foreign_stream()), Err(Error::ForeignStream));
    assert_eq!(device.optimizer.details(foreign_stream()), Err(Error::ForeignStream));
    assert_eq!(device.optimizer.state(foreign_stream(), "first"), Err(Error::ForeignStream));
    assert_eq!(device.optimizer.write_changes(foreign_stream()), Err(Error::ForeignStream));
    let mut cpu = OnCpu::new();
    cpu.step(&[0, 1, 2], LOSS);
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    assert_same(&mut device, &cpu);
}

#[test]
fn what_an_optimizer_refuses() {
    let Some(fake) = Fake::new(0, 1 << 20) else { return };
    for (policy, name) in [
        (Policy { non_finite: OnNonFinite::Error, ..Policy::default() }, "OnNonFinite::Error"),
        (Policy { breakdown: OnBreakdown::Error, ..Policy::default() }, "OnBreakdown::Error"),
    ] {
        let error = Optimizer::new(fake.clone(), Config { policy, ..Config::default() }).unwrap_err();
        assert_eq!(error, Error::Policy { policy: name });
    }
    let noise = Noise::Fixed(-1.0);
    assert!(matches!(Optimizer::new(fake.clone(), Config { noise, ..Config::default() }), Err(Error::Call(_))));

    let Some(mut device) = OnDevice::new(Config::default()) else { return };
    let allocations = device.fake.allocations();
    let negative = Settings { learning_rate: -1.0, ..Settings::default() };
    assert!(matches!(device.optimizer.add_group(negative), Err(Error::Call(CallError::Setting { .. }))));
    assert!(matches!(device.optimizer.set_settings(device.group, negative), Err(Error::Call(_))));
    let mut other = OnDevice::new(Config::default()).unwrap();
    let foreign = other.optimizer.add_group(Settings::default()).unwrap();
    let unknown = Err(Error::Call(CallError::UnknownGroup { group: 1, groups: 1 }));
    let mut add =
        |name, length, group| device.optimizer.add_tensor(name, length, ElementType::F32, StateType::Same, group);
    assert_eq!(add("fourth", N, foreign), unknown);
    assert_eq!(add("first", N, device.group), Err(CallError::DuplicateTensor { tensor: "first".into() }.into()));
    for length in [(1 << 32) + 1, usize::MAX] {
        let error = Error::TooLong { tensor: "fourth".into(), length, longest: 1 << 32 };
        assert_eq!(add("fourth", length, device.group), Err(error));
    }
    assert!(matches!(add("fourth", 1 << 32, device.group), Err(Error::Memory { .. })));
    assert!(matches!(device.optimizer.restart("fourth"), Err(Error::Call(CallError::UnknownTensor { .. }))));
    assert_eq!(device.fake.allocations(), allocations);
    device.step();
    assert_eq!(device.report().stepped, 3);
}

/// Memory that is gone just when the tables are to be written: the step is refused, and a later one is as if it had
/// not been asked.
#[test]
fn memory_that_is_gone() {
    let needed = {
        let Some(device) = OnDevice::new(Config::default()) else { return };
        device.fake.used()
    };
    let mut refused = 0;
    for left in (0..1200).step_by(40) {
        let mut device = OnDevice::on(Fake::new(GROUP_BYTES, needed + left).unwrap(), Config::default());
        let before: Vec<_> = (0..3).map(|i| device.parameters(i)).collect();
        let tensors = device.tensors();
        if device.optimizer.step(Stream::DEFAULT, LOSS, &tensors).is_ok() {
            continue;
        }
        refused += 1;
        assert!(device.fake.launches().is_empty());
        assert_eq!((0..3).map(|i| device.parameters(i)).collect::<Vec<_>>(), before);
        // Without tensors there is nothing to describe.
        device.optimizer.step(Stream::DEFAULT, LOSS, &[]).unwrap();
        device.fake.add_memory(1 << 16);
        device.step();
        let mut cpu = OnCpu::new();
        cpu.step(&[], LOSS);
        assert_eq!(device.report(), cpu.step(&[0, 1, 2], LOSS));
        assert_same(&mut device, &cpu);
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn all_memory_is_given_back() {
    let Some(device) = OnDevice::new(Config::default()) else { return };
    let OnDevice { fake, optimizer, .. } = device;
    // Six buffers are the caller's.
    assert!(fake.allocations() > 6);
    drop(optimizer);
    assert_eq!(fake.allocations(), 6);
}

#[test]
fn a_kept_model_says_so_in_each_report() {
    let policy = Policy { non_finite: OnNonFinite::KeepAll, ..Policy::default() };
    let Some(mut device) = OnDevice::new(Config { policy, ..Config::default() }) else { return };
    device.fake.set(device.gradients[2], &f32::NAN.to_ne_bytes());
    let before: Vec<_> = (0..3).map(|i| device.parameters(i)).collect();
    device.step();
    let outcomes: Vec<Outcome> =
        device.optimizer.details(Stream::DEFAULT).unwrap().iter().map(|report| report.outcome).collect();
    assert_eq!(outcomes, [Outcome::Withheld, Outcome::Withheld, Outcome::NonFinite]);
    assert_eq!(device.report(), Report { noise: 1.0, non_finite: 1, withheld: 2, ..Report::default() });
    assert_eq!((0..3).map(|i| device.parameters(i)).collect::<Vec<_>>(), before);
    // One group whatever the cache: all tensors have to be known before one is written.
    assert_eq!(device.optimizer.cache_groups(), 1);
}

/// Whatever this machine has, there is no device of that number, and it is an error that says what is missing.
#[test]
fn a_device_that_is_not_there() {
    for number in [1000, usize::MAX] {
        match Device::new(number) {
            Err(Error::NoDriver) => println!("no driver here, so nothing of a device was tried"),
            Err(Error::NoDevice { device, devices }) => assert!(device == number && devices < 1000),
            other => panic!("{other:?}"),
        }
    }
}
