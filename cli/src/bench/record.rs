//! What `koala bench` writes as JSON, and reads again to compare machines: schema `koala-bench-1`.
//!
//! Times are nanoseconds a call, sizes are bytes or elements as the name says. Every [`Figure`] is a median over rounds in
//! which everything that it is compared with was measured in turn.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{input, printable};

/// The schema's name; a later one that can't be read by this code has another.
pub const SCHEMA: &str = "koala-bench-1";

/// The longest record that is read. What is written has less than a thousandth of it.
const MOST_BYTES: u64 = 1 << 28;

/// A figure whose quartiles are further apart than this part of it says nothing, and is shown as noisy.
pub const NOISE_BOUND: f64 = 0.25;

/// Whether a figure of that spread is such a one.
pub(super) fn is_noisy(spread: f64) -> bool {
    spread > NOISE_BOUND || spread.is_nan()
}

/// One run of `koala bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of koala-optim.
    pub version: String,
    /// When the run began, UTC, as 2026-11-24T08:17:13Z.
    pub date: String,
    /// Whether it was a quick one.
    pub quick: bool,
    /// How long it took.
    pub seconds: f64,
    /// What it ran on.
    pub processor: Processor,
    /// The streaming limits: the same streams without arithmetic.
    pub limits: Vec<Limit>,
    /// Both passes and the whole step, one tensor.
    pub passes: Vec<Pass>,
    /// The whole step of one tensor of a few elements.
    pub small: Vec<Small>,
    /// The step of whole models.
    pub models: Vec<Model>,
    /// One very long tensor, where there was memory and time for it.
    #[serde(default)]
    pub long: Option<Long>,
    /// What was not measured, and why.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Which backend to use.
    pub advice: Advice,
}

impl Record {
    /// The record in that file.
    pub fn read(path: &Path) -> Result<Self> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            schema: String,
        }
        let named = || printable::path(path);
        let text = input::read(path, MOST_BYTES).with_context(named)?;
        let Versioned { schema } = serde_json::from_slice(&text).with_context(named)?;
        ensure!(schema == SCHEMA, "{}: its schema is `{schema}`; this version reads `{SCHEMA}`", printable::path(path));
        serde_json::from_slice(&text).with_context(named)
    }
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Processor {
    /// As the system names it.
    pub name: String,
    /// x86_64 or aarch64, say.
    pub architecture: String,
    /// What the system lets this process use.
    pub threads: usize,
    /// Those that a backend asks for, or might.
    pub features: Vec<String>,
    /// Data caches, the smallest first.
    pub caches: Vec<Cache>,
    /// Of the whole machine.
    pub memory_bytes: u64,
}

/// One level of cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cache {
    /// 1, 2 or 3.
    pub level: u8,
    /// Of one such cache.
    pub bytes: u64,
    /// By how many threads it is shared, where known.
    pub shared_by: Option<usize>,
}

/// A time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// The median.
    pub nanoseconds: f64,
    /// The distance between the quartiles, as a part of the median.
    pub spread: f64,
    /// How many rounds there were.
    pub rounds: usize,
}

/// What a tensor's vectors are stored in, and what is read of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// f32, f64, bf16 or f16.
    pub parameters: String,
    /// What v and h are stored in.
    pub state: String,
    /// Whether there is a weight decay: pass 1 then reads θ too.
    pub weight_decay: bool,
}

/// Which part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The dots: reads g, h, v, and θ with weight decay.
    Pass1,
    /// The update: reads all four, writes θ, h and v.
    Pass2,
    /// Both.
    Step,
}

/// A streaming limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// The streams' types.
    pub kind: Kind,
    /// Pass 1 (read) or pass 2 (read and write).
    pub part: Part,
    /// Elements of each stream.
    pub parameters: usize,
    /// At once.
    pub threads: usize,
    /// Read and written, per parameter.
    pub bytes_per_parameter: f64,
    /// Of all of it.
    pub time: Figure,
}

/// One backend's time for a part of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// Its name.
    pub backend: String,
    /// The tensor's types.
    pub kind: Kind,
    /// Which part.
    pub part: Part,
    /// The tensor's length.
    pub parameters: usize,
    /// At once.
    pub threads: usize,
    /// Read and written, per parameter.
    pub bytes_per_parameter: f64,
    /// Of all of it.
    pub time: Figure,
    /// The limit's time over this time, the median of the rounds' ratios; none for the whole step.
    pub share_of_limit: Option<f64>,
    /// The ratios' quartile distance.
    pub share_spread: Option<f64>,
    /// For several threads, which are a pool: `time` is for a caller that belongs to the pool; this for one that does
    /// not, where the optimizer decides whether waking the pool pays.
    #[serde(default)]
    pub from_outside: Option<Figure>,
}

/// The whole step of a small tensor of f32 with weight decay, one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Small {
    /// The backend's name.
    pub backend: String,
    /// The tensor's length.
    pub parameters: usize,
    /// By the kernel's `step`, the same tensor again and again.
    pub alone: Figure,
    /// By one `Optimizer::step` over many such tensors, divided by their number.
    pub in_model: Figure,
}

/// The step of a whole model, f32 parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// ResNet-50, say.
    pub name: String,
    /// Their number.
    pub tensors: usize,
    /// In all of them.
    pub parameters: usize,
    /// KOALA++, or what it is compared with.
    pub optimizer: String,
    /// The backend's name; none for what has no backends.
    pub backend: Option<String>,
    /// What the state is stored in.
    pub state: String,
    /// At once.
    pub threads: usize,
    /// Of one step.
    pub time: Figure,
    /// This time over that of the AdamW-shaped pass with as many threads, the median of the rounds' ratios.
    pub ratio_to_adamw: Option<f64>,
    /// The ratios' quartile distance.
    pub ratio_spread: Option<f64>,
}

/// The whole step of one very long tensor of f32 with weight decay, one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Long {
    /// The backend's name.
    pub backend: String,
    /// The tensor's length.
    pub parameters: usize,
    /// Of a step.
    pub time: Figure,
    /// The length of the one that it is compared with.
    pub shorter_parameters: usize,
    /// Of a step of that one.
    pub shorter_time: Figure,
    /// The time per parameter over that of the shorter one, the median of the rounds' ratios.
    pub ratio: f64,
    /// What its four vectors take.
    pub vectors_bytes: u64,
    /// By how much the process grew for it.
    pub resident_bytes: u64,
}

/// What to do on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Advice {
    /// The backend with the least time over the sizes measured.
    pub backend: String,
    /// Each other backend's time over that backend's: the geometric mean over sizes, f32, whole step, one thread.
    pub slower_by: Vec<(String, f64)>,
    /// Whether the machine was quiet enough to judge; if not, why.
    pub noise: Option<String>,
}
