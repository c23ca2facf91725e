//! The structures of `kernels.cu` as the host writes and reads them, the map of chunks, and the groups of tensors that
//! are worked on while they are in the cache.

use std::ops::Range;

use bytemuck::{NoUninit, Pod, Zeroable};

use crate::methods::KoalaPlusPlus;
use crate::types::contract::BLOCK;
use crate::types::element::ElementType;
use crate::types::settings::Settings;

/// Elements of a chunk: what a thread block takes.
pub const CHUNK: usize = 8 * BLOCK;

/// Threads of a thread block: a lane each.
pub const THREADS: u32 = 128;

/// Partial sums of a chunk.
pub const SUMS: usize = 5;

/// The longest tensor.
pub const LONGEST: u64 = 1 << 32;

/// What `kernels.cu` calls a type.
pub fn type_number(element_type: Option<ElementType>) -> u32 {
    match element_type {
        Some(ElementType::F32) => 0,
        Some(ElementType::F64) => 1,
        Some(ElementType::Bf16) => 2,
        Some(ElementType::F16) => 3,
        None => 4,
    }
}

/// A tensor of a step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct TensorRow {
    pub parameters: u64,
    pub gradient: u64,
    pub h: u64,
    pub v: u64,
    pub copy: u64,
    pub settings: u64,
    pub scalars: u64,
    pub length: u64,
    pub parameters_type: u32,
    pub state_type: u32,
    pub copy_type: u32,
    pub first_chunk: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ChunkRow {
    pub tensor: u32,
    pub place: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct SettingsRow {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub initial_variance: f64,
    pub process_noise: f64,
    pub gamma: f64,
    pub variant: u32,
    pub frozen: u32,
    pub device_learning_rate: u64,
    pub learning_rate_type: u32,
    pub unused: u32,
}

impl SettingsRow {
    /// Settings and the numbers of KOALA++. The learning rate may be elsewhere: of that type, at that address.
    pub fn new(settings: Settings, numbers: KoalaPlusPlus, device_learning_rate: Option<(ElementType, u64)>) -> Self {
        let Settings { learning_rate, weight_decay, frozen } = settings;
        let KoalaPlusPlus { initial_variance, process_noise, variant, .. } = numbers;
        SettingsRow {
            learning_rate,
            weight_decay,
            initial_variance,
            process_noise,
            gamma: numbers.gamma(),
            variant: variant as u32,
            frozen: frozen.into(),
            device_learning_rate: device_learning_rate.map_or(0, |(_, address)| address),
            learning_rate_type: type_number(device_learning_rate.map(|(element_type, _)| element_type)),
            unused: 0,
        }
    }
}

/// A filter's scalars, as C has them: four doubles.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ScalarsRow {
    pub h_h: f64,
    pub h_v: f64,
    pub innovation_variance: f64,
    pub steps: f64,
}

/// The bytes of a plan, which the host never looks at.
pub const PLAN_BYTES: usize = size_of::<ScalarsRow>() + 8 * 8 + 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ReportRow {
    pub innovation_variance: f64,
    pub alpha: f64,
    pub lambda: f64,
    pub w: f64,
    pub gradient_norm: f64,
    pub measurement_norm: f64,
    pub parameters_norm: f64,
    pub outcome: u32,
    pub unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ProgressRow {
    pub noise: f64,
    pub steps: u64,
    pub loss: f64,
    pub next_noise: f64,
    pub finite: u32,
    pub counts: [u32; 8],
    pub unused: u32,
}

/// The argument of the three kernels of a step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Launch {
    pub tensors: u64,
    pub chunks: u64,
    pub partials: u64,
    pub plans: u64,
    pub reports: u64,
    pub progress: u64,
    pub device_mean: u64,
    pub device_second_moment: u64,
    pub mean: f64,
    pub second_moment: f64,
    pub noise_decay: f64,
    pub gradient_factor: f64,
    pub gradient_limit: f64,
    pub device_scale: u64,
    pub device_found_infinite: u64,
    pub loss_type: u32,
    pub scaler_type: u32,
    pub first_chunk: u32,
    pub chunks_end: u32,
    pub first_tensor: u32,
    pub tensors_end: u32,
    pub begins: u32,
    pub ends: u32,
    pub fixed_noise: u32,
    pub keep_all: u32,
    pub restart: u32,
    pub norms: u32,
}

/// Words that one launch changes at most: as many as a kernel's argument has room for.
pub const CHANGES: usize = 255;

/// A word of the device's memory that is to be changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Change {
    pub place: u64,
    pub word: u64,
}

/// The argument of the kernel that changes words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Changes {
    pub changes: [Change; CHANGES],
    pub count: u64,
}

impl Changes {
    /// Those of them that one launch can take.
    pub fn of(changes: &[Change]) -> Self {
        let count = changes.len().min(CHANGES);
        let mut argument = Changes { changes: [Change { place: 0, word: 0 }; CHANGES], count: count as u64 };
        argument.changes[..count].copy_from_slice(&changes[..count]);
        argument
    }
}

/// What makes of the memory at `place` this row, which is whole words.
pub fn words(place: u64, row: &impl NoUninit) -> impl Iterator<Item = Change> {
    let words: &[u64] = bytemuck::cast_slice(bytemuck::bytes_of(row));
    (place..).step_by(size_of::<u64>()).zip(words).map(|(place, word)| Change { place, word: *word })
}

/// Consecutive tensors that are worked on together, and their chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub tensors: Range<u32>,
    pub chunks: Range<u32>,
}

/// The chunks of tensors of these lengths.
pub fn chunk_map(lengths: impl Iterator<Item = usize>) -> Vec<ChunkRow> {
    let places = |length: usize| 0..length.div_ceil(CHUNK) as u32;
    let numbered = (0..).zip(lengths);
    numbered.flat_map(|(tensor, length)| places(length).map(move |place| ChunkRow { tensor, place })).collect()
}

/// Groups of as many consecutive tensors as have at most that many bytes to read; a tensor that has more is one of its
/// own. Each tensor is given by its length and its bytes. There is one group at least, since a step begins and ends
/// with one.
pub fn groups(tensors: impl Iterator<Item = (usize, usize)>, bytes_at_most: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = vec![Group { tensors: 0..0, chunks: 0..0 }];
    let mut bytes_in_group = 0_usize;
    for (length, bytes) in tensors {
        let chunks = length.div_ceil(CHUNK) as u32;
        let Some(last) = groups.last_mut() else { break };
        bytes_in_group = bytes_in_group.saturating_add(bytes);
        if bytes_in_group > bytes_at_most && !last.tensors.is_empty() {
            let (tensor, chunk) = (last.tensors.end, last.chunks.end);
            groups.push(Group { tensors: tensor..tensor + 1, chunks: chunk..chunk + chunks });
            bytes_in_group = bytes;
        } else {
            last.tensors.end += 1;
            last.chunks.end += chunks;
        }
    }
    groups
}
