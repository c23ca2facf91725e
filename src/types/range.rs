//! Ranges of settings and of numbers, and the errors of what lies outside of them.

use crate::types::error::Error;

/// What a number may be.
///
/// ```
/// use koala_optim::Range;
/// assert!(Range::BELOW_ONE.check("momentum", 0.9).is_ok());
/// let error = Range::BELOW_ONE.check("momentum", 1.0).unwrap_err();
/// assert_eq!(error.to_string(), "the momentum is 1, expected a number from 0 to below 1");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// In words, as they stand in errors.
    pub expected: &'static str,
    contains: fn(f64) -> bool,
}

impl Range {
    /// Any finite number.
    pub const FINITE: Range = Range { expected: "a finite number", contains: f64::is_finite };
    /// 0 or more.
    pub const AT_LEAST_ZERO: Range =
        Range { expected: "a finite number, at least 0", contains: |value| value.is_finite() && value >= 0.0 };
    /// More than 0.
    pub const ABOVE_ZERO: Range =
        Range { expected: "a finite number above 0", contains: |value| value.is_finite() && value > 0.0 };
    /// 0 or more, and less than 1.
    pub const BELOW_ONE: Range =
        Range { expected: "a number from 0 to below 1", contains: |value| (0.0..1.0).contains(&value) };
    /// 0 to 1.
    pub const UP_TO_ONE: Range =
        Range { expected: "a number from 0 to 1", contains: |value| (0.0..=1.0).contains(&value) };
    /// What does not vanish in f32.
    pub const AT_LEAST_1E_37: Range =
        Range { expected: "a finite number, at least 1e-37", contains: |value| value.is_finite() && value >= 1e-37 };
    /// A choice, which its type keeps in range.
    pub const CHOICE: Range = Range { expected: "a choice", contains: |_| true };

    /// Whether a setting of that name has a value in this range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the name, the value and the range.
    ///
    /// See the [type's example](Self).
    pub fn check(&self, setting: &'static str, value: f64) -> Result<(), Error> {
        let Range { expected, contains } = *self;
        if contains(value) { Ok(()) } else { Err(Error::Setting { setting, value, expected }) }
    }
}
