//! The functions of `koala_cuda`, on a driver of our own (`backends/cuda/shim/libcuda.cpp`, which runs the kernels on
//! this processor): the same bits as `koala_optimizer`. Needs g++ and Linux.
#![cfg(target_os = "linux")]

#[path = "../../tests/common/compiled.rs"]
mod compiled;
#[path = "../../tests/common/counting.rs"]
mod counting;

use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use compiled::{DRIVER, compiled};
use koala::*;
use koala_optim::cuda::{Device, Driver, Stream};
use koala_optim::{ElementType, StateType, bf16, f16};

/// A tensor of the test: its elements, its types, and whether its filter is in the test's own memory.
struct Shape {
    length: usize,
    element_type: koala_element_type,
    state_type: koala_state_type,
    copy_type: koala_copy_type,
    own_state: bool,
}

const SHAPES: [Shape; 5] = [
    shape(1500, koala_element_type::F32, koala_state_type::Same, koala_copy_type::None, true),
    shape(2049, koala_element_type::Bf16, koala_state_type::F32, koala_copy_type::None, false),
    shape(0, koala_element_type::F32, koala_state_type::Same, koala_copy_type::None, false),
    shape(77, koala_element_type::F64, koala_state_type::Same, koala_copy_type::F16, false),
    shape(300, koala_element_type::F16, koala_state_type::Bf16, koala_copy_type::Bf16, true),
];
const STEPS: usize = 8;
/// What divides the tensors into two groups for the cache.
const GROUP_BYTES: usize = 30_000;
const GROUPS: u64 = 2;

const fn shape(
    length: usize,
    element_type: koala_element_type,
    state_type: koala_state_type,
    copy_type: koala_copy_type,
    own_state: bool,
) -> Shape {
    Shape { length, element_type, state_type, copy_type, own_state }
}

impl Shape {
    fn element_type(&self) -> ElementType {
        self.element_type.into()
    }

    fn state_bytes(&self) -> usize {
        self.length * StateType::from(self.state_type).beside(self.element_type()).size()
    }

    /// Elements between -0.5 and 0.5, in memory that is aligned for any type.
    fn elements(&self, seed: usize) -> Vec<u64> {
        let value = |i: usize| ((i * (31 + 2 * seed) + seed) % 97) as f64 / 97.0 - 0.5;
        let bytes: Vec<u8> = (0..self.length)
            .flat_map(|i| match self.element_type() {
                ElementType::F32 => (value(i) as f32).to_ne_bytes().to_vec(),
                ElementType::F64 => value(i).to_ne_bytes().to_vec(),
                ElementType::Bf16 => bf16::from_f64(value(i)).to_ne_bytes().to_vec(),
                ElementType::F16 => f16::from_f64(value(i)).to_ne_bytes().to_vec(),
            })
            .collect();
        let mut words = zeros(bytes.len());
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        words
    }
}

/// Memory of at least that many bytes, and of some.
fn zeros(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(8).max(1)]
}

fn name(tensor: usize) -> CString {
    CString::new(format!("tensor {tensor}")).unwrap()
}

fn settings(learning_rate: f64, weight_decay: f64) -> koala_settings {
    koala_settings { learning_rate, weight_decay, ..Default::default() }
}

fn last_error() -> String {
    let mut text = [0_u8; 512];
    // SAFETY: the buffer has that capacity.
    unsafe { koala_last_error(text.as_mut_ptr().cast(), text.len(), null_mut()) };
    String::from_utf8_lossy(&text).into_owned()
}

fn ok(status: koala_status) {
    assert_eq!(status, koala_status::Ok, "{}", last_error());
}

/// Memory of the fake device.
struct Memory(Device);

impl Memory {
    fn holding(&self, words: &[u64]) -> *mut c_void {
        let address = self.0.allocate(size_of_val(words)).unwrap();
        self.set(std::ptr::with_exposed_provenance_mut(address as usize), words);
        std::ptr::with_exposed_provenance_mut(address as usize)
    }

    fn set(&self, place: *mut c_void, words: &[u64]) {
        // SAFETY: it was allocated with that size.
        unsafe { self.0.upload(Stream::DEFAULT, bytemuck::cast_slice(words), place.addr() as u64).unwrap() };
    }

    fn get(&self, place: *mut c_void, bytes: usize) -> Vec<u8> {
        let mut found = vec![0; bytes];
        if bytes > 0 {
            // SAFETY: it was allocated with at least that size.
            unsafe { self.0.download(Stream::DEFAULT, place.addr() as u64, &mut found).unwrap() };
        }
        found
    }
}

fn bytes_of(words: &[u64], bytes: usize) -> &[u8] {
    &bytemuck::cast_slice(words)[..bytes]
}

/// All of a report but the backend.
fn numbers(report: &koala_report) -> [u64; 10] {
    let koala_report { step, noise, stepped, first_steps, restarts, skipped, frozen, non_finite, .. } = *report;
    let koala_report { breakdowns, withheld, .. } = *report;
    [step, noise.to_bits(), stepped, first_steps, restarts, skipped, frozen, non_finite, breakdowns, withheld]
}

fn scalar_bits(scalars: &koala_scalars) -> [u64; 4] {
    [scalars.h_h, scalars.h_v, scalars.innovation_variance, scalars.steps].map(f64::to_bits)
}

#[test]
fn the_processors_bits() {
    let options = ["-Wl,-soname,libcuda.so"];
    let Some(stub) = compiled("koala-c-driver", &DRIVER, &options) else { return };
    let memory = Memory(Device::new(0).unwrap());
    // SAFETY: pointers lead to what the functions' documentation says, here and below.
    unsafe { compare(&memory) };
    // SAFETY: the function has this type in libcuda.cpp.
    let mistakes = unsafe { stub.get::<unsafe extern "C" fn() -> i32>(b"stub_mistakes").unwrap()() };
    assert_eq!(mistakes, 0);
}

unsafe fn compare(memory: &Memory) {
    let config = koala_config { backend: MaybeUninit::new(koala_backend::Scalar), norms: 1, ..Default::default() };
    let (mut cpu, mut cuda) = (null_mut(), null_mut());
    let mut group = 0;
    // SAFETY: by the caller's word, here and below.
    unsafe {
        ok(koala_optimizer_create(&config, &mut cpu));
        ok(koala_cuda_create(&config, 0, GROUP_BYTES, &mut cuda));
        for settings in [settings(1.0, 0.01), settings(0.5, 0.0)] {
            ok(koala_optimizer_add_group(cpu, &settings, &mut group));
            ok(koala_cuda_add_group(cuda, &settings, &mut group));
        }
    }
    let mut own_states = Vec::new();
    for (i, shape) in SHAPES.iter().enumerate() {
        let (types, group) = ((MaybeUninit::new(shape.element_type), MaybeUninit::new(shape.state_type)), i as u32 % 2);
        let state = shape.own_state.then(|| koala_cuda_state {
            size: size_of::<koala_cuda_state>(),
            v: memory.holding(&zeros(shape.state_bytes())),
            h: memory.holding(&zeros(shape.state_bytes())),
            scalars: memory.holding(&zeros(32)).cast(),
        });
        let (mut number, pointer) = (usize::MAX, state.as_ref().map_or(null(), std::ptr::from_ref));
        // SAFETY: as above.
        unsafe {
            ok(koala_optimizer_add_tensor(cpu, name(i).as_ptr(), shape.length, types.0, types.1, group, null_mut()));
            let name = name(i);
            ok(koala_cuda_add_tensor(cuda, name.as_ptr(), shape.length, types.0, types.1, group, pointer, &mut number));
        }
        assert_eq!(number, i);
        own_states.push(state);
    }
    let mut parameters: Vec<Vec<u64>> = SHAPES.iter().map(|shape| shape.elements(1)).collect();
    let mut copies: Vec<Vec<u64>> = SHAPES.iter().map(|shape| zeros(2 * shape.length)).collect();
    let on_device: Vec<_> = parameters.iter().map(|words| memory.holding(words)).collect();
    let gradients_on_device: Vec<_> = parameters.iter().map(|words| memory.holding(words)).collect();
    let copies_on_device: Vec<_> = copies.iter().map(|words| memory.holding(words)).collect();
    let given = |i: usize, parameters, gradient, copy| koala_parameters {
        size: size_of::<koala_parameters>(),
        tensor: i,
        length: SHAPES[i].length,
        r#type: MaybeUninit::new(SHAPES[i].element_type),
        copy_type: MaybeUninit::new(SHAPES[i].copy_type),
        parameters,
        gradient,
        copy,
    };
    let device_losses = [memory.holding(&[0]), memory.holding(&[0])];
    // Two f32: what the loss is multiplied by, and whether something was infinite.
    let scaler = memory.holding(&[0]);
    let device_rate = memory.holding(&[0]);
    let [single, double] = [koala_element_type::F32, koala_element_type::F64].map(MaybeUninit::new);

    let mut before = koala_cuda_counts { size: size_of::<koala_cuda_counts>(), steps: 0, launches: 0, waits: 0 };
    for step in 0..STEPS {
        let gradients: Vec<_> = SHAPES.iter().map(|shape| shape.elements(2 + step)).collect();
        gradients_on_device.iter().zip(&gradients).for_each(|(place, words)| memory.set(*place, words));
        let loss = koala_loss { mean: 0.7 / (step + 1) as f64, second_moment: 0.6 / (step + 1) as f64 };
        // A step in which something was infinite is one whose loss is no number.
        let infinite = step == 6;
        let cpu_loss = koala_loss { mean: if infinite { f64::NAN } else { loss.mean }, ..loss };
        let flag = if infinite { 1.0_f32 } else { 0.0 };
        memory.set(scaler, &[u64::from(1024.0_f32.to_bits()) | u64::from(flag.to_bits()) << 32]);
        memory.set(device_losses[0], &[loss.mean.to_bits()]);
        memory.set(device_losses[1], &[loss.second_moment.to_bits()]);
        let on_cpu: Vec<_> = (0..SHAPES.len())
            .map(|i| {
                let [place, copy] = [&mut parameters[i], &mut copies[i]].map(|words| words.as_mut_ptr().cast());
                given(i, place, gradients[i].as_ptr().cast(), copy)
            })
            .collect();
        let on_cuda: Vec<_> =
            (0..SHAPES.len()).map(|i| given(i, on_device[i], gradients_on_device[i], copies_on_device[i])).collect();
        let changed = step == 4;
        let empty = koala_report {
            size: size_of::<koala_report>(),
            // SAFETY: plain numbers.
            ..unsafe { MaybeUninit::zeroed().assume_init() }
        };
        let (mut report, mut cuda_report) = (empty, empty);
        let mut after = before;
        // SAFETY: as above.
        let (mut details, mut cuda_details) = unsafe {
            if changed {
                ok(koala_optimizer_set_learning_rate(cpu, 0, 0.25));
                ok(koala_cuda_set_learning_rate(cuda, 0, 0.25));
                let variant = MaybeUninit::new(koala_variant::Definite);
                let definite = koala_settings { variant, prior_variance: 0.25, ..settings(0.125, 0.5) };
                ok(koala_optimizer_set_settings(cpu, 1, &definite));
                ok(koala_cuda_set_settings(cuda, 1, &definite));
                ok(koala_optimizer_restart(cpu, 1));
                ok(koala_cuda_restart(cuda, 1));
                ok(koala_cuda_write_changes(cuda, null_mut()));
            }
            // The same factor, and later the same learning rate, which the device alone knows.
            if step == 1 {
                ok(koala_optimizer_set_scaling(cpu, 0.25 / 1024.0, 1e-4));
                ok(koala_cuda_set_scaling(cuda, 0.25, 1e-4));
                ok(koala_cuda_set_device_scaler(cuda, single, scaler, scaler.byte_add(4)));
            }
            if step == 5 {
                ok(koala_optimizer_set_learning_rate(cpu, 0, 0.375));
                ok(koala_cuda_set_device_learning_rate(cuda, 0, double, device_rate));
                memory.set(device_rate, &[0.375_f64.to_bits()]);
                ok(koala_cuda_write_changes(cuda, null_mut()));
            }
            let zeroed = || vec![MaybeUninit::<koala_tensor_report>::zeroed().assume_init(); SHAPES.len()];
            (zeroed(), zeroed())
        };
        let count = SHAPES.len();
        // SAFETY: as above.
        unsafe {
            ok(koala_optimizer_step(cpu, &cpu_loss, on_cpu.as_ptr(), count, details.as_mut_ptr(), &mut report));
            ok(koala_cuda_count(cuda, &mut before));
            let allocations = counting::allocations();
            match step % 2 {
                0 => ok(koala_cuda_step(cuda, null_mut(), &loss, on_cuda.as_ptr(), count)),
                _ => {
                    let [mean, second_moment] = device_losses;
                    let tensors = on_cuda.as_ptr();
                    ok(koala_cuda_step_device_loss(cuda, null_mut(), double, mean, second_moment, tensors, count));
                }
            }
            // The first one describes the tensors.
            assert!(step == 0 || counting::allocations() == allocations);
            ok(koala_cuda_count(cuda, &mut after));
            ok(koala_cuda_report(cuda, null_mut(), &mut cuda_report));
            ok(koala_cuda_details(cuda, null_mut(), cuda_details.as_mut_ptr(), count));
        }
        if step > 0 {
            assert_eq!((after.steps - before.steps, after.waits - before.waits), (1, 0));
            assert_eq!(after.launches - before.launches, 3 * GROUPS);
        }
        assert_eq!(numbers(&cuda_report), numbers(&report));
        let bits = |report: &koala_tensor_report| {
            let koala_tensor_report { innovation_variance, alpha, lambda, w, .. } = *report;
            let koala_tensor_report { gradient_norm, measurement_norm, parameters_norm, .. } = *report;
            [innovation_variance, alpha, lambda, w, gradient_norm, measurement_norm, parameters_norm].map(f64::to_bits)
        };
        for (found, expected) in cuda_details.iter().zip(&details) {
            // SAFETY: the functions have filled them.
            assert_eq!(unsafe { (found.outcome.assume_init(), expected.outcome.assume_init()) }, unsafe {
                (expected.outcome.assume_init(), expected.outcome.assume_init())
            });
            assert_eq!(bits(found), bits(expected));
        }
    }
    // Numbers within what a step writes are refused, and nothing is done; within a gradient they may be.
    let on_cuda: Vec<_> =
        (0..SHAPES.len()).map(|i| given(i, on_device[i], gradients_on_device[i], copies_on_device[i])).collect();
    // SAFETY: as above.
    unsafe {
        let refuses = |name: &str| {
            let prepared = koala_cuda_prepare(cuda, null_mut(), on_cuda.as_ptr(), SHAPES.len());
            assert_eq!((prepared, last_error().contains(name)), (koala_status::Overlap, true), "{}", last_error());
        };
        ok(koala_cuda_set_device_scaler(cuda, single, on_device[0], gradients_on_device[0]));
        refuses("the scale and parameters of tensor \"tensor 0\"");
        ok(koala_cuda_set_device_scaler(cuda, single, gradients_on_device[0], copies_on_device[3]));
        refuses("found_infinite and copy of tensor \"tensor 3\"");
        ok(koala_cuda_set_device_scaler(cuda, single, gradients_on_device[0], null()));
        ok(koala_cuda_set_device_learning_rate(cuda, 1, single, own_states[0].as_ref().unwrap().v));
        refuses("a learning rate and v of tensor \"tensor 0\"");
        ok(koala_cuda_set_learning_rate(cuda, 1, 0.5));
        ok(koala_cuda_prepare(cuda, null_mut(), on_cuda.as_ptr(), SHAPES.len()));
    }
    for (i, shape) in SHAPES.iter().enumerate() {
        let bytes = shape.length * shape.element_type().size();
        assert_eq!(memory.get(on_device[i], bytes), bytes_of(&parameters[i], bytes), "tensor {i}");
        if shape.copy_type != koala_copy_type::None {
            let copied = 2 * shape.length;
            assert_eq!(memory.get(copies_on_device[i], copied), bytes_of(&copies[i], copied), "tensor {i}");
        }
        let bytes = shape.state_bytes();
        let [mut v, mut h, mut cuda_v, mut cuda_h] = [(); 4].map(|()| zeros(bytes));
        let nothing = koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 };
        let (mut scalars, mut cuda_scalars) = (nothing, nothing);
        // SAFETY: as above.
        unsafe {
            ok(koala_optimizer_state(cpu, i, v.as_mut_ptr().cast(), h.as_mut_ptr().cast(), bytes));
            ok(koala_optimizer_scalars(cpu, i, &mut scalars));
            let [v, h] = [&mut cuda_v, &mut cuda_h].map(|words| words.as_mut_ptr().cast());
            ok(koala_cuda_read_state(cuda, null_mut(), i, v, h, bytes, &mut cuda_scalars));
        }
        assert_eq!((&cuda_v, &cuda_h), (&v, &h), "tensor {i}");
        assert_eq!(scalar_bits(&cuda_scalars), scalar_bits(&scalars));
        if let Some(state) = &own_states[i] {
            assert_eq!(memory.get(state.v, bytes), bytes_of(&v, bytes));
            assert_eq!(memory.get(state.h, bytes), bytes_of(&h, bytes));
            let doubles = [scalars.h_h, scalars.h_v, scalars.innovation_variance, scalars.steps];
            assert_eq!(memory.get(state.scalars.cast(), 32), bytemuck::cast_slice::<f64, u8>(&doubles));
        }
    }
    // SAFETY: as above.
    unsafe {
        ok(koala_optimizer_destroy(cpu));
        ok(koala_cuda_destroy(cuda));
        ok(koala_cuda_destroy(null_mut()));
    }
}
