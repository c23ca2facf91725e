//! Calls from many threads at once, as the header allows them: each thread its own optimizer and its own tensors, all
//! of them one optimizer that nobody changes, and each its own last error. ThreadSanitizer watches over it in CI.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Barrier;

use koala::*;

const THREADS: usize = 8;
const ROUNDS: usize = 20;
const TENSORS: usize = 3;
/// The second is large enough for an optimizer to wake its own threads.
const LENGTHS: [usize; TENSORS] = [7, (1 << 21) + 5, 0];

/// What the threads share. The functions that take it by a pointer to const may be called at once.
struct Shared(*mut koala_optimizer);

// SAFETY: nobody changes it while threads have it.
unsafe impl Sync for Shared {}

fn ok(status: koala_status) {
    assert_eq!(status, koala_status::Ok, "{}", last_error());
}

fn last_error() -> String {
    let mut text = [0_u8; 512];
    let mut length = 0;
    // SAFETY: the buffer has that capacity.
    let status = unsafe { koala_last_error(text.as_mut_ptr().cast(), text.len(), &mut length) };
    assert_eq!(status, koala_status::Ok);
    String::from_utf8(text[..length].to_vec()).unwrap()
}

fn name(tensor: usize) -> CString {
    CString::new(format!("tensor {tensor}")).unwrap()
}

fn new_optimizer(threads: u32, lengths: &[usize]) -> *mut koala_optimizer {
    let (mut optimizer, mut group) = (null_mut(), 0);
    // SAFETY: the pointers are this function's own; the config is filled before it is read.
    unsafe {
        let mut config = MaybeUninit::<koala_config>::uninit();
        ok(koala_config_init(config.as_mut_ptr(), size_of::<koala_config>()));
        let mut config = config.assume_init();
        config.threads = threads;
        ok(koala_optimizer_create(&config, &mut optimizer));
        ok(koala_optimizer_add_group(optimizer, null(), &mut group));
        for (tensor, length) in lengths.iter().enumerate() {
            let (f32, same) = (MaybeUninit::new(koala_element_type::F32), MaybeUninit::new(koala_state_type::Same));
            ok(koala_optimizer_add_tensor(optimizer, name(tensor).as_ptr(), *length, f32, same, group, null_mut()));
        }
    }
    optimizer
}

/// Steps an optimizer `rounds` times, over parameters that begin as zeros.
fn step(optimizer: *mut koala_optimizer, lengths: &[usize], rounds: usize) -> Vec<Vec<f32>> {
    let mut parameters: Vec<Vec<f32>> = lengths.iter().map(|length| vec![0.0; *length]).collect();
    let gradients: Vec<Vec<f32>> =
        lengths.iter().map(|length| (0..*length).map(|place| (place % 13) as f32 - 5.0).collect()).collect();
    for round in 0..rounds {
        let given: Vec<koala_parameters> = (0..lengths.len())
            .map(|tensor| koala_parameters {
                size: size_of::<koala_parameters>(),
                tensor,
                length: lengths[tensor],
                r#type: MaybeUninit::new(koala_element_type::F32),
                copy_type: MaybeUninit::new(koala_copy_type::None),
                parameters: parameters[tensor].as_mut_ptr().cast(),
                gradient: gradients[tensor].as_ptr().cast(),
                copy: null_mut(),
            })
            .collect();
        let loss = koala_loss { mean: 1.0 / (1 + round) as f64, second_moment: 1.0 };
        // SAFETY: the buffers are as long as they are said to be.
        let status =
            unsafe { koala_optimizer_step(optimizer, &loss, given.as_ptr(), given.len(), null_mut(), null_mut()) };
        ok(status);
    }
    parameters
}

fn destroy(optimizer: *mut koala_optimizer) {
    // SAFETY: it is not used any more.
    ok(unsafe { koala_optimizer_destroy(optimizer) });
}

/// Runs `work` in all threads at the same time, with the thread's number.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    let (barrier, work) = (&barrier, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    barrier.wait();
                    work(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Comes first, so that whatever the library does once in its life is done by all threads at once.
#[test]
fn each_its_own_optimizer() {
    let results = at_once(|number| {
        // Every other one has a thread more, and two have a tensor that is worth waking it.
        let (threads, lengths) = (1 + number as u32 % 2, if number < 2 { &LENGTHS[..] } else { &LENGTHS[..1] });
        let optimizer = new_optimizer(threads, lengths);
        let parameters = step(optimizer, lengths, 3);
        destroy(optimizer);
        parameters
    });
    assert!(results[0] == results[1] && results[0][0].iter().any(|element| *element != 0.0));
    assert!(results.iter().all(|parameters| parameters[0] == results[0][0]));
}

/// A mistake elsewhere must not wait for threads which nobody has told to end.
#[test]
fn with_a_mistake_beside_them() {
    type Mistake = fn(&mut koala_config);
    let mistakes: [(Mistake, koala_status); 4] = [
        (|config| config.initial_noise = -1.0, koala_status::Setting),
        (|config| config.noise_decay = 1.5, koala_status::Setting),
        (|config| config.norms = 2, koala_status::UnknownValue),
        (|config| config.threads = 513, koala_status::Threads),
    ];
    for (make, expected) in mistakes {
        let mut optimizer = null_mut();
        // SAFETY: the pointers are this function's own; the config is filled before it is read.
        let status = unsafe {
            let mut config = MaybeUninit::<koala_config>::uninit();
            ok(koala_config_init(config.as_mut_ptr(), size_of::<koala_config>()));
            let mut config = config.assume_init();
            config.threads = 3;
            make(&mut config);
            koala_optimizer_create(&config, &mut optimizer)
        };
        assert_eq!(status, expected, "{}", last_error());
        assert!(optimizer.is_null());
    }
}

#[test]
fn each_its_own_tensors() {
    let results = at_once(|_| {
        let (mut parameters, gradient) = ([0.0_f32; 100], [1.5_f32; 100]);
        let (mut v, mut h) = ([0.0_f32; 100], [0.0_f32; 100]);
        let mut scalars = koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 };
        let mut step = MaybeUninit::<koala_step>::uninit();
        // SAFETY: the buffers are as long as they are said to be; the step is filled before it is read.
        unsafe {
            ok(koala_step_init(step.as_mut_ptr(), size_of::<koala_step>()));
            let mut step = step.assume_init();
            for round in 0..ROUNDS {
                step.loss = 1.0 / (1 + round) as f64;
                let mut tensor = koala_tensor {
                    size: size_of::<koala_tensor>(),
                    length: parameters.len(),
                    r#type: MaybeUninit::new(koala_element_type::F32),
                    state_type: MaybeUninit::new(koala_state_type::Same),
                    copy_type: MaybeUninit::new(koala_copy_type::None),
                    group: 0,
                    exchange: 0,
                    reserved: 0,
                    parameters: parameters.as_mut_ptr().cast(),
                    gradient: gradient.as_ptr().cast(),
                    v: v.as_mut_ptr().cast(),
                    h: h.as_mut_ptr().cast(),
                    copy: null_mut(),
                    scalars: &mut scalars,
                };
                match round % 2 {
                    0 => ok(koala_step_tensor(&step, &mut tensor, null_mut())),
                    _ => ok(koala_step_tensors(&step, &mut tensor, 1, null_mut(), null_mut())),
                }
            }
        }
        parameters
    });
    assert!(results.iter().all(|parameters| *parameters == results[0] && parameters[0] != 0.0));
}

#[test]
fn all_of_them_one_that_nobody_changes() {
    let lengths = [7, 5, 0];
    let shared = Shared(new_optimizer(1, &lengths));
    step(shared.0, &lengths, 2);
    let shared = &shared;
    at_once(|number| {
        let (optimizer, tensor) = (shared.0.cast_const(), number % lengths.len());
        let bytes = 4 * lengths[tensor];
        for _ in 0..ROUNDS {
            let (mut noise, mut count, mut found, mut length) = (0.0, 0, usize::MAX, 0);
            let mut backend = koala_backend::Fastest;
            let mut scalars = koala_scalars { h_h: 0.0, h_v: 0.0, innovation_variance: 0.0, steps: 0.0 };
            let mut settings = MaybeUninit::<koala_settings>::uninit();
            let (mut v, mut h, mut text) = ([0_u8; 64], [0_u8; 64], [0 as c_char; 32]);
            // SAFETY: the buffers have what they are said to have; nobody changes the optimizer.
            unsafe {
                ok(koala_optimizer_noise(optimizer, &mut noise));
                ok(koala_optimizer_tensor_count(optimizer, &mut count));
                ok(koala_optimizer_backend(optimizer, &mut backend));
                ok(koala_settings_init(settings.as_mut_ptr(), size_of::<koala_settings>()));
                ok(koala_optimizer_settings(optimizer, 0, settings.as_mut_ptr()));
                ok(koala_optimizer_find_tensor(optimizer, name(tensor).as_ptr(), &mut found));
                ok(koala_optimizer_tensor_name(optimizer, tensor, text.as_mut_ptr(), text.len(), &mut length));
                ok(koala_optimizer_scalars(optimizer, tensor, &mut scalars));
                ok(koala_optimizer_state(optimizer, tensor, v.as_mut_ptr().cast(), h.as_mut_ptr().cast(), bytes));
                assert_eq!(CStr::from_ptr(text.as_ptr()), &*name(tensor));
            }
            assert_eq!((count, found, length), (lengths.len(), tensor, 8));
            assert!(noise == 1.0 && backend != koala_backend::Fastest);
            assert!(scalars.steps == if lengths[tensor] > 0 { 2.0 } else { 0.0 });
            assert!(h[..bytes].chunks(4).any(|element| element != [0; 4]) == (bytes > 0));
        }
    });
    destroy(shared.0);
}

#[test]
fn each_its_own_last_error() {
    let lengths = [7];
    let shared = Shared(new_optimizer(1, &lengths));
    let shared = &shared;
    at_once(|number| {
        assert_eq!(last_error(), "");
        for round in 0..ROUNDS {
            let tensor = 1000 + 100 * number + round;
            let mut scalars = MaybeUninit::uninit();
            // SAFETY: the place is this thread's own, and is not written.
            let status = unsafe { koala_optimizer_scalars(shared.0, tensor, scalars.as_mut_ptr()) };
            assert_eq!(status, koala_status::UnknownTensor);
            std::thread::yield_now();
            assert_eq!(last_error(), format!("there is no tensor {tensor}: there are 1"));
        }
    });
    destroy(shared.0);
}
