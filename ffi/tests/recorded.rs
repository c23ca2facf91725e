//! The C and C++ examples give the bits of the Rust API: what each does with its optimizer is written down
//! (ffi/c/tests/record.h), done again in Rust, and the parameters compared after every step.

mod common;

use std::path::Path;

use koala_optim::{Config, ElementType, GroupId, KoalaPlusPlus, Loss, Optimizer, Settings, StateType, Tensor, Variant};

/// What is left of a record.
struct Record<'r>(&'r [u8]);

impl Record<'_> {
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> usize {
        u64::from_ne_bytes(self.bytes(8).try_into().unwrap()) as usize
    }

    fn real(&mut self) -> f64 {
        f64::from_ne_bytes(self.bytes(8).try_into().unwrap())
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        self.bytes(4 * count).chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }

    /// A koala_settings.
    fn settings(&mut self) -> (Settings, KoalaPlusPlus) {
        let size = self.number();
        assert_eq!(size, size_of::<koala::koala_settings>());
        let [learning_rate, weight_decay, initial_variance, process_noise] = [(); 4].map(|()| self.real());
        assert_eq!(self.number(), 0, "variant and frozen, which no example sets");
        let prior_variance = self.real();
        let (variant, frozen) = (Variant::Symmetric, false);
        let numbers = KoalaPlusPlus { initial_variance, process_noise, variant, prior_variance };
        (Settings { learning_rate, weight_decay, frozen }, numbers)
    }
}

fn bits(parameters: &[f32]) -> Vec<u32> {
    parameters.iter().map(|parameter| parameter.to_bits()).collect()
}

/// Does in Rust what a record says; returns the number of steps.
fn replay(mut record: Record) -> usize {
    let mut optimizer = Optimizer::new(Config::default()).unwrap();
    let (mut groups, mut tensors, mut steps) = (Vec::<GroupId>::new(), Vec::<(String, usize)>::new(), 0);
    while !record.0.is_empty() {
        match record.bytes(1) {
            b"G" => {
                let (settings, numbers) = record.settings();
                groups.push(optimizer.add_group_with(settings, numbers).unwrap());
            }
            b"L" => {
                let (group, learning_rate) = (record.number(), record.real());
                optimizer.set_learning_rate(groups[group], learning_rate).unwrap();
            }
            b"T" => {
                let (name, length, group) = (format!("tensor {}", tensors.len()), record.number(), record.number());
                optimizer.add_tensor(&name, length, ElementType::F32, StateType::Same, groups[group]).unwrap();
                tensors.push((name, length));
            }
            b"S" => {
                let loss = Loss::new(record.real(), record.real());
                let mut given = Vec::new();
                for _ in 0..record.number() {
                    let (name, length) = &tensors[record.number()];
                    given.push((name, record.floats(*length), record.floats(*length)));
                }
                let mut list: Vec<Tensor> = given
                    .iter_mut()
                    .map(|(name, parameters, gradient)| Tensor::new(name, parameters, gradient))
                    .collect();
                optimizer.step(loss, &mut list).unwrap();
                for (name, parameters, _) in &given {
                    let in_c = record.floats(parameters.len());
                    assert!(bits(parameters) == bits(&in_c), "{name}, step {steps}");
                }
                steps += 1;
            }
            other => panic!("a record has no {other:?}"),
        }
    }
    steps
}

fn steps_of(example: &str, options: &[&str]) -> usize {
    let name = format!("koala-record-{}-{}", std::process::id(), example.replace('/', "-"));
    let file = std::env::temp_dir().join(name);
    let header = common::here().join("c/tests/record.h");
    let options = [&["-include", header.to_str().unwrap()], options].concat();
    let program = common::compile(example, &options);
    let setting = format!("KOALA_RECORD={}", file.display());
    common::run(Path::new("/usr/bin/env"), &[&setting, program.to_str().unwrap()], &common::digits());
    let record = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    replay(Record(&record))
}

#[test]
fn the_smallest_programs_give_the_bits_of_rust() {
    assert_eq!(steps_of("c/examples/five_lines.c", &[]), 1);
    assert_eq!(steps_of("cpp/examples/five_lines.cpp", &[]), 1);
}

#[test]
fn softmax_regression_gives_the_bits_of_rust() {
    assert!(steps_of("c/examples/digits.c", &[]) > 500);
}

#[test]
fn the_perceptron_gives_the_bits_of_rust() {
    let eigen = Path::new("/usr/include/eigen3");
    if !eigen.exists() {
        println!("skipped: Eigen is not in {}", eigen.display());
        return;
    }
    assert!(steps_of("cpp/examples/perceptron.cpp", &["-isystem", eigen.to_str().unwrap()]) > 500);
}
