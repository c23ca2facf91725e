//! What can be wrong with a call. Every error names the tensor and the numbers; after any of them, nothing of the
//! parameters, the state or the noise has changed.

use std::fmt::Write;

use crate::types::element::ElementType;

/// Why a call did nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A buffer's length is not the tensor's.
    Length {
        /// The tensor's name; empty where the call takes a single tensor.
        tensor: String,
        /// Which buffer.
        buffer: &'static str,
        /// Its length.
        found: usize,
        /// The length that it should have.
        expected: usize,
    },
    /// The parameters' type is not the one that the tensor was added with.
    Type {
        /// The tensor's name.
        tensor: String,
        /// The type that came.
        found: ElementType,
        /// The type that the tensor was added with.
        expected: ElementType,
    },
    /// No tensor of that name was added.
    UnknownTensor {
        /// The name.
        tensor: String,
    },
    /// The name was given before: to an added tensor, or in the same step.
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// The optimizer has no group of that number. Another optimizer's group is not recognized where the number fits.
    UnknownGroup {
        /// Its number.
        group: usize,
        /// How many groups there are.
        groups: usize,
    },
    /// A setting is outside its range.
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        expected: &'static str,
    },
    /// A group's method is not one that it can have.
    Method {
        /// The method that came, or what it has.
        found: &'static str,
        /// The optimizer's method, or what is needed.
        expected: &'static str,
    },
    /// A loss was to be made from no samples.
    NoSamples,
    /// The loss or its second moment is not finite, and [`OnNonFinite::Error`](crate::OnNonFinite) is set.
    NonFiniteLoss {
        /// The mean loss.
        mean: f64,
        /// The mean of the squared losses.
        second_moment: f64,
    },
    /// A tensor's gradient, parameters or scalars are not finite, or its new parameters or state would not be, and
    /// [`OnNonFinite::Error`](crate::OnNonFinite) is set.
    NonFinite {
        /// The tensor's name; empty where the call takes a single tensor.
        tensor: String,
        /// What is not finite.
        quantity: &'static str,
        /// Its value.
        value: f64,
    },
    /// A tensor's innovation variance would not be positive, and [`OnBreakdown::Error`](crate::OnBreakdown) is set.
    Breakdown {
        /// The tensor's name; empty where the call takes a single tensor.
        tensor: String,
        /// The innovation variance.
        innovation_variance: f64,
    },
    /// A step in halves is KOALA++'s, with gradients as they are: nothing else is offered so.
    Halves,
    /// KOALA-M was to step before [`Optimizer::predict`](crate::Optimizer::predict) was called for that step.
    NotPredicted,
    /// There is not enough memory for a tensor, or for a group.
    Memory {
        /// The tensor's name; empty where the call takes a single tensor, for a group, and where there is no memory
        /// for the name either.
        tensor: String,
        /// Its number of elements; 0 for a group.
        elements: usize,
    },
    /// No backend has that name.
    UnknownBackend {
        /// The name.
        name: String,
        /// The backends that are present.
        present: Vec<&'static str>,
    },
    /// The backend can't run here.
    AbsentBackend {
        /// Its name.
        name: &'static str,
        /// Why not.
        reason: &'static str,
        /// The backends that are present.
        present: Vec<&'static str>,
    },
    /// The threads could not be had.
    Threads {
        /// How many were asked for.
        count: usize,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// The same error with the tensor's name, where it is about a tensor.
    pub(crate) fn of_tensor(mut self, name: &str) -> Self {
        match &mut self {
            Error::Length { tensor, .. }
            | Error::Type { tensor, .. }
            | Error::NonFinite { tensor, .. }
            | Error::Breakdown { tensor, .. }
            | Error::Memory { tensor, .. } => *tensor = owned(name),
            _ => {}
        }
        self
    }

    /// The same error with the tensor's place in a list for its name.
    #[cold]
    pub(crate) fn of_place(self, place: usize) -> Self {
        let mut name = String::new();
        // As in `owned`; no number has more digits.
        if name.try_reserve_exact(20).is_ok() {
            let _ = write!(name, "{place}");
        }
        self.of_tensor(&name)
    }
}

/// Whether each buffer has the length that it should have, which comes after the one that it has; the error is the first
/// one's that has not.
#[inline]
pub(crate) fn check_lengths<const N: usize>(buffers: [(&'static str, usize, usize); N]) -> Result<(), Error> {
    if buffers.iter().all(|(_, found, expected)| found == expected) {
        return Ok(());
    }
    let wrong = |(buffer, found, expected)| Error::Length { tensor: String::new(), buffer, found, expected };
    buffers.into_iter().find(|(_, found, expected)| found != expected).map_or(Ok(()), |buffer| Err(wrong(buffer)))
}

/// A text to keep; nothing where there is no memory for it: an error is not to end the process.
pub(crate) fn owned(text: &str) -> String {
    let mut owned = String::new();
    if owned.try_reserve_exact(text.len()).is_ok() {
        owned.push_str(text);
    }
    owned
}

/// `tensor "name"`, or `the tensor` where it has none.
struct Named<'a>(&'a str);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("the tensor") } else { write!(f, "tensor {:?}", self.0) }
    }
}

/// Names, with commas between them.
struct Listed<'a>(&'a [&'static str]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Length { tensor, buffer, found, expected } => {
                write!(f, "{}: expected {expected} elements, found {found} in the {buffer}", Named(tensor))
            }
            Error::Type { tensor, found, expected } => {
                write!(f, "{}: the parameters are {found}, but it was added as {expected}", Named(tensor))
            }
            Error::UnknownTensor { tensor } => write!(f, "{} was never added to this optimizer", Named(tensor)),
            Error::DuplicateTensor { tensor } => write!(f, "{} is given twice", Named(tensor)),
            Error::UnknownGroup { group, groups } => {
                write!(f, "group {group} is not of this optimizer, which has {groups} groups")
            }
            Error::Setting { setting, value, expected } => write!(f, "the {setting} is {value}, expected {expected}"),
            Error::Method { found, expected } => write!(f, "the group's method is {found}, expected {expected}"),
            Error::NoSamples => f.write_str("a loss cannot be made from no samples"),
            Error::NonFiniteLoss { mean, second_moment } => {
                write!(f, "the loss is not finite: mean {mean}, second moment {second_moment}")
            }
            Error::NonFinite { tensor, quantity, value } => {
                write!(f, "{}: {quantity} is not finite: {value}", Named(tensor))
            }
            Error::Breakdown { tensor, innovation_variance } => {
                write!(f, "{}: the innovation variance S is {innovation_variance}, not positive", Named(tensor))
            }
            Error::Halves => {
                f.write_str("a step in halves is for KOALA++ with gradients as they are, not for this one")
            }
            Error::NotPredicted => {
                f.write_str("KOALA-M has to predict before each step, and before its gradient is taken")
            }
            Error::Memory { elements: 0, .. } => f.write_str("not enough memory"),
            Error::Memory { tensor, elements } => {
                write!(f, "{}: not enough memory for the state of {elements} elements", Named(tensor))
            }
            Error::UnknownBackend { name, present } => {
                write!(f, "there is no backend {name:?}; present are {}", Listed(present))
            }
            Error::AbsentBackend { name, reason, present } => {
                write!(f, "the backend {name:?} cannot run here: {reason}; present are {}", Listed(present))
            }
            Error::Threads { count, reason } => write!(f, "cannot use {count} threads: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
