//! Restoring: a checkpoint is compared with an optimizer first, and what is taken from it is written when all is known.

use std::collections::HashSet;

use super::contents::Checkpoint;
use super::data::{TensorData, state_name};
use super::error::{Difference, Error};
use super::record::{self, TensorRecord};
use crate::methods::Method;
use crate::methods::plan::Scalars;
use crate::optimizer::Optimizer;
use crate::optimizer::registry::{Entry, Group};

/// What to do where a checkpoint differs from the optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loading {
    /// Any difference is an error.
    #[default]
    Exact,
    /// Load what fits. A tensor that is missing, has another length or shape, or another type stays as it is. A tensor
    /// of another group is loaded, and stays in its group. Each group's settings are those of the checkpoint's group of
    /// the same number, if it has one. Of another method's checkpoint nothing fits, settings and noise neither: then
    /// nothing is loaded, and [`Difference::Method`] is among the differences.
    WhatFits,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The number of tensors whose state was.
    pub tensors: usize,
    /// What was not, as it differs; empty after [`Loading::Exact`].
    pub differences: Vec<Difference>,
}

/// A tensor that fits: its place in the optimizer, and its scalars in the checkpoint.
struct Fitting {
    entry: usize,
    scalars: Scalars,
}

impl Checkpoint<'_> {
    /// Makes the optimizer [what it was](super#what-is-restored) when the checkpoint was made. It needs to have been made
    /// with the same tensors in the same groups.
    ///
    /// # Errors
    /// [`Error::Mismatch`] lists all differences, if none are allowed; [`Error::Damaged`] if the checkpoint contradicts
    /// itself; [`Error::Nameless`]. Nothing has changed then.
    ///
    /// ```
    /// use koala_optim::checkpoint::{Checkpoint, Difference, Loading};
    /// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
    /// # fn model(names: [&str; 2]) -> Result<Optimizer, koala_optim::Error> {
    /// #     let mut optimizer = Optimizer::new(Config::default())?;
    /// #     let group = optimizer.add_group(Settings::default())?;
    /// #     for name in names {
    /// #         optimizer.add_tensor(name, 3, ElementType::F32, StateType::Same, group)?;
    /// #     }
    /// #     Ok(optimizer)
    /// # }
    ///
    /// let (one, mut other) = (model(["body", "head"])?, model(["body", "new head"])?);
    /// let checkpoint = Checkpoint::of(&one);
    /// assert!(checkpoint.restore(&mut other, Loading::Exact).is_err());
    /// let loaded = checkpoint.restore(&mut other, Loading::WhatFits)?;
    /// assert_eq!(loaded.tensors, 1);
    /// let (missing, extra) = ("new head".into(), "head".into());
    /// assert_eq!(loaded.differences, [Difference::Missing { tensor: missing }, Difference::Extra { tensor: extra }]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restore(&self, optimizer: &mut Optimizer, loading: Loading) -> Result<Loaded, Error> {
        if let Some(tensor) = record::nameless(optimizer) {
            return Err(Error::Nameless { path: self.path.clone(), tensor });
        }
        let (fitting, differences) = self.compare(optimizer)?;
        if loading == Loading::Exact && !differences.is_empty() {
            return Err(Error::Mismatch { path: self.path.clone(), differences });
        }
        if !optimizer.method.is_like(&self.record.method) {
            return Ok(Loaded { tensors: 0, differences });
        }

        // Nothing can fail any more.
        for Fitting { entry, scalars } in &fitting {
            let Entry { name, state, .. } = &mut optimizer.entries[*entry];
            state.scalars = *scalars;
            for (vector, storage) in state.vectors_mut() {
                storage.bytes_mut().copy_from_slice(&self.tensors[&state_name(name, vector)].bytes);
            }
        }
        for (own, record) in optimizer.groups.iter_mut().zip(&self.record.groups) {
            let Group { settings, method } = record.group(self.record.method);
            own.settings = settings;
            if own.method.is_like(&method) {
                own.method = method;
            }
        }
        optimizer.method = self.record.method;
        optimizer.predicted = self.record.predicted;
        optimizer.scaling = self.record.scaling();
        optimizer.clip_norm = self.record.clip_norm;
        optimizer.noise_rule = self.record.noise_rule;
        optimizer.noise = self.record.noise;
        optimizer.policy = self.record.policy;
        optimizer.steps = self.record.steps;
        Ok(Loaded { tensors: fitting.len(), differences })
    }

    /// The tensors that fit, and all differences.
    fn compare(&self, optimizer: &Optimizer) -> Result<(Vec<Fitting>, Vec<Difference>), Error> {
        let (mut fitting, mut differences) = (Vec::new(), Vec::new());
        let (found, expected) = (self.record.method, optimizer.method);
        let same_method = found.is_like(&expected);
        if !same_method {
            differences.push(Difference::Method { found, expected });
        }
        let (found, expected) = (self.record.groups.len(), optimizer.groups.len());
        if found != expected {
            differences.push(Difference::Groups { found, expected });
        }
        let names: HashSet<&str> = self.record.tensors.iter().map(|tensor| &*tensor.name).collect();
        let missing = optimizer.entries.iter().filter(|entry| !names.contains(&*entry.name));
        differences.extend(missing.map(|entry| Difference::Missing { tensor: entry.name.to_string() }));
        for tensor in &self.record.tensors {
            let Some(&entry) = optimizer.by_name.get(&*tensor.name) else {
                differences.push(Difference::Extra { tensor: tensor.name.clone() });
                continue;
            };
            let before = differences.len();
            let own = &optimizer.entries[entry];
            let (found, expected) = (self.method(tensor), optimizer.groups[own.group].method);
            if same_method && !found.is_like(&expected) {
                differences.push(Difference::Method { found, expected });
            }
            let scalars = self.compare_tensor(tensor, own, &mut differences)?;
            if same_method && differences.len() == before {
                fitting.push(Fitting { entry, scalars });
            }
            let (found, expected) = (tensor.group, own.group);
            if found != expected {
                differences.push(Difference::Group { tensor: tensor.name.clone(), found, expected });
            }
        }
        Ok((fitting, differences))
    }

    /// The scalars of a tensor in the checkpoint, and how its state there differs.
    fn compare_tensor(
        &self,
        tensor: &TensorRecord,
        entry: &Entry,
        differences: &mut Vec<Difference>,
    ) -> Result<Scalars, Error> {
        let name = || tensor.name.clone();
        match (&tensor.shape, entry.shape.as_deref()) {
            (Some(found), Some(expected)) if found != expected => {
                let (found, expected) = (found.clone(), expected.into());
                differences.push(Difference::Shape { tensor: name(), found, expected });
            }
            _ => {
                let (found, expected) = (tensor.length, entry.state.len());
                if found != expected {
                    differences.push(Difference::Length { tensor: name(), found, expected });
                }
            }
        }
        let mut compare_type = |part, found, expected| {
            if found != expected {
                differences.push(Difference::Type { tensor: name(), part, found, expected });
            }
        };
        compare_type("parameters", tensor.parameters, entry.state.parameters_type());
        let [h, v] = self.method(tensor).state_lengths(tensor.length);
        for ((vector, storage), length) in entry.state.vectors().zip([v, h]) {
            let data = self.part(tensor, vector)?;
            if data.shape != tensor.shape_of_vector(length) {
                return Err(self.contradiction(tensor, vector));
            }
            compare_type(vector, data.element_type, storage.element_type());
        }
        let scalars = self.part(tensor, record::SCALARS)?;
        scalars.to_scalars(self.record.method).ok_or_else(|| {
            let reason = format!("its {:?} are none that a step leaves", state_name(&tensor.name, record::SCALARS));
            Error::Damaged { path: self.path.clone(), reason }
        })
    }

    /// The method that has stepped a tensor.
    fn method(&self, tensor: &TensorRecord) -> Method {
        self.record.groups[tensor.group].group(self.record.method).method
    }

    fn part(&self, tensor: &TensorRecord, part: &str) -> Result<&TensorData<'_>, Error> {
        self.tensors.get(&state_name(&tensor.name, part)).ok_or_else(|| self.contradiction(tensor, part))
    }

    fn contradiction(&self, tensor: &TensorRecord, part: &str) -> Error {
        let reason = format!("its {:?} is not there, or not as its metadata says", state_name(&tensor.name, part));
        Error::Damaged { path: self.path.clone(), reason }
    }
}
