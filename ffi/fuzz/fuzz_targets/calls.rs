//! Random calls of the C functions, each made twice: on the scalar backend, and on another one. Both have to come to
//! the same status and the same bits; an error has to leave everything as it was; what a report counts has to add up.
#![no_main]

mod bytes;
mod kernel;

use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use bytes::{Buffer, Bytes, are_bf16, elements, sizes, vectors_of};
use koala::*;
use libfuzzer_sys::fuzz_target;

/// A number as one of C's enums, whichever it is.
pub fn any<T>(number: i32) -> MaybeUninit<T> {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: of the same size, and any bits are a `MaybeUninit`; the enums are aligned as numbers are.
    unsafe { (&raw const number).cast::<MaybeUninit<T>>().read() }
}

/// The bytes of a struct that has no padding.
pub fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: the library's structs have no padding.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

pub fn is_ok(status: koala_status) -> bool {
    assert!(!matches!(status, koala_status::Panic | koala_status::Poisoned | koala_status::Threads), "{status:?}");
    status == koala_status::Ok
}

pub fn settings(bytes: &mut Bytes) -> koala_settings {
    koala_settings {
        size: size_of::<koala_settings>() + usize::from(bytes.rarely()),
        learning_rate: bytes.real(),
        weight_decay: if bytes.flag() { 0.0 } else { bytes.real() },
        initial_variance: bytes.real(),
        process_noise: bytes.real(),
        variant: any(bytes.choice(3)),
        frozen: bytes.rarely().into(),
        prior_variance: if bytes.flag() { 0.0 } else { bytes.real() },
    }
}

/// Whether two structs of 8-byte members have the same bits.
pub fn same<T>(left: &T, right: &T) -> bool {
    elements(bytes_of(left), 8, false) == elements(bytes_of(right), 8, false)
}

/// What the counts of a report are, of all tensors, `count` in number.
pub fn check_counts(report: &koala_report, reports: &[koala_tensor_report]) {
    let kept = report.skipped + report.frozen + report.non_finite + report.breakdowns + report.withheld;
    assert_eq!(report.stepped + kept, reports.len() as u64);
    let outcomes = reports.iter().map(|report| {
        // SAFETY: the library has written it.
        unsafe { report.outcome.assume_init() }
    });
    assert_eq!(report.restarts, outcomes.filter(|outcome| *outcome == koala_outcome::Restarted).count() as u64);
    assert!(report.first_steps + report.restarts <= report.stepped);
}

pub fn no_report() -> koala_tensor_report {
    // SAFETY: any bytes are one.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub fn empty_report() -> koala_report {
    // SAFETY: any bytes are one.
    koala_report { size: size_of::<koala_report>(), ..unsafe { MaybeUninit::zeroed().assume_init() } }
}

/// A tensor of both optimizers, each with parameters of its own.
struct Tensor {
    length: usize,
    r#type: i32,
    state_type: i32,
    parameters: [Buffer; 2],
    copies: [Buffer; 2],
    gradient: Buffer,
}

/// Two optimizers that are told the same.
struct Pair {
    optimizers: [*mut koala_optimizer; 2],
    tensors: Vec<Tensor>,
    groups: usize,
}

impl Pair {
    fn new(bytes: &mut Bytes) -> Option<Self> {
        let method = bytes.method();
        let mut config = koala_config {
            size: size_of::<koala_config>(),
            method: if bytes.flag() { null() } else { &raw const method },
            gradient_factor: bytes.mostly_one(),
            gradient_limit: bytes.mostly_infinite(),
            clip_norm: bytes.mostly_infinite(),
            initial_noise: bytes.real(),
            noise_decay: if bytes.rarely() { bytes.real() } else { 0.9 },
            noise: any(bytes.choice(2)),
            backend: any(koala_backend::Scalar as i32),
            on_non_finite: any(bytes.choice(4)),
            on_breakdown: any(bytes.choice(3)),
            threads: 1,
            norms: bytes.flag().into(),
        };
        let mut optimizers = [null_mut(); 2];
        // SAFETY: the pointers are this function's own.
        unsafe {
            let first = koala_optimizer_create(&config, &mut optimizers[0]);
            config.backend = any(present_backend(bytes));
            let second = koala_optimizer_create(&config, &mut optimizers[1]);
            assert_eq!(first, second);
            assert!(is_ok(first) != optimizers[0].is_null() && optimizers[0].is_null() == optimizers[1].is_null());
        }
        (!optimizers[0].is_null()).then_some(Pair { optimizers, tensors: Vec::new(), groups: 0 })
    }

    /// The same call on both, which has to come to the same. Says whether that is success.
    fn both(&self, call: impl FnMut(*mut koala_optimizer) -> koala_status) -> bool {
        let [first, second] = self.optimizers.map(call);
        assert_eq!(first, second);
        is_ok(first)
    }

    fn add_group(&mut self, bytes: &mut Bytes) {
        let settings = settings(bytes);
        let mut group = u32::MAX;
        let pointer = if bytes.flag() { null() } else { &raw const settings };
        // SAFETY: the pointers are this function's own; only one optimizer is called at a time.
        let added = self.both(|optimizer| unsafe { koala_optimizer_add_group(optimizer, pointer, &raw mut group) });
        assert_eq!(group, if added { self.groups as u32 } else { u32::MAX });
        self.groups += usize::from(added);
    }

    fn add_tensor(&mut self, bytes: &mut Bytes) {
        let (name, length, group) = (bytes.name(), bytes.below(301), bytes.below(self.groups + 1) as u32);
        let (r#type, state_type) = (bytes.choice(4), bytes.choice(3));
        let mut number = usize::MAX;
        let added = self.both(|optimizer| {
            // SAFETY: the pointers are this function's own.
            unsafe {
                let (r#type, state_type) = (any(r#type), any(state_type));
                koala_optimizer_add_tensor(optimizer, name.as_ptr(), length, r#type, state_type, group, &raw mut number)
            }
        });
        if !added {
            return assert_eq!(number, usize::MAX);
        }
        assert_eq!(number, self.tensors.len());
        let size = sizes(r#type, state_type).0;
        let mut parameters = Buffer::new(length, size);
        parameters.fill(length, size, r#type == koala_element_type::Bf16 as i32, bytes);
        let copies = [Buffer::new(length, 2), Buffer::new(length, 2)];
        let gradient = Buffer::new(length, size);
        self.tensors.push(Tensor {
            length,
            r#type,
            state_type,
            parameters: [parameters.clone(), parameters],
            copies,
            gradient,
        });
    }

    fn change_group(&mut self, bytes: &mut Bytes) {
        let (group, settings, rate) = (bytes.below(self.groups + 1) as u32, settings(bytes), bytes.real());
        // SAFETY: the pointers are this function's own.
        self.both(|optimizer| unsafe { koala_optimizer_set_settings(optimizer, group, &settings) });
        // SAFETY: as above.
        self.both(|optimizer| unsafe { koala_optimizer_set_learning_rate(optimizer, group, rate) });
        if bytes.flag() {
            let (factor, limit) = (bytes.mostly_one(), bytes.mostly_infinite());
            // SAFETY: as above.
            self.both(|optimizer| unsafe { koala_optimizer_set_scaling(optimizer, factor, limit) });
        }
    }

    fn step(&mut self, bytes: &mut Bytes) {
        let loss = koala_loss { mean: bytes.real(), second_moment: bytes.real() };
        // Some tensors, from one of them on; rarely one of them twice.
        let count = bytes.below(self.tensors.len() + 1);
        let first = bytes.below(self.tensors.len().max(1));
        let mut order: Vec<usize> = (0..count).map(|place| (first + place) % self.tensors.len()).collect();
        if bytes.rarely() && count > 1 {
            order[1] = order[0];
        }
        let (copy_type, wrong) = (bytes.choice(3), bytes.byte());
        for tensor in &mut self.tensors {
            let bf16 = tensor.r#type == koala_element_type::Bf16 as i32;
            tensor.gradient.fill(tensor.length, sizes(tensor.r#type, 0).0, bf16, bytes);
            // Of the type of this call alone.
            tensor.copies = [Buffer::new(tensor.length, 2), Buffer::new(tensor.length, 2)];
        }
        // What a step of KOALA-M needs, and others do nothing in.
        if bytes.byte() < 240 {
            let before = self.clone_memory();
            let state_before = self.state();
            let [first, second] = [0, 1].map(|side| {
                let given = self.given(side, &order, copy_type, wrong);
                // SAFETY: the buffers are as long as they are said to be, or longer.
                unsafe { koala_optimizer_predict(self.optimizers[side], given.as_ptr(), given.len()) }
            });
            assert_eq!(first, second);
            assert!(is_ok(first) || self.clone_memory() == before && self.state() == state_before);
            self.compare_sides(copy_type);
        }
        let before = self.clone_memory();
        let state_before = self.state();
        let mut results = [koala_status::Ok; 2];
        let mut reports = [vec![no_report(); count], vec![no_report(); count]];
        let mut sums = [empty_report(); 2];
        let (wants_reports, wants_sum) = (bytes.byte() < 200, bytes.byte() < 200);
        for side in 0..2 {
            let given = self.given(side, &order, copy_type, wrong);
            let reports = if wants_reports { reports[side].as_mut_ptr() } else { null_mut() };
            let sum = if wants_sum { &raw mut sums[side] } else { null_mut() };
            // SAFETY: the buffers are as long as they are said to be, or longer.
            results[side] = unsafe {
                koala_optimizer_step(self.optimizers[side], &loss, given.as_ptr(), given.len(), reports, sum)
            };
        }
        assert_eq!(results[0], results[1]);
        if is_ok(results[0]) {
            if wants_reports && wants_sum {
                check_counts(&sums[0], &reports[0]);
            }
        } else {
            assert!(reports[0].iter().all(|report| bytes_of(report) == bytes_of(&no_report())));
            assert!(bytes_of(&sums[0]) == bytes_of(&empty_report()));
            assert!(self.state() == state_before && self.clone_memory() == before);
        }
        sums[1].backend = sums[0].backend;
        assert!(same(&sums[0], &sums[1]));
        assert!(reports[0].iter().zip(&reports[1]).all(|(left, right)| same(left, right)));
        self.compare_sides(copy_type);
        self.state();
    }

    /// What a call on one of both is given; `wrong` says what is wrong with the last one.
    fn given(&mut self, side: usize, order: &[usize], copy_type: i32, wrong: u8) -> Vec<koala_parameters> {
        let given = order.iter().map(|&number| {
            let tensor = &mut self.tensors[number];
            koala_parameters {
                size: size_of::<koala_parameters>(),
                tensor: number,
                length: tensor.length,
                r#type: any(tensor.r#type),
                copy_type: any(copy_type),
                parameters: tensor.parameters[side].pointer(),
                gradient: tensor.gradient.pointer(),
                copy: tensor.copies[side].pointer(),
            }
        });
        let mut given: Vec<_> = given.collect();
        if let Some(last) = given.last_mut() {
            match wrong {
                0 => last.gradient = null(),
                1 => last.length /= 2,
                2 => last.tensor += 9,
                3 => last.copy = last.parameters,
                4 => last.parameters = last.parameters.wrapping_byte_add(1),
                5 => last.size -= 8,
                6 => last.r#type = any(7),
                _ => {}
            }
        }
        given
    }

    fn clone_memory(&self) -> Vec<[[Buffer; 2]; 2]> {
        self.tensors.iter().map(|tensor| [tensor.parameters.clone(), tensor.copies.clone()]).collect()
    }

    /// Whether both have the same parameters and copies.
    fn compare_sides(&self, copy_type: i32) {
        for Tensor { r#type, state_type, parameters, copies, .. } in &self.tensors {
            let ((size, _), [bf16, _]) = (sizes(*r#type, *state_type), are_bf16(*r#type, *state_type));
            let [first, second] = parameters.each_ref().map(|buffer| buffer.elements(size, bf16));
            assert!(first == second);
            let [first, second] =
                copies.each_ref().map(|buffer| buffer.elements(2, copy_type == koala_copy_type::Bf16 as i32));
            assert!(first == second);
        }
    }

    /// R, method, scalars, v and h, which both have to have alike.
    fn state(&self) -> Vec<u64> {
        let [first, second] = self.optimizers.map(|optimizer| {
            let (mut noise, mut count) = (0.0_f64, 0);
            // SAFETY: the pointers are this function's own.
            let status = unsafe { koala_optimizer_noise(optimizer, &mut noise) };
            assert!(is_ok(status));
            // SAFETY: any bytes are one.
            let mut method: koala_method = unsafe { MaybeUninit::zeroed().assume_init() };
            method.size = size_of::<koala_method>();
            // SAFETY: as above.
            assert!(is_ok(unsafe { koala_optimizer_method(optimizer, &mut method) }));
            let [has_v, has_h] = vectors_of(&method);
            let mut all = elements(bytes_of(&method), 8, false);
            all.push(noise.to_bits());
            // SAFETY: as above.
            let status = unsafe { koala_optimizer_tensor_count(optimizer, &mut count) };
            assert!(is_ok(status) && count == self.tensors.len());
            for (number, tensor) in self.tensors.iter().enumerate() {
                let (_, size) = sizes(tensor.r#type, tensor.state_type);
                let [_, bf16] = are_bf16(tensor.r#type, tensor.state_type);
                let (mut v, mut h) = (vec![0_u8; tensor.length * size], vec![0_u8; tensor.length * size]);
                let mut scalars = koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 };
                // SAFETY: the buffers are as long as they are said to be.
                unsafe {
                    assert!(is_ok(koala_optimizer_scalars(optimizer, number, &mut scalars)));
                    let [v, h] = [(has_v, &mut v), (has_h, &mut h)]
                        .map(|(there, vector)| if there { vector.as_mut_ptr().cast() } else { null_mut() });
                    assert!(is_ok(koala_optimizer_state(optimizer, number, v, h, tensor.length * size)));
                }
                all.extend(elements(bytes_of(&scalars), 8, false));
                all.extend([v, h].iter().flat_map(|vector| elements(vector, size, bf16)));
            }
            all
        });
        assert!(first == second);
        first
    }

    fn ask(&self, bytes: &mut Bytes) {
        let (name, number) = (bytes.name(), bytes.below(self.tensors.len() + 1));
        let mut found = usize::MAX;
        // SAFETY: the pointers are this function's own.
        self.both(|optimizer| unsafe { koala_optimizer_find_tensor(optimizer, name.as_ptr(), &raw mut found) });
        assert!(found == usize::MAX || found < self.tensors.len());
        let (mut text, capacity) = ([0; 32], bytes.below(33));
        // SAFETY: the buffer has at least that capacity.
        self.both(|optimizer| unsafe {
            koala_optimizer_tensor_name(optimizer, number, (&raw mut text).cast(), capacity, null_mut())
        });
        if bytes.flag() {
            // SAFETY: the optimizers are this pair's own.
            self.both(|optimizer| unsafe { koala_optimizer_restart(optimizer, number) });
        }
        self.state();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: they are this pair's own.
        self.both(|optimizer| unsafe { koala_optimizer_destroy(optimizer) });
    }
}

/// A backend that this processor has.
pub fn present_backend(bytes: &mut Bytes) -> i32 {
    let backend = bytes.below(6) as i32;
    // SAFETY: any bytes are one; the size is set.
    let mut info: koala_backend_info = unsafe { MaybeUninit::zeroed().assume_init() };
    info.size = size_of::<koala_backend_info>();
    // SAFETY: the pointer is this function's own.
    assert!(is_ok(unsafe { koala_backend_describe(any(backend), &mut info) }));
    if info.present == 1 { backend } else { koala_backend::Portable as i32 }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let mut pair = None;
    while !bytes.0.is_empty() {
        match (bytes.byte() % 16, &mut pair) {
            (0, _) | (_, None) => pair = Pair::new(&mut bytes),
            (1, Some(pair)) => pair.add_group(&mut bytes),
            (2..5, Some(pair)) => pair.add_tensor(&mut bytes),
            (5, Some(pair)) => pair.change_group(&mut bytes),
            (6, Some(pair)) => pair.ask(&mut bytes),
            (7..12, Some(pair)) => pair.step(&mut bytes),
            (_, Some(_)) => kernel::step(&mut bytes),
        }
    }
});
