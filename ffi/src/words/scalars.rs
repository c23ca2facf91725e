//! The scalars of a tensor's filter, as C keeps them.

use koala_optim::kernel::Scalars;

use crate::border::failure::{Failure, fail};
use crate::border::status::koala_status;

/// The scalars of one tensor's filter between two steps: four doubles, all zero before the first step. A caller may
/// keep them as an array of doubles, and save them as such. This struct never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_scalars {
    /// x = h·h, with h the measurement row of the step before.
    pub h_h: f64,
    /// y = h·v.
    pub h_v: f64,
    /// s, the innovation variance S of the step before.
    pub innovation_variance: f64,
    /// Steps taken: a whole number. At 0, v and h are not read, and the next step is a first step.
    pub steps: f64,
}

impl koala_scalars {
    #[inline(always)]
    pub(crate) fn as_core(&self) -> Result<Scalars, Failure> {
        let koala_scalars { h_h, h_v, innovation_variance, steps } = *self;
        // By way of i64, which processors convert at once.
        let whole = steps as i64;
        if whole as f64 == steps && (0..=LARGEST_WHOLE).contains(&whole) {
            return Ok(Scalars { h_h, h_v, innovation_variance, steps: whole as u64 });
        }
        Err(impossible_steps(steps))
    }
}

#[cold]
fn impossible_steps(steps: f64) -> Failure {
    fail(
        koala_status::Setting,
        format_args!("the steps in the scalars are {steps}, expected a whole number from 0 to 2^53"),
    )
}

/// Above it, a double can't hold every whole number.
const LARGEST_WHOLE: i64 = 1 << 53;

impl From<Scalars> for koala_scalars {
    #[inline(always)]
    fn from(scalars: Scalars) -> Self {
        let Scalars { h_h, h_v, innovation_variance, steps } = scalars;
        koala_scalars { h_h, h_v, innovation_variance, steps: steps as i64 as f64 }
    }
}
