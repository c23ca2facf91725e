//! The filter that everything is measured with: its numbers stay where they are, however often a step is repeated.

use koala_optim::{
    Config, ElementType, Error, KoalaPlusPlus, Loss, Method, Noise, Optimizer, Settings, StateType, Tensor,
};

/// Of every step.
pub const LOSS: Loss = Loss::new(1.0, 1.0);

/// Of every step.
pub const NOISE: f64 = 1.0;

/// A tiny learning rate.
pub fn settings(weight_decay: f64) -> Settings {
    Settings { learning_rate: 1e-9, weight_decay, ..Settings::default() }
}

/// Little noise.
pub fn numbers() -> KoalaPlusPlus {
    KoalaPlusPlus { process_noise: 1e-3, ..KoalaPlusPlus::default() }
}

/// The method with [these numbers](numbers), if it is KOALA++ with its default ones.
pub fn quiet(method: Method) -> Method {
    if method == Method::default() { numbers().into() } else { method }
}

/// An optimizer for tensors of these names and lengths, its noise fixed whatever the configuration says.
pub(crate) fn optimizer<'a>(
    tensors: impl IntoIterator<Item = (&'a str, usize)>,
    (parameters, state): (ElementType, StateType),
    weight_decay: f64,
    config: Config,
) -> Result<Optimizer, Error> {
    let mut optimizer = Optimizer::new(Config { noise: Noise::Fixed(NOISE), method: quiet(config.method), ..config })?;
    let group = optimizer.add_group(settings(weight_decay))?;
    for (name, length) in tensors {
        optimizer.add_tensor(name, length, parameters, state, group)?;
    }
    Ok(optimizer)
}

/// Steps the tensors that the optimizer was made for.
///
/// # Panics
/// If it was made for others, or if a tensor was not stepped: then nothing worth measuring was done.
pub fn step(optimizer: &mut Optimizer, tensors: &mut [Tensor<'_>]) {
    if matches!(optimizer.method(), Method::KoalaM(_)) {
        optimizer.predict(tensors).expect("the optimizer was made for these tensors");
    }
    let report = optimizer.step(LOSS, tensors).expect("the optimizer was made for these tensors");
    assert_eq!(report.stepped, tensors.len(), "{report:?}");
}
