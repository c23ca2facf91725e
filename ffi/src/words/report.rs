//! What a step did, of one tensor and of all.

use std::mem::MaybeUninit;

use koala_optim::{Outcome, TensorReport};

use crate::border::growing::growing;
use crate::border::values::{from_c, to_c};
use crate::words::backends::koala_backend;

/// What a step did with one tensor.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_outcome {
    /// Stepped, with the filter's memory of the steps before.
    Stepped = 0,
    /// Stepped, for the first time.
    FirstStep = 1,
    /// Stepped as for the first time, because the innovation variance would not have been positive.
    Restarted = 2,
    /// Kept: the gradient's norm is below 1e-9, or H = g + wd·θ is zero and there is nothing to learn.
    Skipped = 3,
    /// Kept: the settings say frozen.
    Frozen = 4,
    /// Kept: the gradient, the loss or a scalar is NaN or infinite, or an element of parameters, v or h would be.
    NonFinite = 5,
    /// Kept: the innovation variance would not have been positive.
    Breakdown = 6,
    /// Kept: it could have stepped, but another tensor is not finite, under KOALA_ON_NON_FINITE_KEEP_ALL.
    Withheld = 7,
}

from_c!(koala_outcome = Outcome { Stepped, FirstStep, Restarted, Skipped, Frozen, NonFinite, Breakdown, Withheld });

/// The scalars of one tensor's step: zero where the step did not come that far. This struct never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_tensor_report {
    /// What was done.
    pub outcome: MaybeUninit<koala_outcome>,
    /// Zero.
    pub reserved: u32,
    /// S, the innovation variance of this step.
    pub innovation_variance: f64,
    /// α = (H·h)/(h·h).
    pub alpha: f64,
    /// λ = (H·v + Q·(H·h))/S of the step before: the Kalman gain seen from H.
    pub lambda: f64,
    /// w, the weight of the symmetric correction.
    pub w: f64,
    /// (H·H)/S, from which the shared numbers of KOALA-V and KOALA-M learn; 0 for other methods.
    pub gain: f64,
    /// ‖g‖ before the step; NaN unless norms were asked for.
    pub gradient_norm: f64,
    /// ‖H‖ = ‖g + wd·θ‖ before the step; NaN unless norms were asked for.
    pub measurement_norm: f64,
    /// ‖θ‖ before the step; NaN unless norms were asked for.
    pub parameters_norm: f64,
}

impl From<TensorReport> for koala_tensor_report {
    #[inline]
    fn from(report: TensorReport) -> Self {
        let norm = |of: fn(koala_optim::kernel::Norms) -> f64| report.norms.map_or(f64::NAN, of);
        koala_tensor_report {
            outcome: to_c(report.outcome),
            reserved: 0,
            innovation_variance: report.innovation_variance,
            alpha: report.alpha,
            lambda: report.lambda,
            w: report.w,
            gain: report.gain,
            gradient_norm: norm(|norms| norms.gradient),
            measurement_norm: norm(|norms| norms.measurement),
            parameters_norm: norm(|norms| norms.parameters),
        }
    }
}

/// What a step did with a list of tensors: how many of them came to what. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_report {
    /// sizeof(koala_report).
    pub size: usize,
    /// The backend that ran; KOALA_BACKEND_FASTEST only from koala_cuda_report, as it was none of them.
    pub backend: MaybeUninit<koala_backend>,
    /// Zero.
    pub reserved: u32,
    /// Steps that took an optimizer's noise forward, this one included; 0 from a call without an optimizer.
    pub step: u64,
    /// R of this step.
    pub noise: f64,
    /// The Euclidean norm of all gradients of an optimizer's step together, scaled but not yet clipped by it; without
    /// what is frozen or not finite. NaN unless koala_config has a clip_norm.
    pub gradient_norm: f64,
    /// The largest gain among the tensors that stepped, for koala_method_correct; 0 if none did. 0 from an optimizer,
    /// which learns from it by itself.
    pub gain: f64,
    /// Tensors that stepped, first steps and restarts included.
    pub stepped: u64,
    /// Tensors that stepped for the first time; `stepped` counts them too.
    pub first_steps: u64,
    /// Tensors whose filter restarted because S came out as zero or less; `stepped` counts them too.
    pub restarts: u64,
    /// Tensors kept because their gradient is (nearly) zero.
    pub skipped: u64,
    /// Tensors kept because they are frozen.
    pub frozen: u64,
    /// Tensors kept because something was NaN or infinite, or would be.
    pub non_finite: u64,
    /// Tensors kept because S came out as zero or less.
    pub breakdowns: u64,
    /// Tensors kept because another one is not finite, under KOALA_ON_NON_FINITE_KEEP_ALL.
    pub withheld: u64,
}

growing!(koala_report, up to withheld);

impl koala_report {
    pub(crate) fn empty(backend: koala_backend, noise: f64) -> Self {
        koala_report {
            size: size_of::<Self>(),
            backend: MaybeUninit::new(backend),
            reserved: 0,
            step: 0,
            noise,
            gradient_norm: f64::NAN,
            gain: 0.0,
            stepped: 0,
            first_steps: 0,
            restarts: 0,
            skipped: 0,
            frozen: 0,
            non_finite: 0,
            breakdowns: 0,
            withheld: 0,
        }
    }

    pub(crate) fn count(&mut self, report: &koala_optim::Report) {
        let count = |count: usize| count as u64;
        self.stepped += count(report.stepped);
        self.first_steps += count(report.first_steps);
        self.restarts += count(report.restarts);
        self.skipped += count(report.skipped);
        self.frozen += count(report.frozen);
        self.non_finite += count(report.non_finite);
        self.breakdowns += count(report.breakdowns);
        self.withheld += count(report.withheld);
    }
}
