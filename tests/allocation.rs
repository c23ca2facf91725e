//! A step allocates nothing, from the first one on: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType, Tensor, Threads, bf16};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Alone in this file: another test's allocations would be counted too.
#[test]
fn a_step_allocates_nothing() {
    for details in [false, true] {
        let config = Config { details, threads: Threads::One, ..Config::default() };
        let mut optimizer = Optimizer::new(config).unwrap();
        let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
        optimizer.add_tensor("weight", 70_000, ElementType::F32, StateType::Bf16, group).unwrap();
        optimizer.add_tensor("bias", 10, ElementType::F64, StateType::Same, group).unwrap();
        optimizer.add_tensor("scale", 33, ElementType::Bf16, StateType::F32, group).unwrap();
        let (mut weight, mut bias, mut scale) = (vec![0.5f32; 70_000], vec![0.5f64; 10], vec![bf16::ONE; 33]);
        let mut copy = vec![bf16::ZERO; 70_000];
        let gradients = (vec![0.1f32; 70_000], vec![0.1f64; 10], vec![bf16::EPSILON; 33]);
        for step in 0..5 {
            // Out of order, so that the names have to be looked up.
            let mut tensors = [
                Tensor::new("scale", &mut scale, &gradients.2),
                Tensor::new("weight", &mut weight, &gradients.0).with_bf16_copy(&mut copy),
                Tensor::new("bias", &mut bias, &gradients.1),
            ];
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            let report = optimizer.step(Loss::new(0.7, 0.6), &mut tensors);
            let after = ALLOCATIONS.load(Ordering::SeqCst);
            assert_eq!(report.unwrap().stepped, 3);
            assert_eq!(after - before, 0, "in step {step}");
        }
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        drop(std::hint::black_box(vec![1u8; 100]));
        assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 1, "the count works");
    }
}
