//! The numbers of a method: a table with their names, ranges and defaults, from which its struct is made.

use crate::types::error::Error;

/// A number of a method, or a choice that stands for one.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// The name of its field.
    pub name: &'static str,
    /// What errors call it.
    pub label: &'static str,
    /// What it may be.
    pub range: Range,
}

/// What a number may be.
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
}

impl Number {
    /// An error if the value is out of range.
    pub(crate) fn check(&self, value: f64) -> Result<(), Error> {
        let Number { label: setting, range: Range { expected, contains }, .. } = *self;
        if contains(value) { Ok(()) } else { Err(Error::Setting { setting, value, expected }) }
    }
}

/// What a field of a method's struct may be: each has a number that stands for it.
pub(crate) trait Value: Copy {
    fn number(self) -> f64;
}

impl Value for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Value for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// Makes the struct of a method's numbers, with their defaults, and the table of them. A file that lacks a number, as an
/// older version wrote it, is read with that number's default.
macro_rules! numbers {
    (
        $(#[$of_struct:meta])*
        $name:ident {
            $($(#[$of_number:meta])* $number:ident($label:literal, $range:ident): $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$of_struct])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(default))]
        pub struct $name {
            $($(#[$of_number])* pub $number: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($number: $default,)* }
            }
        }

        impl $name {
            pub(super) const NUMBERS: &'static [$crate::methods::number::Number] = &[
                $($crate::methods::number::Number {
                    name: stringify!($number),
                    label: $label,
                    range: $crate::methods::number::Range::$range,
                },)*
            ];

            /// Whether every number is in its range.
            pub(super) fn validate_numbers(&self) -> Result<(), $crate::types::error::Error> {
                let values = [$($crate::methods::number::Value::number(self.$number),)*];
                Self::NUMBERS.iter().zip(values).try_for_each(|(number, value)| number.check(value))
            }
        }
    };
}
pub(crate) use numbers;
