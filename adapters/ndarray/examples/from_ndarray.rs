//! Least squares with ndarray: a matrix and a bias that turn three numbers into two are learnt from 64 samples.
//! `cargo run --release -p koala-ndarray --example from_ndarray`

use std::error::Error;

use koala_ndarray::{in_layout_of, tensor};
use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType};
use ndarray::{Array1, Array2, Axis, array};

fn main() -> Result<(), Box<dyn Error>> {
    let input = Array2::from_shape_fn((64, 3), |(sample, i)| ((sample * (i + 3) + i) as f32).sin());
    let truth = array![[1.0_f32, -2.0], [0.5, 3.0], [-1.5, 0.25]];
    let output = input.dot(&truth) + array![0.5_f32, -1.0];

    let (mut weight, mut bias) = (Array2::<f32>::zeros((3, 2)), Array1::<f32>::zeros(2));
    let mut optimizer = Optimizer::new(Config::default())?;
    let group = optimizer.add_group(Settings { learning_rate: 0.5, ..Settings::default() })?;
    optimizer.add_tensor("weight", weight.len(), ElementType::F32, StateType::Same, group)?;
    optimizer.add_tensor("bias", bias.len(), ElementType::F32, StateType::Same, group)?;

    for step in 1..=100 {
        let error = input.dot(&weight) + &bias - &output;
        let losses = error.pow2().sum_axis(Axis(1));
        let scaled = error * (2.0 / 64.0);
        // Taken as a transposed matrix, so that it lies in memory in another order than the weight.
        let weight_gradient = scaled.t().dot(&input);
        let weight_gradient = in_layout_of(&weight, weight_gradient.t());
        let bias_gradient = scaled.sum_axis(Axis(0));

        let loss = Loss::from_samples(&losses.to_vec())?;
        optimizer.step(
            loss,
            &mut [
                tensor("weight", weight.view_mut(), weight_gradient.view())?,
                tensor("bias", bias.view_mut(), bias_gradient.view())?,
            ],
        )?;
        if step % 20 == 0 {
            println!("step {step:3}: loss {:.6}", loss.mean);
        }
    }
    let off = (&weight - &truth).mapv(f32::abs).fold(0.0, |most, &entry| entry.max(most));
    println!("the weight's entries are within {off:.4} of the truth");
    if off < 0.05 { Ok(()) } else { Err("the weight was not found".into()) }
}
