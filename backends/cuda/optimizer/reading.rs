//! What the host reads of an optimizer on a device: reports, the filters, and what it has cost.

use super::Optimizer;
use crate::cuda::driver::{Stream, zeros};
use crate::cuda::error::Error;
use crate::cuda::structs::{ProgressRow, ReportRow, ScalarsRow};
use crate::cuda::tensor::StateBuffers;
use crate::methods::plan::{Norms, Outcome, Scalars, TensorReport};
use crate::optimizer::report::Report;
use crate::types::element::ElementType;

/// What an optimizer has asked of its device until now: see [`Optimizer::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps put on a stream; captured ones are not counted, nor is what a graph's launches do.
    pub steps: u64,
    /// Kernels put on a stream, or captured: three for each group of a step, and one for every 255 words that change
    /// before it: seven for a group's settings, four for a filter that restarts, one for a gradient that has moved, or
    /// that is captured.
    pub launches: u64,
    /// Calls of the driver for which the host waited: to allocate and to free, to describe tensors that it has not just
    /// stepped, and to read.
    pub waits: u64,
}

/// The filter of a tensor, read from the device: see [`Optimizer::state`].
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// What v and h are stored in.
    pub element_type: ElementType,
    /// The bytes of v, as they are stored.
    pub v: Vec<u8>,
    /// The bytes of h, as they are stored.
    pub h: Vec<u8>,
    /// The scalars.
    pub scalars: Scalars,
}

impl Optimizer {
    /// What the last step on the stream did. The host waits for it.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], [`Error::Captured`], [`Error::Driver`].
    ///
    /// See the [module's example](crate::cuda).
    pub fn report(&self, stream: Stream) -> Result<Report, Error> {
        let ProgressRow { noise, steps, counts, .. } = self.progress(stream)?;
        let [stepped, first_steps, restarts, skipped, frozen, non_finite, breakdowns, withheld] =
            counts.map(|count| count as usize);
        Ok(Report {
            gradient_norm: None,
            step: steps,
            noise,
            stepped: stepped + first_steps + restarts,
            first_steps,
            restarts,
            skipped,
            frozen,
            non_finite,
            breakdowns,
            withheld,
        })
    }

    fn progress(&self, stream: Stream) -> Result<ProgressRow, Error> {
        self.check_readable(stream)?;
        let mut row = [ProgressRow::default()];
        self.progress.read(stream, &mut row)?;
        Ok(row[0])
    }

    fn check_readable(&self, stream: Stream) -> Result<(), Error> {
        self.counted.driver.check_stream(stream)?;
        match self.counted.driver.is_captured(stream)? {
            true => Err(Error::Captured { expected: "nothing to be read before the capture has ended" }),
            false => Ok(()),
        }
    }

    /// The reports on the tensors of the last step, in the order in which they were given; with norms if
    /// [`Config::details`](crate::cuda::Config::details) is set. If the last call of [`step`](Optimizer::step) was
    /// captured, the last step is that of its graph's last launch. There are none where other tensors have been
    /// [prepared](Optimizer::prepare) since. The host waits for it.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], [`Error::Captured`], [`Error::HostMemory`], [`Error::Driver`],
    /// [`Error::UnknownOutcome`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// for tensor in optimizer.details(Stream::DEFAULT)? {
    ///     println!("{:?}", tensor.outcome);
    /// }
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn details(&self, stream: Stream) -> Result<Vec<TensorReport>, Error> {
        self.check_readable(stream)?;
        let count = if self.tables.stepped { self.tables.rows.len() } else { 0 };
        let mut rows: Vec<ReportRow> = zeros(count)?;
        self.tables.reports.read(stream, &mut rows)?;
        rows.into_iter().map(|row| tensor_report(row, self.config.details)).collect()
    }

    /// The filter of a tensor. The host waits for it.
    ///
    /// # Errors
    /// [`Error::Call`] if there is no such tensor, [`Error::ForeignStream`], [`Error::Captured`],
    /// [`Error::HostMemory`], [`Error::Driver`].
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group)?;
    /// assert_eq!(optimizer.state(Stream::DEFAULT, "bias")?.scalars.steps, 0);
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn state(&mut self, stream: Stream, name: &str) -> Result<State, Error> {
        let entry = &self.entries[self.index_of(name)?];
        let (element_type, bytes) = (entry.state_type, entry.state_bytes());
        let (mut v, mut h) = (zeros(bytes)?, zeros(bytes)?);
        let scalars = self.read_state(stream, name, Some(&mut v), Some(&mut h))?;
        Ok(State { element_type, v, h, scalars })
    }

    /// The same into buffers of the caller, of as many bytes as the tensor's elements take in the state's type, for
    /// those of v and h that are wanted. The host waits for it.
    ///
    /// # Errors
    /// As [`state`](Self::state), and [`Error::StateBytes`] for a buffer of another length.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// let group = optimizer.add_group(Settings::default())?;
    /// optimizer.add_tensor("bias", 10, ElementType::F32, StateType::Same, group)?;
    /// let mut v = [0; 40];
    /// assert_eq!(optimizer.read_state(Stream::DEFAULT, "bias", Some(&mut v), None)?.steps, 0);
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn read_state(
        &mut self,
        stream: Stream,
        name: &str,
        v: Option<&mut [u8]>,
        h: Option<&mut [u8]>,
    ) -> Result<Scalars, Error> {
        let index = self.index_of(name)?;
        let expected = self.entries[index].state_bytes();
        if let Some(found) = v.iter().chain(&h).map(|buffer| buffer.len()).find(|found| *found != expected) {
            return Err(Error::StateBytes { tensor: name.into(), found, expected });
        }
        self.check_readable(stream)?;
        self.write_changes(stream)?;
        let StateBuffers { v: v_address, h: h_address, scalars } = self.entries[index].buffers;
        let mut row = [ScalarsRow::default()];
        // SAFETY: `add_tensor` allocated them, or its caller has promised that they are there; kernels that write them
        // are on the stream.
        unsafe {
            for (buffer, address) in [(v, v_address), (h, h_address)] {
                self.counted.read(stream, address, buffer.unwrap_or_default())?;
            }
            self.counted.read(stream, scalars, &mut row)?;
        }
        let [ScalarsRow { h_h, h_v, innovation_variance, steps }] = row;
        Ok(Scalars { h_h, h_v, innovation_variance, steps: steps as u64 })
    }

    /// What has been asked of the device until now.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// println!("{} launches", optimizer.counts().launches);
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn counts(&self) -> Counts {
        let (launches, waits) = self.counted.counts();
        Counts { steps: self.steps, launches, waits }
    }

    /// In how many groups the last step's tensors were worked on, so that the cache has room: three launches for each.
    ///
    /// ```no_run
    /// # use koala_optim::cuda::{Config, Device, Optimizer, Stream};
    /// # use koala_optim::{ElementType, Settings, StateType};
    /// let mut optimizer = Optimizer::new(Device::new(0)?, Config::default())?;
    /// println!("{} launches a step", 3 * optimizer.cache_groups());
    /// # Ok::<(), koala_optim::cuda::Error>(())
    /// ```
    pub fn cache_groups(&self) -> usize {
        self.tables.groups.len()
    }
}

fn tensor_report(row: ReportRow, details: bool) -> Result<TensorReport, Error> {
    const OUTCOMES: [Outcome; 8] = [
        Outcome::Stepped,
        Outcome::FirstStep,
        Outcome::Restarted,
        Outcome::Skipped,
        Outcome::Frozen,
        Outcome::NonFinite,
        Outcome::Breakdown,
        Outcome::Withheld,
    ];
    let outcome = OUTCOMES.get(row.outcome as usize).copied();
    let outcome = outcome.ok_or(Error::UnknownOutcome { number: row.outcome })?;
    let norms =
        Norms { gradient: row.gradient_norm, measurement: row.measurement_norm, parameters: row.parameters_norm };
    Ok(TensorReport {
        outcome,
        innovation_variance: row.innovation_variance,
        alpha: row.alpha,
        lambda: row.lambda,
        w: row.w,
        gain: 0.0,
        norms: (details && outcome != Outcome::Frozen).then_some(norms),
    })
}
