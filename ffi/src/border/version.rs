//! Which library this is, and whether it fits a header.

use crate::border::failure::fail;
use crate::border::guard::guarded;
use crate::border::status::koala_status;

/// The version of this header: a program compiled with it needs a library of the same major version, and below 1.0 of
/// the same minor version too.
pub const KOALA_VERSION_MAJOR: u32 = 0;
/// See KOALA_VERSION_MAJOR.
pub const KOALA_VERSION_MINOR: u32 = 1;
/// See KOALA_VERSION_MAJOR.
pub const KOALA_VERSION_PATCH: u32 = 0;

/// The version as one number: 1000000 times major, plus 1000 times minor, plus patch.
pub const KOALA_VERSION: u32 = 1000;

const _: () =
    assert!(KOALA_VERSION == 1_000_000 * KOALA_VERSION_MAJOR + 1000 * KOALA_VERSION_MINOR + KOALA_VERSION_PATCH);

/// The version of the library, as KOALA_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn koala_version() -> u32 {
    KOALA_VERSION
}

/// Whether this library can be called by a program that was compiled with a header of that version: pass KOALA_VERSION.
/// A program that links a shared library may ask this once, at its start.
///
/// Returns KOALA_STATUS_VERSION if the header is of another major version, below 1.0 of another minor version, or newer
/// than the library.
#[unsafe(no_mangle)]
pub extern "C" fn koala_check_version(header: u32) -> koala_status {
    guarded(|| {
        let parts = |version: u32| (version / 1_000_000, version / 1000 % 1000, version % 1000);
        let (ours, theirs) = (parts(KOALA_VERSION), parts(header));
        let same_series = ours.0 == theirs.0 && (ours.0 > 0 || ours.1 == theirs.1);
        if same_series && theirs <= ours {
            return Ok(());
        }
        let ((major, minor, patch), (our_major, our_minor, our_patch)) = (theirs, ours);
        let library = format_args!("the library of {our_major}.{our_minor}.{our_patch}");
        let text = format_args!("the header is of version {major}.{minor}.{patch}, and {library}");
        Err(fail(koala_status::Version, text))
    })
}
