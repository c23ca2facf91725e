#![doc = include_str!("../README.md")]
//!
//! # Orders in memory
//!
//! A step goes over elements in the order in which they lie in memory. So arrays in the order of C or of Fortran, with
//! their axes in any other order, or reversed, are all stepped in place, if
//!
//! - they have no gaps, and
//! - parameters and gradient are in the same order.
//!
//! [`tensor`] never copies, and what it cannot step in place is an error with the strides of both. A gradient in
//! another order, or with gaps, is copied by [`in_layout_of`], if need be. Parameters with gaps, such as some columns
//! of a matrix, are copied and assigned by their owner:
//!
//! ```
//! use koala_ndarray::tensor;
//! use koala_optim::{Config, ElementType, Loss, Optimizer, Settings, StateType};
//! use ndarray::{array, s};
//!
//! let mut optimizer = Optimizer::new(Config::default())?;
//! let group = optimizer.add_group(Settings::default())?;
//! optimizer.add_tensor("columns", 4, ElementType::F32, StateType::Same, group)?;
//!
//! let mut matrix = array![[1.0_f32, -2.0, 3.0], [0.5, 1.5, -0.5]];
//! let gradient = array![[0.1_f32, 0.2], [0.3, -0.4]];
//! let mut columns = matrix.slice_mut(s![.., ..2]);
//! assert!(tensor("columns", columns.view_mut(), gradient.view()).is_err());
//!
//! let mut copy = columns.as_standard_layout().into_owned();
//! optimizer.step(Loss::new(0.7, 0.6), &mut [tensor("columns", copy.view_mut(), gradient.view())?])?;
//! columns.assign(&copy);
//! # assert!(matrix[[0, 0]] < 1.0 && matrix[[0, 2]] == 3.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The state is in the same order as the parameters. So these have to come in one order, step after step; an array that
//! its owner keeps does.
//!
//! Tested with ndarray 0.17.2, which is the least version that this takes; it takes those before 0.18.

#![deny(unsafe_code)]

mod error;

use koala_optim::{Element, Tensor};
use ndarray::{ArrayRef, ArrayView, ArrayViewMut, CowArray, Dimension};

pub use error::Error;

/// The tensor of that name, for [`Optimizer::step`](koala_optim::Optimizer::step): views of its parameters, which a
/// step changes in place, and of the gradient of the minibatch's mean loss by them. It was added with the number of
/// elements and their type.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::Layout`] if one has gaps or they are not in the same order in
/// memory.
///
/// See the [crate's example](crate).
pub fn tensor<'a, P: Element, D: Dimension>(
    name: &'a str,
    parameters: ArrayViewMut<'a, P, D>,
    gradient: ArrayView<'a, P, D>,
) -> Result<Tensor<'a>, Error> {
    if parameters.shape() != gradient.shape() {
        let (parameters, gradient) = (parameters.shape().to_vec(), gradient.shape().to_vec());
        return Err(Error::Shape { tensor: name.into(), parameters, gradient });
    }
    if parameters.is_empty() {
        return Ok(Tensor::new::<P>(name, &mut [], &[]));
    }
    let fits = same_order(&parameters, &gradient) && parameters.as_slice_memory_order().is_some();
    let Some(elements) = gradient.to_slice_memory_order().filter(|_| fits) else {
        return Err(Error::Layout {
            tensor: name.into(),
            shape: parameters.shape().to_vec(),
            parameters: parameters.strides().to_vec(),
            gradient: gradient.strides().to_vec(),
        });
    };
    // They are without gaps, as was just seen.
    Ok(Tensor::new(name, parameters.into_slice_memory_order().unwrap_or_default(), elements))
}

/// The gradient in the order in which the parameters lie in memory, so that [`tensor`] takes it: as it is if it is in
/// that order and has no gaps, and a copy otherwise. A gradient of another shape stays as it is, and is [`tensor`]'s
/// error.
///
/// ```
/// use koala_ndarray::{in_layout_of, tensor};
/// use ndarray::{Array2, array};
///
/// let mut weight = Array2::<f32>::ones((2, 3));
/// let transposed = array![[0.1_f32, 0.4], [0.2, 0.5], [0.3, 0.6]];
/// let gradient = in_layout_of(&weight, transposed.t());
/// assert_eq!(gradient, transposed.t());
/// assert!(tensor("weight", weight.view_mut(), gradient.view()).is_ok());
/// ```
pub fn in_layout_of<'a, P: Element, D: Dimension>(
    parameters: &ArrayRef<P, D>,
    gradient: ArrayView<'a, P, D>,
) -> CowArray<'a, P, D> {
    let fits = same_order(parameters, &gradient) && gradient.to_slice_memory_order().is_some();
    if fits || parameters.shape() != gradient.shape() {
        return gradient.into();
    }
    // A copy of an array without gaps keeps its order.
    let mut copy = parameters.to_owned();
    copy.assign(&gradient);
    copy.into()
}

/// Whether arrays of one shape, if they have no gaps, have the same order in memory. The stride of an axis with one
/// element says nothing.
fn same_order<P, D: Dimension>(parameters: &ArrayRef<P, D>, gradient: &ArrayRef<P, D>) -> bool {
    let strides = parameters.strides().iter().zip(gradient.strides());
    parameters.shape().iter().zip(strides).all(|(length, (one, other))| *length < 2 || one == other)
}
