//! What the tests on the CPU and those on a CUDA device share.

use candle_core::{DType, Device, Result, Tensor as Array, Var, backprop::GradStore};

/// Gradients as a backward pass leaves them.
pub fn gradients(of: &[(&Var, &Array)]) -> GradStore {
    let mut store = Var::zeros(1, DType::F32, &Device::Cpu).unwrap().backward().unwrap();
    for (variable, gradient) in of {
        store.insert(variable, (*gradient).clone());
    }
    store
}

/// Whether this is an error that has those words.
pub fn says<T>(result: Result<T>, what: &str) {
    let message = result.err().expect("this was to be an error").to_string();
    assert!(message.contains(what), "{message}");
}
