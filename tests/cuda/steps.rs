//! Steps as an optimizer is given them, on a GPU where there is one: lists of some tensors, gradients that move, states in
//! the caller's memory, settings that change, losses on the device.

use std::sync::Arc;

use koala_optim::cuda::{Config, DeviceLoss, Driver, Error, Optimizer, StateBuffers, Stream, Tensor};
use koala_optim::{
    Config as CpuConfig, ElementType, Loss, Noise, OnNonFinite, Optimizer as CpuOptimizer, Outcome, Policy, Report,
    Settings, StateType, Tensor as CpuTensor, bf16, f16,
};

use crate::common::scalar_bits;
use crate::machine::{Buffers, machine};
use crate::three::{LOSS, N, OnCpu, OnDevice, assert_same, vector};

#[test]
fn some_tensors_in_any_order() {
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
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
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    for moved in [&[1][..], &[0, 2]] {
        for i in moved {
            // The old one is of no use any more.
            device.driver.set(device.gradients[*i], &[0xff; 4 * N]);
            device.gradients[*i] = device.driver.buffer(bytemuck::cast_slice(&vector(3 + i)));
        }
        let before = device.optimizer.counts();
        device.step();
        let after = device.optimizer.counts();
        let launches = 3 * device.optimizer.cache_groups() as u64 + 1;
        assert_eq!((after.launches - before.launches, after.waits - before.waits), (launches, 0));
        cpu.step(&[0, 1, 2], LOSS);
    }
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    assert_same(&mut device, &cpu);
    // One that is not where it may be: nothing has changed, the other one included.
    let known = device.gradients.clone();
    device.gradients[0] = device.driver.buffer(&[0; 4 * N]);
    device.gradients[1] += 2;
    let launches = device.optimizer.counts().launches;
    let misaligned = device.optimizer.step(Stream::DEFAULT, LOSS, &device.tensors());
    assert!(matches!(misaligned, Err(Error::Misaligned { .. })));
    assert_eq!(device.optimizer.counts().launches, launches);
    device.gradients = known;
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    assert_same(&mut device, &cpu);
}

/// What is copied out of the caller's buffers after a step goes on in another optimizer's, to the bit.
#[test]
fn state_in_memory_of_the_caller() {
    let Some(driver) = machine().map(|machine| machine.driver) else { return };
    let noise = |initial| Config { noise: Noise::Averaged { decay: 0.9, initial }, ..Config::default() };
    let with_state = |initial, state: &[Vec<u8>; 3]| {
        let mut device = OnDevice::on(driver.clone(), noise(initial));
        let addresses = state.each_ref().map(|bytes| driver.buffer(bytes));
        let [v, h, scalars] = addresses;
        // SAFETY: the buffers are the device's, of these lengths, and never given back.
        let buffers = unsafe { StateBuffers::new(v, h, scalars) };
        let group = device.group;
        device.optimizer.add_tensor_with_state("own", N, ElementType::F32, StateType::Same, group, buffers).unwrap();
        (device, addresses)
    };
    // SAFETY: the buffers are the device's, of that length, and never given back.
    let tensor = |device: &OnDevice<Arc<dyn Driver>>| unsafe {
        Tensor::new("own", ElementType::F32, N, device.parameters[0], device.gradients[0])
    };
    // v and h need not be initialized before the first step.
    let (mut device, addresses) = with_state(1.0, &[vec![0xff; 4 * N], vec![0xff; 4 * N], vec![0; 32]]);
    let mut cpu = OnCpu::new();
    device.optimizer.step(Stream::DEFAULT, LOSS, &[tensor(&device)]).unwrap();
    let report = cpu.step(&[0], LOSS);
    let parameters = device.parameters(0);
    assert_eq!(parameters, cpu.bytes(0));
    let saved = [0, 1, 2].map(|i| driver.get(addresses[i], [4 * N, 4 * N, 32][i]));
    let state = device.optimizer.state(Stream::DEFAULT, "own").unwrap();
    assert_eq!([&saved[0], &saved[1]], [&state.v, &state.h]);
    let scalars = cpu.optimizer.state("first").unwrap().scalars();
    assert_eq!(scalar_bits(&state.scalars), scalar_bits(&scalars));
    let doubles = [scalars.h_h, scalars.h_v, scalars.innovation_variance, scalars.steps as f64];
    assert_eq!(saved[2], bytemuck::cast_slice::<f64, u8>(&doubles));

    let (mut resumed, _) = with_state(report.noise, &saved);
    driver.set(resumed.parameters[0], &parameters);
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

/// More words than one launch takes.
#[test]
fn many_changes_at_once() {
    const TENSORS: usize = 300;
    let Some(driver) = machine().map(|machine| machine.driver) else { return };
    let mut optimizer = Optimizer::new(driver.clone(), Config::default()).unwrap();
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
    let on_device: Vec<u64> = parameters.iter().map(|vector| driver.buffer(bytemuck::cast_slice(vector))).collect();
    for step in 1..4 {
        let gradients: Vec<Vec<f32>> = (0..TENSORS).map(|i| vector(i + step * TENSORS)).collect();
        let tensors: Vec<Tensor> = (0..TENSORS)
            .map(|i| {
                let gradient = driver.buffer(bytemuck::cast_slice(&gradients[i]));
                // SAFETY: the buffers are the device's, of that length, and never given back.
                unsafe { Tensor::new(&names[i], ElementType::F32, N, on_device[i], gradient) }
            })
            .collect();
        for (i, (group, cpu_group)) in groups.iter().enumerate() {
            optimizer.set_learning_rate(*group, 1.0 / (i + step) as f64).unwrap();
            cpu.set_learning_rate(*cpu_group, 1.0 / (i + step) as f64).unwrap();
        }
        let launches = optimizer.counts().launches;
        optimizer.step(Stream::DEFAULT, LOSS, &tensors).unwrap();
        let changes = (optimizer.counts().launches - launches) as usize - 3 * optimizer.cache_groups();
        let moved = if step == 1 { 0 } else { TENSORS };
        assert_eq!(changes, (8 * TENSORS + moved).div_ceil(255));
        let mut cpu_tensors: Vec<CpuTensor> = parameters
            .iter_mut()
            .zip(&gradients)
            .zip(&names)
            .map(|((parameters, gradient), name)| CpuTensor::new(name, parameters, gradient))
            .collect();
        assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), cpu.step(LOSS, &mut cpu_tensors).unwrap());
    }
    for (address, expected) in on_device.iter().zip(&parameters) {
        assert_eq!(driver.get(*address, 4 * N), bytemuck::cast_slice::<_, u8>(expected));
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
        let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
        let mut cpu = OnCpu::new();
        let (mean, second_moment) = (device.driver.buffer(&bytes(0.75)), device.driver.buffer(&bytes(0.625)));
        // SAFETY: the buffers are the device's, and never given back.
        let loss = unsafe { DeviceLoss::new(element_type, mean, Some(second_moment)) };
        for (found_mean, found_second_moment) in [(0.75, 0.625), (f64::NAN, 0.5), (0.5, f64::INFINITY), (0.5, 0.25)] {
            device.driver.set(mean, &bytes(found_mean));
            device.driver.set(second_moment, &bytes(found_second_moment));
            device.optimizer.step(Stream::DEFAULT, loss, &device.tensors()).unwrap();
            let report = cpu.step(&[0, 1, 2], Loss::new(found_mean, found_second_moment));
            assert_eq!(device.report(), report, "{element_type}");
        }
        assert_same(&mut device, &cpu);
        // From the host, this is an error.
        device.driver.set(second_moment, &bytes(-0.5));
        device.optimizer.step(Stream::DEFAULT, loss, &device.tensors()).unwrap();
        assert_eq!(device.report().non_finite, 3);
        assert_same(&mut device, &cpu);
    }
}

#[test]
fn without_tensors_the_noise_goes_forward() {
    let Some(driver) = machine().map(|machine| machine.driver) else { return };
    let mut optimizer = Optimizer::new(driver, Config::default()).unwrap();
    assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), Report { noise: 1.0, ..Report::default() });
    optimizer.step(Stream::DEFAULT, LOSS, &[]).unwrap();
    let mut cpu = CpuOptimizer::new(CpuConfig::default()).unwrap();
    assert_eq!(optimizer.report(Stream::DEFAULT).unwrap(), cpu.step(LOSS, &mut []).unwrap());
    assert!(optimizer.details(Stream::DEFAULT).unwrap().is_empty());
}

#[test]
fn a_kept_model_says_so_in_each_report() {
    let policy = Policy { non_finite: OnNonFinite::KeepAll, ..Policy::default() };
    let Some(mut device) = OnDevice::on_machine(Config { policy, ..Config::default() }) else { return };
    device.driver.set(device.gradients[2], &f32::NAN.to_ne_bytes());
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
