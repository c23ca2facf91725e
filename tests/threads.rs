//! An optimizer's threads: how many a count stands for, that they have ended when it has, and what becomes of them in a
//! process that was forked.
#![cfg(all(feature = "rayon", unix))]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use koala_optim::{Config, ElementType, Error, Loss, Method, Optimizer, Sgd, StateType, Tensor, Threads};

/// Enough for an optimizer to wake its threads.
const LENGTH: usize = 1 << 21;

fn optimizer(threads: Threads) -> Optimizer {
    let method = Method::Sgd(Sgd::default());
    let mut optimizer = Optimizer::new(Config { method, threads, ..Config::default() }).unwrap();
    let group = optimizer.add_group(Default::default()).unwrap();
    optimizer.add_tensor("weight", LENGTH, ElementType::F32, StateType::Same, group).unwrap();
    optimizer
}

fn step(optimizer: &mut Optimizer, weight: &mut [f32], gradient: &[f32]) -> Result<(), Error> {
    optimizer.step(Loss::new(0.75, 0.625), &mut [Tensor::new("weight", weight, gradient)]).map(|_| ())
}

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

/// Whether all went well in a process that was forked for it. One that waits for ever is ended. Emulators, for which
/// lengths are limited, have their own ideas of `fork`.
fn in_a_child(work: impl FnOnce()) -> bool {
    if std::env::var_os("KOALA_TEST_LARGEST").is_some() {
        println!("2^21 elements in a process that was forked, where KOALA_TEST_LARGEST is set: not tested");
        return true;
    }
    // SAFETY: memory can be had in the child of a process with threads, by the C library's promise; no other lock of
    // this process is taken there, and it ends without running what others registered for its end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let good = catch_unwind(AssertUnwindSafe(work)).is_ok();
        // SAFETY: as above.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    assert!(child > 0);
    let start = Instant::now();
    loop {
        let mut status = -1;
        // SAFETY: the place is this function's own.
        if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
            return status == 0;
        }
        if start.elapsed() > Duration::from_secs(60) {
            // SAFETY: it was started here, and is not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_child_steps_with_threads_of_its_own() {
    let gradient: Vec<f32> = (0..LENGTH).map(|place| (place % 13) as f32 / 16.0 - 0.25).collect();
    for steps_before in [0, 1] {
        let (mut one, mut two) = (optimizer(Threads::One), optimizer(Threads::Count(2)));
        let (mut expected, mut weight) = (vec![1.0; LENGTH], vec![1.0; LENGTH]);
        for _ in 0..steps_before {
            step(&mut one, &mut expected, &gradient).unwrap();
            step(&mut two, &mut weight, &gradient).unwrap();
        }
        step(&mut one, &mut expected, &gradient).unwrap();
        // The child ends what it got, too.
        assert!(in_a_child(|| {
            step(&mut two, &mut weight, &gradient).unwrap();
            assert!(weight == expected);
            two.set_threads(Threads::One).unwrap();
        }));
        step(&mut two, &mut weight, &gradient).unwrap();
        assert!(weight == expected);
    }
}

/// Nobody but the caller can make it anew.
#[test]
fn a_child_has_no_threads_in_the_callers_pool() {
    let (mut optimizer, gradient) = (optimizer(Threads::Pool(pool(2))), vec![0.5; LENGTH]);
    let mut weight = vec![1.0; LENGTH];
    step(&mut optimizer, &mut weight, &gradient).unwrap();
    assert!(in_a_child(|| {
        let before = (weight.clone(), optimizer.scalars().next().unwrap().1);
        let error = step(&mut optimizer, &mut weight, &gradient).unwrap_err();
        assert!(error.to_string().contains("in the process that was forked"), "{error}");
        assert!(before == (weight.clone(), optimizer.scalars().next().unwrap().1));
        optimizer.set_threads(Threads::Pool(pool(2))).unwrap();
        step(&mut optimizer, &mut weight, &gradient).unwrap();
        assert!(before.0 != weight);
    }));
}

static STARTED: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread that has ended: what it keeps for itself is dropped then.
struct Counting;

impl Drop for Counting {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local!(static COUNTING: RefCell<Option<Counting>> = const { RefCell::new(None) });

fn count_this_thread() {
    STARTED.fetch_add(1, Ordering::SeqCst);
    COUNTING.set(Some(Counting));
}

#[test]
fn they_are_as_many_as_asked_for_and_end_with_the_optimizer() {
    let processors = std::thread::available_parallelism().unwrap().get();
    let all = if processors == 1 { 0 } else { processors.min(Threads::MOST) };
    for (count, expected) in [(3, 3), (1, 0), (0, all), (40, 40)] {
        for _ in 0..5 {
            STARTED.store(0, Ordering::SeqCst);
            ENDED.store(0, Ordering::SeqCst);
            drop(optimizer(Threads::CountWith(count, count_this_thread)));
            assert_eq!(STARTED.load(Ordering::SeqCst), expected);
            assert_eq!(ENDED.load(Ordering::SeqCst), expected);
        }
    }
}

/// Also where there are far fewer processors. (4096 took 43 seconds.)
#[test]
fn the_most_start_soon() {
    if std::env::var_os("KOALA_TEST_LARGEST").is_some() {
        println!("how soon threads start, where KOALA_TEST_LARGEST is set: not tested");
        return;
    }
    let started = Instant::now();
    drop(optimizer(Threads::Count(Threads::MOST)));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn more_than_there_can_be_are_an_error() {
    for count in [Threads::MOST + 1, 100_000, u32::MAX as usize, usize::MAX] {
        let error = Optimizer::new(Config { threads: Threads::Count(count), ..Config::default() }).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot use {count} threads: at most {} are possible", Threads::MOST));
    }
}
