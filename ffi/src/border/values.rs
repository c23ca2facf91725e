//! Enums as C gives and takes them.

use std::mem::MaybeUninit;

/// An enum that C names by a number, from 0 on without a gap. C may give any number, so such a value comes as
/// `MaybeUninit` until it has been looked at.
pub(crate) trait FromC: Copy + 'static {
    /// For error texts.
    const NAME: &'static str;
    /// Every value, in the order of their numbers.
    const ALL: &'static [Self];
}

/// Lists the variants of an enum of C's. With `= Other`, the library's enum `Other` has the same variants, and each is
/// made from the other one. With texts, `text` gives each variant's. A variant that the list lacks, or that only one of
/// the two enums has, does not compile.
macro_rules! from_c {
    ($name:ident { $($variant:ident),* $(,)? }) => {
        impl $crate::border::values::FromC for $name {
            const NAME: &'static str = stringify!($name);
            const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
        const _: () = {
            let all = <$name as $crate::border::values::FromC>::ALL;
            let mut number = 0;
            while number < all.len() {
                match all[number] {
                    $($name::$variant)|* => assert!(all[number] as usize == number),
                }
                number += 1;
            }
        };
    };
    ($name:ident = $other:ident { $($variant:ident),* $(,)? }) => {
        from_c!($name { $($variant),* });
        impl From<$name> for $other {
            #[inline(always)]
            fn from(from: $name) -> Self {
                match from {
                    $($name::$variant => $other::$variant,)*
                }
            }
        }
        impl From<$other> for $name {
            #[inline(always)]
            fn from(from: $other) -> Self {
                match from {
                    $($other::$variant => $name::$variant,)*
                }
            }
        }
    };
    ($name:ident { $($variant:ident: $text:literal),* $(,)? }) => {
        from_c!($name { $($variant),* });
        impl $name {
            fn text(self) -> &'static std::ffi::CStr {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }
    };
}
pub(crate) use from_c;

/// The value, if the number that C gave is one's.
#[inline(always)]
pub(crate) fn value_of<T: FromC>(value: MaybeUninit<T>) -> Option<T> {
    usize::try_from(number_of(value)).ok().and_then(|number| T::ALL.get(number)).copied()
}

/// The number that C gave.
#[inline(always)]
pub(crate) fn number_of<T: FromC>(value: MaybeUninit<T>) -> i32 {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: `repr(i32)` by the trait's users, all of which are here; and C passes some number.
    unsafe { value.as_ptr().cast::<i32>().read() }
}

/// The library's value as C's, for a member of a struct.
pub(crate) fn to_c<T, C: From<T>>(value: T) -> MaybeUninit<C> {
    MaybeUninit::new(value.into())
}
