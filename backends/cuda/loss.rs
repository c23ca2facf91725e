//! The loss of a step: numbers that the host has, or that the device has just computed.

use crate::{ElementType, Loss};

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
    /// Both are memory of the optimizer's device that lives, and that nothing writes, until the steps that take it have
    /// run.
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
