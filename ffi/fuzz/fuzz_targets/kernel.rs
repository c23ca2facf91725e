//! Steps of tensors that need no optimizer, by any method: one by one, all at once, in two halves, which have to agree
//! about every bit.

use std::ptr::{null, null_mut};

use koala::*;

use crate::bytes::{Buffer, Bytes, are_bf16, sizes};
use crate::{any, bytes_of, check_counts, empty_report, is_ok, no_report, present_backend, same, settings};

/// A tensor's memory.
#[derive(Clone)]
struct Tensor {
    description: koala_tensor,
    /// The sizes of an element of the parameters and of one of the state, and whether they are bfloat16.
    elements: [(usize, bool); 2],
    is_copy_bf16: bool,
    parameters: Buffer,
    gradient: Buffer,
    v: Buffer,
    h: Buffer,
    copy: Buffer,
    scalars: koala_scalars,
}

impl Tensor {
    fn new(bytes: &mut Bytes) -> Self {
        let (r#type, state_type, length) = (bytes.choice(4), bytes.choice(3), bytes.below(301));
        let copy_type = bytes.choice(3);
        let (size, state_size) = sizes(r#type, state_type);
        let [bf16, state_bf16] = are_bf16(r#type, state_type);
        let buffer = |size: usize, bf16: bool, bytes: &mut Bytes| {
            let mut buffer = Buffer::new(length, size);
            buffer.fill(length, size, bf16, bytes);
            buffer
        };
        let stepped = bytes.flag();
        let scalar = |bytes: &mut Bytes| if stepped { bytes.real() } else { 0.0 };
        Tensor {
            description: koala_tensor {
                size: size_of::<koala_tensor>(),
                length,
                r#type: any(r#type),
                state_type: any(state_type),
                copy_type: any(copy_type),
                group: bytes.below(2) as u32,
                exchange: bytes.rarely().into(),
                reserved: 0,
                parameters: null_mut(),
                gradient: null(),
                v: null_mut(),
                h: null_mut(),
                copy: null_mut(),
                scalars: null_mut(),
            },
            elements: [(size, bf16), (state_size, state_bf16)],
            is_copy_bf16: copy_type == koala_copy_type::Bf16 as i32,
            parameters: buffer(size, bf16, bytes),
            gradient: buffer(size, bf16, bytes),
            v: buffer(state_size, state_bf16, bytes),
            h: buffer(state_size, state_bf16, bytes),
            copy: Buffer::new(length, 2),
            scalars: koala_scalars {
                h_h: scalar(bytes),
                h_v: scalar(bytes),
                innovation_variance: scalar(bytes),
                steps: if stepped { f64::from(bytes.byte()) } else { 0.0 },
            },
        }
    }

    /// What the functions take.
    fn describe(&mut self) -> koala_tensor {
        koala_tensor {
            parameters: self.parameters.pointer(),
            gradient: self.gradient.pointer(),
            v: self.v.pointer(),
            h: self.h.pointer(),
            copy: self.copy.pointer(),
            scalars: &mut self.scalars,
            ..self.description
        }
    }

    /// Undoes an exchange.
    fn take_back(&mut self, described: &koala_tensor) {
        if described.h != self.h.pointer() {
            std::mem::swap(&mut self.h, &mut self.gradient);
        }
    }

    fn equals(&self, other: &Self, with_gradient: bool) -> bool {
        let same_elements = |of: fn(&Self) -> &Buffer, (size, bf16): (usize, bool)| {
            of(self).elements(size, bf16) == of(other).elements(size, bf16)
        };
        let [of_parameters, of_state] = self.elements;
        same_elements(|tensor| &tensor.parameters, of_parameters)
            && same_elements(|tensor| &tensor.v, of_state)
            && same_elements(|tensor| &tensor.h, of_state)
            && same_elements(|tensor| &tensor.copy, (2, self.is_copy_bf16))
            && same(&self.scalars, &other.scalars)
            && (!with_gradient || same_elements(|tensor| &tensor.gradient, of_parameters))
    }
}

/// What a way of stepping came to.
struct Result {
    status: koala_status,
    tensors: Vec<Tensor>,
    reports: Vec<koala_tensor_report>,
    report: koala_report,
}

/// Steps tensors in one of three ways: 0: one by one, 1: all at once, 2: in two halves.
fn in_a_way(way: usize, step: &koala_step, tensors: &[Tensor]) -> Result {
    let (mut tensors, count) = (tensors.to_vec(), tensors.len());
    let mut described: Vec<koala_tensor> = tensors.iter_mut().map(Tensor::describe).collect();
    let mut reports = vec![no_report(); count];
    let mut report = empty_report();
    let mut status = koala_status::Ok;
    // SAFETY: the buffers are as long as they are said to be.
    unsafe {
        match way {
            0 => {
                for (tensor, report) in described.iter_mut().zip(&mut reports) {
                    if status == koala_status::Ok {
                        status = koala_step_tensor(step, tensor, report);
                    }
                }
            }
            1 => status = koala_step_tensors(step, described.as_mut_ptr(), count, reports.as_mut_ptr(), &mut report),
            _ => {
                let mut dots = vec![koala_dots { a: 0.0, b: 0.0, c: 0.0, t: 0.0, gradient_squared: 0.0 }; count];
                status = koala_dots_tensors(step, described.as_ptr(), count, dots.as_mut_ptr());
                if status == koala_status::Ok {
                    let (reports, report) = (reports.as_mut_ptr(), &raw mut report);
                    status = koala_apply_tensors(step, described.as_ptr(), count, dots.as_ptr(), reports, report);
                }
            }
        }
    }
    tensors.iter_mut().zip(&described).for_each(|(tensor, described)| tensor.take_back(described));
    Result { status, tensors, reports, report }
}

/// KOALA-M's prediction: its status, the tensors after it, and what it gives. Other methods do nothing in it.
fn predict(step: &koala_step, tensors: &[Tensor]) -> (koala_status, Vec<Tensor>, [u64; 2]) {
    let (mut tensors, mut distance, mut parameters) = (tensors.to_vec(), 0.0_f64, 0);
    let described: Vec<koala_tensor> = tensors.iter_mut().map(Tensor::describe).collect();
    // SAFETY: the buffers are as long as they are said to be.
    let status =
        unsafe { koala_predict_tensors(step, described.as_ptr(), described.len(), &mut distance, &raw mut parameters) };
    (status, tensors, [distance.to_bits(), parameters as u64])
}

/// Whether a step can be taken in halves, if nothing else is wrong with it.
fn has_halves(step: &koala_step, method: &koala_method) -> bool {
    let other_method = !step.method.is_null() && bytes_of(&method.kind) != [0; 4];
    !other_method && step.gradient_factor == 1.0 && step.gradient_limit == f64::INFINITY
}

pub fn step(bytes: &mut Bytes) {
    let groups = [settings(bytes), settings(bytes)];
    let method = bytes.method();
    let mut step = koala_step {
        size: size_of::<koala_step>(),
        groups: if bytes.flag() { groups.as_ptr() } else { null() },
        group_count: 2,
        method: if bytes.flag() { null() } else { &raw const method },
        gradient_factor: bytes.mostly_one(),
        gradient_limit: bytes.mostly_infinite(),
        loss: bytes.real(),
        noise: bytes.real(),
        backend: any(koala_backend::Scalar as i32),
        on_non_finite: any(bytes.choice(4)),
        on_breakdown: any(bytes.choice(3)),
        norms: 0,
    };
    // More than are worked on together, sometimes.
    let count = bytes.below(5) + if bytes.byte() >= 224 { 16 } else { 0 };
    let tensors: Vec<Tensor> = (0..count).map(|_| Tensor::new(bytes)).collect();
    let (predicts, predicted, distance) = predict(&step, &tensors);
    let equal =
        |left: &[Tensor], right: &[Tensor]| left.iter().zip(right).all(|(left, right)| left.equals(right, true));
    assert!(is_ok(predicts) || equal(&predicted, &tensors));
    let first = in_a_way(1, &step, &predicted);
    if is_ok(first.status) {
        check_counts(&first.report, &first.reports);
    } else {
        assert!(equal(&first.tensors, &predicted));
        assert!(first.reports.iter().all(|report| bytes_of(report) == bytes_of(&no_report())));
        assert!(bytes_of(&first.report) == bytes_of(&empty_report()));
    }
    let way = bytes.below(3);
    step.backend = any(present_backend(bytes));
    let (predicts_too, predicted_too, distance_too) = predict(&step, &tensors);
    assert!(predicts == predicts_too && distance == distance_too && equal(&predicted, &predicted_too));
    let second = in_a_way(way, &step, &predicted);
    let is_second_ok = is_ok(second.status);
    if way == 2 && !has_halves(&step, &method) {
        return assert!(!is_second_ok && equal(&second.tensors, &predicted));
    }
    // One by one, those before a trouble have stepped, nothing is withheld, and groups that none is of are not looked
    // at.
    let atomic =
        matches!(bytes_of(&step.on_non_finite), [1 | 2, 0, 0, 0]) || bytes_of(&step.on_breakdown) == [2, 0, 0, 0];
    if way == 0 && (atomic || !is_ok(first.status)) {
        return;
    }
    assert_eq!(first.status, second.status);
    assert!(first.tensors.iter().zip(&second.tensors).all(|(left, right)| left.equals(right, false)));
    assert!(first.reports.iter().zip(&second.reports).all(|(left, right)| same(left, right)));
}
