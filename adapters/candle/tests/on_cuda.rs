//! candle's variables on a CUDA device: the bits of the same steps on the CPU, no waiting, and nothing changed by what
//! is an error. They run where candle is built for CUDA: on a GPU, or on the driver of our own that
//! `.ci/candle-cuda.sh` builds.

use std::sync::{Mutex, MutexGuard};

use candle_core::{DType, Device, Result, Tensor as Array, Var, backprop::GradStore};
use candle_nn::Optimizer as _;
use koala_candle::{Config, Koala};
use koala_optim::cuda::Stream;
use koala_optim::{
    AdamW, GroupId, KoalaM, KoalaV, Loss, Method, Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings, Sgd,
    StateType,
};

mod common;

use common::{gradients, says};

const LOSS: Loss = Loss::new(0.7, 0.6);

/// The device, for one test at a time: of the driver of our own, a process has one context for all threads.
struct Lent {
    device: Device,
    driver: Option<libloading::Library>,
    _alone: MutexGuard<'static, ()>,
}

impl Lent {
    /// `None`, with a line that says so, where candle is not built for CUDA.
    fn new(open: fn(usize) -> Result<Device>) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if !candle_core::utils::cuda_is_available() {
            println!("skipped: variables on a CUDA device: candle is built without CUDA");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let device = open(0).expect("a CUDA device");
        // SAFETY: it is loaded already.
        let driver = unsafe { libloading::Library::new("libcuda.so") }.ok();
        let driver = driver.filter(|driver| number(driver, b"stub_mistakes").is_some());
        Some(Lent { device, driver, _alone: alone })
    }

    /// How often the host has waited for the device, as far as the driver tells.
    fn waits(&self) -> Option<i32> {
        number(self.driver.as_ref()?, b"stub_synchronizations")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mistakes = self.driver.as_ref().and_then(|driver| number(driver, b"stub_mistakes"));
        assert!(std::thread::panicking() || mistakes.is_none_or(|mistakes| mistakes == 0), "{mistakes:?} mistakes");
    }
}

fn number(driver: &libloading::Library, name: &[u8]) -> Option<i32> {
    // SAFETY: only a driver of our own has such functions, and these have this type there.
    unsafe { driver.get::<unsafe extern "C" fn() -> i32>(name).ok().map(|function| function()) }
}

fn config() -> Config {
    let settings = Settings { learning_rate: 0.125, weight_decay: 0.01, ..Settings::default() };
    Config { settings, ..Config::default() }
}

fn with(optimizer: koala_optim::Config) -> Config {
    Config { optimizer, ..config() }
}

/// So many numbers between −½ and ½.
fn numbers(count: u32, seed: u32) -> Vec<f32> {
    (0..count).map(|i| ((i * seed) % 97) as f32 / 97.0 - 0.5).collect()
}

fn array(values: &[f32], shape: &[usize], of: DType, device: &Device) -> Array {
    Array::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(of).unwrap().to_device(device).unwrap()
}

/// Exactly: of every type, f64 has all numbers.
fn values(array: &Array) -> Vec<f64> {
    let on_host = array.to_device(&Device::Cpu).unwrap();
    on_host.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// A model with tensors of several lengths, in two groups, on a device.
struct Model {
    koala: Koala,
    variables: Vec<Var>,
    gradients: GradStore,
}

impl Model {
    fn new(of: DType, state: StateType, device: &Device) -> Result<Self> {
        let mut koala = Koala::empty(Config { state, ..config() })?;
        let group = koala.groups().next().unwrap();
        let slow = koala.add_group(Settings { learning_rate: 0.01, ..Settings::default() })?;
        let frozen = koala.add_group(Settings { frozen: true, ..Settings::default() })?;
        let mut variables = Vec::new();
        for (name, shape, group) in [
            ("wide", &[3, 500][..], group),
            ("unused", &[7], group),
            ("square", &[4, 5], slow),
            ("frozen", &[9], frozen),
            ("one", &[1], slow),
        ] {
            let count = shape.iter().product::<usize>() as u32;
            let variable = Var::from_tensor(&array(&numbers(count, 31), shape, of, device))?;
            koala.add_variable(name, variable.clone(), group)?;
            variables.push(variable);
        }
        let [wide, _, square, frozen, one] = &variables[..] else { unreachable!() };
        let part = array(&numbers(1600, 43), &[1600], of, device).narrow(0, 50, 1500)?.reshape((3, 500))?;
        let transposed = array(&numbers(20, 53), &[5, 4], of, device).t()?;
        assert!(!transposed.is_contiguous());
        let gradients = gradients(&[
            (wide, &part),
            (square, &transposed),
            (frozen, &array(&numbers(9, 11), &[9], of, device)),
            (one, &array(&[0.25], &[1], of, device)),
        ]);
        Ok(Model { koala, variables, gradients })
    }

    fn parameters(&self) -> Vec<Vec<f64>> {
        self.variables.iter().map(|variable| values(variable)).collect()
    }
}

macro_rules! gives_the_bits_of_the_cpu {
    ($($name:ident: $type:ident, $state:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
            bits(DType::$type, StateType::$state, &lent)
        }
    )*};
}

gives_the_bits_of_the_cpu! {
    f32_gives_the_bits_of_the_cpu: F32, Same;
    f32_beside_bf16_gives_the_bits_of_the_cpu: F32, Bf16;
    f64_gives_the_bits_of_the_cpu: F64, Same;
    bf16_gives_the_bits_of_the_cpu: BF16, Same;
    f16_gives_the_bits_of_the_cpu: F16, Same;
}

/// On a stream that is no thread's own, candle orders the uses of memory by events.
#[test]
fn a_stream_of_the_device_gives_the_bits_of_the_cpu() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda_with_stream) else { return Ok(()) };
    bits(DType::F32, StateType::Same, &lent)
}

fn bits(of: DType, state: StateType, lent: &Lent) -> Result<()> {
    let mut on_cuda = Model::new(of, state, &lent.device)?;
    let mut on_cpu = Model::new(of, state, &Device::Cpu)?;
    assert_eq!(on_cuda.parameters(), on_cpu.parameters());
    let places: Vec<String> = on_cuda.variables.iter().map(place).collect();
    for step in 0..4 {
        let reports = [&mut on_cuda, &mut on_cpu].map(|model| {
            if step == 2 {
                model.koala.set_learning_rate(0.25);
                let group = model.koala.groups().nth(1).unwrap();
                model.koala.optimizer_mut().set_learning_rate(group, 0.5).unwrap();
                model.koala.optimizer_mut().set_scaling(Scaling { factor: 0.75, limit: 0.25 }).unwrap();
            }
            model.koala.step_with(LOSS, &model.gradients).unwrap()
        });
        assert_eq!(reports[0], reports[1]);
        assert_eq!((reports[0].stepped, reports[0].frozen), (3, 1));
        assert_eq!(on_cuda.parameters(), on_cpu.parameters());
    }
    assert_eq!(places, on_cuda.variables.iter().map(place).collect::<Vec<_>>());
    lent.device.synchronize()?;
    for name in ["wide", "unused", "square", "frozen", "one"] {
        let found = on_cuda.koala.cuda_optimizer_mut().unwrap().state(Stream::DEFAULT, name).unwrap();
        let expected = on_cpu.koala.optimizer().state(name).unwrap();
        assert_eq!(([&*found.v, &*found.h], found.scalars), (expected.bytes(), expected.scalars()), "{name}");
    }
    Ok(())
}

/// Where a variable has its memory, in candle's words.
fn place(variable: &Var) -> String {
    format!("{:?}", &*variable.storage_and_layout().0)
}

/// All sums of the first losses are exact, in whatever order.
#[test]
fn the_loss_is_taken_on_the_device_and_nothing_waits() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    for of in [DType::F32, DType::F64] {
        // One for each sample: 1, 9, ¼ and 4, whose mean is 3.5625, and that of whose squares is 24.515625. Or their
        // mean.
        let per_sample = backward_steps(of, Ok, &lent)?;
        assert_eq!(per_sample, 0.5 + 0.5 * 24.515625);
        let mean = backward_steps(of, |losses| losses.mean_all(), &lent)?;
        assert_eq!(mean, 0.5 + 0.5 * 3.5625 * 3.5625);
    }
    Ok(())
}

/// Steps on the device and on the CPU, and the noise of the first.
fn backward_steps(of: DType, taken: fn(Array) -> Result<Array>, lent: &Lent) -> Result<f64> {
    let noise = Noise::Averaged { decay: 0.5, initial: 1.0 };
    let config = with(koala_optim::Config { noise, ..Default::default() });
    let mut found = Vec::new();
    for device in [&lent.device, &Device::Cpu] {
        let variable = Var::from_tensor(&array(&[1.0, -3.0, 0.5, 2.0], &[2, 2], of, device))?;
        let samples = array(&[1.0, 2.0, 4.0, 0.5], &[2, 2], of, device);
        let mut koala = Koala::new(vec![variable.clone()], config.clone())?;
        let mut reports = Vec::new();
        for step in 0..4 {
            let losses = if step == 0 { variable.sqr()? } else { samples.broadcast_mul(&variable)?.sqr()? };
            let losses = taken(losses)?;
            let waits = lent.waits();
            koala.backward_step(&losses)?;
            // The first has to describe its tensors to the device.
            assert!(step == 0 || lent.waits() == waits, "{waits:?}, then {:?}", lent.waits());
            assert_eq!(koala.report().step, if device.is_cuda() { step } else { step + 1 });
            reports.push(koala.wait_for_report()?);
            assert_eq!(koala.report(), reports[step as usize]);
        }
        found.push((reports, values(&variable)));
    }
    let [on_cuda, on_cpu] = &found[..] else { unreachable!() };
    assert_eq!(on_cuda.0[0], on_cpu.0[0]);
    // From the second step on, sums may be rounded in another order.
    for (found, expected) in on_cuda.1.iter().zip(&on_cpu.1) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }
    Ok(on_cuda.0[0].noise)
}

/// A variable may be its own loss.
#[test]
fn the_loss_of_a_variable_that_is_the_loss() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let mut found = Vec::new();
    for device in [&lent.device, &Device::Cpu] {
        let variable = Var::from_tensor(&array(&[1.5], &[], DType::F64, device))?;
        let mut koala = Koala::new(vec![variable.clone()], config())?;
        for _ in 0..3 {
            koala.backward_step(&variable)?;
        }
        found.push((koala.wait_for_report()?, values(&variable)));
    }
    assert_eq!((found[0].0.step, found[0].0.stepped), (3, 1));
    assert_eq!(found[0], found[1]);
    Ok(())
}

/// A loss that the host has, for variables that are on the device.
#[test]
fn a_loss_on_the_host_needs_no_waiting_either() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let mut model = Model::new(DType::F32, StateType::Same, &lent.device)?;
    says(model.koala.step(&model.gradients), "koala++ needs the loss");
    for step in 0..3 {
        let waits = lent.waits();
        model.koala.set_loss(LOSS);
        model.koala.step(&model.gradients)?;
        assert!(step == 0 || lent.waits() == waits);
    }
    assert_eq!(model.koala.wait_for_report()?.step, 3);
    model.koala.backward_step(Var::new(0.5_f32, &Device::Cpu)?.as_tensor())?;
    assert_eq!(model.koala.wait_for_report()?.stepped, 0, "it depends on no variable");
    let none = array(&[], &[0], DType::F32, &lent.device);
    says(model.koala.backward_step(&none), "no samples");
    // KOALA++ predicts nothing.
    let before = model.parameters();
    model.koala.predict()?;
    assert_eq!(model.parameters(), before);
    Ok(())
}

/// By the handle of candle's stream, another thread has another one.
#[test]
fn another_thread_waits_for_the_steps_before() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let mut on_cuda = Model::new(DType::F32, StateType::Same, &lent.device)?;
    let mut on_cpu = Model::new(DType::F32, StateType::Same, &Device::Cpu)?;
    on_cuda.koala.step_with(LOSS, &on_cuda.gradients)?;
    on_cpu.koala.step_with(LOSS, &on_cpu.gradients)?;
    let waits = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let before = lent.waits();
            for _ in 0..2 {
                on_cuda.koala.set_loss(LOSS);
                on_cuda.koala.step(&on_cuda.gradients).unwrap();
            }
            Some(lent.waits()? - before?)
        });
        thread.join().unwrap()
    });
    assert!(waits.is_none_or(|waits| waits == 1), "{waits:?}");
    for _ in 0..2 {
        on_cpu.koala.step_with(LOSS, &on_cpu.gradients)?;
    }
    assert_eq!(on_cuda.koala.wait_for_report()?, on_cpu.koala.report());
    assert_eq!(on_cuda.parameters(), on_cpu.parameters());
    Ok(())
}

#[test]
fn what_a_device_does_not_have_is_refused() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let variable = || Var::from_tensor(&array(&[1.0, -3.0], &[2], DType::F32, &lent.device)).unwrap();
    let default = koala_optim::Config::default;
    let policy = |non_finite, breakdown| koala_optim::Config { policy: Policy { non_finite, breakdown }, ..default() };
    for (optimizer, message) in [
        (koala_optim::Config { method: Method::AdamW(AdamW::default()), ..default() }, "adamw cannot be had on a CUDA"),
        (koala_optim::Config { method: Method::Sgd(Sgd::default()), ..default() }, "sgd cannot"),
        (koala_optim::Config { method: Method::KoalaV(KoalaV::default()), ..default() }, "koala-v cannot"),
        (koala_optim::Config { method: Method::KoalaM(KoalaM::default()), ..default() }, "koala-m cannot"),
        (koala_optim::Config { clip_norm: Some(1.0), ..default() }, "clipping by the norm cannot"),
        (policy(OnNonFinite::Error, OnBreakdown::Restart), "OnNonFinite::Error cannot be had on a device"),
        (policy(OnNonFinite::KeepAll, OnBreakdown::Error), "OnBreakdown::Error cannot be had on a device"),
    ] {
        let mut koala = Koala::empty(with(optimizer))?;
        let group = koala.groups().next().unwrap();
        says(koala.add_variable("weight", variable(), group), message);
        // It is as if it had not been tried: it may go on on the CPU.
        koala.add_variable("weight", Var::zeros(2, DType::F32, &Device::Cpu)?, group)?;
        says(koala.add_variable("other", variable(), group), "expected the device of the others, Cpu, found another");
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_an_error_and_changes_nothing() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let on_device = |values: &[f32]| array(values, &[values.len()], DType::F32, &lent.device);
    let [one, other] = [[1.0, -3.0], [2.0, 4.0]].map(|values| Var::from_tensor(&on_device(&values)).unwrap());
    let whole_numbers = Var::from_tensor(&array(&[0.0, 0.0], &[2], DType::U32, &lent.device))?;
    let mut koala = Koala::new(vec![one.clone(), whole_numbers.clone(), other.clone()], config())?;
    let group = koala.groups().next().unwrap();
    let again = Var::from_tensor(&one)?;
    says(koala.add_variable("one", again, group), "given twice");
    says(koala.add_variable("whole", whole_numbers, group), "found U32");
    says(koala.add_variable("new", Var::zeros(2, DType::F32, &Device::Cpu)?, group), "found another, Cpu");
    let second = Device::new_cuda(0)?;
    says(koala.add_variable("new", Var::zeros(2, DType::F32, &second)?, group), "found another, Cuda");
    says(koala.add_variable("0", Var::zeros(2, DType::F32, &lent.device)?, group), "given twice");
    let unknown = unknown_group();
    says(koala.add_variable("new", Var::zeros(2, DType::F32, &lent.device)?, unknown), "group");

    let good = on_device(&[0.5, 0.25]);
    let (long, on_host) = (on_device(&[0.5, 0.25, 0.125]), array(&[0.5, 0.25], &[2], DType::F32, &Device::Cpu));
    let unlike = array(&[0.5, 0.25], &[2], DType::F64, &lent.device);
    let unchanged = |one: &Var, other: &Var| assert_eq!([values(one), values(other)], [[1.0, -3.0], [2.0, 4.0]]);
    for (bad, message) in [
        (&long, "parameters are F32 [2] on Cuda { gpu_id: 0 }, the gradient F32 [3]"),
        (&unlike, "gradient F64 [2] on Cuda { gpu_id: 0 }"),
        (&on_host, "gradient F32 [2] on Cpu"),
        (
            one.as_tensor(),
            "tensor \"2\": the gradient, F32 [2] on Cuda { gpu_id: 0 }, or the parameters are a variable's",
        ),
        (other.as_tensor(), "or the parameters are a variable's memory"),
    ] {
        says(koala.step_with(LOSS, &gradients(&[(&one, &good), (&other, bad)])), message);
        says(koala.step_with(Loss::new(0.7, -1.0), &gradients(&[(&one, &good)])), "second moment");
        unchanged(&one, &other);
    }
    let both = gradients(&[(&one, &good), (&other, &good)]);
    koala.set_learning_rate(-1.0);
    says(koala.step_with(LOSS, &both), "learning rate is -1");
    koala.set_learning_rate(0.5);
    unchanged(&one, &other);
    assert_eq!(koala.learning_rate(), 0.5);
    let report = koala.step_with(LOSS, &both)?;
    assert_eq!((report.step, report.first_steps), (1, 2));
    Ok(())
}

/// One that no optimizer with one group has.
fn unknown_group() -> GroupId {
    let mut koala = Koala::empty(Config::default()).unwrap();
    koala.add_group(Settings::default()).unwrap()
}

/// What is not finite on the device is only known there, and told by the report.
#[test]
fn a_gradient_that_is_not_finite_is_reported() -> Result<()> {
    let Some(lent) = Lent::new(Device::new_cuda) else { return Ok(()) };
    let variable = Var::from_tensor(&array(&[1.0, -3.0], &[2], DType::F32, &lent.device))?;
    let bad = array(&[f32::NAN, 0.5], &[2], DType::F32, &lent.device);
    let mut koala = Koala::new(vec![variable.clone()], config())?;
    let report = koala.step_with(LOSS, &gradients(&[(&variable, &bad)]))?;
    assert_eq!((report.stepped, report.non_finite), (0, 1));
    assert_eq!(values(&variable), [1.0, -3.0]);
    Ok(())
}
