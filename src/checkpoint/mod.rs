//! Checkpoints: all that an optimizer knows in a file, from which a run goes on as if it had never stopped, to the bit.
//!
//! ```
//! use koala_optim::checkpoint::Loading;
//! use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
//!
//! fn model() -> Result<Optimizer, koala_optim::Error> {
//!     let mut optimizer = Optimizer::new(Config::default())?;
//!     let group = optimizer.add_group(Settings::default())?;
//!     optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
//!     Ok(optimizer)
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("run.safetensors");
//! let before = model()?;
//! before.save(&file)?;
//! let mut after = model()?; // In another process, say.
//! after.load(&file, Loading::Exact)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Checkpoint`] can hold what else a run goes on from, too: parameters, and notes such as the epoch.
//!
//! # What is restored
//!
//! The state vectors and scalars of each tensor, the settings of each group, the method with the numbers that its
//! tensors share, the noise and its rule, the policy, what becomes of gradients, and the number of steps: where the
//! caller has set something else than the file has, the file wins, as in PyTorch. Set what is to be different after
//! loading. Backend, threads and [`details`](crate::Config::details) stay the caller's, as no bit depends on them. The
//! parameters are the caller's to save, as they are in no optimizer's hands.
//!
//! Tensors are matched by name. What is missing, is not known, or has another shape or type, is an error that lists
//! all of it, unless [`Loading::WhatFits`] is asked for. Shapes are compared where both sides have one: where the
//! optimizer was not told a tensor's [shape](Optimizer::set_shape), or the file has none, as those of the library's
//! first version, the number of elements has to be the same, and that is all that can be seen.
//!
//! All is read and verified before anything is written: after an error, the optimizer is as it was. While it is read, a
//! file takes as much memory as it has bytes, and its names and notes take some times theirs.
//!
//! # How it is written
//!
//! To a temporary file beside the target, which is synchronized and then renamed: whatever happens, under that name is
//! the old file or the new one, each whole. A process that is killed may leave the temporary file behind,
//! `.koala-*.tmp`: the next one that writes to the same name removes it, and never that of a process which is still
//! writing. A symbolic link stays one, and what it leads to is replaced, or made if it is not there yet. An existing
//! file's permissions are kept, and its owner and group where the system lets this user give files to them; its access
//! control lists and other hard links to it are not. What is no regular file, such as a folder, a device or a FIFO, is
//! an error, for writing as for reading.
//!
//! # The file
//!
//! [safetensors](https://github.com/huggingface/safetensors), which Python and others read, with these tensors:
//!
//! - `state/NAME/v`, `state/NAME/h`: the state vectors of tensor NAME, in their own type and the tensor's shape (one
//!   dimension if it was not told), empty where the [method](crate::Method::state_vectors) keeps none;
//! - `state/NAME/scalars`: four f64, those of [`Scalars`](crate::Scalars) in their order;
//! - `tensor/NAME`: those that were added by [`with_tensor`](Checkpoint::with_tensor);
//! - `checksum`: the last eight bytes of the file, XXH3-64 of all bytes before them, most significant byte first;
//!
//! and this metadata:
//!
//! - `koala-checkpoint`: the version of this format, 1;
//! - `koala-optim`: the version of the library that wrote it;
//! - `optimizer`: JSON of everything else that is restored, and each tensor's name, length, type, group and shape;
//! - `note/KEY`: those that were added by [`with_note`](Checkpoint::with_note).
//!
//! Other metadata and tensors are ignored. The same contents give the same bytes.

#[cfg(target_endian = "big")]
compile_error!("the feature `checkpoint` of koala-optim is for little-endian machines, as safetensors is");

mod contents;
mod data;
mod error;
mod file;
mod header;
mod record;
mod replace;
mod restore;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::optimizer::Optimizer;
use crate::optimizer::registry::count_elements;
use crate::types::element::Element;

pub use contents::Checkpoint;
use data::{TensorData, state_name, tensor_name};
pub use error::{Difference, Error};
use record::Record;
// For the command, which writes all its files so.
#[doc(hidden)]
pub use replace::{can_replace, replace, target};
pub use restore::{Loaded, Loading};

impl<'a> Checkpoint<'a> {
    /// An optimizer as it is now, without a copy of its vectors.
    ///
    /// See the [type's example](Self).
    pub fn of(optimizer: &'a Optimizer) -> Self {
        let record = Record::of(optimizer);
        let mut tensors = BTreeMap::new();
        for (entry, tensor) in optimizer.entries.iter().zip(&record.tensors) {
            for (vector, storage) in entry.state.vectors() {
                let (element_type, shape) = (storage.element_type(), tensor.shape_of_vector(storage.len()));
                let data = TensorData { element_type, shape, bytes: storage.bytes().into() };
                tensors.insert(state_name(&entry.name, vector), data);
            }
            let scalars = TensorData::of_scalars(&entry.state.scalars);
            tensors.insert(state_name(&entry.name, record::SCALARS), scalars);
        }
        Checkpoint { path: PathBuf::new(), record, notes: BTreeMap::new(), tensors }
    }

    /// With a tensor more: its elements in C order, as many as the shape's lengths make together. Of several with one
    /// name, the last one counts.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape asks for another number of elements.
    ///
    /// See the [type's example](Self).
    pub fn with_tensor<P: Element>(mut self, name: &str, shape: &[usize], elements: &'a [P]) -> Result<Self, Error> {
        if count_elements(shape) != Some(elements.len()) {
            return Err(Error::Tensor {
                path: self.path,
                tensor: name.into(),
                found: format!("{} elements", elements.len()),
                expected: format!("those of shape {shape:?}"),
            });
        }
        let bytes = bytemuck::cast_slice(elements).into();
        let data = TensorData { element_type: P::TYPE, shape: shape.into(), bytes };
        self.tensors.insert(tensor_name(name), data);
        Ok(self)
    }

    /// With a note more. Of several with one key, the last one counts.
    ///
    /// See the [type's example](Self).
    pub fn with_note(mut self, key: &str, value: impl Into<String>) -> Self {
        self.notes.insert(key.into(), value.into());
        self
    }

    /// Writes the file, [atomically](self#how-it-is-written).
    ///
    /// # Errors
    /// [`Error::Nameless`], and [`Error::File`]: then the file is what it was before, and nothing new is left in the
    /// folder. The one exception is a folder that cannot be synchronized after the file was renamed.
    ///
    /// See the [type's example](Self).
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        if let Some(tensor) = self.record.nameless.clone() {
            return Err(Error::Nameless { path: path.into(), tensor });
        }
        replace::replace(path, |out| file::write(self, out)).map_err(|source| Error::File { path: path.into(), source })
    }

    /// Reads a file, and verifies it.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NotACheckpoint`], [`Error::Damaged`] or [`Error::Newer`].
    ///
    /// See the [type's example](Self).
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint<'static>, Error> {
        file::read(path.as_ref())
    }

    /// A tensor that was added by [`with_tensor`](Self::with_tensor).
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of that name, or it has another type or shape.
    ///
    /// See the [type's example](Self).
    pub fn tensor<P: Element>(&self, name: &str, shape: &[usize]) -> Result<Vec<P>, Error> {
        let data = self.tensors.get(&tensor_name(name));
        match data {
            Some(data) if data.element_type == P::TYPE && data.shape == shape => {
                Ok(bytemuck::pod_collect_to_vec(&data.bytes))
            }
            _ => Err(Error::Tensor {
                path: self.path.clone(),
                tensor: name.into(),
                found: data.map_or("none".into(), |data| format!("{} {:?}", data.element_type, data.shape)),
                expected: format!("{} {shape:?}", P::TYPE),
            }),
        }
    }

    /// A note that was added by [`with_note`](Self::with_note).
    ///
    /// See the [type's example](Self).
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }
}

impl Optimizer {
    /// Saves all that the optimizer knows to a file, atomically: see [`checkpoint`](self), and
    /// [`Checkpoint`] for saving the parameters in the same file.
    ///
    /// # Errors
    /// As [`Checkpoint::write`].
    ///
    /// See the [module's example](self).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        Checkpoint::of(self).write(path)
    }

    /// Loads what [`save`](Self::save) has saved.
    ///
    /// # Errors
    /// As [`Checkpoint::read`] and [`Checkpoint::restore`]; nothing has changed then.
    ///
    /// See the [module's example](self).
    pub fn load(&mut self, path: impl AsRef<Path>, loading: Loading) -> Result<Loaded, Error> {
        Checkpoint::read(path)?.restore(self, loading)
    }
}
