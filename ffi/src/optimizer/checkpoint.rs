//! Level 3 for C: an optimizer in a file, and back.

use std::ffi::c_char;
use std::fmt::Write;
use std::mem::MaybeUninit;
use std::path::Path;

use koala_optim::checkpoint::Loading;

use crate::border::failure::Failure;
use crate::border::growing::{Output, growing};
use crate::border::guard::guarded;
use crate::border::last_error::{check_text, copy_text};
use crate::border::pointers::known;
use crate::border::ranges::{bytes_at, check_apart};
use crate::border::status::koala_status;
use crate::border::values::from_c;
use crate::optimizer::handle::{Handle, koala_optimizer};

/// What to do where a checkpoint differs from the optimizer.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_loading {
    /// Any difference is an error.
    Exact = 0,
    /// Load what fits. A tensor that is missing, has another length or shape, or another type stays as it is. A tensor
    /// of another group is loaded, and stays in its group. Each group takes the settings of the checkpoint's group of
    /// the same number, if there is one. Of another method's checkpoint nothing fits, settings and noise neither: then
    /// nothing is loaded.
    WhatFits = 1,
}

from_c!(koala_loading = Loading { Exact, WhatFits });

/// What was loaded. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_loaded {
    /// sizeof(koala_loaded).
    pub size: usize,
    /// Tensors whose state was.
    pub tensors: u64,
    /// How much was not, as it differs: koala_optimizer_differences tells of each. 0 after KOALA_LOADING_EXACT.
    pub differences: u64,
}

growing!(koala_loaded, up to differences);

/// Saves all that the optimizer knows to the file of that path, from which koala_optimizer_load goes on with the bits
/// of a run that never stopped: on any backend, with any number of threads, and from any language that has this
/// library. The parameters are the caller's to save. Allocates.
///
/// The file is written under another name beside its own, synchronized to the disk, and then renamed: if this process
/// is killed, or the power fails, the path leads to the old file or to the new one, each whole, and never to a part; a
/// file `.koala-*.tmp` may be left, which the next call with this path removes. Links are followed, and a file's
/// permissions kept; what is no regular file, such as a device or a FIFO, is not written to. The file is one of
/// safetensors, which Python and others read, and ends with a checksum.
///
/// The path is bytes as the system takes them, in any encoding, ended by NUL; on Windows, UTF-8.
///
/// Returns KOALA_STATUS_FILE if it cannot be written; then the path leads to what it led to before, unless all that
/// failed was to synchronize the folder after the renaming.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_save(optimizer: *const koala_optimizer, path: *const c_char) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (inner, path) = unsafe { (koala_optimizer::shared(optimizer)?, path_at(path)?) };
        Ok(inner.optimizer.save(path)?)
    })
}

/// Loads what koala_optimizer_save has saved, or `Optimizer::save` in Rust: the state of each tensor, the settings of
/// each group, the method with its shared numbers, the noise and its rule, the policies, what becomes of gradients,
/// and the number of steps. Where the caller has set something else than the file has, the file wins: set what is to
/// be different afterwards. Backend, threads, norms and log stay the caller's.
///
/// The optimizer needs to have the same tensors in the same groups, in any order: they are matched by name. `loaded`,
/// unless NULL, receives what was loaded. All of the file is read and verified before anything changes. Allocates as
/// many bytes as the file has, and a few times as many as its names and notes have.
///
/// Returns KOALA_STATUS_FILE if the file cannot be read, or is no regular file; KOALA_STATUS_DAMAGED if it is no
/// checkpoint, was cut short, or its bytes have changed; KOALA_STATUS_NEWER if a later version of this library wrote
/// it in another format; and KOALA_STATUS_MISMATCH under KOALA_LOADING_EXACT, with a text of koala_last_error that
/// lists every tensor which is missing, extra, or of another length, type or group, however many they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_load(
    optimizer: *mut koala_optimizer,
    path: *const c_char,
    loading: MaybeUninit<koala_loading>,
    loaded: *mut koala_loaded,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (path, output) = unsafe { (path_at(path)?, Output::optional(loaded)?) };
        let bytes = path.as_os_str().as_encoded_bytes();
        check_apart(&[("loaded", output.range())], &[("path", bytes_at(bytes.as_ptr(), bytes.len() + 1))])?;
        let loading = known(loading)?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let found = inner.optimizer.load(path, loading.into())?;
        inner.differences.clear();
        for difference in &found.differences {
            // Writing to a text does not fail.
            let _ = writeln!(inner.differences, "{difference}");
        }
        output.write(&koala_loaded {
            size: size_of::<koala_loaded>(),
            tensors: found.tensors as u64,
            differences: found.differences.len() as u64,
        })
    })
}

/// A path: bytes on Unix, and UTF-8 elsewhere.
///
/// # Safety
/// `pointer` is NULL or a text that ends with NUL, which stays as it is for as long as the result is used.
unsafe fn path_at<'a>(pointer: *const c_char) -> Result<&'a Path, Failure> {
    #[cfg(unix)]
    {
        use std::ffi::{CStr, OsStr};
        use std::os::unix::ffi::OsStrExt;

        crate::border::pointers::check(pointer, "path")?;
        // SAFETY: the caller's promise.
        let path = unsafe { CStr::from_ptr(pointer) };
        Ok(Path::new(OsStr::from_bytes(path.to_bytes())))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the caller's promise.
        let path = unsafe { crate::border::pointers::text(pointer, "path") }?;
        Ok(Path::new(path))
    }
}

/// Copies what the last koala_optimizer_load that succeeded did not load, as koala_last_error copies its text: a line
/// for each difference, such as `tensor "head" is only in the optimizer`, each ended by a newline. Empty if there was
/// none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_differences(
    optimizer: *const koala_optimizer,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> koala_status {
    guarded(|| {
        check_text(buffer, capacity, length)?;
        // SAFETY: the caller's promise.
        unsafe {
            let inner = koala_optimizer::shared(optimizer)?;
            copy_text(inner.differences.as_bytes(), buffer, capacity, length);
        }
        Ok(())
    })
}
