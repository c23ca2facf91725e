//! The optimizer: named tensors in groups, and their state on the device.

pub mod reading;
mod settings;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use super::device_numbers::{DeviceLearningRate, DeviceScaler};
use super::driver::{Counted, Driver, Memory, Stream};
use super::error::Error;
use super::structs::{Change, LONGEST, ProgressRow, ScalarsRow, SettingsRow, TensorRow};
use super::tables::Tables;
use super::tensor::{StateBuffers, check_address};
use crate::methods::{KoalaPlusPlus, Method};
use crate::optimizer::registry::GroupId;
use crate::optimizer::state::StateType;
use crate::types::element::ElementType;
use crate::types::error::Error as CallError;
use crate::types::settings::{Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings};

/// What an optimizer on a device is made with.
///
/// ```
/// use koala_optim::{Noise, cuda::Config};
/// let config = Config { noise: Noise::Fixed(1.0), ..Config::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Config {
    /// R. Default: averaged with a decay of 0.9 from 1.
    pub noise: Noise,
    /// What to do when a tensor's step can't be taken: no errors, which only a host that waits could return.
    pub policy: Policy,
    /// Whether each tensor's report is to have its norms, for which the parameters are always read. Default: no.
    pub details: bool,
    /// The most bytes of parameters, gradients, v and h that are worked on together: those of a cache. Default: half
    /// of the device's L2. A policy that may keep all tensors works on all of them together.
    pub group_bytes: Option<usize>,
}

/// KOALA++ over a model on a device. See the [module's example](super).
#[derive(Debug)]
pub struct Optimizer {
    counted: Arc<Counted>,
    config: Config,
    scaling: Scaling,
    scaler: DeviceScaler,
    group_bytes: usize,
    progress: Memory,
    groups: Vec<SettingsGroup>,
    entries: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
    /// Those of the last step.
    tables: Tables,
    /// Those of captured steps, which graphs have, and no step may change; and at most one that is no graph's.
    other_tables: Vec<Tables>,
    /// The rows of the step that is prepared, and what changes before it; kept so that a step does not allocate.
    rows: Vec<TensorRow>,
    changes: Vec<Change>,
    steps: u64,
    /// Distinguishes the calls of `step`, so that a tensor given twice is found without clearing marks.
    calls: u64,
}

/// Settings and the numbers of KOALA++, and their place on the device.
#[derive(Debug)]
struct SettingsGroup {
    settings: Settings,
    numbers: KoalaPlusPlus,
    device_learning_rate: Option<DeviceLearningRate>,
    memory: Memory,
    changed: bool,
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    length: usize,
    element_type: ElementType,
    state_type: ElementType,
    group: usize,
    given_in_call: u64,
    restarted: bool,
    buffers: StateBuffers,
    /// Where these are, unless that is the caller's.
    memory: Memory,
}

impl Entry {
    fn state_bytes(&self) -> usize {
        self.length * self.state_type.size()
    }
}

impl Optimizer {
    /// An optimizer without tensors on that device.
    ///
    /// # Errors
    /// [`Error::Call`] for a noise out of range, [`Error::Policy`] for a policy that makes errors, [`Error::Memory`],
    /// [`Error::Driver`].
    ///
    /// See the [module's example](super).
    pub fn new(driver: impl Driver + 'static, config: Config) -> Result<Self, Error> {
        config.noise.validate()?;
        check_policy(config.policy)?;
        let group_bytes = match config.policy.is_atomic() {
            true => usize::MAX,
            false => config.group_bytes.unwrap_or(driver.l2_bytes() / 2),
        };
        let counted = Counted::new(Box::new(driver));
        let mut progress = Memory::zeroed(&counted, size_of::<ProgressRow>())?;
        progress.write(Stream::DEFAULT, &[ProgressRow { noise: config.noise.initial(), ..ProgressRow::default() }])?;
        let tables = Tables::empty(&counted)?;
        Ok(Optimizer {
            counted,
            config,
            scaling: Scaling::default(),
            scaler: DeviceScaler::NONE,
            group_bytes,
            progress,
            groups: Vec::new(),
            entries: Vec::new(),
            by_name: HashMap::new(),
            tables,
            other_tables: Vec::new(),
            rows: Vec::new(),
            changes: Vec::new(),
            steps: 0,
            calls: 0,
        })
    }

    /// A new group of settings.
    ///
    /// # Errors
    /// [`Error::Call`] for a number out of range, [`Error::Memory`], [`Error::Driver`].
    ///
    /// See the [module's example](super).
    pub fn add_group(&mut self, settings: Settings) -> Result<GroupId, Error> {
        self.add_group_with(settings, KoalaPlusPlus::default())
    }

    /// A new group, whose KOALA++ has numbers of its own.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group).
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer};
    /// # use koala_optim::{KoalaPlusPlus, Settings};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let numbers = KoalaPlusPlus { process_noise: 1.0, ..KoalaPlusPlus::default() };
    /// let group = optimizer.add_group_with(Settings::default(), numbers)?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn add_group_with(&mut self, settings: Settings, numbers: KoalaPlusPlus) -> Result<GroupId, Error> {
        settings.validate()?;
        Method::from(numbers).validate()?;
        let memory = Memory::zeroed(&self.counted, size_of::<SettingsRow>())?;
        self.groups.push(SettingsGroup { settings, numbers, device_learning_rate: None, memory, changed: true });
        Ok(GroupId(self.groups.len() - 1))
    }

    /// Makes a tensor known, and allocates its state on the device. A tensor may be added at any time.
    ///
    /// # Errors
    /// [`Error::Call`] for a name that was given before or if there is no such group, [`Error::TooLong`],
    /// [`Error::Memory`], [`Error::Driver`].
    ///
    /// See the [module's example](super).
    pub fn add_tensor(
        &mut self,
        name: &str,
        length: usize,
        parameters: ElementType,
        state: StateType,
        group: GroupId,
    ) -> Result<(), Error> {
        let mut entry = self.new_entry(name, length, parameters, state, group)?;
        // h begins at a multiple of what large loads want.
        let h_offset = entry.state_bytes().next_multiple_of(256) as u64;
        entry.memory = Memory::zeroed(&self.counted, 2 * h_offset as usize + size_of::<ScalarsRow>())?;
        let v = entry.memory.address();
        entry.buffers = StateBuffers { v, h: v + h_offset, scalars: v + 2 * h_offset };
        self.enter(entry);
        Ok(())
    }

    /// The same with the state in the caller's memory, where it may be saved, and another be loaded, between two steps.
    /// Before a first step its scalars are zero.
    ///
    /// # Errors
    /// As [`add_tensor`](Self::add_tensor), and [`Error::NotOnDevice`], [`Error::Misaligned`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, StateBuffers};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// # fn buffers() -> (u64, u64, u64) { (0, 0, 0) }
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// let (v, h, scalars) = buffers();
    /// // SAFETY: the buffers are the device's, of ten elements each and of four numbers.
    /// let state = unsafe { StateBuffers::new(v, h, scalars) };
    /// optimizer.add_tensor_with_state("bias", 10, ElementType::F32, StateType::Same, group, state)?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn add_tensor_with_state(
        &mut self,
        name: &str,
        length: usize,
        parameters: ElementType,
        state: StateType,
        group: GroupId,
        buffers: StateBuffers,
    ) -> Result<(), Error> {
        let entry = self.new_entry(name, length, parameters, state, group)?;
        let vectors = [("v", entry.state_type, buffers.v), ("h", entry.state_type, buffers.h)];
        // Of no elements, they may be anywhere.
        let vectors = vectors.into_iter().filter(|_| length > 0);
        for (buffer, element_type, address) in vectors.chain([("scalars", ElementType::F64, buffers.scalars)]) {
            check_address(name, buffer, element_type, address, |address| self.counted.driver.is_on_device(address))?;
        }
        self.enter(Entry { buffers, ..entry });
        Ok(())
    }

    /// One without memory.
    fn new_entry(
        &self,
        name: &str,
        length: usize,
        parameters: ElementType,
        state: StateType,
        group: GroupId,
    ) -> Result<Entry, Error> {
        if self.by_name.contains_key(name) {
            return Err(CallError::DuplicateTensor { tensor: name.into() }.into());
        }
        self.settings(group)?;
        if length as u64 > LONGEST {
            return Err(Error::TooLong { tensor: name.into(), length, longest: LONGEST });
        }
        Ok(Entry {
            name: name.into(),
            length,
            element_type: parameters,
            state_type: state.beside(parameters),
            group: group.0,
            given_in_call: 0,
            restarted: false,
            buffers: StateBuffers { v: 0, h: 0, scalars: 0 },
            memory: Memory::zeroed(&self.counted, 0)?,
        })
    }

    fn enter(&mut self, entry: Entry) {
        self.by_name.insert(entry.name.clone(), self.entries.len());
        self.entries.push(entry);
    }

    /// Restarts the filter of a tensor: its next step will be a first step.
    ///
    /// # Errors
    /// [`Error::Call`] if there is no such tensor.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group)?;
    /// optimizer.restart("bias")?;
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let entry = self.index_of(name)?;
        self.entries[entry].restarted = true;
        Ok(())
    }

    fn index_of(&self, name: &str) -> Result<usize, Error> {
        Ok(*self.by_name.get(name).ok_or_else(|| CallError::UnknownTensor { tensor: name.into() })?)
    }
}

fn check_policy(policy: Policy) -> Result<(), Error> {
    match policy {
        Policy { non_finite: OnNonFinite::Error, .. } => Err(Error::Policy { policy: "OnNonFinite::Error" }),
        Policy { breakdown: OnBreakdown::Error, .. } => Err(Error::Policy { policy: "OnBreakdown::Error" }),
        _ => Ok(()),
    }
}
