//! The backends: which there are, which this processor has, and the choice of one.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use koala_optim::{Backend, BackendStatus};

use crate::border::failure::{Failure, fail};
use crate::border::growing::{Output, growing};
use crate::border::guard::guarded;
use crate::border::pointers::{Place, known, text};
use crate::border::ranges::{check_apart, range_of_text};
use crate::border::status::koala_status;
use crate::border::values::{FromC, from_c, value_of};

/// Where a step runs. All backends give the same bits.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_backend {
    /// The fastest one that this processor has.
    Fastest = 0,
    /// Plain code, one element at a time. Always present.
    Scalar = 1,
    /// 128-bit vectors of whatever the library was compiled for. Always present.
    Portable = 2,
    /// 128-bit vectors of 64-bit Arm.
    Neon = 3,
    /// 256-bit vectors of x86-64, with AVX2 and F16C.
    Avx2 = 4,
    /// 512-bit vectors of x86-64, with AVX-512 F and DQ.
    Avx512 = 5,
}

from_c! { koala_backend {
    Fastest: c"fastest",
    Scalar: c"scalar",
    Portable: c"portable",
    Neon: c"neon",
    Avx2: c"avx2",
    Avx512: c"avx512",
} }

/// A backend, as koala_backend_describe tells of it. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_backend_info {
    /// sizeof(koala_backend_info).
    pub size: usize,
    /// Its number.
    pub backend: MaybeUninit<koala_backend>,
    /// 1 if this processor has it, else 0.
    pub present: u32,
    /// Its name, such as "avx2".
    pub name: [c_char; 16],
    /// What it is, in a few words.
    pub description: [c_char; 64],
    /// Why it is not present; empty if it is.
    pub absent_because: [c_char; 64],
}

growing!(koala_backend_info, up to absent_because);

impl Default for koala_backend_info {
    fn default() -> Self {
        koala_backend_info {
            size: size_of::<Self>(),
            backend: MaybeUninit::new(koala_backend::Fastest),
            present: 0,
            name: [0; 16],
            description: [0; 64],
            absent_because: [0; 64],
        }
    }
}

fn statuses() -> &'static [BackendStatus; 5] {
    static STATUSES: OnceLock<[BackendStatus; 5]> = OnceLock::new();
    STATUSES.get_or_init(Backend::statuses)
}

/// The backend of a number.
#[inline(always)]
pub(crate) fn chosen(backend: MaybeUninit<koala_backend>) -> Result<Backend, Failure> {
    static FASTEST: OnceLock<Backend> = OnceLock::new();
    match known(backend)? {
        koala_backend::Fastest => Ok(*FASTEST.get_or_init(Backend::detect)),
        other => by_number(other),
    }
}

fn by_number(backend: koala_backend) -> Result<Backend, Failure> {
    let status = &statuses()[backend as usize - 1];
    status.backend.map_or_else(|| Ok(Backend::by_name(status.name)?), Ok)
}

/// The number of a backend.
pub(crate) fn number(backend: Backend) -> Result<koala_backend, Failure> {
    let name = backend.name();
    let found = koala_backend::ALL.iter().find(|known| known.text().to_bytes() == name.as_bytes());
    found.copied().ok_or_else(|| fail(koala_status::Other, format_args!("C has no number for the backend {name}")))
}

/// How many backends this library knows, present or not, KOALA_BACKEND_FASTEST not counted: they have the numbers from
/// 1 to `*count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_backend_count(count: *mut usize) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let count = unsafe { Place::needed(count, "count") }?;
        count.write(statuses().len())
    })
}

/// Tells of a backend: whether this processor has it, and if not, why. KOALA_BACKEND_FASTEST stands for the fastest.
///
/// Returns KOALA_STATUS_UNKNOWN_VALUE for a number that is no backend's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_backend_describe(
    backend: MaybeUninit<koala_backend>,
    info: *mut koala_backend_info,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let output = unsafe { Output::needed(info) }?;
        let backend = match known(backend)? {
            koala_backend::Fastest => number(chosen(backend)?)?,
            other => other,
        };
        let status = &statuses()[backend as usize - 1];
        let mut info = koala_backend_info {
            backend: MaybeUninit::new(backend),
            present: status.backend.is_some().into(),
            ..Default::default()
        };
        copy(status.name, &mut info.name);
        copy(status.description, &mut info.description);
        copy(status.absent_because.unwrap_or_default(), &mut info.absent_because);
        output.write(&info)
    })
}

/// As much of a text as there is room for, with a NUL: the rest is zero already.
fn copy(text: &str, room: &mut [c_char]) {
    let last = room.len() - 1;
    room[..last].iter_mut().zip(text.bytes()).for_each(|(room, byte)| *room = byte as c_char);
}

/// The backend that runs where KOALA_BACKEND_FASTEST is asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_backend_fastest(backend: *mut koala_backend) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let backend = unsafe { Place::needed(backend, "backend") }?;
        let fastest = number(chosen(MaybeUninit::new(koala_backend::Fastest))?)?;
        backend.write(fastest)
    })
}

/// The backend of that name, such as koala_backend_name gives.
///
/// Returns KOALA_STATUS_UNKNOWN_BACKEND if there is none, and KOALA_STATUS_ABSENT_BACKEND if this processor lacks it;
/// the text lists those present.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_backend_by_name(name: *const c_char, backend: *mut koala_backend) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (backend, name) = unsafe { (Place::needed(backend, "backend")?, text(name, "name")?) };
        check_apart(&[("backend", backend.range())], &[("name", range_of_text(name))])?;
        let found = match name {
            "fastest" => koala_backend::Fastest,
            name => number(Backend::by_name(name)?)?,
        };
        backend.write(found)
    })
}

/// The backend that the environment variable KOALA_BACKEND names, or the fastest one where it is not set. Nothing else
/// in this library looks at the environment. Allocates.
///
/// Returns what koala_backend_by_name does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_backend_from_environment(backend: *mut koala_backend) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let backend = unsafe { Place::needed(backend, "backend") }?;
        let found = Backend::from_environment()?;
        backend.write(number(found)?)
    })
}

/// The name of a backend, such as "avx2", or "fastest"; for ever valid. NULL for a number that is none.
#[unsafe(no_mangle)]
pub extern "C" fn koala_backend_name(backend: MaybeUninit<koala_backend>) -> *const c_char {
    value_of(backend).map_or(std::ptr::null(), |backend| backend.text().as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn numbers_names_and_texts_are_the_librarys() {
        assert_eq!(statuses().len() + 1, koala_backend::ALL.len());
        for (status, backend) in statuses().iter().zip(&koala_backend::ALL[1..]) {
            // SAFETY: a text of the library's.
            let name = unsafe { CStr::from_ptr(koala_backend_name(MaybeUninit::new(*backend))) };
            assert_eq!(name.to_str(), Ok(status.name));
            assert!(status.name.len() < 16 && status.description.len() < 64);
            assert!(status.absent_because.unwrap_or_default().len() < 64);
            if let Some(present) = status.backend {
                assert_eq!(number(present).unwrap(), *backend);
            }
        }
    }
}
