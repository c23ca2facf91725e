//! A step called from C allocates nothing, unless the header says that it does: counted by the allocator.

#[path = "../../tests/common/counting.rs"]
mod counting;

use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};

use koala::*;

const TENSORS: usize = 40;
const LENGTH: usize = 70;

/// How often `call` allocates.
fn allocations(call: impl FnOnce() -> koala_status) -> usize {
    let before = counting::allocations();
    let status = call();
    let after = counting::allocations();
    assert_eq!(status, koala_status::Ok);
    after - before
}

#[test]
fn a_step_allocates_what_the_header_says() {
    let mut memory = vec![[[0.5_f32; LENGTH]; 4]; TENSORS];
    let mut scalars = [koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 }; TENSORS];
    let mut dots = [koala_dots { a: 0.0, b: 0.0, c: 0.0, t: 0.0, gradient_squared: 0.0 }; TENSORS];
    let (mut tensors, mut given) = (Vec::new(), Vec::new());
    for (i, [parameters, gradient, v, h]) in memory.iter_mut().enumerate() {
        let (theta, g) = (parameters.as_mut_ptr().cast(), gradient.as_ptr().cast());
        // SAFETY: zeros are the structs' defaults.
        let (zero_tensor, zero_parameters): (koala_tensor, koala_parameters) = unsafe { (zeroed(), zeroed()) };
        tensors.push(koala_tensor {
            size: size_of::<koala_tensor>(),
            length: LENGTH,
            parameters: theta,
            gradient: g,
            v: v.as_mut_ptr().cast(),
            h: h.as_mut_ptr().cast(),
            scalars: &mut scalars[i],
            ..zero_tensor
        });
        let (size, length) = (size_of::<koala_parameters>(), LENGTH);
        given.push(koala_parameters { size, tensor: i, length, parameters: theta, gradient: g, ..zero_parameters });
    }
    let tensors = tensors.as_mut_ptr();
    let loss = koala_loss { mean: 0.7, second_moment: 0.6 };
    // SAFETY: the pointers are to what is above, of those lengths.
    unsafe {
        let mut step: koala_step = zeroed();
        koala_step_init(&mut step, size_of::<koala_step>());
        for _ in 0..3 {
            assert_eq!(allocations(|| koala_step_tensor(&step, tensors, null_mut())), 0);
            assert_eq!(allocations(|| koala_step_tensors(&step, tensors, TENSORS, null_mut(), null_mut())), 0);
            assert_eq!(allocations(|| koala_dots_tensors(&step, tensors, TENSORS, dots.as_mut_ptr())), 0);
            let (dots, none) = (dots.as_ptr(), null_mut());
            assert_eq!(allocations(|| koala_apply_tensors(&step, tensors, TENSORS, dots, null_mut(), none)), 0);
        }
        step.on_non_finite = MaybeUninit::new(koala_on_non_finite::KeepAll);
        assert_eq!(allocations(|| koala_step_tensors(&step, tensors, 16, null_mut(), null_mut())), 0);
        assert_eq!(allocations(|| koala_step_tensors(&step, tensors, 17, null_mut(), null_mut())), 2, "it counts");

        let mut optimizer = null_mut();
        assert_eq!(koala_optimizer_create(null(), &mut optimizer), koala_status::Ok);
        assert_eq!(koala_optimizer_add_group(optimizer, null(), &mut 0), koala_status::Ok);
        for i in 0..TENSORS {
            let name = std::ffi::CString::new(format!("tensor {i}")).unwrap();
            let types = (MaybeUninit::new(koala_element_type::F32), MaybeUninit::new(koala_state_type::Same));
            let added = koala_optimizer_add_tensor(optimizer, name.as_ptr(), LENGTH, types.0, types.1, 0, null_mut());
            assert_eq!(added, koala_status::Ok);
        }
        for count in [TENSORS, 3, TENSORS] {
            let given = given.as_ptr();
            let step = || koala_optimizer_step(optimizer, &loss, given, count, null_mut(), null_mut());
            assert_eq!(allocations(step), 0, "{count} tensors");
        }
        assert_eq!(koala_optimizer_destroy(optimizer), koala_status::Ok);
    }
}
