//! The UCI digits, which are part of the program. `data/README.md` says where they are from.

use std::io::Read;

use anyhow::{Context, Result, ensure};

use crate::task::images::{CLASSES, Data, Images};

const FILE: &[u8] = include_bytes!("../../data/digits.csv.gz");
const SIDE: usize = 8;

/// The digits: four fifths to train on and one fifth held out, the same whatever the seed.
pub fn load() -> Result<Data> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(FILE)
        .read_to_string(&mut text)
        .context("the digits inside the program are damaged")?;
    let (train, test) = parse(&text)?.split();
    Data::new("UCI digits", train, test)
}

fn parse(text: &str) -> Result<Images> {
    let mut images = Images { height: SIDE, width: SIDE, pixels: Vec::new(), labels: Vec::new() };
    for (i, line) in text.lines().enumerate() {
        let numbers: Vec<f32> = line
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("line {} of the digits", i + 1))?;
        let (label, pixels) = numbers.split_last().unwrap_or((&0.0, &[]));
        ensure!(
            pixels.len() == images.size() && *label < CLASSES as f32 && *label >= 0.0,
            "line {} of the digits is not {} pixels and a digit",
            i + 1,
            images.size()
        );
        images.pixels.extend(pixels);
        images.labels.push(*label as u8);
    }
    Ok(images)
}
