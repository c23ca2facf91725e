//! Clipping by the norm of all gradients, which is known only after a first pass over all tensors. That pass therefore
//! takes the products that H·H, H·h and H·v are made of for any clip τ. With x the gradient as scaled but for τ, and
//! H₁ = x + wd·θ what H is where nothing is clipped,
//!
//! ```text
//! H   = τ·x + wd·θ = τ·H₁ + ρ·θ      with ρ = (1 − τ)·wd
//! H·h = τ·(H₁·h) + ρ·(θ·h)      H·v = τ·(H₁·v) + ρ·(θ·v)
//! H·H = (τ²·(H₁·H₁) + 2·τ·ρ·(θ·H₁)) + ρ²·(θ·θ)
//! ```
//!
//! With τ = 1 these are, to the last bit, the dots of a step that does not clip; and where gradient and weight decay
//! nearly cancel out, those of little clipped lose no digits by it.

use crate::dispatch::Backend;
use crate::methods::plan::{Dots, not_below_zero};
use crate::passes::dots;
use crate::passes::dots::{Sums, by_blocks};
use crate::passes::staging::{Scaled, dots_and_squares, dots_of_block, load_block};
use crate::simd::vector::{Operand, Real};
use crate::types::element::Element;

/// The products of which the dots are made for every clip.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Products {
    /// H₁·h, H₁·v, H₁·H₁, θ·θ
    unclipped: Sums,
    /// x·x
    squares: f64,
    /// θ·h, θ·v, θ·H₁
    of_parameters: [f64; 3],
}

impl Products {
    /// x·x, which is not finite where a limit hides what is not.
    pub fn squared_norm(&self) -> f64 {
        self.squares
    }

    /// What pass 1 would have found of a gradient that had been clipped before.
    pub fn dots(&self, clip: f64, weight_decay: f64) -> Dots {
        let [a, b, c, t] = self.unclipped;
        if clip == 1.0 {
            // Whatever the other products are: 0·∞ is not 0.
            return Dots { a, b, c, t, gradient_squared: Some(self.squares) };
        }
        let rho = (1.0 - clip) * weight_decay;
        let [parameters_h, parameters_v, parameters_measurement] = self.of_parameters;
        let crossed = (2.0 * (clip * rho)) * parameters_measurement;
        let c = ((clip * clip) * c + crossed) + (rho * rho) * t;
        Dots {
            a: clip * a + rho * parameters_h,
            b: clip * b + rho * parameters_v,
            // Rounding must not take a sum of squares below zero.
            c: not_below_zero(c),
            t,
            gradient_squared: Some((clip * clip) * self.squares),
        }
    }
}

/// The products of a tensor: the dots of each block and those of its parameters, while it is in the first cache. Without
/// weight decay the parameters are empty, before a first step h and v are.
pub fn products<P: Operand, S: Element>(
    backend: Backend,
    parallel: bool,
    weight_decay: P::Arithmetic,
    scaled: &Scaled<P::Arithmetic>,
    input: &dots::Input<'_, P, S>,
) -> Products {
    let sums = by_blocks(0..input.gradient.len(), parallel, &|range, blocks| {
        let (block, hidden) = load_block(backend, scaled, input, &range, blocks);
        let ([a, b, c, t], squares) = dots_and_squares(backend, weight_decay, &block);
        let [x, y, z] = dots_of_parameters(backend, weight_decay, &block);
        [a, b, hidden.unwrap_or(c), t, hidden.unwrap_or(squares), x, y, z]
    });
    let [a, b, c, t, squares, of_parameters @ ..] = sums;
    Products { unclipped: [a, b, c, t], squares, of_parameters }
}

/// θ·h, θ·v, θ·H₁ of a block.
fn dots_of_parameters<F: Real>(backend: Backend, weight_decay: F, block: &dots::Input<'_, F, F>) -> [f64; 3] {
    let dots::Input { gradient, parameters, h, v } = *block;
    if parameters.is_empty() {
        return [0.0; 3];
    }
    let of_state = dots::Input { gradient: parameters, parameters: &[], h, v };
    let [parameters_h, parameters_v, ..] = dots_of_block(backend, F::zeroed(), &of_state);
    let of_measurement = dots::Input { gradient, parameters, h: parameters, v: parameters };
    let [parameters_measurement, ..] = dots_of_block(backend, weight_decay, &of_measurement);
    [parameters_h, parameters_v, parameters_measurement]
}
