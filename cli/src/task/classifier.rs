//! Two networks that classify images: a multilayer perceptron, and a small convolutional network.

use anyhow::Result;
use candle_core::{Device, Tensor};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::task::images::{CLASSES, Data, Images};
use crate::task::{Forward, HeldOut, Network, Parameter, Part, Task, cross_entropy, entropy, size};

/// The kinds of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// A multilayer perceptron with one hidden layer
    Mlp,
    /// Two convolutions of 5x5 with a stride of 2, and a linear layer
    Conv,
}

/// Images to classify, and the network that does.
#[derive(Clone, Debug)]
pub struct Classifier {
    data: Data,
    model: Model,
    /// Rows and columns of the images, and of what each convolution leaves of them.
    sides: [(usize, usize); 3],
}

const HIDDEN: usize = 256;
const CHANNELS: [usize; 3] = [1, 8, 16];
const KERNEL: usize = 5;
const STRIDE: usize = 2;

impl Classifier {
    /// A network of this kind for these images.
    pub fn new(data: Data, model: Model) -> Classifier {
        let Images { height, width, .. } = data.train;
        let sides = [1, 2, 4].map(|shrink| (height.div_ceil(shrink), width.div_ceil(shrink)));
        Classifier { data, model, sides }
    }

    fn images(&self, part: Part) -> &Images {
        match part {
            Part::Train => &self.data.train,
            Part::HeldOut => &self.data.test,
        }
    }
}

impl Task for Classifier {
    fn data(&self) -> &str {
        &self.data.name
    }

    fn checksum(&self) -> u64 {
        self.data.checksum
    }

    fn network(&self) -> Network {
        match self.model {
            Model::Mlp => Network::Mlp,
            Model::Conv => Network::Conv,
        }
    }

    fn describe(&self) -> String {
        format!(
            "{}: {} images to train on, {} to {} on\nNetwork: {}, {} parameters",
            self.data.name,
            self.data.train.count(),
            self.data.test.count(),
            self.data.held_out.verb(),
            self.network().title(),
            size(&self.parameters(0))
        )
    }

    fn held_out(&self) -> HeldOut {
        self.data.held_out
    }

    fn count(&self, part: Part) -> usize {
        self.images(part).count()
    }

    /// Drawn by He's rule: uniform, of variance 2 / inputs.
    fn parameters(&self, seed: u64) -> Vec<Parameter> {
        let [in_channels, middle, out_channels] = CHANNELS;
        let layers = match self.model {
            Model::Mlp => vec![
                ("hidden.weight", "hidden.bias", self.data.train.size(), HIDDEN),
                ("output.weight", "output.bias", HIDDEN, CLASSES),
            ],
            Model::Conv => vec![
                ("conv1.weight", "conv1.bias", in_channels * KERNEL * KERNEL, middle),
                ("conv2.weight", "conv2.bias", middle * KERNEL * KERNEL, out_channels),
                ("output.weight", "output.bias", self.sides[2].0 * self.sides[2].1 * out_channels, CLASSES),
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
        parameters
    }

    fn forward(&self, parameters: &[Tensor], part: Part, samples: &[usize]) -> Result<Forward> {
        let images = self.images(part).select(samples);
        let input = Tensor::from_slice(&images.pixels, (images.count(), images.size()), &Device::Cpu)?;
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
            _ => unreachable!("a network is given the parameters of its model"),
        };
        let labels: Vec<u32> = images.labels.iter().map(|&label| u32::from(label)).collect();
        let (losses, right) = cross_entropy(&logits, &labels)?;
        Ok(Forward { losses, right: right as f64 })
    }

    fn guessing(&self) -> f64 {
        let mut counts = [0; CLASSES];
        self.data.train.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        entropy(&counts)
    }

    fn is_text(&self) -> bool {
        false
    }

    fn validation(&self) -> Result<Box<dyn Task>> {
        Ok(Box::new(Classifier::new(self.data.validation()?, self.model)))
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
    use crate::task::tests::check_gradients;

    #[test]
    fn gradients_are_those_of_the_loss() -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let images = Images {
            height: 5,
            width: 6,
            pixels: (0..4 * 30).map(|_| random.random_range(-1.0..1.0)).collect(),
            labels: vec![3, 1, 9, 3],
        };
        for model in [Model::Mlp, Model::Conv] {
            let data = Data::new("noise", images.clone(), images.clone())?;
            check_gradients(&Classifier::new(data, model), &[0, 1, 2, 3], 7)?;
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
