//! What C says about a step at level 1.

use std::mem::MaybeUninit;

use crate::border::growing::{growing, initialize};
use crate::border::guard::guarded;
use crate::border::status::koala_status;
use crate::words::backends::koala_backend;
use crate::words::method::koala_method;
use crate::words::settings::{koala_on_breakdown, koala_on_non_finite, koala_settings};

/// Everything about a step but the tensors, for the functions that need no optimizer. koala_step_init fills it with the
/// defaults; `loss` and `noise` are to be set for every step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_step {
    /// sizeof(koala_step).
    pub size: usize,
    /// The settings of the groups of tensors, each of the same size. NULL: a single group with the defaults.
    pub groups: *const koala_settings,
    /// How many groups there are; not looked at if `groups` is NULL. For more than 16, the functions that take an
    /// array of tensors allocate some hundred bytes per group until they return.
    pub group_count: usize,
    /// Which optimizer steps, with its shared numbers as they are now. NULL, the default: KOALA++.
    pub method: *const koala_method,
    /// L, the minibatch's mean loss. Default 0.
    pub loss: f64,
    /// R ≥ 0, the variance of the measurement noise: see koala_noise_update. Default 1.
    pub noise: f64,
    /// At least 1e-37: what gradients are multiplied by as they are loaded, at no pass over memory. Default 1. For
    /// mixed precision: one over the factor that the loss was scaled by.
    pub gradient_factor: f64,
    /// At least 1e-37: no element of a gradient, scaled, is taken to be farther from zero. Default infinite, which is
    /// no limit. What is NaN or infinite before it counts as that.
    pub gradient_limit: f64,
    /// Where to run. Default KOALA_BACKEND_FASTEST.
    pub backend: MaybeUninit<koala_backend>,
    /// Default KOALA_ON_NON_FINITE_KEEP_TENSOR. Under KEEP_ALL and ERROR, koala_step_tensors and koala_apply_tensors
    /// allocate some hundred bytes per tensor until they return, if there are more than 16.
    pub on_non_finite: MaybeUninit<koala_on_non_finite>,
    /// Default KOALA_ON_BREAKDOWN_RESTART. With KOALA_ON_BREAKDOWN_ERROR the two functions allocate as much.
    pub on_breakdown: MaybeUninit<koala_on_breakdown>,
    /// 1: whole steps report the norms, which may cost a pass more over gradient and parameters. Default 0.
    pub norms: u32,
}

growing!(koala_step, up to norms);

impl Default for koala_step {
    fn default() -> Self {
        koala_step {
            size: size_of::<Self>(),
            groups: std::ptr::null(),
            group_count: 0,
            method: std::ptr::null(),
            loss: 0.0,
            noise: 1.0,
            gradient_factor: 1.0,
            gradient_limit: f64::INFINITY,
            backend: MaybeUninit::new(koala_backend::Fastest),
            on_non_finite: MaybeUninit::new(koala_on_non_finite::KeepTensor),
            on_breakdown: MaybeUninit::new(koala_on_breakdown::Restart),
            norms: 0,
        }
    }
}

/// Fills `step` with the defaults. `size` is sizeof(koala_step).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_step_init(step: *mut koala_step, size: usize) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { initialize(step, size) })
}
