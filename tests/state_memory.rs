//! The memory of a tensor's state: zeroed, on 64-byte boundaries, copied by a clone, and not touched before it is used.

use koala_optim::kernel::{Measurement, Scalars, Step};
use koala_optim::{Error, StateType, TensorState};

/// None, a line of the cache, a few pages, and pages of their own.
const LENGTHS: [usize; 5] = [0, 1, 5000, (1 << 20) - 1, (1 << 20) + 1];

fn state(length: usize) -> TensorState {
    TensorState::new::<f32>(length, StateType::Same).unwrap()
}

fn step(state: &mut TensorState, parameters: &mut [f32], gradient: &[f32]) {
    state.step(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), parameters, gradient, None).unwrap();
}

#[test]
fn zeroed_aligned_and_of_that_length() {
    for length in LENGTHS {
        let state = state(length);
        assert_eq!(state.scalars(), Scalars::default());
        for bytes in state.bytes() {
            assert_eq!(bytes, vec![0; 4 * length]);
            assert!(length == 0 || bytes.as_ptr().addr().is_multiple_of(64));
        }
    }
    for length in [usize::MAX, usize::MAX / 4] {
        assert!(matches!(TensorState::new::<f32>(length, StateType::Same), Err(Error::Memory { .. })));
    }
}

#[test]
fn a_clone_is_other_memory_with_the_same_bytes() {
    for length in LENGTHS {
        let mut state = state(length);
        let mut parameters = vec![1.0_f32; length];
        let gradient: Vec<f32> = (0..length).map(|place| (place % 255) as f32 - 100.0).collect();
        step(&mut state, &mut parameters, &gradient);
        let (clone, before) = (state.clone(), state.bytes().map(<[u8]>::to_vec));
        assert_eq!(clone.bytes(), state.bytes());
        step(&mut state, &mut parameters, &gradient.iter().map(|element| 0.5 * element + 1.0).collect::<Vec<_>>());
        assert!(length == 0 || before[0] != state.bytes()[0]);
        assert_eq!(clone.bytes(), [&*before[0], &*before[1]]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn large_memory_is_not_touched_until_it_is_written() {
    let resident_pages = || -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let before = resident_pages();
    let state = state(1 << 27);
    // Its pages are 2¹⁸, if they have 4 KiB; other tests touch some of theirs at the same time.
    assert!(resident_pages() < before + (1 << 14));
    assert_eq!(state.len(), 1 << 27);
}
