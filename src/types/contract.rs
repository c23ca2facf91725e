//! The numerics contract: why the same inputs give the same bits on every machine, and the constants that fix it.
//!
//! For the same inputs and settings, the parameters, v, h, the scalars and the report are identical to the last bit
//! on every backend, with any number of threads, and any alignment of the buffers.
//! It does not matter either how the tensors of a model are divided over calls, as long as each call has whole tensors and
//! nothing couples them: KOALA-V's and KOALA-M's shared variances, clipping by the norm of all, and the policies that keep
//! all tensors or raise an error do. Everything that decides a bit is written here, and only here.
//!
//! A tensor that is itself divided, and stepped in two halves, has the bits of the whole only if its parts are subtrees of
//! the sum that is described below; other parts agree to the rounding of a sum in float64.
//!
//! # Why results differ elsewhere, and how that is avoided
//!
//! Every single operation of IEEE 754 (+, −, ×, ÷, √, conversions) has exactly one correct result, on every
//! processor. Programs still differ because *which* operations are done, and in which order, is left to the compiler,
//! the vector width or the thread count. So all of that is fixed:
//!
//! 1. **Elementwise arithmetic** is done in the *arithmetic type*: f64 for f64 parameters, f32 for all others, in the
//!    order in which the method's file in `src/methods` writes it. Each multiply and each add is rounded by itself; a
//!    fused multiply-add is never used. The step is bound by memory, so nothing is lost by it.
//! 2. **Dot products** have a fixed shape, described below, through which no vector width and no thread shows.
//! 3. **Scalars** are f64, computed in the order in which the method's file writes them. A coefficient
//!    that multiplies a vector is rounded once to the arithmetic type.
//! 4. **Conversions** to bf16, f16 and f32 are rounded once, to nearest, ties to even.
//!
//! The payload of a NaN is not promised, and the processor has to be in its default floating-point state (round to
//! nearest, denormals kept), as it is unless a program changes it.
//!
//! # The shape of a dot product
//!
//! Element `i` of a tensor belongs to *lane* `i mod 16`; sixteen consecutive elements are a *row*, [`RUN_ROWS`] rows
//! a *run*, [`BLOCK`] elements a *block*.
//!
//! ```text
//! run:    per lane, in the arithmetic type:   p₀ + p₁ + … + p₇      (products of that lane, in order)
//! block:  per lane, in float64, from +0:      0 + run₀ + run₁ + …   (each run widened, in order)
//! lanes:  (lane i) + (lane i + 8), then + 4, + 2, + 1               (a tree of four levels)
//! blocks: an aligned binary tree: the left part of n blocks is the largest power of two below n
//! ```
//!
//! A machine of 4, 8 or 16 lanes does the same additions, only more or fewer of them at once. A last row that is not
//! full is filled up with zeros, which changes no bit: the sums start from +0, and +0 stays +0 when a zero of either
//! sign is added. The tree over blocks is why threads do not show: any run of [`CHUNK`] aligned elements is a whole
//! subtree, whoever computes it.
//!
//! # Other methods, and gradients that are scaled
//!
//! All of this holds for every [`Method`](crate::Method), which divide and take square roots too: each is rounded once.
//! What KOALA-V and KOALA-M share among tensors moves once in a step, by the largest gain of the tensors given, whatever
//! their order; so a model that is split over calls is to them several steps.
//!
//! A gradient that is [scaled](crate::Scaling) gives, bit by bit, what it would if each element had been scaled before, in
//! the arithmetic type: for bf16 and f16 that is what f32 holds, which is more than they do. Clipping by the
//! [norm of all](crate::Config::clip_norm) is the same on every backend and with any number of threads. Where the norm is
//! not reached, the results are, bit by bit, those without clipping. Where it is, they equal those of gradients that were
//! clipped before only to rounding: H·H, H·h and H·v are then put together, in float64, from products that are taken
//! before the norm is known, of θ and of H as it is unclipped; where the clipped gradient and the weight decay nearly
//! cancel out, and the unclipped ones do not, H·H has the rounding of these. The squares of tensors are added up in the
//! order in which they were added to the optimizer.
//!
//! # Accuracy
//!
//! A run of eight products makes eight roundings at most on each of them, so for f32 a dot differs from the exact sum
//! by at most 8 · 2⁻²⁴ = 2⁻²¹ times Σ|aᵢbᵢ|, whatever the length; the float64 sums above the runs add nothing that
//! shows. For f64 every level rounds alike: at most (20 + log₂(n/1024)) · 2⁻⁵³ times Σ|aᵢbᵢ|.
//!
//! Products and runs are formed in the arithmetic type. In f32 a product above 3.4·10³⁸ overflows, and so does a run
//! whose eight products are 4.3·10³⁷ each: a gradient with elements above 6.5·10¹⁸ may, one above 1.8·10¹⁹ does. The
//! step is then reported as non-finite and writes nothing. A product below 1.2·10⁻³⁸ loses digits, at most 2⁻¹⁵⁰ each.
//!
//! # Overflow
//!
//! A step does not make a finite parameter, or an element of the state, infinite, as its type has it (f16 ends at 65504):
//! such a tensor is reported as non-finite and kept. No element is farther from zero than the norm of its vector, and the
//! norms of g, H and h are among the dots; so nearly always the scalars show that nothing overflows. Where they do not,
//! pass 2 is tried on copies before anything is written, which takes a pass more. Where f64 parameters have an f32 or bf16
//! state, and the rule takes θ into it (KOALA-M, and SGD with momentum and weight decay), θ·θ is taken too. What no dot
//! measures is taken to be within these bounds, which ordinary training never leaves; beyond them, what overflows is
//! written. The largest number is that of the type of the elements:
//!
//! ```text
//! all       |θ| is at most half of the largest number
//! KOALA++   ‖v‖ ≤ (σ + steps·Q)·‖h‖: v is h times the covariance, which begins as σ and grows by Q
//! KOALA-M   |u| is at most half of the largest number
//! AdamW     |m|/√v ≤ 1/√(1 − β₂), but where v is lost below the smallest number of its type
//! SGD       ‖u‖ ≤ ‖g‖/(1 − μ), for the parameters; u itself stays finite whatever it was; with a weight decay, |θ| is at
//!           most a 1024th of the largest number
//! ```
//!
//! Nobody looks in [`kernel::plan`](crate::kernel::plan), which has no elements, at a prediction of KOALA-M, under
//! [`OnNonFinite::Unchecked`](crate::OnNonFinite) with AdamW and SGD, and at a copy in half precision, where a parameter
//! that is too large for it becomes infinite. Where a parameter is not finite before a step, it stays so.

/// Elements in a row: the number of virtual lanes.
pub const LANES: usize = 16;

/// Rows that are summed in the arithmetic type before they are widened to float64.
pub const RUN_ROWS: usize = 8;

/// Elements in a block: the leaves of the tree over blocks.
pub const BLOCK: usize = 1024;

/// Elements in a chunk: what one task of one thread takes. Any power-of-two number of blocks gives the same bits.
pub const CHUNK: usize = 64 * BLOCK;

/// A tensor whose gradient has a Euclidean norm below this keeps its parameters and its state.
pub const SKIP_GRADIENT_NORM: f64 = 1e-9;

/// The least number by which gradients are multiplied, or that they are limited to. Below that, an f32 loses digits of it,
/// and in the end all of it: gradients would vanish.
pub const LEAST_FACTOR: f64 = 1e-37;
