//! Failures: their status, and the text that is kept of the last one on each thread.

use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::Write;

use crate::status::koala_status;
use crate::values::COutput;

/// Copies the text of the last call on this thread that did not succeed: English, UTF-8, one line, such as
/// `tensor "weight": expected 3 elements, found 2 in the gradient`. Empty if there was none.
///
/// `buffer` receives at most `capacity` bytes, the last of them NUL, and may be NULL if `capacity` is 0. A text that is
/// too long is cut. `length`, unless NULL, receives the length of the whole text without NUL: at most 512, but where it
/// lists all that a checkpoint has otherwise.
///
/// If this call itself does not succeed, the text stays the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_last_error(buffer: *mut c_char, capacity: usize, length: *mut usize) -> koala_status {
    if !length.is_aligned() {
        return koala_status::Misaligned;
    }
    // SAFETY: the caller's promise for both.
    let copy = |text: &[u8]| unsafe { copy_text(text, buffer, capacity, length) };
    with_last(|last| copy(last.as_bytes())).unwrap_or_else(|| copy(b""))
}

/// Copies a text and a NUL to C.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `length` is NULL or may be written.
pub(crate) unsafe fn copy_text(text: &[u8], buffer: *mut c_char, capacity: usize, length: *mut usize) -> koala_status {
    if buffer.is_null() && capacity > 0 {
        return koala_status::NullPointer;
    }
    if capacity > 0 {
        let mut end = text.len().min(capacity - 1);
        // Not in the middle of a character.
        while end < text.len() && end > 0 && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        // SAFETY: `end` is below the capacity, and the text is this thread's own.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), end);
            buffer.add(end).write(0);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { length.write_where_wanted(text.len()) };
    koala_status::Ok
}

/// That a call failed; its text is with the thread. Made by [`fail`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure(pub koala_status);

/// Keeps the text for [`koala_last_error`].
#[cold]
pub(crate) fn fail(status: koala_status, text: std::fmt::Arguments<'_>) -> Failure {
    with_last(|last| {
        *last = Text::EMPTY;
        // A text that is too long is cut, which is no error.
        let _ = last.write_fmt(text);
    });
    Failure(status)
}

/// The same with a text of any length: for calls that say that they allocate.
#[cold]
fn fail_at_length(status: koala_status, text: String) -> Failure {
    with_last(|last| last.long = text);
    Failure(status)
}

/// Begins the text of the failure that was just made with another.
#[cold]
pub(crate) fn prefix(prefix: std::fmt::Arguments<'_>) {
    with_last(|last| {
        let before = std::mem::replace(last, Text::EMPTY);
        // A text that is too long is cut, which is no error.
        let _ = last.write_fmt(prefix);
        let text = std::str::from_utf8(before.as_bytes()).unwrap_or_default();
        let _ = last.write_str(text.strip_prefix("the tensor: ").unwrap_or(text));
    });
}

impl From<koala_optim::Error> for Failure {
    #[cold]
    fn from(error: koala_optim::Error) -> Self {
        use koala_optim::Error;
        let status = match error {
            Error::Length { .. } => koala_status::Length,
            Error::Type { .. } => koala_status::Type,
            Error::UnknownTensor { .. } => koala_status::UnknownTensor,
            Error::DuplicateTensor { .. } => koala_status::DuplicateTensor,
            Error::UnknownGroup { .. } => koala_status::UnknownGroup,
            Error::Setting { .. } => koala_status::Setting,
            Error::NoSamples => koala_status::NoSamples,
            Error::NonFiniteLoss { .. } | Error::NonFinite { .. } => koala_status::NonFinite,
            Error::Breakdown { .. } => koala_status::Breakdown,
            Error::Memory { .. } => koala_status::Memory,
            Error::UnknownBackend { .. } => koala_status::UnknownBackend,
            Error::AbsentBackend { .. } => koala_status::AbsentBackend,
            Error::Threads { .. } => koala_status::Threads,
            Error::Halves => koala_status::Halves,
            Error::NotPredicted => koala_status::NotPredicted,
            // The library's errors may become more: the text says what this one is.
            _ => koala_status::Panic,
        };
        fail(status, format_args!("{error}"))
    }
}

impl From<koala_optim::cuda::Error> for Failure {
    #[cold]
    fn from(error: koala_optim::cuda::Error) -> Self {
        use koala_optim::cuda::Error;
        let status = match error {
            Error::Call(error) => return error.into(),
            Error::NoDriver | Error::NoDevice { .. } | Error::OldDriver { .. } | Error::OldDevice { .. } => {
                koala_status::AbsentDevice
            }
            Error::ForeignStream | Error::NotOnDevice { .. } => koala_status::ForeignDevice,
            Error::Driver { .. } | Error::Captured { .. } => koala_status::Driver,
            Error::Memory { .. } | Error::HostMemory { .. } => koala_status::Memory,
            Error::Misaligned { .. } => koala_status::Misaligned,
            Error::TooLong { .. } | Error::StateBytes { .. } => koala_status::Length,
            Error::Policy { .. } => koala_status::Setting,
            Error::NoSecondMoment => koala_status::NullPointer,
            // As above.
            _ => koala_status::Panic,
        };
        fail(status, format_args!("{error}"))
    }
}

impl From<koala_optim::checkpoint::Error> for Failure {
    #[cold]
    fn from(error: koala_optim::checkpoint::Error) -> Self {
        use koala_optim::checkpoint::Error;
        let status = match error {
            Error::File { .. } => koala_status::File,
            Error::NotACheckpoint { .. } | Error::Damaged { .. } => koala_status::Damaged,
            Error::Newer { .. } => koala_status::Newer,
            Error::Mismatch { .. } => koala_status::Mismatch,
            // As above.
            _ => koala_status::Panic,
        };
        // The library's list of differences has a line for each.
        let text = error.to_string().replace(":\n  ", ": ").replace("\n  ", "; ").replace('\n', " ");
        fail_at_length(status, text)
    }
}

/// A text in memory of the thread's own, so that a failure allocates nothing; or a long one, if it is not empty.
struct Text {
    bytes: [u8; 512],
    length: usize,
    long: String,
}

thread_local! {
    static LAST_ERROR: RefCell<Text> = const { RefCell::new(Text::EMPTY) };
}

/// `None` if the thread is ending and its texts are gone, as for a destructor that calls this library then.
fn with_last<T>(work: impl FnOnce(&mut Text) -> T) -> Option<T> {
    LAST_ERROR.try_with(|last| work(&mut last.borrow_mut())).ok()
}

impl Text {
    const EMPTY: Text = Text { bytes: [0; 512], length: 0, long: String::new() };

    fn as_bytes(&self) -> &[u8] {
        if self.long.is_empty() { &self.bytes[..self.length] } else { self.long.as_bytes() }
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let mut end = part.len().min(self.bytes.len() - self.length);
        while !part.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&part.as_bytes()[..end]);
        self.length += end;
        if end < part.len() { Err(std::fmt::Error) } else { Ok(()) }
    }
}
