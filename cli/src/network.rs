//! The networks: a multilayer perceptron, and a small convolutional network. candle differentiates both.
//!
//! The parameters live outside of candle, as named slices, because that is what an optimizer of this project
//! (and of most others) is given. A network turns them and some images into one loss per image.

use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::images::{CLASSES, Images};

/// The kinds of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// A multilayer perceptron with one hidden layer
    Mlp,
    /// Two convolutions of 5x5 with a stride of 2, and a linear layer
    Conv,
}

impl Model {
    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Model::Mlp => "multilayer perceptron",
            Model::Conv => "convolutional",
        }
    }
}

/// One tensor of parameters, with its last gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Such as `hidden.weight`.
    pub name: &'static str,
    /// The lengths of its dimensions.
    pub shape: Vec<usize>,
    /// Its entries.
    pub values: Vec<f32>,
    /// The gradient of the mean loss in it.
    pub gradient: Vec<f32>,
}

/// A network and its parameters.
#[derive(Clone, Debug)]
pub struct Network {
    model: Model,
    /// Rows and columns of the images, and of what each convolution leaves of them.
    sides: [(usize, usize); 3],
    /// All parameters, in the order of the layers.
    pub parameters: Vec<Parameter>,
}

/// What a network makes of some images.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The cross-entropy of each image, in nats.
    pub losses: Vec<f32>,
    /// How many images it gave the greatest probability to the right class.
    pub correct: usize,
}

const HIDDEN: usize = 256;
const CHANNELS: [usize; 3] = [1, 8, 16];
const KERNEL: usize = 5;
const STRIDE: usize = 2;

impl Network {
    /// A network for images of this size, its weights drawn by He's rule (uniform, of variance 2 / inputs).
    pub fn new(model: Model, height: usize, width: usize, seed: u64) -> Result<Network> {
        let sides = [1, 2, 4].map(|shrink| (height.div_ceil(shrink), width.div_ceil(shrink)));
        let [in_channels, middle, out_channels] = CHANNELS;
        let layers = match model {
            Model::Mlp => vec![
                ("hidden.weight", "hidden.bias", height * width, HIDDEN),
                ("output.weight", "output.bias", HIDDEN, CLASSES),
            ],
            Model::Conv => vec![
                ("conv1.weight", "conv1.bias", in_channels * KERNEL * KERNEL, middle),
                ("conv2.weight", "conv2.bias", middle * KERNEL * KERNEL, out_channels),
                ("output.weight", "output.bias", sides[2].0 * sides[2].1 * out_channels, CLASSES),
            ],
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = Vec::new();
        for (weight, bias, inputs, outputs) in layers {
            let bound = (6.0 / inputs as f32).sqrt();
            let values = (0..inputs * outputs).map(|_| random.random_range(-bound..bound)).collect();
            parameters.push(Parameter::new(weight, vec![inputs, outputs], values));
            parameters.push(Parameter::new(bias, vec![outputs], vec![0.0; outputs]));
        }
        Ok(Network { model, sides, parameters })
    }

    /// The number of parameters.
    pub fn size(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.values.len()).sum()
    }

    /// Evaluates the network on these images.
    pub fn evaluate(&self, images: &Images) -> Result<Outcome> {
        let tensors = self
            .parameters
            .iter()
            .map(|p| Tensor::from_slice(&p.values, &p.shape[..], &Device::Cpu))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.forward(&tensors, images)?.1)
    }

    /// Evaluates the network, and sets each parameter's gradient to that of the mean loss.
    pub fn differentiate(&mut self, images: &Images) -> Result<Outcome> {
        let variables = self
            .parameters
            .iter()
            .map(|p| Var::from_slice(&p.values, &p.shape[..], &Device::Cpu))
            .collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let (losses, outcome) = self.forward(&tensors, images)?;
        let gradients = losses.mean_all()?.backward()?;
        for (parameter, variable) in self.parameters.iter_mut().zip(&variables) {
            parameter.gradient = match gradients.get(variable) {
                Some(gradient) => gradient.flatten_all()?.to_vec1()?,
                None => vec![0.0; parameter.values.len()],
            };
        }
        Ok(outcome)
    }

    /// The loss of each image as a tensor that can be differentiated, and the same in plain numbers.
    fn forward(&self, parameters: &[Tensor], images: &Images) -> Result<(Tensor, Outcome)> {
        let count = images.count();
        let input = Tensor::from_slice(&images.pixels, (count, images.size()), &Device::Cpu)?;
        let logits = match (self.model, parameters) {
            (Model::Mlp, [w1, b1, w2, b2]) => {
                let hidden = input.matmul(w1)?.broadcast_add(b1)?.relu()?;
                hidden.matmul(w2)?.broadcast_add(b2)?
            }
            (Model::Conv, [w1, b1, w2, b2, w3, b3]) => {
                let first = convolve(&input, w1, b1, self.sides[0])?;
                let second = convolve(&first, w2, b2, self.sides[1])?;
                second.matmul(w3)?.broadcast_add(b3)?
            }
            _ => unreachable!("a network is made with the parameters of its model"),
        };
        let greatest = logits.max_keepdim(D::Minus1)?.detach();
        let shifted = logits.broadcast_sub(&greatest)?;
        let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let labels: Vec<u32> = images.labels.iter().map(|&label| u32::from(label)).collect();
        let right = Tensor::from_slice(&labels, (count, 1), &Device::Cpu)?;
        let losses = (normalizer - shifted.gather(&right, 1)?)?.squeeze(1)?;

        let guesses: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
        let correct = guesses.iter().zip(&labels).filter(|(guess, label)| guess == label).count();
        let outcome = Outcome { losses: losses.to_vec1()?, correct };
        Ok((losses, outcome))
    }
}

impl Parameter {
    fn new(name: &'static str, shape: Vec<usize>, values: Vec<f32>) -> Parameter {
        Parameter { name, shape, gradient: vec![0.0; values.len()], values }
    }
}

/// A convolution of 5x5 at every second pixel of every second row, and relu. Images lie flat, row by row, the
/// channels of a pixel side by side.
///
/// It is a choice of pixels and one product of matrices rather than candle's own convolution, so that both the forward
/// and the backward pass are products of matrices.
fn convolve(input: &Tensor, weight: &Tensor, bias: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let count = input.dim(0)?;
    let (patch, _) = weight.dims2()?;
    let channels = patch / (KERNEL * KERNEL);
    let padding = KERNEL / 2;
    let padded = input
        .reshape((count, height, width, channels))?
        .pad_with_zeros(1, padding, padding)?
        .pad_with_zeros(2, padding, padding)?
        .flatten_from(1)?;
    let index = patches(height, width, channels);
    let index = Tensor::from_slice(&index, index.len(), &Device::Cpu)?;
    let output = padded
        .index_select(&index, 1)?
        .reshape((count, index.elem_count() / patch, patch))?
        .flatten_to(1)?
        .matmul(weight)?
        .broadcast_add(bias)?
        .relu()?;
    Ok(output.reshape((count, ()))?)
}

/// For each pixel of the output in turn, where its patch lies in the padded input.
fn patches(height: usize, width: usize, channels: usize) -> Vec<u32> {
    let pairs = |rows: usize, columns: usize, step: usize| {
        (0..rows).step_by(step).flat_map(move |y| (0..columns).step_by(step).map(move |x| (y, x)))
    };
    let padded_width = width + KERNEL - 1;
    pairs(height, width, STRIDE)
        .flat_map(|(y, x)| pairs(KERNEL, KERNEL, 1).map(move |(dy, dx)| (y + dy) * padded_width + x + dx))
        .flat_map(|pixel| (pixel * channels..(pixel + 1) * channels).map(|i| i as u32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient of every 7th parameter against the difference quotient of the loss.
    #[test]
    fn gradients_are_those_of_the_loss() -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let images = Images {
            height: 5,
            width: 6,
            pixels: (0..4 * 30).map(|_| random.random_range(-1.0..1.0)).collect(),
            labels: vec![3, 1, 9, 3],
        };
        let mean = |network: &Network| -> Result<f64> {
            let losses = network.evaluate(&images)?.losses;
            Ok(losses.iter().map(|&l| f64::from(l)).sum::<f64>() / losses.len() as f64)
        };
        for model in [Model::Mlp, Model::Conv] {
            let mut network = Network::new(model, images.height, images.width, 2)?;
            network.differentiate(&images)?;
            for tensor in 0..network.parameters.len() {
                for i in (0..network.parameters[tensor].values.len()).step_by(7) {
                    let gradient = f64::from(network.parameters[tensor].gradient[i]);
                    let mut shifted = |by: f32| -> Result<f64> {
                        let old = network.parameters[tensor].values[i];
                        network.parameters[tensor].values[i] = old + by;
                        let loss = mean(&network);
                        network.parameters[tensor].values[i] = old;
                        loss
                    };
                    let quotient = (shifted(1e-3)? - shifted(-1e-3)?) / 2e-3;
                    assert!(
                        (gradient - quotient).abs() < 2e-3,
                        "{model:?}, {}, {i}: {gradient} but {quotient}",
                        network.parameters[tensor].name
                    );
                }
            }
        }
        Ok(())
    }

    /// A kernel with a single 1 off its centre picks every second pixel, shifted.
    #[test]
    fn a_convolution_looks_where_it_should() -> Result<()> {
        let image: Vec<f32> = (1..=12).map(|p| p as f32).collect(); // 3 rows, 4 columns
        let input = Tensor::from_slice(&image, (1, 12), &Device::Cpu)?;
        let mut kernel = [0.0_f32; KERNEL * KERNEL];
        kernel[2 * KERNEL + 3] = 1.0; // the right neighbour
        let weight = Tensor::from_slice(&kernel, (kernel.len(), 1), &Device::Cpu)?;
        let bias = Tensor::from_slice(&[0.5_f32], 1, &Device::Cpu)?;
        let output = convolve(&input, &weight, &bias, (3, 4))?;
        assert_eq!(output.to_vec2::<f32>()?, [[2.5, 4.5, 10.5, 12.5]]);
        Ok(())
    }
}
