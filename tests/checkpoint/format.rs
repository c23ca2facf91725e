//! The format is what `tests/data/checkpoint-today.safetensors` has. `tests/data/checkpoint.safetensors`, which Python's
//! safetensors reads in `ffi/python/tests/test_checkpoint.py`, was written by the first version: it has to load for ever.

use std::fs;
use std::path::PathBuf;

use koala_optim::checkpoint::{Checkpoint, Difference, Loading};
use koala_optim::{Config, ElementType, KoalaPlusPlus, Optimizer, Settings, StateType};

use super::model::{all, small_model, state};

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

/// Of the first version.
fn sample() -> PathBuf {
    data("checkpoint.safetensors")
}

/// Of this one.
fn sample_of_today() -> PathBuf {
    data("checkpoint-today.safetensors")
}

/// The header without the version of the library, and the data without the checksum.
fn parts(bytes: &[u8]) -> (serde_json::Value, &[u8]) {
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    assert!(header["__metadata__"].as_object_mut().unwrap().remove("koala-optim").is_some());
    (header, &data[..data.len() - 8])
}

/// `KOALA_WRITE_CHECKPOINT=1` writes the sample anew, for a change of the format that is meant.
#[test]
fn what_is_written_is_the_sample() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("today.safetensors");
    small_model(4).checkpoint().with_note("epoch", "3").write(&file).unwrap();
    if std::env::var_os("KOALA_WRITE_CHECKPOINT").is_some() {
        fs::copy(&file, sample_of_today()).unwrap();
    }
    let (today, sample) = (fs::read(&file).unwrap(), fs::read(sample_of_today()).unwrap());
    assert_eq!(parts(&today), parts(&sample));
}

#[test]
fn the_samples_load_and_the_run_goes_on() {
    for sample in [sample(), sample_of_today()] {
        let mut model = small_model(0);
        let checkpoint = Checkpoint::read(sample).unwrap();
        checkpoint.restore(&mut model.optimizer, Loading::Exact).unwrap();
        model.read_parameters(&checkpoint);
        assert_eq!(checkpoint.note("epoch"), Some("3"));
        model.step(4..7);
        let whole = small_model(7);
        assert_eq!(model.parameters(), whole.parameters());
        assert_eq!(all(&model.optimizer), all(&whole.optimizer));
    }
}

/// The first version had numbers of KOALA++ for each group, and of other methods for all groups together.
#[test]
fn the_first_versions_numbers_are_the_groups() {
    let groups =
        |optimizer: &Optimizer| optimizer.groups().map(|group| optimizer.group_method(group).unwrap()).collect();
    let mut optimizer = small_model(0).optimizer;
    let numbers: Vec<_> = groups(&optimizer);
    for group in optimizer.groups() {
        optimizer.set_method(group, KoalaPlusPlus { initial_variance: 7.0, ..KoalaPlusPlus::default() }).unwrap();
    }
    optimizer.load(sample(), Loading::Exact).unwrap();
    assert_eq!(groups(&optimizer), numbers);
}

/// A number that a file does not have yet is that number's default.
#[test]
fn a_number_that_a_file_lacks_has_its_default() {
    let (header, data) = parts_of(&fs::read(sample_of_today()).unwrap());
    let lacking = header.replace(r#",\"prior_variance\":0.0"#, "");
    assert_ne!(lacking, header);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lacking.safetensors");
    fs::write(&file, sealed(&lacking, &data)).unwrap();
    let mut optimizer = small_model(0).optimizer;
    optimizer.load(&file, Loading::Exact).unwrap();
    assert_eq!(state(&optimizer), state(&small_model(4).optimizer));
}

/// The header's text, and the data with the checksum.
fn parts_of(bytes: &[u8]) -> (String, Vec<u8>) {
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    (String::from_utf8(header.into()).unwrap(), data.into())
}

/// A file of these, with a checksum that is right.
fn sealed(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(&data[..data.len() - 8]);
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
    bytes.extend(checksum.to_be_bytes());
    bytes
}

/// It is of the time before there were shapes: an optimizer that was told its tensors' may load it.
#[test]
fn the_sample_has_no_shapes_and_fits_any() {
    let mut optimizer = small_model(0).optimizer;
    optimizer.set_shape("weight", &[5, 1]).unwrap();
    optimizer.set_shape("half", &[1, 1, 3]).unwrap();
    optimizer.load(sample(), Loading::Exact).unwrap();
    assert_eq!(state(&optimizer), state(&small_model(4).optimizer));
    assert_eq!(optimizer.shape("weight"), Some(&[5, 1][..]));

    let mut longer = Optimizer::new(Config::default()).unwrap();
    let group = longer.add_group(Settings::default()).unwrap();
    longer.add_tensor("weight", 6, ElementType::F32, StateType::Same, group).unwrap();
    longer.set_shape("weight", &[6, 1]).unwrap();
    let loaded = longer.load(sample(), Loading::WhatFits).unwrap();
    let length = Difference::Length { tensor: "weight".into(), found: 5, expected: 6 };
    assert!(loaded.tensors == 0 && loaded.differences.contains(&length), "{loaded:?}");
}

#[test]
fn the_same_contents_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let written = |checkpoint: &Checkpoint| {
        checkpoint.write(folder.path().join("file")).unwrap();
        fs::read(folder.path().join("file")).unwrap()
    };
    let model = small_model(3);
    let notes = ["b", "a", "d", "c"];
    let forwards = notes.iter().fold(model.checkpoint(), |checkpoint, note| checkpoint.with_note(note, *note));
    let backwards = notes.iter().rev().fold(model.checkpoint(), |checkpoint, note| checkpoint.with_note(note, *note));
    let bytes = written(&forwards);
    assert_eq!(written(&backwards), bytes);
    assert_eq!(written(&Checkpoint::read(folder.path().join("file")).unwrap()), bytes);
}

/// safetensors accept tensors at any place; readers that map the file want each where its type may lie.
#[test]
fn tensors_are_aligned() {
    let bytes = fs::read(sample()).unwrap();
    let (header, data) = parts(&bytes);
    assert!((bytes.len() - data.len() - 8).is_multiple_of(8));
    let mut types: Vec<&str> = Vec::new();
    for (name, tensor) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let size = match tensor["dtype"].as_str().unwrap() {
            "F64" => 8,
            "F32" => 4,
            "BF16" | "F16" => 2,
            "U8" => 1,
            other => panic!("{other}"),
        };
        types.push(tensor["dtype"].as_str().unwrap());
        assert!(tensor["data_offsets"][0].as_u64().unwrap().is_multiple_of(size), "{name}");
    }
    assert!(["F64", "F32", "BF16", "F16", "U8"].iter().all(|dtype| types.contains(dtype)), "{types:?}");
}
