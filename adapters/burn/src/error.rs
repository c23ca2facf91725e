//! What can be wrong with a call. After any error, module, state and noise are as they were.

use burn_core::tensor::{DType, DataError};

/// Why a step did nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The optimizer's own.
    Optimizer(koala_optim::Error),
    /// A parameter of another type than f32, f64, bf16 and f16.
    ElementType {
        /// Its name.
        tensor: String,
        /// Its type.
        found: DType,
    },
    /// A gradient of another shape than its parameters.
    Shape {
        /// The parameters' name.
        tensor: String,
        /// Their shape.
        parameters: Vec<usize>,
        /// The gradient's shape.
        gradient: Vec<usize>,
    },
    /// Burn does not lend a parameter or a gradient, whose type differs from the parameter's, say.
    Data {
        /// The parameter's name.
        tensor: String,
        /// Why not.
        reason: DataError,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Optimizer(error) => error.fmt(f),
            Error::ElementType { tensor, found } => {
                write!(f, "tensor {tensor:?}: expected f32, f64, bf16 or f16, found {found:?}")
            }
            Error::Shape { tensor, parameters, gradient } => {
                write!(f, "tensor {tensor:?}: the parameters' shape is {parameters:?}, the gradient's {gradient:?}")
            }
            Error::Data { tensor, reason } => write!(f, "tensor {tensor:?}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<koala_optim::Error> for Error {
    fn from(error: koala_optim::Error) -> Self {
        Error::Optimizer(error)
    }
}
