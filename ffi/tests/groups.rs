//! Groups of an optimizer in C: settings as an older header has them, and numbers of a method that differ by group.

use std::mem::{MaybeUninit, offset_of};
use std::ptr::{null, null_mut};

use koala::*;
use koala_optim::{
    AdamW, Config, ElementType, KoalaPlusPlus, Loss, Method, Optimizer, Settings, StateType, Tensor, Variant,
};

const NAMES: [&str; 2] = ["a", "b"];
const LENGTH: usize = 19;
const STEPS: usize = 6;
const LOSS: f64 = 0.75;

fn ok(status: koala_status) {
    assert_eq!(status, koala_status::Ok);
}

fn gradient(step: usize, tensor: usize) -> Vec<f32> {
    (0..LENGTH).map(|i| ((i * 97 + 31 * tensor + 7 * step) % 251) as f32 * 0.01 - 1.25).collect()
}

fn adamw(beta1: f64) -> koala_method {
    let mut method = MaybeUninit::uninit();
    let kind = MaybeUninit::new(koala_method_kind::Adamw);
    // SAFETY: of that size; a call that succeeds has written all of it.
    let method = unsafe {
        ok(koala_method_init(method.as_mut_ptr(), size_of::<koala_method>(), kind));
        method.assume_init()
    };
    koala_method { beta1, ..method }
}

/// An optimizer of C with two groups, and in each a tensor.
fn new_in_c(method: *const koala_method, settings: *const koala_settings) -> *mut koala_optimizer {
    let (mut optimizer, mut group) = (null_mut(), 0);
    let (f32, same) = (MaybeUninit::new(koala_element_type::F32), MaybeUninit::new(koala_state_type::Same));
    let config = koala_config { method, ..koala_config::default() };
    // SAFETY: all is here, and of the types and lengths that are said.
    unsafe {
        ok(koala_optimizer_create(&config, &mut optimizer));
        for name in [c"a", c"b"] {
            ok(koala_optimizer_add_group(optimizer, settings, &mut group));
            ok(koala_optimizer_add_tensor(optimizer, name.as_ptr(), LENGTH, f32, same, group, null_mut()));
        }
    }
    optimizer
}

/// Where an optimizer takes parameters that begin as zeros. It is destroyed.
fn steps_in_c(optimizer: *mut koala_optimizer) -> [Vec<f32>; 2] {
    let mut model = [0, 1].map(|_| vec![0.0; LENGTH]);
    for step in 0..STEPS {
        let gradients = [0, 1].map(|tensor| gradient(step, tensor));
        let given = [0, 1].map(|tensor| koala_parameters {
            size: size_of::<koala_parameters>(),
            tensor,
            length: LENGTH,
            r#type: MaybeUninit::new(koala_element_type::F32),
            copy_type: MaybeUninit::new(koala_copy_type::None),
            parameters: model[tensor].as_mut_ptr().cast(),
            gradient: gradients[tensor].as_ptr().cast(),
            copy: null_mut(),
        });
        let loss = koala_loss { mean: LOSS, second_moment: LOSS };
        // SAFETY: the buffers are as long as they are said to be.
        ok(unsafe { koala_optimizer_step(optimizer, &loss, given.as_ptr(), 2, null_mut(), null_mut()) });
    }
    // SAFETY: it is not used any more.
    ok(unsafe { koala_optimizer_destroy(optimizer) });
    model
}

/// What Rust makes of the same steps, with these methods of the two groups.
fn steps_in_rust(methods: [Method; 2]) -> [Vec<f32>; 2] {
    let mut optimizer = Optimizer::new(Config { method: methods[0], ..Config::default() }).unwrap();
    for (name, method) in NAMES.into_iter().zip(methods) {
        let group = optimizer.add_group_with(Settings::default(), method).unwrap();
        optimizer.add_tensor(name, LENGTH, ElementType::F32, StateType::Same, group).unwrap();
    }
    let mut model = [0, 1].map(|_| vec![0.0; LENGTH]);
    for step in 0..STEPS {
        let [of_a, of_b] = [0, 1].map(|tensor| gradient(step, tensor));
        let [a, b] = &mut model;
        optimizer.step(Loss::new(LOSS, LOSS), &mut [Tensor::new("a", a, &of_a), Tensor::new("b", b, &of_b)]).unwrap();
    }
    model
}

#[test]
fn the_betas_of_adamw_can_differ_by_group() {
    let optimizer = new_in_c(&adamw(0.9), null());
    // SAFETY: both are here.
    ok(unsafe { koala_optimizer_set_method(optimizer, 1, &adamw(0.5)) });
    let [first, second] = [0.9, 0.5].map(|beta1| Method::AdamW(AdamW { beta1, ..AdamW::default() }));
    let found = steps_in_c(optimizer);
    assert!(found == steps_in_rust([first, second]));
    assert!(found != steps_in_rust([first, first]));
}

#[test]
fn settings_of_an_older_header_have_the_default_of_a_new_member() {
    const SIZE: usize = offset_of!(koala_settings, prior_variance);
    let variant = MaybeUninit::new(koala_variant::Definite);
    let whole = koala_settings { variant, prior_variance: 0.5, ..koala_settings::default() };
    // What follows the shorter struct in memory is none of its members.
    let older = koala_settings { size: SIZE, prior_variance: f64::NAN, ..whole };

    let definite = |prior_variance| {
        let numbers = KoalaPlusPlus { variant: Variant::Definite, prior_variance, ..KoalaPlusPlus::default() };
        [numbers.into(); 2]
    };
    let found = steps_in_c(new_in_c(null(), &older));
    assert!(found == steps_in_rust(definite(0.0)));
    assert!(steps_in_c(new_in_c(null(), &whole)) == steps_in_rust(definite(0.5)));
    assert!(found != steps_in_rust(definite(0.5)));

    let mut read = koala_settings { size: SIZE, prior_variance: 7.0, ..koala_settings::default() };
    let optimizer = new_in_c(null(), &whole);
    // SAFETY: both are here, and the optimizer is not used any more.
    unsafe {
        ok(koala_optimizer_settings(optimizer, 0, &mut read));
        ok(koala_optimizer_destroy(optimizer));
    }
    assert_eq!((read.size, read.prior_variance), (SIZE, 7.0));
}
