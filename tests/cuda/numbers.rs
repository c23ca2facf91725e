//! Numbers that only the device knows: in every type, out of range, refused, and for no longer than said.

use koala_optim::cuda::{Config, DeviceLearningRate, DeviceScaler, Driver, Error};
use koala_optim::{Element, ElementType, Error as CallError, Loss, Scaling, bf16, f16};

use crate::machine::Buffers;
use crate::three::{LOSS, OnCpu, OnDevice, assert_same};

const ALL: [usize; 3] = [0, 1, 2];

fn bytes_of(element_type: ElementType, number: f64) -> Vec<u8> {
    match element_type {
        ElementType::F32 => f32::rounded(number).to_le_bytes().to_vec(),
        ElementType::F64 => number.to_le_bytes().to_vec(),
        ElementType::Bf16 => bf16::rounded(number).to_le_bytes().to_vec(),
        ElementType::F16 => f16::rounded(number).to_le_bytes().to_vec(),
    }
}

/// An element of that type, never given back.
fn number_on(driver: &dyn Driver, element_type: ElementType, number: f64) -> u64 {
    driver.buffer(&bytes_of(element_type, number))
}

fn rate_at(element_type: ElementType, address: u64) -> Option<DeviceLearningRate> {
    // SAFETY: it is the device's and never given back, or refused.
    Some(unsafe { DeviceLearningRate::new(element_type, address) })
}

fn scaler_at(element_type: ElementType, scale: Option<u64>, found_infinite: Option<u64>) -> Option<DeviceScaler> {
    // SAFETY: they are the device's and never given back, or refused.
    Some(unsafe { DeviceScaler::new(element_type, scale, found_infinite) })
}

#[test]
fn numbers_of_every_type() {
    for element_type in [ElementType::F32, ElementType::F64, ElementType::Bf16, ElementType::F16] {
        let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
        let mut cpu = OnCpu::new();
        // Each type has them all.
        for (rate, scale) in [(0.375, 64.0), (2.0, 0.5), (0.0, 3.0)] {
            let [rate_place, scale_place, flag] =
                [rate, scale, 0.0].map(|number| number_on(&*device.driver, element_type, number));
            let rate_place = rate_at(element_type, rate_place);
            device.optimizer.set_device_learning_rate(device.group, rate_place).unwrap();
            device.optimizer.set_device_scaler(scaler_at(element_type, Some(scale_place), Some(flag))).unwrap();
            cpu.optimizer.set_learning_rate(cpu.group, rate).unwrap();
            cpu.optimizer.set_scaling(Scaling { factor: 1.0 / scale, ..Scaling::default() }).unwrap();
            device.step();
            assert_eq!(device.report(), cpu.step(&ALL, LOSS));
            assert_same(&mut device, &cpu);
        }
    }
}

/// They are an error from the host. Here nothing is written, every tensor counts as not finite, and a next step is as if this
/// had not been but for the noise, which is the loss's.
#[test]
fn numbers_that_are_out_of_range() {
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    cpu.step(&ALL, LOSS);
    let place = number_on(&*device.driver, ElementType::F64, 1.0);
    let rates = [-1.0, -1e-300, f64::NAN, f64::INFINITY].map(|rate| (rate, 1.0));
    let scales = [0.0, -0.0, -2.0, f64::NAN, f64::INFINITY, 1e38, 1e-39].map(|scale| (1.0, scale));
    for (rate, scale) in rates.into_iter().chain(scales) {
        let is_rate = rate != 1.0;
        device.driver.set(place, &bytes_of(ElementType::F64, if is_rate { rate } else { scale }));
        let rate_place = is_rate.then(|| rate_at(ElementType::F64, place)).flatten();
        let scaler = (!is_rate).then(|| scaler_at(ElementType::F64, Some(place), None)).flatten();
        device.optimizer.set_device_learning_rate(device.group, rate_place).unwrap();
        device.optimizer.set_device_scaler(scaler).unwrap();
        device.step();
        assert_eq!(device.report().non_finite, 3, "{rate} {scale}");
        // A tensor of the CPU's is kept by a gradient that is not finite, for example.
        cpu.step(&[], LOSS);
        assert_same(&mut device, &cpu);
    }
    device.optimizer.set_device_scaler(None).unwrap();
    device.step();
    assert_eq!(device.report(), cpu.step(&ALL, LOSS));
    assert_same(&mut device, &cpu);
}

/// The flag keeps the noise too, and what the loss is does not matter.
#[test]
fn a_step_in_which_something_was_infinite() {
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    let before = cpu.step(&ALL, LOSS);
    let flag = number_on(&*device.driver, ElementType::F32, 1.0);
    device.optimizer.set_device_scaler(scaler_at(ElementType::F32, None, Some(flag))).unwrap();
    let tensors = device.tensors();
    for loss in [LOSS, Loss::new(3.0, 90.0), Loss::new(f64::NAN, 1.0)] {
        device.optimizer.step(device.stream, loss, &tensors).unwrap();
        let report = device.report();
        assert_eq!((report.non_finite, report.noise, report.step), (3, before.noise, before.step));
        assert_same(&mut device, &cpu);
    }
    device.driver.set(flag, &0.0_f32.to_le_bytes());
    device.step();
    assert_eq!(device.report(), cpu.step(&ALL, LOSS));
    assert_same(&mut device, &cpu);
}

/// The number that the host sets last counts; other settings leave the device's.
#[test]
fn which_learning_rate_counts() {
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    let rate = rate_at(ElementType::F64, number_on(&*device.driver, ElementType::F64, 0.25));
    let mut both = |device: &mut OnDevice<_>, rate: f64| {
        cpu.optimizer.set_learning_rate(cpu.group, rate).unwrap();
        device.step();
        cpu.step(&ALL, LOSS);
        assert_same(device, &cpu);
    };
    both(&mut device, 1.0);
    device.optimizer.set_device_learning_rate(device.group, rate).unwrap();
    both(&mut device, 0.25);
    let settings = device.optimizer.settings(device.group).unwrap();
    assert_eq!(settings.learning_rate, 1.0);
    device.optimizer.set_settings(device.group, settings).unwrap();
    both(&mut device, 0.25);
    device.optimizer.set_learning_rate(device.group, 0.5).unwrap();
    both(&mut device, 0.5);
    device.optimizer.set_device_learning_rate(device.group, rate).unwrap();
    both(&mut device, 0.25);
    device.optimizer.set_device_learning_rate(device.group, None).unwrap();
    both(&mut device, 0.5);
}

#[test]
fn what_is_refused_on_the_shim() {
    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
    let on_host = [1.0_f32; 2];
    let host_address = on_host.as_ptr().addr() as u64;
    let place = number_on(&device.driver, ElementType::F64, 1.0);
    device.step();
    device.driver.launches();
    let before = device.driver.everything();
    let not_on_device = |buffer| Error::NotOnDevice { tensor: String::new(), buffer, address: host_address };
    let misaligned = |buffer| Error::Misaligned { tensor: String::new(), buffer, address: place + 4 };
    let (scale, flag) = ("scale of the loss", "flag of what is infinite");
    let (single, double) = (ElementType::F32, ElementType::F64);
    let rate = |device: &mut OnDevice<_>, rate| device.optimizer.set_device_learning_rate(device.group, rate);
    let scaler = |device: &mut OnDevice<_>, scaler| device.optimizer.set_device_scaler(scaler);
    for (found, expected) in [
        (rate(&mut device, rate_at(single, host_address)), not_on_device("learning rate")),
        (rate(&mut device, rate_at(double, place + 4)), misaligned("learning rate")),
        (scaler(&mut device, scaler_at(single, Some(host_address), Some(place))), not_on_device(scale)),
        (scaler(&mut device, scaler_at(double, Some(place + 4), None)), misaligned(scale)),
        (scaler(&mut device, scaler_at(single, Some(place), Some(host_address))), not_on_device(flag)),
        (scaler(&mut device, scaler_at(double, None, Some(place + 4))), misaligned(flag)),
    ] {
        let error = found.unwrap_err();
        assert_eq!(error, expected);
        assert!(error.to_string().starts_with("the "), "{error}");
    }
    let refused = device.optimizer.set_scaling(Scaling { factor: 0.0, ..Scaling::default() });
    assert!(matches!(refused, Err(Error::Call(CallError::Setting { setting: "gradient's factor", .. }))));
    assert!(device.driver.everything() == before && device.driver.launches().is_empty());
    // And it steps as before.
    let mut cpu = OnCpu::new();
    cpu.step(&ALL, LOSS);
    device.step();
    cpu.step(&ALL, LOSS);
    assert_same(&mut device, &cpu);
}

/// Tensors that were prepared are known: the next step waits for nothing, and there is nothing to read of it before.
#[test]
fn tensors_are_prepared() {
    let Some(mut device) = OnDevice::on_machine(Config::default()) else { return };
    let (mut cpu, tensors, stream) = (OnCpu::new(), device.tensors(), device.stream);
    device.optimizer.prepare(stream, &tensors).unwrap();
    assert_eq!((device.report().step, device.optimizer.counts().steps), (0, 0));
    assert_eq!(device.optimizer.details(stream).unwrap(), []);
    for _ in 0..2 {
        let waits = device.optimizer.counts().waits;
        device.step();
        assert_eq!(device.optimizer.counts().waits, waits);
        assert_eq!(device.report(), cpu.step(&ALL, LOSS));
        // The same once more: nothing to do, and the details are still those of the step.
        let before = device.optimizer.counts();
        device.optimizer.prepare(stream, &tensors).unwrap();
        assert_eq!(device.optimizer.counts(), before);
        assert_eq!(device.optimizer.details(stream).unwrap().len(), 3);
    }
    assert_same(&mut device, &cpu);
    // Others, of which there are no details yet.
    device.optimizer.prepare(stream, &tensors[1..]).unwrap();
    assert_eq!(device.optimizer.details(stream).unwrap(), []);
    device.optimizer.step(stream, LOSS, &tensors[1..]).unwrap();
    assert_eq!(device.report(), cpu.step(&[1, 2], LOSS));
    assert_eq!(device.optimizer.details(stream).unwrap().len(), 2);
    assert_same(&mut device, &cpu);
    // What a step refuses is refused.
    let twice = [device.tensor(0), device.tensor(0)];
    let refused = device.optimizer.prepare(stream, &twice);
    assert_eq!(refused, Err(CallError::DuplicateTensor { tensor: "first".into() }.into()));
    device.gradients[1] += 2;
    let address = device.gradients[1];
    let misaligned = Error::Misaligned { tensor: "second".into(), buffer: "gradient", address };
    assert_eq!(device.optimizer.prepare(stream, &device.tensors()), Err(misaligned));
    assert_same(&mut device, &cpu);
}
