//! What the host reads of an optimizer on a device: reports, the filters, and what it has cost.

use super::Optimizer;
use crate::cuda::tables::{ProgressRow, ReportRow, ScalarsRow};
use crate::cuda::{Error, StateBuffers, Stream};
use crate::kernel::{Norms, Outcome, Scalars, TensorReport};
use crate::{ElementType, Report};

/// What an optimizer has asked of its device until now: see [`Optimizer::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps put on a stream.
    pub steps: u64,
    /// Kernels put on a stream: three for each group of a step, and one for every 255 words that change before it: five
    /// for a group's settings, four for a filter that restarts, one for a gradient that has moved.
    pub launches: u64,
    /// Calls for which the host waited for the device: to allocate, to describe tensors that it has not just stepped,
    /// and to read.
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
    /// [`Error::ForeignStream`], [`Error::Driver`].
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
        self.counted.driver.check_stream(stream)?;
        Ok(self.progress.read(stream, 1)?[0])
    }

    /// The reports on the tensors of the last step, in the order in which they were given; with norms if
    /// [`Config::details`](crate::cuda::Config::details) is set. The host waits for it.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], [`Error::Driver`].
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
        self.counted.driver.check_stream(stream)?;
        let count = if self.steps == 0 { 0 } else { self.tables.rows.len() };
        let rows: Vec<ReportRow> = self.tables.reports.read(stream, count)?;
        Ok(rows.into_iter().map(|row| tensor_report(row, self.config.details)).collect())
    }

    /// The filter of a tensor. The host waits for it.
    ///
    /// # Errors
    /// [`Error::Call`] if there is no such tensor, [`Error::ForeignStream`], [`Error::Driver`].
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
        let index = self.index_of(name)?;
        self.write_changes(stream)?;
        let entry = &self.entries[index];
        let (StateBuffers { v, h, scalars }, bytes) = (entry.buffers, entry.state_bytes());
        // SAFETY: `add_tensor` allocated them, or its caller has promised that they are there; kernels that write them
        // are on the stream.
        let (v, h, scalars) = unsafe {
            let scalars: Vec<ScalarsRow> = self.counted.read(stream, scalars, 1)?;
            (self.counted.read(stream, v, bytes)?, self.counted.read(stream, h, bytes)?, scalars[0])
        };
        let ScalarsRow { h_h, h_v, innovation_variance, steps } = scalars;
        let scalars = Scalars { h_h, h_v, innovation_variance, steps: steps as u64 };
        Ok(State { element_type: entry.state_type, v, h, scalars })
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

fn tensor_report(row: ReportRow, details: bool) -> TensorReport {
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
    let outcome = OUTCOMES.get(row.outcome as usize).copied().unwrap_or_default();
    let norms =
        Norms { gradient: row.gradient_norm, measurement: row.measurement_norm, parameters: row.parameters_norm };
    TensorReport {
        outcome,
        innovation_variance: row.innovation_variance,
        alpha: row.alpha,
        lambda: row.lambda,
        w: row.w,
        gain: 0.0,
        norms: (details && outcome != Outcome::Frozen).then_some(norms),
    }
}
