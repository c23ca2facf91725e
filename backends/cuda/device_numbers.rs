//! Numbers that a step reads on the device when it runs, so that the host need not know them: the loss, learning rates,
//! and what a gradient scaler keeps.

use crate::types::element::ElementType;
use crate::types::settings::Loss;

/// A loss on the device, which a step reads when it runs, so that the host need not know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceLoss {
    pub(super) mean: u64,
    pub(super) second_moment: Option<u64>,
    pub(super) element_type: ElementType,
}

impl DeviceLoss {
    /// The addresses of the minibatch's mean loss, and of the mean of its squared per-sample losses: an element of that
    /// type each. The second moment is needed where the noise is averaged.
    ///
    /// # Safety
    /// Both are memory of the optimizer's device that lives until the steps that take it have run; what is written
    /// there meanwhile is ordered with these by streams.
    ///
    /// ```
    /// use koala_optim::{ElementType, cuda::DeviceLoss};
    /// // SAFETY: no step takes it.
    /// let loss = unsafe { DeviceLoss::new(ElementType::F32, 0x1000, Some(0x1004)) };
    /// ```
    pub unsafe fn new(element_type: ElementType, mean: u64, second_moment: Option<u64>) -> Self {
        DeviceLoss { mean, second_moment, element_type }
    }
}

/// The loss of a step.
///
/// ```
/// use koala_optim::{Loss, cuda::StepLoss};
/// assert_eq!(StepLoss::from(Loss::new(2.0, 5.0)), StepLoss::OnHost(Loss::new(2.0, 5.0)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepLoss {
    /// Known to the host.
    OnHost(Loss),
    /// Known to the device only.
    OnDevice(DeviceLoss),
}

impl From<Loss> for StepLoss {
    fn from(loss: Loss) -> Self {
        StepLoss::OnHost(loss)
    }
}

impl From<DeviceLoss> for StepLoss {
    fn from(loss: DeviceLoss) -> Self {
        StepLoss::OnDevice(loss)
    }
}

/// A learning rate on the device, which each step reads when it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceLearningRate {
    pub(super) address: u64,
    pub(super) element_type: ElementType,
}

impl DeviceLearningRate {
    /// The address of one element of that type. With a rate that is below zero, NaN or infinite, a step leaves its
    /// tensors as they are, and counts them as not finite.
    ///
    /// # Safety
    /// It is memory of the optimizer's device that lives for as long as steps and launches of graphs take it; what is
    /// written there meanwhile is ordered with these by streams.
    ///
    /// ```
    /// use koala_optim::{ElementType, cuda::DeviceLearningRate};
    /// // SAFETY: no step takes it.
    /// let rate = unsafe { DeviceLearningRate::new(ElementType::F32, 0x1000) };
    /// ```
    pub unsafe fn new(element_type: ElementType, address: u64) -> Self {
        DeviceLearningRate { address, element_type }
    }
}

/// What a gradient scaler keeps on the device, for training in half precision: each step reads it when it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceScaler {
    /// Addresses, as kernels take them: 0 where there is none.
    pub(super) scale: u64,
    pub(super) found_infinite: u64,
    pub(super) element_type: ElementType,
}

impl DeviceScaler {
    /// Nothing to read.
    pub(super) const NONE: Self = DeviceScaler { scale: 0, found_infinite: 0, element_type: ElementType::F32 };

    /// The addresses of an element of that type each.
    ///
    /// `scale` is what the loss that was differentiated was multiplied by: gradients are multiplied by
    /// [`Scaling::factor`](crate::Scaling) divided by it, in f64, and rounded to their arithmetic type. The loss that a
    /// step is given is the one that was not multiplied. Where the quotient is out of the range of a factor, no
    /// gradient counts as finite.
    ///
    /// `found_infinite` is zero, or the step does nothing: it counts every tensor as not finite, and the noise stays.
    ///
    /// # Safety
    /// As for [`DeviceLearningRate::new`].
    ///
    /// ```
    /// use koala_optim::{ElementType, cuda::DeviceScaler};
    /// // SAFETY: no step takes it.
    /// let scaler = unsafe { DeviceScaler::new(ElementType::F32, Some(0x1000), Some(0x1004)) };
    /// ```
    pub unsafe fn new(element_type: ElementType, scale: Option<u64>, found_infinite: Option<u64>) -> Self {
        DeviceScaler { scale: scale.unwrap_or(0), found_infinite: found_infinite.unwrap_or(0), element_type }
    }
}
