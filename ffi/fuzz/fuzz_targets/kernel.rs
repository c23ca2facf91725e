//! Steps of tensors that need no optimizer: one by one, all at once, in two halves, which have to
//! agree about every bit.

use std::ptr::{null, null_mut};

use koala::*;

use crate::bytes::{Buffer, Bytes, sizes};
use crate::{any, bytes_of, check_counts, empty_report, is_ok, no_report, present_backend, settings};

/// A tensor's memory.
#[derive(Clone)]
struct Tensor {
    description: koala_tensor,
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
        let (size, state_size) = sizes(r#type, state_type);
        let bf16 = r#type == koala_element_type::Bf16 as i32;
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
                copy_type: any(bytes.choice(3)),
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
            parameters: buffer(size, bf16, bytes),
            gradient: buffer(size, bf16, bytes),
            v: buffer(state_size, bf16 || state_size < size, bytes),
            h: buffer(state_size, bf16 || state_size < size, bytes),
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
        self.parameters == other.parameters
            && self.v == other.v
            && self.h == other.h
            && self.copy == other.copy
            && bytes_of(&self.scalars) == bytes_of(&other.scalars)
            && (!with_gradient || self.gradient == other.gradient)
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

pub fn step(bytes: &mut Bytes) {
    let groups = [settings(bytes), settings(bytes)];
    let mut step = koala_step {
        size: size_of::<koala_step>(),
        groups: if bytes.flag() { groups.as_ptr() } else { null() },
        group_count: 2,
        loss: bytes.real(),
        noise: bytes.real(),
        backend: any(koala_backend::Scalar as i32),
        on_non_finite: any(bytes.choice(4)),
        on_breakdown: any(bytes.choice(3)),
        norms: 0,
        ..koala_step::default()
    };
    // More than are worked on together, sometimes.
    let count = bytes.below(5) + if bytes.byte() >= 224 { 16 } else { 0 };
    let tensors: Vec<Tensor> = (0..count).map(|_| Tensor::new(bytes)).collect();
    let first = in_a_way(1, &step, &tensors);
    if is_ok(first.status) {
        check_counts(&first.report, &first.reports);
    } else {
        assert!(first.tensors.iter().zip(&tensors).all(|(left, right)| left.equals(right, true)));
        assert!(first.reports.iter().all(|report| bytes_of(report) == bytes_of(&no_report())));
        assert!(bytes_of(&first.report) == bytes_of(&empty_report()));
    }
    let way = bytes.below(3);
    step.backend = any(present_backend(bytes));
    let second = in_a_way(way, &step, &tensors);
    is_ok(second.status);
    // One by one, those before a trouble have stepped, nothing is withheld, and groups that none is of are not looked at.
    let atomic =
        matches!(bytes_of(&step.on_non_finite), [1 | 2, 0, 0, 0]) || bytes_of(&step.on_breakdown) == [2, 0, 0, 0];
    if way == 0 && (atomic || !is_ok(first.status)) {
        return;
    }
    assert_eq!(first.status, second.status);
    assert!(first.tensors.iter().zip(&second.tensors).all(|(left, right)| left.equals(right, false)));
    assert!(first.reports.iter().zip(&second.reports).all(|(left, right)| bytes_of(left) == bytes_of(right)));
}
