//! A step allocates nothing, and neither does a prediction, from the first one on: counted by the allocator.

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::methods::METHODS;
use counting::allocations;
use koala_optim::{Config, ElementType, Loss, Method, Optimizer, Scaling, Settings, StateType, Tensor, Threads, bf16};

#[test]
fn a_step_allocates_nothing() {
    let plain = Config { threads: Threads::One, ..Config::default() };
    let scaling = Scaling { factor: 0.5, limit: 0.2 };
    for method in METHODS.into_iter().chain([Method::default()]) {
        counted(Config { method, ..plain.clone() });
        counted(Config { method, details: true, ..plain.clone() });
        counted(Config { method, scaling, clip_norm: Some(0.5), ..plain.clone() });
    }
    let before = allocations();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(allocations() - before, 1, "the count works");
}

fn counted(config: Config) {
    let mut optimizer = Optimizer::new(config.clone()).unwrap();
    let group = optimizer.add_group(Settings { weight_decay: 0.01, ..Settings::default() }).unwrap();
    optimizer.add_tensor("weight", 70_000, ElementType::F32, StateType::Bf16, group).unwrap();
    optimizer.add_tensor("bias", 10, ElementType::F64, StateType::Same, group).unwrap();
    optimizer.add_tensor("scale", 33, ElementType::Bf16, StateType::F32, group).unwrap();
    let (mut weight, mut bias, mut scale) = (vec![0.5f32; 70_000], vec![0.5f64; 10], vec![bf16::ONE; 33]);
    let mut copy = vec![bf16::ZERO; 70_000];
    let gradients = (vec![0.1f32; 70_000], vec![0.1f64; 10], vec![bf16::EPSILON; 33]);
    for step in 0..3 {
        // Out of order, so that the names have to be looked up.
        let mut tensors = [
            Tensor::new("scale", &mut scale, &gradients.2),
            Tensor::new("weight", &mut weight, &gradients.0).with_bf16_copy(&mut copy),
            Tensor::new("bias", &mut bias, &gradients.1),
        ];
        let before = allocations();
        let predicted = optimizer.predict(&mut tensors);
        let between = allocations();
        let report = optimizer.step(Loss::new(0.7, 0.6), &mut tensors);
        let after = allocations();
        assert_eq!((predicted, report.unwrap().stepped), (Ok(()), 3));
        assert_eq!((between - before, after - between), (0, 0), "in step {step} of {config:?}");
    }
}
