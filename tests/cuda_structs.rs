//! The structures that the host writes for the CUDA kernels: they are those of `kernels.cu`, and its numbers are those
//! of the contract, the PTX and the documentation.

/// What structs.rs imports from its crate.
mod methods {
    pub use koala_optim::KoalaPlusPlus;
}

mod types {
    pub use koala_optim::contract;

    pub mod element {
        pub use koala_optim::ElementType;
    }

    pub mod settings {
        pub use koala_optim::Settings;
    }
}

#[allow(dead_code)] // The optimizer uses the rest.
#[path = "../backends/cuda/structs.rs"]
mod structs;

use koala_measure::models;
use koala_optim::contract::{BLOCK, LANES, LEAST_FACTOR, RUN_ROWS, SKIP_GRADIENT_NORM};
use structs::{CHANGES, CHUNK, Changes, Launch, SUMS, THREADS, chunk_map, groups};

#[test]
fn the_kernels_have_the_contract_s_numbers() {
    let source = include_str!("../backends/cuda/kernels.cu");
    for line in [
        format!("constexpr unsigned LANES = {LANES};"),
        format!("constexpr unsigned RUN_ROWS = {RUN_ROWS};"),
        format!("constexpr unsigned BLOCK = {BLOCK};"),
        format!("constexpr double SKIP_GRADIENT_NORM = {SKIP_GRADIENT_NORM:e};"),
        format!("constexpr double LEAST_FACTOR = {LEAST_FACTOR:e};"),
        format!("constexpr unsigned CHUNK_BLOCKS = {};", CHUNK / BLOCK),
        format!("constexpr unsigned SUMS = {SUMS};"),
        format!("constexpr unsigned CHANGES = {CHANGES};"),
    ] {
        assert!(source.contains(&line), "{line}");
    }
    assert_eq!(THREADS as usize, CHUNK / BLOCK * LANES);
}

/// A structure of another size would be another one.
#[test]
fn the_kernels_arguments_are_of_these_sizes() {
    let ptx = include_str!("../backends/cuda/kernels.ptx");
    for (kernel, bytes) in [
        ("koala_dots", size_of::<Launch>()),
        ("koala_recursion", size_of::<Launch>()),
        ("koala_update", size_of::<Launch>()),
        ("koala_change", size_of::<Changes>()),
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
    let documentation = include_str!("../backends/cuda/mod.rs");
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
