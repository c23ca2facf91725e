//! A step: the tensors that it is given, and what is put on the stream.

use super::{Config, Optimizer};
use crate::cuda::device_numbers::StepLoss;
use crate::cuda::driver::{Kernel, Stream};
use crate::cuda::error::Error;
use crate::cuda::structs::{self, CHANGES, Changes, Launch, ScalarsRow, SettingsRow, TensorRow, type_number};
use crate::cuda::tables::Tables;
use crate::cuda::tensor::Tensor;
use crate::types::error::Error as CallError;
use crate::types::range::Range;
use crate::types::settings::{Loss, Noise, OnBreakdown, OnNonFinite, Scaling};

impl Optimizer {
    /// Puts a step of the given tensors on the stream, some or all of those added, in any order. The host does not wait
    /// for it, nor for anything else if these were the tensors of the step before: their gradients may have moved.
    ///
    /// On a stream that is being captured, a step is captured, if its tensors were [prepared](Self::prepare) or stepped
    /// before: see the [module](crate::cuda#capturing-a-graph).
    ///
    /// # Errors
    /// [`Error::Call`] for a tensor that is unknown, given twice, or of another length or type, and for a second moment
    /// below zero; [`Error::NoSecondMoment`], [`Error::ForeignStream`], [`Error::NotOnDevice`], [`Error::Misaligned`],
    /// [`Error::Memory`], [`Error::Captured`]. Nothing is put on the stream then. After [`Error::Driver`] from a launch,
    /// the device itself is in trouble, and a part of the step may have run.
    ///
    /// See the [module's example](crate::cuda).
    pub fn step(&mut self, stream: Stream, loss: impl Into<StepLoss>, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        let launch = self.with_loss(self.launch(), loss.into())?;
        self.counted.driver.check_stream(stream)?;
        if self.counted.driver.is_captured(stream)? {
            self.find(tensors)?;
            self.take_captured_tables(tensors)?;
            self.launch_changes(stream)?;
        } else {
            self.make_ready(stream, tensors)?;
            self.steps += 1;
        }
        self.tables.stepped = true;
        self.launch_groups(stream, launch)
    }

    /// Does all for a step of these tensors but the step: it checks and describes them, allocates, and writes changed
    /// settings. So the step after it can be captured, though none was taken before; and it is refused nothing for its
    /// tensors, if what must not happen in one place only is done in several.
    ///
    /// # Errors
    /// Those of [`step`](Self::step) that are not about the loss.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, DeviceLoss, Optimizer, Stream, Tensor};
    /// # fn captured(step: impl FnOnce(Stream)) {}
    /// # fn given() -> (Optimizer, DeviceLoss, [Tensor<'static>; 1]) { unimplemented!() }
    /// let (mut optimizer, loss, tensors) = given();
    /// optimizer.prepare(Stream::DEFAULT, &tensors)?;
    /// captured(|stream| optimizer.step(stream, loss, &tensors).expect("its tensors are known"));
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn prepare(&mut self, stream: Stream, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        self.counted.driver.check_stream(stream)?;
        match self.counted.driver.is_captured(stream)? {
            true => Err(Error::Captured { expected: "tensors to be prepared before the capture" }),
            false => self.make_ready(stream, tensors),
        }
    }

    /// Has the device know of these tensors, and of settings, what the host does.
    fn make_ready(&mut self, stream: Stream, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        self.find(tensors)?;
        self.take_own_tables(stream, tensors)?;
        self.launch_changes(stream)?;
        self.tables.rows.copy_from_slice(&self.rows);
        Ok(())
    }

    /// Makes `tables` those of this step, which is no graph's.
    fn take_own_tables(&mut self, stream: Stream, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        let Optimizer { tables, other_tables, rows, changes, counted, group_bytes, .. } = self;
        let own = std::iter::once(&*tables).chain(&*other_tables).find(|tables| !tables.captured);
        let known = own.filter(|tables| tables.are_of(rows));
        for (i, (tensor, row)) in tensors.iter().zip(&*rows).enumerate() {
            if known.is_none_or(|known| known.rows[i].gradient != row.gradient) {
                tensor.check(|address| counted.driver.is_on_device(address))?;
            }
        }
        let is_known = known.is_some();
        if !swapped(tables, other_tables, |tables| !tables.captured) {
            other_tables.push(std::mem::replace(tables, Tables::empty(counted)?));
        }
        match is_known {
            true => changes.extend(tables.moved(rows)),
            false => tables.describe(counted, stream, rows, *group_bytes)?,
        }
        Ok(())
    }

    /// Makes `tables` those of this step, which is captured: once they are, no other step changes them. Nothing can be
    /// allocated or waited for now, so they are those of a step before, captured or not.
    fn take_captured_tables(&mut self, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        self.check_unchanged()?;
        let Optimizer { tables, other_tables, rows, changes, counted, .. } = self;
        tensors.iter().try_for_each(|tensor| tensor.check(|address| counted.driver.is_on_device(address)))?;
        // So there are never more of them than different lists of tensors were captured.
        let found = swapped(tables, other_tables, |tables| tables.captured && tables.are_of(rows))
            || swapped(tables, other_tables, |tables| tables.are_of(rows));
        if !found {
            return Err(Error::Captured { expected: "the same tensors to be prepared or stepped before the capture" });
        }
        tables.captured = true;
        // Another graph may share the tables, with gradients elsewhere.
        changes.extend(tables.gradients(rows));
        Ok(())
    }

    /// Whether settings and filters are on the device what they are here, as they have to be for a graph: each launch of
    /// it would write what it has captured again, over what has been written since.
    fn check_unchanged(&self) -> Result<(), Error> {
        let is_changed = self.groups.iter().any(|group| group.changed) || self.entries.iter().any(|one| one.restarted);
        match is_changed {
            true => Err(Error::Captured { expected: "changed settings and restarts to be written before the capture" }),
            false => Ok(()),
        }
    }

    /// Puts settings that have changed, and restarts, on the stream without a step. [`step`](Self::step) does it first;
    /// a captured step does not when it is replayed.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], [`Error::Captured`], [`Error::Driver`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.set_learning_rate(group, 0.1)?;
    /// optimizer.write_changes(Stream::DEFAULT)?; // And a captured step can be replayed.
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn write_changes(&mut self, stream: Stream) -> Result<(), Error> {
        self.counted.driver.check_stream(stream)?;
        if self.counted.driver.is_captured(stream)? {
            return self.check_unchanged();
        }
        self.changes.clear();
        self.launch_changes(stream)
    }

    /// Those changes that there are already, and those of settings and filters.
    fn launch_changes(&mut self, stream: Stream) -> Result<(), Error> {
        for group in self.groups.iter().filter(|group| group.changed) {
            let rate = group.device_learning_rate.map(|rate| (rate.element_type, rate.address));
            self.changes
                .extend(structs::words(group.memory.address(), &SettingsRow::new(group.settings, group.numbers, rate)));
        }
        for entry in self.entries.iter().filter(|entry| entry.restarted) {
            self.changes.extend(structs::words(entry.buffers.scalars, &ScalarsRow::default()));
        }
        for changes in self.changes.chunks(CHANGES) {
            // SAFETY: the places are memory of the optimizer, of whole words.
            unsafe { self.counted.launch(stream, Kernel::Change, 1, &Changes::of(changes))? };
        }
        self.groups.iter_mut().for_each(|group| group.changed = false);
        self.entries.iter_mut().for_each(|entry| entry.restarted = false);
        Ok(())
    }

    /// Checks the tensors against their entries, and describes them in `rows`. Nothing else changes yet.
    fn find(&mut self, tensors: &[Tensor<'_>]) -> Result<(), Error> {
        self.changes.clear();
        self.calls += 1;
        self.rows.clear();
        let mut first_chunk = 0;
        for (position, tensor) in tensors.iter().enumerate() {
            let same_place = self.entries.get(position).is_some_and(|entry| *entry.name == *tensor.name);
            let index = if same_place { position } else { self.index_of(tensor.name)? };
            let entry = &mut self.entries[index];
            if entry.given_in_call == self.calls {
                return Err(CallError::DuplicateTensor { tensor: tensor.name.into() }.into());
            }
            entry.given_in_call = self.calls;
            let Tensor { name, element_type, length, parameters, gradient, copy } = *tensor;
            let (expected, found) = (entry.element_type, element_type);
            if found != expected {
                return Err(CallError::Type { tensor: name.into(), found, expected }.into());
            }
            let (expected, found) = (entry.length, length);
            if found != expected {
                return Err(CallError::Length { tensor: name.into(), buffer: "parameters", found, expected }.into());
            }
            self.rows.push(TensorRow {
                parameters,
                gradient,
                v: entry.buffers.v,
                h: entry.buffers.h,
                copy: copy.map_or(0, |(_, address)| address),
                settings: self.groups[entry.group].memory.address(),
                scalars: entry.buffers.scalars,
                length: length as u64,
                parameters_type: type_number(Some(element_type)),
                state_type: type_number(Some(entry.state_type)),
                copy_type: type_number(copy.map(|(element_type, _)| element_type)),
                first_chunk,
            });
            first_chunk += length.div_ceil(structs::CHUNK) as u32;
        }
        Ok(())
    }

    /// What all launches of all steps have in common.
    fn launch(&self) -> Launch {
        let Config { noise, policy, details, .. } = self.config;
        let (Scaling { factor, limit }, scaler) = (self.scaling, self.scaler);
        let (fixed_noise, noise_decay) = match noise {
            Noise::Fixed(_) => (true, 0.0),
            Noise::Averaged { decay, .. } => (false, decay),
        };
        Launch {
            progress: self.progress.address(),
            noise_decay,
            gradient_factor: factor,
            gradient_limit: limit,
            device_scale: scaler.scale,
            device_found_infinite: scaler.found_infinite,
            scaler_type: type_number(Some(scaler.element_type)),
            fixed_noise: fixed_noise.into(),
            keep_all: (policy.non_finite == OnNonFinite::KeepAll).into(),
            restart: (policy.breakdown == OnBreakdown::Restart).into(),
            norms: details.into(),
            ..Launch::default()
        }
    }

    fn with_loss(&self, launch: Launch, loss: StepLoss) -> Result<Launch, Error> {
        match loss {
            StepLoss::OnHost(Loss { mean, second_moment }) => {
                // One that is no number is for the device to judge.
                if second_moment < 0.0 {
                    Range::AT_LEAST_ZERO.check("second moment of the loss", second_moment)?;
                }
                Ok(Launch { mean, second_moment, ..launch })
            }
            StepLoss::OnDevice(loss) => {
                if loss.second_moment.is_none() && matches!(self.config.noise, Noise::Averaged { .. }) {
                    return Err(Error::NoSecondMoment);
                }
                self.check_number("mean loss", loss.element_type, loss.mean)?;
                if let Some(second_moment) = loss.second_moment {
                    self.check_number("second moment of the loss", loss.element_type, second_moment)?;
                }
                Ok(Launch {
                    device_mean: loss.mean,
                    device_second_moment: loss.second_moment.unwrap_or(0),
                    loss_type: type_number(Some(loss.element_type)),
                    ..launch
                })
            }
        }
    }

    /// Three launches for each group. All of a step's noise and counts is made up by the first group's first launch and
    /// the last group's last.
    fn launch_groups(&self, stream: Stream, launch: Launch) -> Result<(), Error> {
        let Tables { groups, tensors, chunks, partials, plans, reports, .. } = &self.tables;
        for (i, group) in groups.iter().enumerate() {
            let launch = Launch {
                tensors: tensors.address(),
                chunks: chunks.address(),
                partials: partials.address(),
                plans: plans.address(),
                reports: reports.address(),
                first_chunk: group.chunks.start,
                chunks_end: group.chunks.end,
                first_tensor: group.tensors.start,
                tensors_end: group.tensors.end,
                begins: (i == 0).into(),
                ends: (i + 1 == groups.len()).into(),
                ..launch
            };
            let (chunk_blocks, tensor_blocks) = (group.chunks.len().max(1) as u32, group.tensors.len().max(1) as u32);
            for (kernel, blocks) in
                [(Kernel::Dots, chunk_blocks), (Kernel::Recursion, tensor_blocks), (Kernel::Update, chunk_blocks)]
            {
                // SAFETY: the tables describe the tensors, whose buffers are there as `Tensor::new` was promised; the
                // state and the tables are memory of this optimizer, which gives it back only when nothing runs.
                unsafe { self.counted.launch(stream, kernel, blocks, &launch)? };
            }
        }
        Ok(())
    }
}

/// Exchanges for the tables one that is right, if there is one and they are not; whether they are now.
fn swapped(tables: &mut Tables, others: &mut [Tables], is_right: impl Fn(&Tables) -> bool) -> bool {
    if is_right(tables) {
        return true;
    }
    let other = others.iter_mut().find(|other| is_right(other));
    other.map(|other| std::mem::swap(tables, other)).is_some()
}
