//! What a checkpoint holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::data::TensorData;
use super::record::Record;

/// An optimizer's state, with tensors and notes of the caller's own: to be written, or read from a file.
///
/// ```
/// use koala_optim::checkpoint::{Checkpoint, Loading};
/// # use koala_optim::{Config, ElementType, Optimizer, Settings, StateType};
/// # let mut optimizer = Optimizer::new(Config::default())?;
/// # let group = optimizer.add_group(Settings::default())?;
/// # optimizer.add_tensor("weight", 3, ElementType::F32, StateType::Same, group)?;
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("run.safetensors");
///
/// let weight = [1.0_f32, -2.0, 3.0];
/// Checkpoint::of(&optimizer).with_tensor("weight", &[3, 1], &weight)?.with_note("epoch", "12").write(&file)?;
///
/// let checkpoint = Checkpoint::read(&file)?;
/// checkpoint.restore(&mut optimizer, Loading::Exact)?;
/// assert_eq!(checkpoint.tensor::<f32>("weight", &[3, 1])?, weight);
/// assert_eq!(checkpoint.note("epoch"), Some("12"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint<'a> {
    /// Where it was read from; empty otherwise.
    pub(super) path: PathBuf,
    pub(super) record: Record,
    pub(super) notes: BTreeMap<String, String>,
    /// By their names in the file.
    pub(super) tensors: BTreeMap<String, TensorData<'a>>,
}
