//! A language model of characters: a small transformer, which guesses each character of a text from those before it.
//!
//! It is the usual one: blocks of causal attention by several heads and of a perceptron, each behind a normalization by
//! the root mean square and beside a residual connection, and learnt positions.

use anyhow::Result;
use candle_core::{D, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::task::text::Text;
use crate::task::{Forward, HeldOut, Network, Parameter, Part, Task, cross_entropy, entropy, size};

/// The sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The characters of a sample, each of which is guessed from those before it in the sample.
    pub context: usize,
    /// The numbers that stand for a character between the layers: a multiple of the heads.
    pub width: usize,
    /// The heads of each attention.
    pub heads: usize,
    /// The blocks.
    pub blocks: usize,
}

impl Default for Shape {
    /// Small enough to train within a minute on one core.
    fn default() -> Self {
        Shape { context: 64, width: 64, heads: 4, blocks: 2 }
    }
}

/// A text, and the transformer that reads it.
#[derive(Clone, Debug)]
pub struct Language {
    text: Text,
    shape: Shape,
}

/// The tensors of a block.
const BLOCK: usize = 10;
/// Keeps the root mean square from zero.
const EPSILON: f64 = 1e-5;

impl Language {
    /// Each part of the text must have more characters than a sample.
    pub fn new(text: Text, shape: Shape) -> Language {
        Language { text, shape }
    }

    fn part(&self, part: Part) -> &[u32] {
        match part {
            Part::Train => &self.text.train,
            Part::HeldOut => &self.text.test,
        }
    }

    /// What is guessed to follow each character of whole samples: a row for each.
    fn logits(&self, parameters: &[Tensor], characters: &[u32]) -> Result<Tensor> {
        let Shape { context, width, .. } = self.shape;
        let [embedding, positions, blocks @ .., gain, weight, bias] = parameters else {
            unreachable!("a network is given its parameters");
        };
        let mut x = embedding
            .index_select(&Tensor::new(characters, &Device::Cpu)?, 0)?
            .reshape(((), context, width))?
            .broadcast_add(positions)?
            .reshape(((), width))?;
        let hidden = |i| if i % context > i / context { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..context * context).map(hidden).collect();
        let mask = Tensor::from_vec(mask, (context, context), &Device::Cpu)?;
        for block in blocks.chunks(BLOCK) {
            x = self.block(x, block, &mask)?;
        }
        Ok(normalize(&x, gain)?.matmul(weight)?.broadcast_add(bias)?)
    }

    /// What a block adds to the rows.
    fn block(&self, x: Tensor, parameters: &[Tensor], mask: &Tensor) -> Result<Tensor> {
        let [gain1, query, key, value, mix, gain2, w1, b1, w2, b2] = parameters else {
            unreachable!("a block is given its parameters");
        };
        let Shape { context, width, heads, .. } = self.shape;
        let by_head = |rows: Tensor| rows.reshape(((), context, heads, width / heads))?.transpose(1, 2)?.contiguous();
        let normal = normalize(&x, gain1)?;
        let (query, key, value) =
            (by_head(normal.matmul(query)?)?, by_head(normal.matmul(key)?)?, by_head(normal.matmul(value)?)?);
        let scores = (query.matmul(&key.t()?.contiguous()?)? / ((width / heads) as f64).sqrt())?.broadcast_add(mask)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let seen = weights.matmul(&value)?.transpose(1, 2)?.reshape(((), width))?;
        let x = (x + seen.matmul(mix)?)?;
        let hidden = normalize(&x, gain2)?.matmul(w1)?.broadcast_add(b1)?.gelu()?;
        Ok((x + hidden.matmul(w2)?.broadcast_add(b2)?)?)
    }
}

impl Task for Language {
    fn data(&self) -> &str {
        &self.text.name
    }

    fn checksum(&self) -> u64 {
        self.text.checksum
    }

    fn network(&self) -> Network {
        Network::Transformer
    }

    fn describe(&self) -> String {
        let Shape { context, width, heads, blocks } = self.shape;
        format!(
            "{}: {} characters to train on, the {} after them to {} on, {} different ones\n\
             Network: transformer, {blocks} blocks of width {width} and {heads} heads, {context} characters of context, \
             {} parameters",
            self.text.name,
            self.text.train.len(),
            self.text.test.len(),
            self.text.held_out.verb(),
            self.text.vocabulary.len(),
            size(&self.parameters(0))
        )
    }

    fn held_out(&self) -> HeldOut {
        self.text.held_out
    }

    /// Samples lie one after another; what follows the last whole one is left out.
    fn count(&self, part: Part) -> usize {
        (self.part(part).len() - 1) / self.shape.context
    }

    /// Drawn uniformly, of variance 1 / inputs; half of that, as there are two additions a block, for what is added to
    /// the residual connection.
    fn parameters(&self, seed: u64) -> Vec<Parameter> {
        let Shape { context, width, blocks, .. } = self.shape;
        let characters = self.text.vocabulary.len();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn = |name: String, [inputs, outputs]: [usize; 2], variance: f32| {
            let bound = (3.0 * variance).sqrt();
            let values = (0..inputs * outputs).map(|_| random.random_range(-bound..bound)).collect();
            Parameter::new(name, vec![inputs, outputs], values)
        };
        let constant = |name: String, length, value| Parameter::new(name, vec![length], vec![value; length]);
        let even = 1.0 / width as f32;
        let residual = even / (2 * blocks) as f32;

        let mut parameters = vec![
            drawn("characters".to_owned(), [characters, width], 0.1),
            drawn("positions".to_owned(), [context, width], 0.1),
        ];
        for block in 0..blocks {
            let name = |part: &str| format!("block{block}.{part}");
            parameters.push(constant(name("attention.gain"), width, 1.0));
            for part in ["query", "key", "value"] {
                parameters.push(drawn(name(&format!("attention.{part}")), [width, width], even));
            }
            parameters.push(drawn(name("attention.output"), [width, width], residual));
            parameters.push(constant(name("perceptron.gain"), width, 1.0));
            parameters.push(drawn(name("perceptron.hidden.weight"), [width, 4 * width], even));
            parameters.push(constant(name("perceptron.hidden.bias"), 4 * width, 0.0));
            parameters.push(drawn(name("perceptron.output.weight"), [4 * width, width], residual / 4.0));
            parameters.push(constant(name("perceptron.output.bias"), width, 0.0));
        }
        parameters.push(constant("output.gain".to_owned(), width, 1.0));
        parameters.push(drawn("output.weight".to_owned(), [width, characters], even));
        parameters.push(constant("output.bias".to_owned(), characters, 0.0));
        parameters
    }

    fn forward(&self, parameters: &[Tensor], part: Part, samples: &[usize]) -> Result<Forward> {
        let context = self.shape.context;
        let text = self.part(part);
        // What comes `shift` characters after each character of each sample.
        let read = |shift: usize| -> Vec<u32> {
            samples.iter().flat_map(|&i| &text[i * context + shift..][..context]).copied().collect()
        };
        let logits = self.logits(parameters, &read(0))?;
        let (losses, right) = cross_entropy(&logits, &read(1))?;
        let losses = losses.reshape((samples.len(), context))?.mean(1)?;
        Ok(Forward { losses, right: right as f64 / context as f64 })
    }

    fn guessing(&self) -> f64 {
        let mut counts = vec![0; self.text.vocabulary.len()];
        self.text.train.iter().for_each(|&number| counts[number as usize] += 1);
        entropy(&counts)
    }

    fn is_text(&self) -> bool {
        true
    }

    fn validation(&self) -> Result<Box<dyn Task>> {
        Ok(Box::new(Language::new(self.text.validation(), self.shape)))
    }
}

/// Each row by its root mean square, each column by its gain.
fn normalize(rows: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let scale = (rows.sqr()?.mean_keepdim(D::Minus1)? + EPSILON)?.sqrt()?;
    Ok(rows.broadcast_div(&scale)?.broadcast_mul(gain)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::check_gradients;

    const SMALL: Shape = Shape { context: 5, width: 6, heads: 2, blocks: 2 };

    fn text(train: &[u32]) -> Text {
        let vocabulary = vec!['a', 'b', 'c'];
        let (train, test) = (train.to_vec(), vec![0; 6]);
        Text { name: String::new(), checksum: 0, vocabulary, train, test, held_out: HeldOut::Test }
    }

    #[test]
    fn gradients_are_those_of_the_loss() -> Result<()> {
        let text = text(&[0, 1, 2, 2, 1, 0, 1, 1, 2, 0, 2, 0, 1, 2, 2, 0]);
        check_gradients(&Language::new(text, SMALL), &[0, 1, 2], 3)
    }

    /// A character changes what is guessed to follow it and those after it, and nothing before.
    #[test]
    fn the_future_is_hidden() -> Result<()> {
        let language = Language::new(text(&[0; 6]), SMALL);
        let tensors =
            language.parameters(0).into_iter().map(|p| Tensor::from_vec(p.values, &p.shape[..], &Device::Cpu));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let logits =
            |characters: [u32; 5]| -> Result<Vec<Vec<f32>>> { Ok(language.logits(&tensors, &characters)?.to_vec2()?) };
        let (before, after) = (logits([0, 1, 2, 0, 1])?, logits([0, 1, 2, 1, 1])?);
        let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
        assert_eq!(same, [true, true, true, false, false]);
        Ok(())
    }
}
