//! A checkpoint of another model: an error that lists all differences, or what fits is loaded.

use koala_optim::checkpoint::{Checkpoint, Difference, Error, Loading};
use koala_optim::{Config, ElementType, GroupId, Method, Noise, OnBreakdown, Optimizer, Policy, Settings, StateType};

use super::common::methods::METHODS;
use super::model::{Model, Plan, Planned, all, small, small_model, state};

const F32: (ElementType, StateType) = (ElementType::F32, StateType::Same);

fn model(tensors: Vec<Planned>, groups: usize) -> Model {
    let groups = (0..groups).map(|group| Settings { learning_rate: 1.0 / (group + 2) as f64, ..Settings::default() });
    let plan = Plan { seed: 3, groups: groups.map(|settings| (settings, None)).collect(), tensors, ..small() };
    let mut model = Model::new(&plan, Config::default());
    model.step(0..6);
    model
}

/// The saved model, and one that differs from it in everything that there is.
fn pair() -> (Model, Model) {
    let saved = model(
        vec![
            Planned::new("same", 4, F32, 0),
            Planned::new("old name", 4, F32, 0),
            Planned::new("longer", 4, F32, 1),
            Planned::new("halved", 4, F32, 0),
            Planned::new("other state", 4, F32, 0),
            Planned::new("both", 4, F32, 0),
            Planned::new("moved", 4, F32, 1),
        ],
        2,
    );
    let other = model(
        vec![
            Planned::new("moved", 4, F32, 2),
            Planned::new("both", 3, (ElementType::F64, StateType::F32), 0),
            Planned::new("other state", 4, (ElementType::F32, StateType::Bf16), 0),
            Planned::new("halved", 4, (ElementType::Bf16, StateType::F32), 0),
            Planned::new("longer", 5, F32, 1),
            Planned::new("new name", 4, F32, 0),
            Planned::new("same", 4, F32, 0),
        ],
        3,
    );
    (saved, other)
}

fn differences() -> Vec<Difference> {
    let type_of =
        |tensor: &str, part, found, expected| Difference::Type { tensor: tensor.into(), part, found, expected };
    let length_of = |tensor: &str, found, expected| Difference::Length { tensor: tensor.into(), found, expected };
    vec![
        Difference::Groups { found: 2, expected: 3 },
        Difference::Missing { tensor: "new name".into() },
        Difference::Extra { tensor: "old name".into() },
        length_of("longer", 4, 5),
        type_of("halved", "parameters", ElementType::F32, ElementType::Bf16),
        type_of("other state", "v", ElementType::F32, ElementType::Bf16),
        type_of("other state", "h", ElementType::F32, ElementType::Bf16),
        length_of("both", 4, 3),
        type_of("both", "parameters", ElementType::F32, ElementType::F64),
        Difference::Group { tensor: "moved".into(), found: 1, expected: 2 },
    ]
}

#[test]
fn exact_lists_all_differences_and_changes_nothing() {
    let (saved, mut other) = pair();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.safetensors");
    saved.optimizer.save(&file).unwrap();
    let before = all(&other.optimizer);
    let error = other.optimizer.load(&file, Loading::default()).unwrap_err();
    assert_eq!(all(&other.optimizer), before);
    let Error::Mismatch { path, differences: found } = &error else { panic!("{error}") };
    assert_eq!((path, found), (&file, &differences()));
    let expected = format!(
        "{} is of another model:
  the number of groups is 2 in the checkpoint, 3 in the optimizer
  tensor \"new name\" is only in the optimizer
  tensor \"old name\" is only in the checkpoint
  tensor \"longer\" has 4 elements in the checkpoint, 5 in the optimizer
  tensor \"halved\" has parameters of type f32 in the checkpoint, bf16 in the optimizer
  tensor \"other state\" has v of type f32 in the checkpoint, bf16 in the optimizer
  tensor \"other state\" has h of type f32 in the checkpoint, bf16 in the optimizer
  tensor \"both\" has 4 elements in the checkpoint, 3 in the optimizer
  tensor \"both\" has parameters of type f32 in the checkpoint, f64 in the optimizer
  tensor \"moved\" is in group 1 in the checkpoint, 2 in the optimizer",
        file.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_fits_is_loaded_and_the_rest_is_listed() {
    let (saved, mut other) = pair();
    let (from, before) = (state(&saved.optimizer).0, state(&other.optimizer).0);
    let loaded = Checkpoint::of(&saved.optimizer).restore(&mut other.optimizer, Loading::WhatFits).unwrap();
    assert_eq!((loaded.tensors, loaded.differences), (2, differences()));
    for (tensor, before) in state(&other.optimizer).0.into_iter().zip(before) {
        let saved = from.iter().find(|saved| saved.0 == tensor.0);
        match &*tensor.0 {
            "same" | "moved" => assert_eq!(Some(&tensor), saved),
            _ => assert_eq!(tensor, before),
        }
    }
    assert_eq!(other.optimizer.noise(), saved.optimizer.noise());
    // The group stays the optimizer's, and so do the settings of the third, which the checkpoint lacks.
    let restored = format!("{:?}", Checkpoint::of(&other.optimizer));
    assert!(restored.contains("name: \"moved\", length: 4, parameters: F32, group: 2"), "{restored}");
    assert!(restored.contains("learning_rate: 0.25"), "{restored}");
}

/// By its number that of any optimizer with one.
fn first_group() -> GroupId {
    Optimizer::new(Config::default()).unwrap().add_group(Settings::default()).unwrap()
}

/// Tensors of six elements, whose shapes were told or not.
fn shaped(shapes: &[(&str, Option<&[usize]>)]) -> Model {
    let tensors = shapes.iter().map(|(name, _)| Planned::new(name, 6, F32, 0)).collect();
    let mut model = model(tensors, 1);
    for (name, shape) in shapes {
        shape.iter().for_each(|shape| model.optimizer.set_shape(name, shape).unwrap());
    }
    model
}

#[test]
fn shapes_are_kept_and_another_one_is_a_difference() {
    let (wide, tall, flat): (&[usize], &[usize], &[usize]) = (&[2, 3], &[3, 2], &[6]);
    let saved = shaped(&[
        ("same", Some(wide)),
        ("turned", Some(wide)),
        ("flattened", Some(wide)),
        ("told later", None),
        ("told before", Some(wide)),
        ("longer", Some(wide)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.safetensors");
    saved.optimizer.save(&file).unwrap();

    let mut other = shaped(&[
        ("same", Some(wide)),
        ("turned", Some(tall)),
        ("flattened", Some(flat)),
        ("told later", Some(tall)),
        ("told before", None),
    ]);
    let group = first_group();
    other.optimizer.add_tensor("longer", 8, ElementType::F32, StateType::Same, group).unwrap();
    other.optimizer.set_shape("longer", &[2, 4]).unwrap();
    let before = all(&other.optimizer);
    let error = other.optimizer.load(&file, Loading::Exact).unwrap_err();
    assert_eq!(all(&other.optimizer), before);
    let expected = format!(
        "{} is of another model:
  tensor \"turned\" has shape [2, 3] in the checkpoint, [3, 2] in the optimizer
  tensor \"flattened\" has shape [2, 3] in the checkpoint, [6] in the optimizer
  tensor \"longer\" has shape [2, 3] in the checkpoint, [2, 4] in the optimizer",
        file.display()
    );
    assert_eq!(error.to_string(), expected);
    let Error::Mismatch { differences, .. } = error else { panic!("{error}") };
    let loaded = other.optimizer.load(&file, Loading::WhatFits).unwrap();
    assert_eq!((loaded.tensors, loaded.differences), (3, differences));
    assert_eq!(other.optimizer.shape("told later"), Some(tall));

    // As other readers of the file see them.
    let bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..][..header]).unwrap();
    for (name, shape) in [("turned", wide), ("told later", flat)] {
        for vector in ["v", "h"] {
            assert_eq!(header[format!("state/{name}/{vector}")]["shape"], serde_json::json!(shape));
        }
    }
}

/// Also where the state has no vector, or one.
#[test]
fn shapes_are_compared_whatever_the_method_keeps() {
    for method in METHODS {
        let mut saved = Model::new(&Plan { method, ..small() }, Config::default());
        let mut other = Model::new(&Plan { method, ..small() }, Config::default());
        saved.step(0..3);
        saved.optimizer.set_shape("half", &[3, 1]).unwrap();
        saved.optimizer.set_shape("empty", &[0, 4]).unwrap();
        other.optimizer.set_shape("half", &[3, 1]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("saved.safetensors");
        saved.optimizer.save(&file).unwrap();
        other.optimizer.load(&file, Loading::Exact).unwrap();
        assert_eq!(state(&other.optimizer), state(&saved.optimizer));
        other.optimizer.set_shape("half", &[1, 3]).unwrap();
        other.optimizer.set_shape("empty", &[4, 0]).unwrap();
        let error = other.optimizer.load(&file, Loading::Exact).unwrap_err();
        let Error::Mismatch { differences, .. } = error else { panic!("{error}") };
        let shape = |tensor: &str, found: [usize; 2], expected: [usize; 2]| Difference::Shape {
            tensor: tensor.into(),
            found: found.into(),
            expected: expected.into(),
        };
        assert_eq!(differences, [shape("half", [3, 1], [1, 3]), shape("empty", [0, 4], [4, 0])]);
    }
}

#[test]
fn a_shape_is_of_as_many_elements_as_the_tensor() {
    let mut optimizer = small_model(0).optimizer;
    for (shape, found) in [(&[2, 2][..], 4), (&[], 1), (&[usize::MAX, 5], usize::MAX), (&[0], 0)] {
        let error = optimizer.set_shape("weight", shape).unwrap_err();
        let expected = format!("tensor \"weight\": expected 5 elements, found {found} in the shape");
        assert_eq!(error.to_string(), expected);
    }
    assert!(optimizer.set_shape("nobody", &[5]).is_err());
    assert_eq!(optimizer.shape("weight"), None);
    optimizer.set_shape("bias", &[]).unwrap();
    assert_eq!(optimizer.shape("bias"), Some(&[][..]));
}

#[test]
fn the_settings_are_the_files() {
    let noise = Noise::Averaged { decay: 1.0 / 3.0, initial: 0.1 + 0.2 };
    let policy = Policy { breakdown: OnBreakdown::Skip, ..Policy::default() };
    let saved = Optimizer::new(Config { noise, policy, ..Config::default() });
    let (mut saved, mut other) = (saved.unwrap(), Optimizer::new(Config::default()).unwrap());
    let settings = Settings { learning_rate: 5e-324, weight_decay: f64::MAX, frozen: true };
    saved.add_group(settings).unwrap();
    let group = other.add_group(Settings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.safetensors");
    saved.save(&file).unwrap();
    other.load(&file, Loading::Exact).unwrap();
    assert_eq!(other.settings(group).unwrap(), settings);
    assert_eq!(other.noise(), 0.1 + 0.2);
    assert_eq!(all(&other), all(&saved));
}

#[test]
fn tensors_of_the_callers() {
    let model = small_model(2);
    let checkpoint = model.checkpoint();
    let message = |error: Error| error.to_string();
    assert_eq!(
        message(checkpoint.tensor::<f64>("weight", &[5, 1]).unwrap_err()),
        "the checkpoint: tensor \"weight\": expected f64 [5, 1], found f32 [5, 1]"
    );
    assert_eq!(
        message(checkpoint.tensor::<f32>("weight", &[5]).unwrap_err()),
        "the checkpoint: tensor \"weight\": expected f32 [5], found f32 [5, 1]"
    );
    assert_eq!(
        message(checkpoint.tensor::<f32>("nobody", &[]).unwrap_err()),
        "the checkpoint: tensor \"nobody\": expected f32 [], found none"
    );
    for shape in [&[2, 2][..], &[], &[usize::MAX, 5], &[0]] {
        let error = checkpoint.clone().with_tensor("weight", shape, &[0.0_f32; 5]).unwrap_err();
        let expected =
            format!("the checkpoint: tensor \"weight\": expected those of shape {shape:?}, found 5 elements");
        assert_eq!(message(error), expected);
    }
    // A scalar, nothing at all, and names that are others' in the file.
    let checkpoint = checkpoint.with_tensor("checksum", &[], &[0.5_f32]).unwrap();
    let checkpoint = checkpoint.with_tensor("__metadata__", &[3, 0, usize::MAX], &[] as &[f64]).unwrap();
    let checkpoint = checkpoint.with_note("optimizer", "mine").with_note("", "").with_note("optimizer", "now\n\"\0");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.safetensors");
    checkpoint.write(&file).unwrap();
    let read = Checkpoint::read(&file).unwrap();
    assert_eq!(read.tensor::<f32>("checksum", &[]).unwrap(), [0.5]);
    assert!(read.tensor::<f64>("__metadata__", &[3, 0, usize::MAX]).unwrap().is_empty());
    assert_eq!([read.note("optimizer"), read.note(""), read.note("x")], [Some("now\n\"\0"), Some(""), None]);
    assert!(message(read.tensor::<f32>("nobody", &[]).unwrap_err()).starts_with(&*file.to_string_lossy()));
}

/// What is another method's means nothing to this one, even where it keeps as many numbers.
#[test]
fn no_tensor_of_another_method_fits() {
    let methods: Vec<Method> = METHODS.into_iter().chain([Method::default()]).collect();
    for found in &methods {
        for expected in &methods {
            let of = |method: &Method| Model::new(&Plan { method: *method, ..small() }, Config::default());
            let (mut saved, mut other) = (of(found), of(expected));
            saved.step(0..3);
            let before = all(&other.optimizer);
            let loaded = saved.checkpoint().restore(&mut other.optimizer, Loading::Exact);
            let fits = found.name() == expected.name() && found.state_vectors() == expected.state_vectors();
            assert_eq!(loaded.is_ok(), fits, "{found:?} {expected:?}");
            if !fits {
                assert!(all(&other.optimizer) == before);
                let error = loaded.unwrap_err().to_string();
                assert!(error.contains(&format!("the method is {}", found.name())), "{error}");
                // Nor do its settings.
                other.optimizer.set_learning_rate(first_group(), 0.75).unwrap();
                let before = all(&other.optimizer);
                let loaded = saved.checkpoint().restore(&mut other.optimizer, Loading::WhatFits).unwrap();
                let method = Difference::Method { found: saved.optimizer.method(), expected: *expected };
                assert_eq!((loaded.tensors, loaded.differences), (0, vec![method]));
                assert!(all(&other.optimizer) == before);
            } else {
                assert_eq!(all(&other.optimizer), all(&saved.optimizer));
            }
        }
    }
}
