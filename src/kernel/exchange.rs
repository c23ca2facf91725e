//! The kernel's step with a gradient whose memory becomes the filter's h, so that h need not be written.

use crate::methods::plan::{Scalars, TensorReport};
use crate::passes::update::HalfCopy;
use crate::step::Step;
use crate::step::buffers::{AnyBuffers, Buffers};
use crate::types::element::Element;
use crate::types::error::Error;

/// The buffers of one tensor whose gradient may become the new h, all of one length and type: see [`step_exchanging`].
#[derive(Debug)]
pub struct ExchangeBuffers<'b, 'a, P> {
    /// θ: read and written.
    pub parameters: &'b mut [P],
    /// g: read; after a step without weight decay, the old h.
    pub gradient: &'b mut &'a mut [P],
    /// v: read (but for a first step) and written.
    pub v: &'b mut [P],
    /// h: read (but for a first step) and written; after a step without weight decay, what was the gradient.
    pub h: &'b mut &'a mut [P],
    /// Written with the new parameters, where there is one and the step is taken.
    pub copy: Option<HalfCopy<'b>>,
}

/// As [`step`](crate::kernel::step), for a caller who does not need the gradient afterwards. Without weight decay the
/// new h is the gradient itself; so `gradient` and `h` change places, and h is not written: 24 bytes per f32 parameter move in pass 2 instead
/// of 28. With weight decay both stay where they are. Either way `h` is the state afterwards, and what `gradient` holds
/// is of no use: write the next gradient there.
///
/// # Errors
/// As [`step`](crate::kernel::step); nothing has been written or exchanged then.
///
/// ```
/// use koala_optim::kernel::{ExchangeBuffers, Measurement, Scalars, Step, step_exchanging};
///
/// let (mut parameters, mut v, mut scalars) = ([1.0_f32, -2.0], [0.0; 2], Scalars::default());
/// let (mut one, mut other) = ([0.1, 0.2], [0.0; 2]);
/// let (mut gradient, mut h) = (&mut one[..], &mut other[..]);
/// let buffers = ExchangeBuffers {
///     parameters: &mut parameters, gradient: &mut gradient, v: &mut v, h: &mut h, copy: None,
/// };
/// step_exchanging(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), buffers, &mut scalars)?;
/// assert_eq!(h, [0.1, 0.2]);
/// gradient.copy_from_slice(&[0.3, 0.4]);
/// # Ok::<(), koala_optim::Error>(())
/// ```
pub fn step_exchanging<P: Element>(
    step: &Step,
    buffers: ExchangeBuffers<'_, '_, P>,
    scalars: &mut Scalars,
) -> Result<TensorReport, Error> {
    let ExchangeBuffers { parameters, gradient, v, h, copy } = buffers;
    let buffers = Buffers { parameters, gradient, v, h, copy };
    let mut report = TensorReport::default();
    if AnyBuffers::of(buffers).step_exchanging(step, true, scalars, &mut report)? {
        std::mem::swap(gradient, h);
    }
    Ok(report)
}
