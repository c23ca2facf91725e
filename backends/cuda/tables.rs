//! The structures of `kernels.cu` as the host writes and reads them, the map of chunks, and the groups of tensors that
//! are worked on while they are in the cache.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::contract::BLOCK;
use crate::{ElementType, Settings, Variant};

/// Elements of a chunk: what a thread block takes.
pub const CHUNK: usize = 8 * BLOCK;

/// Threads of a thread block: a lane each.
pub const THREADS: u32 = 128;

/// Partial sums of a chunk.
pub const SUMS: usize = 5;

/// The longest tensor.
pub const LONGEST: usize = 1 << 32;

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
    pub vanilla: u32,
    pub frozen: u32,
}

impl From<Settings> for SettingsRow {
    fn from(settings: Settings) -> Self {
        let Settings { learning_rate, weight_decay, initial_variance, process_noise, variant, frozen } = settings;
        let vanilla = u32::from(variant == Variant::Vanilla);
        SettingsRow { learning_rate, weight_decay, initial_variance, process_noise, vanilla, frozen: frozen.into() }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ScalarsRow {
    pub h_h: f64,
    pub h_v: f64,
    pub innovation_variance: f64,
    pub steps: u64,
}

/// The bytes of a plan, which the host never looks at.
pub const PLAN_BYTES: usize = size_of::<ScalarsRow>() + 6 * 8 + 8;

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
    pub loss_type: u32,
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
    pub unused: u32,
}

/// The argument of the kernel that changes settings and scalars.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Change {
    pub place: u64,
    pub words: [u64; 5],
    pub count: u64,
}

impl Change {
    pub fn settings(place: u64, settings: Settings) -> Self {
        Change { place, words: bytemuck::cast(SettingsRow::from(settings)), count: 5 }
    }

    /// Scalars before a first step.
    pub fn restart(place: u64) -> Self {
        Change { place, words: [0; 5], count: 4 }
    }
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

#[cfg(test)]
mod tests {
    use koala_measure::models;

    use super::*;
    use crate::contract::{LANES, RUN_ROWS, SKIP_GRADIENT_NORM};

    #[test]
    fn the_kernels_have_the_contract_s_numbers() {
        let source = include_str!("kernels.cu");
        for line in [
            format!("constexpr unsigned LANES = {LANES};"),
            format!("constexpr unsigned RUN_ROWS = {RUN_ROWS};"),
            format!("constexpr unsigned BLOCK = {BLOCK};"),
            format!("constexpr double SKIP_GRADIENT_NORM = {SKIP_GRADIENT_NORM:e};"),
            format!("constexpr unsigned CHUNK_BLOCKS = {};", CHUNK / BLOCK),
            format!("constexpr unsigned SUMS = {SUMS};"),
        ] {
            assert!(source.contains(&line), "{line}");
        }
        assert_eq!(THREADS as usize, CHUNK / BLOCK * LANES);
    }

    /// A structure of another size would be another one.
    #[test]
    fn the_kernels_arguments_are_of_these_sizes() {
        let ptx = include_str!("kernels.ptx");
        for (kernel, bytes) in [
            ("koala_dots", size_of::<Launch>()),
            ("koala_recursion", size_of::<Launch>()),
            ("koala_update", size_of::<Launch>()),
            ("koala_change", size_of::<Change>()),
        ] {
            assert!(ptx.contains(&format!(".b8 {kernel}_param_0[{bytes}]")), "{kernel}: {bytes} bytes");
            assert!(ptx.contains(&format!(".visible .entry {kernel}(")), "{kernel}");
        }
    }

    #[test]
    fn chunks_are_those_of_each_tensor_in_order() {
        let chunks = chunk_map([1, 0, CHUNK, CHUNK + 1].into_iter());
        let pairs: Vec<_> = chunks.iter().map(|chunk| (chunk.tensor, chunk.place)).collect();
        assert_eq!(pairs, [(0, 0), (2, 0), (3, 0), (3, 1)]);
    }

    #[test]
    fn groups_are_as_large_as_the_cache_allows() {
        let sizes = |tensors: &[(usize, usize)], bytes| -> Vec<usize> {
            groups(tensors.iter().copied(), bytes).iter().map(|group| group.tensors.len()).collect()
        };
        assert_eq!(sizes(&[], 10), [0]);
        assert_eq!(sizes(&[(1, 5), (1, 5), (1, 1)], 10), [2, 1]);
        assert_eq!(sizes(&[(1, 50), (1, 5), (1, 50), (1, 5), (1, 5)], 10), [1, 1, 1, 2]);
        assert_eq!(sizes(&[(1, 5), (1, 5)], 0), [1, 1]);
        assert_eq!(sizes(&[(1, usize::MAX), (1, usize::MAX)], usize::MAX), [2]);
    }

    /// The table in the module's documentation.
    #[test]
    fn the_expected_traffic_is_as_documented() {
        let documentation = include_str!("mod.rs");
        let with_commas = |number: usize| {
            let digits = number.to_string();
            let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| str::from_utf8(g).unwrap()).collect();
            groups.join(",")
        };
        for (name, model) in [("ResNet-50", models::resnet_50()), ("GPT-2 small", models::gpt_2_small())] {
            let cache = (40 << 20) / 2;
            let lengths: Vec<usize> = model.shapes.iter().map(|shape| shape.length()).collect();
            let parts = groups(lengths.iter().map(|length| (*length, 16 * length)), cache);
            let traffic: usize = parts
                .iter()
                .map(|group| {
                    let tensors = group.tensors.start as usize..group.tensors.end as usize;
                    let elements: usize = lengths[tensors].iter().sum();
                    elements * if elements * 16 <= cache { 28 } else { 44 }
                })
                .sum();
            let parameters = model.parameters();
            let line = format!(
                "| {name} | {} | {} | {} | {:.1} |",
                with_commas(parameters),
                parts.len(),
                with_commas(traffic),
                traffic as f64 / parameters as f64
            );
            assert!(documentation.contains(&line), "{line}");
        }
    }
}
