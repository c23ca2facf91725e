//! What a method is: what one of the files beside this one has to say of it.

use crate::methods::number::Numbers;
use crate::methods::plan::{Dots, Measurement, Plan, RuleNumber, Scalars, Update};
use crate::methods::reach::Reach;
use crate::passes::update::Pass;
use crate::simd::vector::{Real, Vector};
use crate::types::element::ElementType;
use crate::types::error::Error;
use crate::types::settings::{OnBreakdown, Settings};

/// What a method takes of the dots that pass 1 finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// H·h, H·v, H·H and θ·θ, with H = g + wd·θ: the state is that of a filter, which is divided by.
    Filter,
    /// H·H and θ·θ.
    Measurement,
    /// None: pass 1 only looks whether the gradient is finite. H = g + wd·θ is formed in pass 2.
    Coupled,
    /// None. The weight decay acts beside the gradient, and H is g.
    Decoupled,
}

/// A step of one tensor, as the plan of a method sees it.
#[derive(Clone, Copy)]
pub(crate) struct Planned<'a> {
    pub settings: &'a Settings,
    pub on_breakdown: OnBreakdown,
    pub measurement: Measurement,
    pub dots: Dots,
    pub scalars: Scalars,
}

impl Planned<'_> {
    /// The loss with this tensor's part of the penalty: L + (½·wd)·θ·θ.
    #[inline(always)]
    pub fn effective_loss(&self) -> f64 {
        self.measurement.loss + (0.5 * self.settings.weight_decay) * self.dots.t
    }
}

/// What is known about how far a step may take the elements of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Reaching {
    /// The type of the state.
    pub state: ElementType,
    pub dots: Dots,
    /// g·g, or a bound of it.
    pub gradient_squared: f64,
    /// θ·θ, where the state might not hold θ.
    pub parameters_squared: Option<f64>,
    /// The scalars before the step.
    pub before: Scalars,
}

/// A method. Its number in the list of methods is that of its place there.
pub(crate) trait Rules: Numbers {
    /// The name by which commands and other languages know it.
    const NAME: &'static str;
    /// What it takes of the dots.
    const WANTED: Wanted;
    /// Whether its numbers belong to the optimizer, whose tensors share them, and not to a group of tensors.
    const SHARED: bool;

    /// The names of its state vectors, that of the buffer h first.
    fn vectors(&self) -> [Option<&'static str>; 2];

    /// Whether every number is in its range, and goes with the others.
    fn validate(&self) -> Result<(), Error> {
        self.validate_numbers()
    }

    /// Decides about one tensor, for arithmetic in `F`.
    fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan;

    /// Calls `work` with the pass 2 of an update of this method.
    fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>));

    /// How far an update of this method can take the elements.
    fn reach(update: Update, reaching: Reaching) -> Reach;

    /// Whether θ, which no dot bounds, becomes a part of the state by an update of this method.
    fn takes_parameters(_update: Update) -> bool {
        false
    }

    /// Moves shared numbers to the time of the next measurement.
    fn predict(&mut self, _distance_squared: f64, _parameters: usize) {}

    /// Lets shared numbers learn from a step.
    fn correct(&mut self, _gain: f64) {}

    /// What each tensor's prediction before its gradient is taken leaves of a velocity, if there is such a prediction.
    fn velocity_decay(&self) -> Option<f64> {
        None
    }
}

/// What has a place in the list of methods.
pub(crate) trait Placed {
    const PLACE: u8;
}

/// The number of a rule of a method.
#[inline(always)]
pub(super) fn numbered<M: Placed>(kind: u8) -> RuleNumber {
    RuleNumber { method: M::PLACE, kind }
}

/// A number of a rule, which is of the arithmetic type, in every element of a column.
#[inline(always)]
pub(super) fn splat<F: Real, V: Vector<F>>(v: V, number: f64) -> V::Column {
    v.splat(F::rounded(number))
}

/// `value` rounded to the arithmetic type.
#[inline(always)]
pub(super) fn rounded<F: Real>(value: f64) -> f64 {
    F::rounded(value).to_f64()
}
