//! A model that is stepped by the scalar backend and by the kernels, and all that the contract speaks of, as bits.

use koala_optim::cuda::{self, DeviceLearningRate, DeviceLoss, DeviceScaler, StateBuffers, StepLoss, Stream};
use koala_optim::{
    Backend, Config, Element, ElementType, KoalaPlusPlus, Loss, Noise, Optimizer, Policy, Report, Scaling, Settings,
    StateType, Tensor, bf16, f16,
};

use crate::common::{random_vector, report_bits, round_to, scalar_bits, state_element};
use crate::machine::{Area, Buffers, Machine, Recorder};

/// The settings of a group, and its numbers of KOALA++.
pub type Group = (Settings, KoalaPlusPlus);

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    pub length: usize,
    pub parameters: ElementType,
    pub state: StateType,
    /// The place of its settings.
    pub group: usize,
    pub copy: Option<ElementType>,
    /// Elements by which its buffers on the device are off from where every type is aligned.
    pub offset: usize,
}

/// What only the device knows in a step: the learning rate of the first group, and what a gradient scaler keeps.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub learning_rate: f64,
    pub scale: f64,
    pub found_infinite: f64,
}

/// A model, and how it is stepped.
#[derive(Clone, Debug)]
pub struct Model {
    pub shapes: Vec<Shape>,
    pub settings: Vec<Group>,
    pub noise: Noise,
    pub policy: Policy,
    pub details: bool,
    pub steps: usize,
    /// Whether the device's second step is captured, and launched as a graph for all steps that follow the first.
    pub captured: bool,
    /// Over how many calls the device's steps divide the tensors. Reports are the last call's then.
    pub calls: usize,
    pub loss: fn(usize) -> Loss,
    pub scaling: Scaling,
    /// What the device has of its own in a step, if it does.
    pub numbers: Option<fn(usize) -> Numbers>,
    /// Changes a tensor's parameters before the first step, given its number.
    pub begin: fn(usize, &mut [f64]),
    /// Changes a tensor's gradient in a step, given the numbers of both.
    pub change: fn(usize, usize, &mut [f64]),
}

impl Model {
    pub fn new(shapes: Vec<Shape>, settings: Vec<Group>) -> Self {
        Model {
            shapes,
            settings,
            noise: Noise::default(),
            policy: Policy::default(),
            details: true,
            steps: 3,
            captured: false,
            calls: 1,
            loss: |step| Loss::new(0.9 - 0.01 * step as f64, 1.0 + 0.02 * step as f64),
            scaling: Scaling::default(),
            numbers: None,
            begin: |_, _| {},
            change: |_, _, _| {},
        }
    }

    fn parameters(&self, tensor: usize) -> Vector {
        let Shape { length, parameters, .. } = self.shapes[tensor];
        let mut values = random_vector(tensor as u64, length, 1.0);
        (self.begin)(tensor, &mut values);
        Vector::new(parameters, &values)
    }

    /// The gradient has something of the one before, so that none of the scalars is near zero.
    fn gradient(&self, tensor: usize, step: usize) -> Vector {
        let Shape { length, parameters, .. } = self.shapes[tensor];
        let common = random_vector(1000 + tensor as u64, length, 0.1);
        let own = random_vector(2000 + (1000 * step + tensor) as u64, length, 0.05);
        let mut gradient: Vec<f64> =
            common.iter().zip(&own).map(|(common, own)| round_to(parameters, common + own)).collect();
        (self.change)(step, tensor, &mut gradient);
        Vector::new(parameters, &gradient)
    }

    fn name(tensor: usize) -> String {
        format!("tensor {tensor}")
    }
}

/// Everything that the contract speaks of.
#[derive(Debug, Default, PartialEq)]
pub struct Trace {
    pub reports: Vec<(Report, u64)>,
    pub details: Vec<Vec<[u64; 8]>>,
    pub tensors: Vec<TensorTrace>,
}

#[derive(Debug, Default, PartialEq)]
pub struct TensorTrace {
    pub parameters: Vec<u8>,
    pub v: Vec<u8>,
    pub h: Vec<u8>,
    pub copy: Vec<u8>,
    pub scalars: [u64; 4],
}

impl Trace {
    /// The first difference, in words.
    pub fn difference(&self, expected: &Trace) -> Option<String> {
        for (step, (found, expected)) in self.details.iter().zip(&expected.details).enumerate() {
            for (tensor, (found, expected)) in found.iter().zip(expected).enumerate() {
                if found != expected {
                    return Some(format!(
                        "report of tensor {tensor} in step {step}: {found:x?}, expected {expected:x?}"
                    ));
                }
            }
        }
        for (tensor, (found, expected)) in self.tensors.iter().zip(&expected.tensors).enumerate() {
            let parts = [
                ("parameters", &found.parameters, &expected.parameters),
                ("v", &found.v, &expected.v),
                ("h", &found.h, &expected.h),
                ("copy", &found.copy, &expected.copy),
            ];
            for (name, found, expected) in parts {
                if found != expected {
                    let byte = (0..found.len()).find(|i| found[*i] != expected[*i]);
                    return Some(format!("{name} of tensor {tensor}: first in byte {byte:?}"));
                }
            }
            if found.scalars != expected.scalars {
                return Some(format!(
                    "scalars of tensor {tensor}: {:x?}, expected {:x?}",
                    found.scalars, expected.scalars
                ));
            }
        }
        (self != expected).then(|| format!("reports: {:?}, expected {:?}", self.reports, expected.reports))
    }
}

/// A vector whose type is a value.
enum Vector {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

/// Calls a closure's body with the vector in its own type.
macro_rules! in_its_type {
    ($vector:expr, $name:ident => $body:expr) => {
        match $vector {
            Vector::F32($name) => $body,
            Vector::F64($name) => $body,
            Vector::Bf16($name) => $body,
            Vector::F16($name) => $body,
        }
    };
}

fn rounded<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|value| T::rounded(*value)).collect()
}

impl Vector {
    fn new(element_type: ElementType, values: &[f64]) -> Self {
        match element_type {
            ElementType::F32 => Vector::F32(rounded(values)),
            ElementType::F64 => Vector::F64(rounded(values)),
            ElementType::Bf16 => Vector::Bf16(rounded(values)),
            ElementType::F16 => Vector::F16(rounded(values)),
        }
    }

    fn bytes(&self) -> &[u8] {
        in_its_type!(self, vector => bytemuck::cast_slice(vector))
    }

    fn tensor<'a>(&'a mut self, name: &'a str, gradient: &'a Vector) -> Tensor<'a> {
        match (self, gradient) {
            (Vector::F32(parameters), Vector::F32(gradient)) => Tensor::new(name, parameters, gradient),
            (Vector::F64(parameters), Vector::F64(gradient)) => Tensor::new(name, parameters, gradient),
            (Vector::Bf16(parameters), Vector::Bf16(gradient)) => Tensor::new(name, parameters, gradient),
            (Vector::F16(parameters), Vector::F16(gradient)) => Tensor::new(name, parameters, gradient),
            _ => unreachable!("both are of the tensor's type"),
        }
    }

    fn with_copy<'a>(&'a mut self, tensor: Tensor<'a>) -> Tensor<'a> {
        match self {
            Vector::Bf16(copy) => tensor.with_bf16_copy(copy),
            Vector::F16(copy) => tensor.with_f16_copy(copy),
            _ => tensor,
        }
    }
}

/// The model on the scalar backend.
pub fn on_scalar(model: &Model) -> Trace {
    let Model { noise, policy, details, scaling, .. } = *model;
    let config = Config { noise, policy, details, scaling, backend: Backend::scalar(), ..Config::default() };
    let mut optimizer = Optimizer::new(config).unwrap();
    let groups: Vec<_> =
        model.settings.iter().map(|settings| optimizer.add_group_with(settings.0, settings.1).unwrap()).collect();
    let count = model.shapes.len();
    let names: Vec<String> = (0..count).map(Model::name).collect();
    for (name, shape) in names.iter().zip(&model.shapes) {
        optimizer.add_tensor(name, shape.length, shape.parameters, shape.state, groups[shape.group]).unwrap();
    }
    let mut parameters: Vec<Vector> = (0..count).map(|tensor| model.parameters(tensor)).collect();
    let mut copies: Vec<Option<Vector>> =
        model.shapes.iter().map(|shape| Some(Vector::new(shape.copy?, &vec![0.0; shape.length]))).collect();
    let mut trace = Trace::default();
    for step in 0..model.steps {
        let gradients: Vec<Vector> = (0..count).map(|tensor| model.gradient(tensor, step)).collect();
        let mut tensors: Vec<Tensor> = names
            .iter()
            .zip(&mut parameters)
            .zip(&gradients)
            .zip(&mut copies)
            .map(|(((name, parameters), gradient), copy)| {
                let tensor = parameters.tensor(name, gradient);
                match copy {
                    Some(copy) => copy.with_copy(tensor),
                    None => tensor,
                }
            })
            .collect();
        let mut loss = (model.loss)(step);
        if let Some(numbers) = model.numbers {
            let Numbers { learning_rate, scale, found_infinite } = numbers(step);
            optimizer.set_learning_rate(groups[0], learning_rate).unwrap();
            optimizer.set_scaling(Scaling { factor: scaling.factor / scale, ..scaling }).unwrap();
            if found_infinite != 0.0 {
                loss.mean = f64::NAN;
            }
        }
        let report = optimizer.step(loss, &mut tensors).unwrap();
        trace.reports.push((report, report.noise.to_bits()));
        // Without `Config::details` too, and then without norms.
        trace.details.push(tensors.iter().map(|tensor| report_bits(&tensor.report())).collect());
    }
    for (tensor, name) in names.iter().enumerate() {
        let state = optimizer.state(name).unwrap();
        let [v, h] = state.bytes().map(<[u8]>::to_vec);
        trace.tensors.push(TensorTrace {
            parameters: parameters[tensor].bytes().to_vec(),
            v,
            h,
            copy: copies[tensor].as_ref().map_or(Vec::new(), |copy| copy.bytes().to_vec()),
            scalars: scalar_bits(&state.scalars()),
        });
    }
    trace
}

/// The model on the device, in groups of at most that many bytes; and the groups. Each step is checked to be three
/// launches for each of them, and no wait.
pub fn on_device(model: &Model, machine: &Machine, group_bytes: usize) -> (Trace, usize) {
    let Model { noise, policy, details, scaling, .. } = *model;
    let recorder = model.captured.then(|| machine.recorder());
    let mut graph = None;
    let stream = recorder.as_ref().map_or(Stream::DEFAULT, Recorder::stream);
    let config = cuda::Config { noise, policy, details, group_bytes: Some(group_bytes) };
    let mut optimizer = cuda::Optimizer::new(machine.driver.clone(), config).unwrap();
    let groups: Vec<_> =
        model.settings.iter().map(|settings| optimizer.add_group_with(settings.0, settings.1).unwrap()).collect();
    let driver = &*machine.driver;
    let count = model.shapes.len();
    let names: Vec<String> = (0..count).map(Model::name).collect();
    let area = |tensor: usize, bytes: &[u8], size: usize| {
        Area::new(&machine.driver, bytes, size * model.shapes[tensor].offset)
    };
    let filled = |tensor: usize, vector: Vector| area(tensor, vector.bytes(), model.shapes[tensor].parameters.size());
    let parameters: Vec<Area> = (0..count).map(|tensor| filled(tensor, model.parameters(tensor))).collect();
    let gradients: Vec<Area> = (0..count).map(|tensor| filled(tensor, model.gradient(tensor, 0))).collect();
    let copies: Vec<Option<Area>> = (0..count)
        .map(|tensor| model.shapes[tensor].copy.map(|_| area(tensor, &vec![0; 2 * model.shapes[tensor].length], 2)))
        .collect();
    // Every second one's state is in buffers of the test.
    let mut states: Vec<Option<[Area; 3]>> = Vec::new();
    for (tensor, shape) in model.shapes.iter().enumerate() {
        let Shape { length, parameters, state, group, .. } = *shape;
        let (name, group) = (&names[tensor], groups[group]);
        if tensor % 2 == 0 {
            optimizer.add_tensor(name, length, parameters, state, group).unwrap();
            states.push(None);
            continue;
        }
        let size = state_element(parameters, state).size();
        let vector = || area(tensor, &vec![0; size * length], size);
        let areas = [vector(), vector(), area(tensor, &[0; 32], 8)];
        let [v, h, scalars] = areas.each_ref().map(Area::address);
        // SAFETY: they are the device's, of these lengths, and given back after the steps.
        let buffers = unsafe { StateBuffers::new(v, h, scalars) };
        optimizer.add_tensor_with_state(name, length, parameters, state, group, buffers).unwrap();
        states.push(Some(areas));
    }
    let tensors: Vec<cuda::Tensor> = (0..count)
        .map(|i| {
            let Shape { length, parameters: element_type, copy, .. } = model.shapes[i];
            let [parameters, gradient] = [&parameters[i], &gradients[i]].map(Area::address);
            // SAFETY: the buffers are the device's, of that length, and given back after the steps.
            unsafe {
                let tensor = cuda::Tensor::new(&names[i], element_type, length, parameters, gradient);
                match (copy, &copies[i]) {
                    (Some(ElementType::Bf16), Some(copy)) => tensor.with_bf16_copy(copy.address()),
                    (Some(_), Some(copy)) => tensor.with_f16_copy(copy.address()),
                    _ => tensor,
                }
            }
        })
        .collect();
    let calls: Vec<Vec<cuda::Tensor>> =
        (0..model.calls).map(|call| tensors.iter().skip(call).step_by(model.calls).cloned().collect()).collect();
    let numbers = driver.buffer(&[0; 40]);
    let [mean, second_moment, learning_rate, scale, found_infinite] = std::array::from_fn(|i| numbers + 8 * i as u64);
    let double = ElementType::F64;
    // SAFETY: the buffer is the device's, has all of them, and is given back after the steps.
    let (device_loss, rate, scaler) = unsafe {
        let scaler = DeviceScaler::new(double, Some(scale), Some(found_infinite));
        (DeviceLoss::new(double, mean, Some(second_moment)), DeviceLearningRate::new(double, learning_rate), scaler)
    };
    optimizer.set_scaling(scaling).unwrap();
    if model.numbers.is_some() {
        optimizer.set_device_learning_rate(groups[0], Some(rate)).unwrap();
        optimizer.set_device_scaler(Some(scaler)).unwrap();
    }
    let mut trace = Trace::default();
    for step in 0..model.steps {
        for (tensor, area) in gradients.iter().enumerate() {
            driver.set(area.address(), model.gradient(tensor, step).bytes());
        }
        let loss = (model.loss)(step);
        let Numbers { learning_rate, scale, found_infinite } = model
            .numbers
            .map_or(Numbers { learning_rate: 0.0, scale: 1.0, found_infinite: 0.0 }, |numbers| numbers(step));
        let all = [loss.mean, loss.second_moment, learning_rate, scale, found_infinite];
        driver.set(numbers, bytemuck::cast_slice(&all));
        let loss = if recorder.is_some() { device_loss.into() } else { StepLoss::from(loss) };
        let before = optimizer.counts();
        let mut put_on = |stream| {
            for tensors in &calls {
                optimizer.step(stream, loss, tensors).unwrap();
            }
        };
        match &recorder {
            Some(recorder) if step > 0 => {
                recorder.launch(graph.get_or_insert_with(|| recorder.capture(put_on)));
            }
            _ => put_on(stream),
        }
        let after = optimizer.counts();
        if step > 0 && calls.len() == 1 {
            let launches = 3 * optimizer.cache_groups() + if recorder.is_some() { count.div_ceil(255) } else { 0 };
            let steps = usize::from(step == 1 || recorder.is_none());
            assert_eq!(after.launches - before.launches, (launches * steps) as u64);
            assert_eq!(after.waits, before.waits);
        }
        let report = optimizer.report(stream).unwrap();
        trace.reports.push((report, report.noise.to_bits()));
        trace.details.push(optimizer.details(stream).unwrap().iter().map(report_bits).collect());
    }
    for (tensor, name) in names.iter().enumerate() {
        let state = optimizer.state(stream, name).unwrap();
        if let Some([v, h, _]) = &states[tensor] {
            assert_eq!((v.bytes(), h.bytes()), (state.v.clone(), state.h.clone()));
        }
        trace.tensors.push(TensorTrace {
            parameters: parameters[tensor].bytes(),
            v: state.v,
            h: state.h,
            copy: copies[tensor].as_ref().map_or(Vec::new(), Area::bytes),
            scalars: scalar_bits(&state.scalars),
        });
        assert!(gradients[tensor].bytes() == model.gradient(tensor, model.steps - 1).bytes(), "a gradient was written");
    }
    // SAFETY: it came from `buffer`, and is used no more.
    unsafe { driver.free(numbers) };
    (trace, optimizer.cache_groups())
}
