//! The host's side: what is launched, what is waited for, what is refused, and that nothing is written then.

use koala_optim::cuda::{Config, Device, DeviceLoss, Error, Kernel, Optimizer, StateBuffers, StepLoss, Stream, Tensor};
use koala_optim::{
    ElementType, Error as CallError, Loss, Noise, OnBreakdown, OnNonFinite, Policy, Settings, StateType,
};

use crate::shim::{Fake, foreign_stream};
use crate::three::{GROUP_BYTES, LOSS, N, OnCpu, OnDevice, assert_same, vector};

#[test]
fn three_launches_for_each_group_and_no_wait() {
    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
    device.step();
    device.driver.launches();
    let before = device.optimizer.counts();
    device.step();
    let after = device.optimizer.counts();
    // Half of the L2 cache has room for two of the tensors.
    assert_eq!(device.optimizer.cache_groups(), 2);
    let group = [Kernel::Dots, Kernel::Recursion, Kernel::Update];
    assert_eq!(device.driver.launches(), [group, group].concat());
    assert_eq!((after.steps - before.steps, after.launches - before.launches, after.waits - before.waits), (1, 6, 0));
    device.report();
    assert_eq!(device.optimizer.counts().waits, after.waits + 1);
}

#[test]
fn changed_settings_are_one_launch_more() {
    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
    let mut cpu = OnCpu::new();
    device.step();
    cpu.step(&[0, 1, 2], LOSS);
    device.driver.launches();
    device.optimizer.set_learning_rate(device.group, 0.25).unwrap();
    cpu.optimizer.set_learning_rate(cpu.group, 0.25).unwrap();
    // To what it is already.
    device.optimizer.set_learning_rate(device.group, 0.25).unwrap();
    device.optimizer.restart("second").unwrap();
    cpu.optimizer.restart("second").unwrap();
    let before = device.optimizer.counts();
    device.step();
    let report = cpu.step(&[0, 1, 2], LOSS);
    assert_eq!(device.driver.launches()[..2], [Kernel::Change, Kernel::Dots]);
    assert_eq!(device.optimizer.counts().waits, before.waits);
    assert_eq!(device.report(), report);
    assert_eq!((report.stepped, report.first_steps), (3, 1));
    assert_same(&mut device, &cpu);

    device.optimizer.set_learning_rate(device.group, 0.125).unwrap();
    device.optimizer.write_changes(Stream::DEFAULT).unwrap();
    device.driver.launches();
    device.step();
    assert_eq!(device.driver.launches().len(), 6);
}

#[test]
fn state_that_is_refused() {
    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
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

/// What a step refuses: nothing is launched or written, and the next step is as if it had not been asked.
#[test]
fn what_a_step_refuses() {
    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
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
            Error::NotOnDevice { tensor: named(""), buffer: "mean loss", address: host_address },
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
    device.driver.launches();
    let (before, report) = (device.driver.everything(), device.report());
    for (stream, loss, tensors, expected) in cases {
        let error = device.optimizer.step(stream, loss, &tensors).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().is_empty());
        assert!(device.driver.everything() == before && device.driver.launches().is_empty(), "{error}");
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

    let Some(mut device) = OnDevice::on_fake(Config::default()) else { return };
    let allocations = device.driver.allocations();
    let negative = Settings { learning_rate: -1.0, ..Settings::default() };
    assert!(matches!(device.optimizer.add_group(negative), Err(Error::Call(CallError::Setting { .. }))));
    assert!(matches!(device.optimizer.set_settings(device.group, negative), Err(Error::Call(_))));
    let mut other = OnDevice::on_fake(Config::default()).unwrap();
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
    assert_eq!(device.driver.allocations(), allocations);
    device.step();
    assert_eq!(device.report().stepped, 3);
}

/// Memory that is gone just when the tables are to be written: the step is refused, and a later one is as if it had
/// not been asked.
#[test]
fn memory_that_is_gone() {
    let needed = {
        let Some(device) = OnDevice::on_fake(Config::default()) else { return };
        device.driver.used()
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
        assert!(device.driver.launches().is_empty());
        assert_eq!((0..3).map(|i| device.parameters(i)).collect::<Vec<_>>(), before);
        // Without tensors there is nothing to describe.
        device.optimizer.step(Stream::DEFAULT, LOSS, &[]).unwrap();
        device.driver.add_memory(1 << 16);
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
    let Some(device) = OnDevice::on_fake(Config::default()) else { return };
    let OnDevice { driver: fake, optimizer, .. } = device;
    // Six buffers are the caller's.
    assert!(fake.allocations() > 6);
    drop(optimizer);
    assert_eq!(fake.allocations(), 6);
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
