//! What a caller sets, and the loss: structs, enums, their defaults.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::{
    Element, ElementType, KoalaPlusPlus, Loss, Method, Noise, OnBreakdown, OnNonFinite, Policy, Scaling, Settings,
    StateType, Variant, bf16, f16,
};

use crate::border::failure::{Failure, fail};
use crate::border::growing::{growing, initialize, with};
use crate::border::guard::guarded;
use crate::border::pointers::{Place, check, check_array, flag, known};
use crate::border::ranges::{Range, check_apart, range_of};
use crate::border::status::koala_status;
use crate::border::values::{from_c, to_c};

/// What a tensor's parameters and gradient are stored in. Arithmetic is in float64 for KOALA_ELEMENT_TYPE_F64, and in
/// float32 for all others.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_element_type {
    /// IEEE 754 binary32: float.
    F32 = 0,
    /// IEEE 754 binary64: double.
    F64 = 1,
    /// bfloat16, the upper half of a binary32, in a uint16_t.
    Bf16 = 2,
    /// IEEE 754 binary16, in a uint16_t.
    F16 = 3,
}

from_c!(koala_element_type = ElementType { F32, F64, Bf16, F16 });

/// What the state's two vectors, v and h, are stored in.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_state_type {
    /// The parameters' own type.
    Same = 0,
    /// binary32: for parameters in half precision.
    F32 = 1,
    /// bfloat16: half the memory and less traffic, for some accuracy.
    Bf16 = 2,
}

from_c!(koala_state_type = StateType { Same, F32, Bf16 });

/// A second place for a tensor's new parameters, rounded to half precision.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_copy_type {
    /// There is none.
    None = 0,
    /// In bfloat16.
    Bf16 = 1,
    /// In binary16.
    F16 = 2,
}

from_c!(koala_copy_type { None, Bf16, F16 });

/// Which covariance KOALA++ reconstructs: paper, section 3.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_variant {
    /// The symmetric one of the least Frobenius norm, the paper's default.
    Symmetric = 0,
    /// The one of the least Frobenius norm without that constraint.
    Vanilla = 1,
    /// One that stays positive definite, with a prior variance in all directions: the innovation variance S does not break
    /// down. It is this library's own, not the paper's.
    Definite = 2,
}

from_c!(koala_variant = Variant { Symmetric, Vanilla, Definite });

/// What to do with a tensor whose gradient, loss or scalars are NaN or infinite. It is not written, unless it is
/// unchecked. The same is done with a tensor of which the step would make a finite parameter, v or h infinite, as its
/// type has it (binary16 ends at 65504): what the scalars do not rule out is tried on copies first, a pass more.
///
/// What the scalars say nothing about is taken to be: parameters, and velocities of KOALA-M, at most half of the
/// largest number (a 1024th, with a weight decay of SGD); v of KOALA++ at most h times a variance of initial_variance
/// plus process_noise for each step; SGD's momentum at most the gradient's norm over 1 − momentum; AdamW's mean at
/// most its mean of squares' root over √(1 − beta2). Beyond that, in steps in halves, and in a `copy`, what is too
/// large becomes infinite.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_on_non_finite {
    /// Leave that tensor as it is, step the others, and count it in the report.
    KeepTensor = 0,
    /// Leave every tensor as it is, and the noise too, and count it in the report.
    KeepAll = 1,
    /// Leave every tensor as it is, and return KOALA_STATUS_NON_FINITE.
    Error = 2,
    /// As KEEP_TENSOR, where that costs no pass over the gradient. AdamW and SGD, which have no pass before the one
    /// that writes, do not look at it then, unless for its norm or because it has a limit: what is not finite in it is
    /// written to its place in the parameters and the state. That saves reading the gradient twice.
    Unchecked = 3,
}

from_c!(koala_on_non_finite = OnNonFinite { KeepTensor, KeepAll, Error, Unchecked });

/// What to do with a tensor whose innovation variance S would not be positive, which the recursion does not rule out.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_on_breakdown {
    /// Restart its filter, as on a first step with this gradient, and count it in the report.
    Restart = 0,
    /// Leave it as it is, and count it in the report.
    Skip = 1,
    /// Leave every tensor as it is, and return KOALA_STATUS_BREAKDOWN.
    Error = 2,
}

from_c!(koala_on_breakdown = OnBreakdown { Restart, Skip, Error });

#[inline(always)]
pub(crate) fn policy(
    on_non_finite: MaybeUninit<koala_on_non_finite>,
    on_breakdown: MaybeUninit<koala_on_breakdown>,
) -> Result<Policy, Failure> {
    Ok(Policy { non_finite: known(on_non_finite)?.into(), breakdown: known(on_breakdown)?.into() })
}

/// The settings of a group of tensors. koala_settings_init fills it with the defaults; a step may use other settings
/// than the step before.
///
/// `initial_variance`, `process_noise`, `variant` and `prior_variance` are numbers of KOALA++. For another method, whose
/// numbers are in koala_method, they have to be the defaults: any other value is KOALA_STATUS_SETTING.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_settings {
    /// sizeof(koala_settings).
    pub size: usize,
    /// η ≥ 0: the share of the Kalman step that is taken. Default 1, which is for the KOALA family: AdamW and SGD want
    /// far less.
    pub learning_rate: f64,
    /// wd ≥ 0, coupled: the loss of a tensor is L + ½·wd·θ·θ; but beside the gradient for AdamW. Default 0.
    pub weight_decay: f64,
    /// σ > 0: the variance of a parameter before the first step, in squared units of the parameter. Default 0.1.
    pub initial_variance: f64,
    /// Q ≥ 0: what that variance grows by in each step. Default 0.1.
    pub process_noise: f64,
    /// Default KOALA_VARIANT_SYMMETRIC.
    pub variant: MaybeUninit<koala_variant>,
    /// 1: the tensors are checked like any other and stay as they are. Default 0.
    pub frozen: u32,
    /// γ ≥ 0: the prior variance of KOALA_VARIANT_DEFINITE, which alone reads it, in squared units of the parameter. 0,
    /// the default, stands for `initial_variance`.
    pub prior_variance: f64,
}

growing!(koala_settings, up to frozen);

impl Default for koala_settings {
    fn default() -> Self {
        settings_to_c(&Settings::default(), &Method::default())
    }
}

/// Numbers of KOALA++ that a group of another method has are the defaults.
pub(crate) fn settings_to_c(settings: &Settings, method: &Method) -> koala_settings {
    let numbers = if let Method::KoalaPlusPlus(numbers) = method { *numbers } else { KoalaPlusPlus::default() };
    koala_settings {
        size: size_of::<koala_settings>(),
        learning_rate: settings.learning_rate,
        weight_decay: settings.weight_decay,
        initial_variance: numbers.initial_variance,
        process_noise: numbers.process_noise,
        variant: to_c(numbers.variant),
        frozen: settings.frozen.into(),
        prior_variance: numbers.prior_variance,
    }
}

/// The settings of a group that is stepped by that method, and the method with the group's numbers.
#[inline(always)]
pub(crate) fn settings_of(settings: &koala_settings, method: Method) -> Result<(Settings, Method), Failure> {
    let numbers = KoalaPlusPlus {
        initial_variance: settings.initial_variance,
        process_noise: settings.process_noise,
        variant: known(settings.variant)?.into(),
        prior_variance: settings.prior_variance,
    };
    let method = match method {
        Method::KoalaPlusPlus(_) => numbers.into(),
        other if numbers == KoalaPlusPlus::default() => other,
        other => return Err(numbers_of_another(&other)),
    };
    let settings = Settings {
        learning_rate: settings.learning_rate,
        weight_decay: settings.weight_decay,
        frozen: flag(settings.frozen, "frozen")?,
    };
    Ok((settings, method))
}

#[cold]
fn numbers_of_another(method: &Method) -> Failure {
    let text = format_args!(
        "initial_variance, process_noise, variant and prior_variance are numbers of koala++, which {} does not have: \
         they have to be the defaults",
        method.name()
    );
    fail(koala_status::Setting, text)
}

/// Fills `settings` with the defaults. `size` is sizeof(koala_settings).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_settings_init(settings: *mut koala_settings, size: usize) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { initialize(settings, size) })
}

/// Finds out whether a group of tensors can have these settings, and changes nothing.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_settings_validate(settings: *const koala_settings) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (settings, method) = unsafe { with(settings, |given| settings_of(given, Method::default())) }??;
        settings.validate()?;
        Ok(method.validate()?)
    })
}

/// The rule for R, the variance of the measurement noise, which all tensors of an optimizer share.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_noise {
    /// R ← decay·R + (1 − decay)·m before each step, m being the mean of the squared per-sample losses.
    Averaged = 0,
    /// Always the initial R.
    Fixed = 1,
}

from_c!(koala_noise { Averaged, Fixed });

#[inline(always)]
pub(crate) fn noise_rule(rule: MaybeUninit<koala_noise>, decay: f64, initial: f64) -> Result<Noise, Failure> {
    Ok(match known(rule)? {
        koala_noise::Averaged => Noise::Averaged { decay, initial },
        koala_noise::Fixed => Noise::Fixed(initial),
    })
}

/// The measurement of one step: of a minibatch, the mean loss and the mean of the squared per-sample losses.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_loss {
    /// L, the mean.
    pub mean: f64,
    /// m ≥ 0, the mean of the squares; only KOALA_NOISE_AVERAGED reads it.
    pub second_moment: f64,
}

impl From<koala_loss> for Loss {
    fn from(loss: koala_loss) -> Self {
        Loss::new(loss.mean, loss.second_moment)
    }
}

/// Averages the losses of `count` samples, in float64 and in their order, into `loss`.
///
/// Returns KOALA_STATUS_NO_SAMPLES if `count` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_loss_from_samples(
    r#type: MaybeUninit<koala_element_type>,
    losses: *const c_void,
    count: usize,
    loss: *mut koala_loss,
) -> koala_status {
    /// # Safety
    /// `losses` is NULL or points to `count` elements.
    unsafe fn averaged<T: Element>(losses: *const c_void, count: usize, loss: Range) -> Result<Loss, Failure> {
        let losses = losses.cast::<T>();
        check_array(losses, count, "losses")?;
        check_apart(&[("loss", loss)], &[("losses", range_of(losses, count))])?;
        match count {
            0 => Ok(Loss::from_samples::<T>(&[])?),
            // SAFETY: not NULL, aligned, no more than memory can hold, and the caller's promise.
            _ => Ok(Loss::from_samples(unsafe { std::slice::from_raw_parts(losses, count) })?),
        }
    }
    guarded(|| {
        // SAFETY: the caller's promise.
        let loss = unsafe { Place::needed(loss, "loss") }?;
        let written = loss.range();
        let found = match known(r#type)? {
            // SAFETY: the caller's promise.
            koala_element_type::F32 => unsafe { averaged::<f32>(losses, count, written) },
            // SAFETY: the caller's promise.
            koala_element_type::F64 => unsafe { averaged::<f64>(losses, count, written) },
            // SAFETY: the caller's promise.
            koala_element_type::Bf16 => unsafe { averaged::<bf16>(losses, count, written) },
            // SAFETY: the caller's promise.
            koala_element_type::F16 => unsafe { averaged::<f16>(losses, count, written) },
        }?;
        loss.write(koala_loss { mean: found.mean, second_moment: found.second_moment })
    })
}

/// Finds out whether an optimizer can have this rule for the noise, and changes nothing: see koala_config's `noise`,
/// `noise_decay` and `initial_noise`.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
#[unsafe(no_mangle)]
pub extern "C" fn koala_noise_validate(rule: MaybeUninit<koala_noise>, decay: f64, initial: f64) -> koala_status {
    guarded(|| Ok(noise_rule(rule, decay, initial)?.validate()?))
}

/// Finds out whether gradients can be scaled by this factor and limited to this distance from zero, and changes
/// nothing: see koala_config's `gradient_factor` and `gradient_limit`.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
#[unsafe(no_mangle)]
pub extern "C" fn koala_scaling_validate(factor: f64, limit: f64) -> koala_status {
    guarded(|| Ok(Scaling { factor, limit }.validate()?))
}

/// Takes the noise forward by one step, for callers who keep it themselves: *noise ← decay·*noise + (1 − decay)·m,
/// with m the loss's second moment. An optimizer does this itself. The paper has a decay of 0.9, and 1 before the
/// first step.
///
/// Returns KOALA_STATUS_SETTING if the decay is not in [0, 1], if the noise is negative, or if the second moment is
/// negative or not finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_noise_update(decay: f64, loss: *const koala_loss, noise: *mut f64) -> koala_status {
    guarded(|| {
        check(loss, "loss")?;
        // SAFETY: the caller's promise.
        let place = unsafe { Place::needed(noise, "noise") }?;
        check_apart(&[("noise", place.range())], &[("loss", range_of(loss, 1))])?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let (loss, current) = unsafe { (Loss::from(*loss), *noise) };
        if !(loss.second_moment >= 0.0 && loss.second_moment.is_finite()) {
            let text =
                format_args!("the second moment is {}, expected a finite number, at least 0", loss.second_moment);
            return Err(fail(koala_status::Setting, text));
        }
        let rule = Noise::Averaged { decay, initial: current };
        rule.validate()?;
        place.write(rule.next(current, loss))
    })
}
