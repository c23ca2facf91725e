//! The number types that tensors are stored in: f32, f64, bf16 and f16.

use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
}

/// The name of an [`Element`] type, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum ElementType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl ElementType {
    /// Bytes per element.
    ///
    /// ```
    /// assert_eq!(koala_optim::ElementType::Bf16.size(), 2);
    /// ```
    pub const fn size(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::F64 => 8,
            ElementType::Bf16 | ElementType::F16 => 2,
        }
    }

    /// The largest finite number.
    pub(crate) const fn largest(self) -> f64 {
        match self {
            ElementType::F32 => f32::MAX as f64,
            ElementType::F64 => f64::MAX,
            ElementType::Bf16 => bf16::MAX.to_f64_const(),
            ElementType::F16 => f16::MAX.to_f64_const(),
        }
    }

    /// Whether it ends far below the largest number of another: not bf16 beside f32, which end nearly at the same.
    pub(crate) fn is_far_below(self, other: ElementType) -> bool {
        self.largest() < other.largest() / 2.0
    }

    /// The smallest number above zero.
    pub(crate) const fn smallest(self) -> f64 {
        match self {
            ElementType::F32 => f32::from_bits(1) as f64,
            ElementType::F64 => f64::from_bits(1),
            ElementType::Bf16 => bf16::MIN_POSITIVE_SUBNORMAL.to_f64_const(),
            ElementType::F16 => f16::MIN_POSITIVE_SUBNORMAL.to_f64_const(),
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ElementType::F32 => "f32",
            ElementType::F64 => "f64",
            ElementType::Bf16 => "bf16",
            ElementType::F16 => "f16",
        })
    }
}

/// A type that tensors are stored in. Sealed: f32, f64, bf16 and f16.
pub trait Element: bytemuck::Pod + PartialEq + std::fmt::Debug + Send + Sync + sealed::Sealed {
    /// This type as a value.
    const TYPE: ElementType;

    /// The exact value.
    ///
    /// ```
    /// use koala_optim::{Element, f16};
    /// assert_eq!(Element::to_f64(f16::ONE), 1.0);
    /// ```
    fn to_f64(self) -> f64;

    /// The nearest value of this type, ties to even. (Not `from_f64`: `half` has a method of that name, which rounds
    /// to bf16 and f16 from the upper 32 bits only.)
    ///
    /// ```
    /// use koala_optim::{Element, bf16};
    /// let just_above_the_middle = 1.0 + 2.0_f64.powi(-8) + 2.0_f64.powi(-40);
    /// assert_eq!(bf16::rounded(just_above_the_middle).to_f64(), 1.0 + 2.0_f64.powi(-7));
    /// ```
    fn rounded(value: f64) -> Self;

    /// The same of an f32, for loops that a compiler can make vectors of.
    #[doc(hidden)]
    #[inline(always)]
    fn rounded_f32(value: f32) -> Self {
        Self::rounded(value.into())
    }
}

macro_rules! real {
    ($type:ident, $name:ident) => {
        impl sealed::Sealed for $type {}

        impl Element for $type {
            const TYPE: ElementType = ElementType::$name;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn rounded(value: f64) -> Self {
                value as $type
            }
        }
    };
}

macro_rules! half_precision {
    ($type:ident, $name:ident, $to_f32:expr, $from_f32:expr) => {
        impl sealed::Sealed for $type {}

        impl Element for $type {
            const TYPE: ElementType = ElementType::$name;

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from($to_f32(self))
            }

            // Not inlined: this is long, and stands in many loops that backends have a faster way for.
            #[inline(never)]
            fn rounded(value: f64) -> Self {
                $type::from_f32(round_to_odd(value))
            }

            #[inline(always)]
            fn rounded_f32(value: f32) -> Self {
                $from_f32(value)
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);
half_precision!(bf16, Bf16, |value: bf16| f32::from_bits(u32::from(value.to_bits()) << 16), bf16_from_f32);
half_precision!(f16, F16, f16_to_f32, f16_from_f32);

/// Without a branch, so that a loop over it becomes vectors.
#[inline(always)]
fn bf16_from_f32(value: f32) -> bf16 {
    let bits = value.to_bits();
    let upper = bits >> 16;
    // To nearest, ties to even: the carry out of the lower half rounds the upper one.
    let rounded = bits.wrapping_add(0x7fff + (upper & 1)) >> 16;
    // A NaN must not be carried into a number.
    bf16::from_bits(if value.is_nan() { upper | 0x40 } else { rounded } as u16)
}

#[inline(never)]
fn f16_to_f32(value: f16) -> f32 {
    value.to_f32()
}

#[inline(never)]
fn f16_from_f32(value: f32) -> f16 {
    f16::from_f32(value)
}

/// The f32 at or next to `value` whose last bit says whether anything was lost. Rounding that to bf16 or f16 gives
/// what rounding `value` itself would, where the nearest f32 would round twice (and `half`'s own conversion from f64
/// looks at the upper 32 bits only).
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() {
        return nearest;
    }
    let away_from_zero = u32::from(back.abs() > value.abs());
    f32::from_bits((nearest.to_bits() - away_from_zero) | 1)
}
