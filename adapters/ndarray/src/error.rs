//! What can be wrong with arrays.

/// Why arrays can't be stepped where they are.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The gradient has another shape than the parameters.
    Shape {
        /// The tensor's name.
        tensor: String,
        /// The shape of the parameters.
        parameters: Vec<usize>,
        /// The shape of the gradient.
        gradient: Vec<usize>,
    },
    /// An array has gaps in memory, or the parameters and the gradient are in different orders there.
    Layout {
        /// The tensor's name.
        tensor: String,
        /// The shape of both.
        shape: Vec<usize>,
        /// The strides of the parameters, in elements.
        parameters: Vec<isize>,
        /// The strides of the gradient, in elements.
        gradient: Vec<isize>,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Shape { tensor, parameters, gradient } => {
                write!(f, "tensor {tensor:?}: the parameters' shape is {parameters:?}, the gradient's {gradient:?}")
            }
            Error::Layout { tensor, shape, parameters, gradient } => write!(
                f,
                "tensor {tensor:?}: parameters and gradient have to lie without gaps and in the same order, but their \
                 strides are {parameters:?} and {gradient:?} for the shape {shape:?}"
            ),
        }
    }
}

impl std::error::Error for Error {}
