//! A small network of candle: two layers learn from 128 points which of them are inside of a circle.
//! `cargo run --release -p koala-candle --example from_candle`

#[path = "../../common/circle.rs"]
mod circle;

use std::error::Error;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module, Optimizer};
use circle::{POINTS, judged, spread};
use koala_candle::{Config, Koala};
use koala_optim::Settings;

const HIDDEN: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let (points, inside) = circle::points();
    let points = Tensor::from_vec(points.concat(), (POINTS, 2), &Device::Cpu)?;
    let inside = Tensor::new(inside, &Device::Cpu)?;

    let first: Vec<f32> = (0..2 * HIDDEN).map(|i| 2.0 * spread(i, 0.569_84)).collect();
    let second: Vec<f32> = (0..HIDDEN).map(|i| 0.5 * spread(i, 0.430_16)).collect();
    let variables = [
        Var::from_vec(first, (HIDDEN, 2), &Device::Cpu)?,
        Var::zeros(HIDDEN, DType::F32, &Device::Cpu)?,
        Var::from_vec(second, (1, HIDDEN), &Device::Cpu)?,
        Var::zeros(1, DType::F32, &Device::Cpu)?,
    ];
    let [w1, b1, w2, b2] = variables.clone().map(|variable| variable.as_tensor().clone());
    let (first, second) = (Linear::new(w1, Some(b1)), Linear::new(w2, Some(b2)));

    let settings = Settings { learning_rate: 0.05, ..Settings::default() };
    let mut optimizer = Koala::new(variables.to_vec(), Config { settings, ..Config::default() })?;
    let mut right = 0;
    for step in 1..=400 {
        let logits = second.forward(&first.forward(&points)?.tanh()?)?.squeeze(1)?;
        // The logistic loss of each point: ln(1 + e^z) - y·z.
        let losses = ((logits.exp()? + 1.0)?.log()? - (&inside * &logits)?)?;
        optimizer.backward_step(&losses)?;
        let guessed = logits.gt(0.0)?.to_dtype(DType::F32)?;
        right = guessed.eq(&inside)?.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?;
        if step % 100 == 0 {
            println!("step {step:3}: loss {:.4}, {right} of {POINTS} right", losses.mean_all()?.to_scalar::<f32>()?);
        }
    }
    judged(right as usize)
}
