//! The numbers of a method: a table with their names, ranges and defaults, from which its struct is made.

use crate::types::error::Error;
use crate::types::range::Range;

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

/// The struct of a method's numbers.
pub(crate) trait Numbers: Copy + Default {
    /// The table of them.
    const NUMBERS: &'static [Number];

    /// Whether every number is in its range.
    fn validate_numbers(&self) -> Result<(), Error>;
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

        impl $crate::methods::number::Numbers for $name {
            const NUMBERS: &'static [$crate::methods::number::Number] = &[
                $($crate::methods::number::Number {
                    name: stringify!($number),
                    label: $label,
                    range: $crate::types::range::Range::$range,
                },)*
            ];

            fn validate_numbers(&self) -> Result<(), $crate::types::error::Error> {
                let values = [$($crate::methods::number::Value::number(self.$number),)*];
                let mut numbers = Self::NUMBERS.iter().zip(values);
                numbers.try_for_each(|(number, value)| number.range.check(number.label, value))
            }
        }
    };
}
pub(crate) use numbers;
