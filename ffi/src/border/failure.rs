//! Failures: their status, and the text that is kept of the last one on each thread.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fmt::Write;

use crate::border::status::koala_status;

/// A call has failed. The thread keeps the text. Only [`fail`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure(pub koala_status);

/// Keeps the text for [`koala_last_error`].
#[cold]
pub(crate) fn fail(status: koala_status, text: std::fmt::Arguments<'_>) -> Failure {
    keep(Text::of(text));
    Failure(status)
}

/// There is not enough memory for something.
#[cold]
pub(crate) fn no_memory(what: &str) -> Failure {
    fail(koala_status::Memory, format_args!("not enough memory for {what}"))
}

/// A failure with a text of any length: for calls that say that they allocate.
#[cold]
fn fail_at_length(status: koala_status, text: String) -> Failure {
    keep(Text { is_long: true, ..Text::of(format_args!("{text}")) });
    // Where the thread is ending, the cut text is left.
    let _ = LONG.try_with(|long| long.replace(text));
    Failure(status)
}

fn keep(text: Text) {
    LAST_ERROR.with_borrow_mut(|last| {
        if last.is_long {
            let _ = LONG.try_with(RefCell::take);
        }
        *last = text;
    });
}

/// Begins the text of the failure that was just made with another.
#[cold]
pub(crate) fn prefix(prefix: std::fmt::Arguments<'_>) {
    LAST_ERROR.with_borrow_mut(|last| {
        let text = std::str::from_utf8(last.as_bytes()).unwrap_or_default();
        let text = text.strip_prefix("the tensor: ").unwrap_or(text);
        *last = Text::of(format_args!("{prefix}{text}"));
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
            Error::Method { .. } => koala_status::Method,
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
            _ => koala_status::Other,
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
            _ => koala_status::Other,
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
            _ => koala_status::Other,
        };
        // The library's list of differences has a line for each.
        let text = error.to_string().replace(":\n  ", ": ").replace("\n  ", "; ").replace('\n', " ");
        fail_at_length(status, text)
    }
}

/// The longest text that is kept without allocating.
const LONGEST: usize = 512;

/// A text in memory of its own, so that to make it allocates nothing. It is cut where it is too long.
pub(crate) struct Text {
    /// With a NUL behind the longest one.
    bytes: [u8; LONGEST + 1],
    length: usize,
    /// Whether this is but the beginning, and the whole text is in `LONG`.
    is_long: bool,
}

thread_local! {
    static LAST_ERROR: RefCell<Text> = const { RefCell::new(Text::EMPTY) };
    /// By itself: the system allocates to note that a thread has something to free at its end, which it does where this
    /// is used first.
    static LONG: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Calls `work` with the whole text of the last failure.
pub(crate) fn with_text(work: impl Fn(&[u8])) {
    LAST_ERROR.with_borrow(|last| {
        let long = last.is_long.then(|| LONG.try_with(|long| work(long.borrow().as_bytes())).ok());
        if long.flatten().is_none() {
            work(last.as_bytes());
        }
    });
}

impl Text {
    const EMPTY: Text = Text { bytes: [0; LONGEST + 1], length: 0, is_long: false };

    pub fn of(text: std::fmt::Arguments<'_>) -> Self {
        let mut made = Text::EMPTY;
        // A text that is too long is cut, which is no error.
        let _ = made.write_fmt(text);
        made
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// With a NUL at its end, for C.
    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let mut end = part.len().min(LONGEST - self.length);
        while !part.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&part.as_bytes()[..end]);
        self.length += end;
        if end < part.len() { Err(std::fmt::Error) } else { Ok(()) }
    }
}
