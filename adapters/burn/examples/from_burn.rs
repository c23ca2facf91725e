//! A small network of burn: two layers learn from 128 points which of them are inside of a circle.
//! `cargo run --release -p koala-burn --example from_burn`

#[path = "../../common/circle.rs"]
mod circle;

use std::error::Error;
use std::f32::consts::FRAC_1_SQRT_2;

use burn::module::{Module, Param};
use burn::tensor::activation::{sigmoid, tanh};
use burn::tensor::{Device, Tensor, TensorData};
use burn_core as burn;
use burn_optim::GradientsParams;
use circle::{POINTS, judged, spread};
use koala_burn::{Config, Koala};
use koala_optim::{Loss, Settings};

const HIDDEN: usize = 16;

#[derive(Module, Debug)]
struct Model {
    weight1: Param<Tensor<2>>,
    bias1: Param<Tensor<2>>,
    weight2: Param<Tensor<2>>,
    bias2: Param<Tensor<2>>,
}

impl Model {
    fn new(device: &Device) -> Model {
        let parameter = |rows: usize, columns: usize, scale: f32, ratio: f32| {
            let values: Vec<f32> = (0..rows * columns).map(|i| scale * spread(i, ratio)).collect();
            Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, columns]), device))
        };
        Model {
            weight1: parameter(2, HIDDEN, 2.0, FRAC_1_SQRT_2),
            bias1: parameter(1, HIDDEN, 0.0, 0.0),
            weight2: parameter(HIDDEN, 1, 0.5, 0.430_16),
            bias2: parameter(1, 1, 0.0, 0.0),
        }
    }

    fn forward(&self, points: Tensor<2>) -> Tensor<2> {
        let hidden = tanh(points.matmul(self.weight1.val()) + self.bias1.val());
        hidden.matmul(self.weight2.val()) + self.bias2.val()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (points, inside) = circle::points();
    let device = Device::flex().autodiff();
    let points: Tensor<2> = Tensor::from_data(TensorData::new(points.concat(), [POINTS, 2]), &device);
    let labels: Tensor<2> = Tensor::from_data(TensorData::new(inside.clone(), [POINTS, 1]), &device);

    let mut model = Model::new(&device);
    let settings = Settings { learning_rate: 0.05, ..Settings::default() };
    let mut optimizer = Koala::new(Config { settings, ..Config::default() })?;
    let mut right = 0;
    for step in 1..=1000 {
        let logits = model.forward(points.clone());
        let guesses: Vec<f32> = logits.to_data().try_to_vec()?;
        // The logistic loss of each point: -ln σ(z) if it is inside, and -ln(1 - σ(z)) otherwise.
        let sides = labels.clone() * 2.0 - 1.0;
        let losses = -sigmoid(logits * sides).log();
        let loss = Loss::from_samples(&losses.to_data().try_to_vec::<f32>()?)?;
        let gradients = GradientsParams::from_grads(losses.mean().backward(), &model);
        let report;
        (model, report) = optimizer.step(loss, model, gradients);
        report?;
        right = guesses.iter().zip(&inside).filter(|(guess, inside)| (**guess > 0.0) == (**inside > 0.0)).count();
        if step % 250 == 0 {
            println!("step {step:3}: loss {:.4}, {right} of {POINTS} right", loss.mean);
        }
    }
    judged(right)
}
