//! What can be learnt: samples to train on, samples held out, and a network that gives each sample a loss. candle
//! differentiates the networks.
//!
//! The parameters live outside of candle, as named slices, because that is what an optimizer of this project
//! (and of most others) is given.

pub mod classifier;
pub mod digits;
pub mod idx;
pub mod images;
pub mod language;
pub mod text;

use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};

/// The two parts that the samples are split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the network learns from.
    Train,
    /// What it is judged by.
    HeldOut,
}

/// What the held-out part is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOut {
    /// To judge by, once all settings are chosen.
    Test,
    /// To choose settings by: it is split off what there is to train on.
    Validation,
}

impl HeldOut {
    /// In tables and the names of files.
    pub fn title(self) -> &'static str {
        match self {
            HeldOut::Test => "test",
            HeldOut::Validation => "validation",
        }
    }

    /// What is done on it.
    pub fn verb(self) -> &'static str {
        match self {
            HeldOut::Test => "test",
            HeldOut::Validation => "validate",
        }
    }
}

/// The kinds of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A multilayer perceptron for images.
    Mlp,
    /// A convolutional one, for images too.
    Conv,
    /// A transformer, for text.
    Transformer,
}

impl Network {
    /// In the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Network::Mlp => "mlp",
            Network::Conv => "conv",
            Network::Transformer => "transformer",
        }
    }

    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Network::Mlp => "multilayer perceptron",
            Network::Conv => "convolutional",
            Network::Transformer => "transformer",
        }
    }
}

/// Something to learn.
pub trait Task {
    /// What the data is called in tables and pictures.
    fn data(&self) -> &str;

    /// A checksum of it, by which other data of the same name and size are told from it.
    fn checksum(&self) -> u64;

    /// The kind of network.
    fn network(&self) -> Network;

    /// The data and the network in words: two lines.
    fn describe(&self) -> String;

    /// What the held-out part is for.
    fn held_out(&self) -> HeldOut;

    /// The number of samples of a part.
    fn count(&self, part: Part) -> usize;

    /// Fresh parameters, in the order of the layers.
    fn parameters(&self, seed: u64) -> Vec<Parameter>;

    /// The losses of these samples, as tensors that can be differentiated.
    fn forward(&self, parameters: &[Tensor], part: Part, samples: &[usize]) -> Result<Forward>;

    /// The loss of always guessing by how common each answer is, in nats: a network that is no better has learnt nothing.
    fn guessing(&self) -> f64;

    /// Whether a sample is a piece of text, whose loss is given in bits per character too.
    fn is_text(&self) -> bool;

    /// The same with a validation part in the place of the test part, taken from what there is to train on, so that
    /// the test part stays unseen until all settings are chosen.
    fn validation(&self) -> Result<Box<dyn Task>>;
}

/// One tensor of parameters, with its last gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Such as `hidden.weight`.
    pub name: String,
    /// The lengths of its dimensions.
    pub shape: Vec<usize>,
    /// Its entries.
    pub values: Vec<f32>,
    /// The gradient of the mean loss in it.
    pub gradient: Vec<f32>,
}

impl Parameter {
    fn new(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Parameter {
        Parameter { name: name.into(), shape, gradient: vec![0.0; values.len()], values }
    }
}

/// The number of entries of all these.
pub fn size(parameters: &[Parameter]) -> usize {
    parameters.iter().map(|parameter| parameter.values.len()).sum()
}

/// What [`Task::forward`] makes of some samples.
pub struct Forward {
    /// The cross-entropy of each, in nats; the mean over its characters if it is a text.
    pub losses: Tensor,
    /// To how many the network gave the right answer; of a text, its share of right characters counts.
    pub right: f64,
}

/// The same in plain numbers.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// See [`Forward::losses`].
    pub losses: Vec<f32>,
    /// See [`Forward::right`].
    pub right: f64,
}

/// Evaluates the network on these samples.
pub fn evaluate(task: &dyn Task, parameters: &[Parameter], part: Part, samples: &[usize]) -> Result<Outcome> {
    let tensors = parameters
        .iter()
        .map(|p| Tensor::from_slice(&p.values, &p.shape[..], &Device::Cpu))
        .collect::<Result<Vec<_>, _>>()?;
    let Forward { losses, right } = task.forward(&tensors, part, samples)?;
    Ok(Outcome { losses: losses.to_vec1()?, right })
}

/// Evaluates the network on samples to train on, and sets each parameter's gradient to that of the mean loss.
pub fn differentiate(task: &dyn Task, parameters: &mut [Parameter], samples: &[usize]) -> Result<Outcome> {
    let variables = parameters
        .iter()
        .map(|p| Var::from_slice(&p.values, &p.shape[..], &Device::Cpu))
        .collect::<Result<Vec<_>, _>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let Forward { losses, right } = task.forward(&tensors, Part::Train, samples)?;
    let gradients = losses.mean_all()?.backward()?;
    for (parameter, variable) in parameters.iter_mut().zip(&variables) {
        parameter.gradient = match gradients.get(variable) {
            Some(gradient) => gradient.flatten_all()?.to_vec1()?,
            None => vec![0.0; parameter.values.len()],
        };
    }
    Ok(Outcome { losses: losses.to_vec1()?, right })
}

/// The cross-entropy of each row of logits, and how many rows give the greatest to the right answer.
fn cross_entropy(logits: &Tensor, answers: &[u32]) -> Result<(Tensor, usize)> {
    let greatest = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&greatest)?;
    let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let right = Tensor::from_slice(answers, (answers.len(), 1), &Device::Cpu)?;
    let losses = (normalizer - shifted.gather(&right, 1)?)?.squeeze(1)?;
    let guesses: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
    Ok((losses, guesses.iter().zip(answers).filter(|(guess, answer)| guess == answer).count()))
}

/// The entropy of a distribution that is given by how often each answer was seen, in nats.
fn entropy(counts: &[usize]) -> f64 {
    let total: usize = counts.iter().sum();
    let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / total as f64);
    -shares.map(|share| share * share.ln()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient of every `step`-th entry of each parameter against the difference quotient of the mean loss.
    pub fn check_gradients(task: &dyn Task, samples: &[usize], step: usize) -> Result<()> {
        let mean = |parameters: &[Parameter]| -> Result<f64> {
            let losses = evaluate(task, parameters, Part::Train, samples)?.losses;
            Ok(losses.iter().map(|&l| f64::from(l)).sum::<f64>() / losses.len() as f64)
        };
        let mut parameters = task.parameters(2);
        differentiate(task, &mut parameters, samples)?;
        for tensor in 0..parameters.len() {
            for i in (0..parameters[tensor].values.len()).step_by(step) {
                let gradient = f64::from(parameters[tensor].gradient[i]);
                let mut shifted = |by: f32| -> Result<f64> {
                    let old = parameters[tensor].values[i];
                    parameters[tensor].values[i] = old + by;
                    let loss = mean(&parameters);
                    parameters[tensor].values[i] = old;
                    loss
                };
                let quotient = (shifted(1e-3)? - shifted(-1e-3)?) / 2e-3;
                assert!(
                    (gradient - quotient).abs() < 2e-3,
                    "{}, {}, {i}: {gradient} but {quotient}",
                    task.network().name(),
                    parameters[tensor].name
                );
            }
        }
        Ok(())
    }

    #[test]
    fn entropies() {
        assert_eq!(entropy(&[0, 7, 0]), 0.0);
        assert!((entropy(&[3, 0, 3, 3, 3]) - 4.0_f64.ln()).abs() < 1e-12);
    }
}
