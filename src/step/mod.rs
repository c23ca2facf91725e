//! One tensor's step: its buffers, what is measured, what is decided, and what is written.

pub mod apply;
pub mod buffers;
pub mod clipping;
pub mod measure;
pub mod overflow;
pub mod tasks;
pub mod trouble;
pub mod whole;

use crate::dispatch::Backend;
use crate::methods::plan::{Dots, Measurement, Scalars};
use crate::methods::rule::{Planned, Rules};
use crate::methods::{Compiled, Method};
use crate::passes::staging::Scaled;
use crate::types::error::Error;
use crate::types::range::Range;
use crate::types::settings::{OnNonFinite, Policy, Scaling, Settings};

/// Everything about a step but the tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where it runs.
    pub backend: Backend,
    /// Which optimizer steps, with its shared numbers as they are now.
    pub method: Method,
    /// The tensor's settings.
    pub settings: Settings,
    /// What to do when it can't be taken.
    pub policy: Policy,
    /// The loss and the noise.
    pub measurement: Measurement,
    /// What becomes of the gradient as it is loaded.
    pub scaling: Scaling,
    /// Whether the report is to have the norms, which may cost a pass more. What is written does not depend on it.
    pub norms: bool,
}

impl Step {
    /// A step of KOALA++ with the default settings and policy on the fastest backend.
    ///
    /// ```
    /// use koala_optim::kernel::{Measurement, Step};
    /// let step = Step { norms: true, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) };
    /// ```
    pub fn new(measurement: Measurement) -> Self {
        Step {
            backend: Backend::detect(),
            method: Method::default(),
            settings: Settings::default(),
            policy: Policy::default(),
            measurement,
            scaling: Scaling::default(),
            norms: false,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.method.validate()?;
        self.scaling.validate()?;
        self.validate_numbers()
    }

    /// All that there is to validate of a step that goes the compiled way.
    #[inline(always)]
    pub(crate) fn validate_compiled(&self, method: &Compiled) -> Result<(), Error> {
        method.validate()?;
        self.validate_numbers()
    }

    #[inline(always)]
    fn validate_numbers(&self) -> Result<(), Error> {
        self.settings.validate()?;
        // A noise of NaN or infinity is for the policy to judge.
        if self.measurement.noise < 0.0 {
            Range::AT_LEAST_ZERO.check("measurement noise", self.measurement.noise)
        } else {
            Ok(())
        }
    }

    /// The method's numbers, if the step goes the [compiled](whole) way: its method is the one whose passes are compiled, the
    /// gradient is as it is, and the tensor is not frozen.
    #[inline(always)]
    pub(crate) fn compiled(&self) -> Option<&Compiled> {
        let Scaling { factor, limit } = self.scaling;
        let is_plain = factor == 1.0 && limit == f64::INFINITY && !self.settings.frozen;
        self.method.compiled().filter(|_| is_plain)
    }

    /// What a plan is made from.
    #[inline(always)]
    pub(crate) fn planned(&self, dots: Dots, scalars: Scalars) -> Planned<'_> {
        let Step { settings, policy, measurement, .. } = self;
        Planned { settings, on_breakdown: policy.breakdown, measurement: *measurement, dots, scalars }
    }

    /// Whether there is something to find out about the gradient before it is used. A limit would hide what is infinite.
    pub(crate) fn looks(&self) -> bool {
        self.method.measures()
            || self.policy.non_finite != OnNonFinite::Unchecked
            || self.scaling.limit != f64::INFINITY
    }

    /// What becomes of the gradient, if anything.
    pub(crate) fn scaled(&self) -> Option<Scaled<f64>> {
        let Scaling { factor, limit } = self.scaling;
        (self.scaling != Scaling::default()).then_some(Scaled { factor, limit, clip: 1.0 })
    }
}

/// How a step is to be taken, which no bit of its results depends on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manner {
    /// By several threads.
    pub parallel: bool,
    /// Without writing h where the gradient is to take its place, which it can where H is the gradient.
    pub exchange: bool,
}
