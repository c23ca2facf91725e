//! Which optimizer steps: its kind, its numbers, and how the shared ones among them move.

use std::mem::MaybeUninit;

use koala_optim::{AdamW, KoalaM, KoalaV, Method, Sgd};

use crate::border::failure::{Failure, fail};
use crate::border::growing::{Output, growing, initialize_with, look};
use crate::border::guard::guarded;
use crate::border::pointers::{flag, known};
use crate::border::status::koala_status;
use crate::border::values::from_c;

/// The optimizers. What h and v of a tensor hold depends on the kind; where a method has no such vector, its buffer is
/// not looked at and may be NULL. Both are zero before the first step; KOALA++ alone does not read them then.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum koala_method_kind {
    /// KOALA++ (Xia, Davtyan, Favaro, 2025). Its numbers are in koala_settings.
    KoalaPlusPlus = 0,
    /// KOALA-V (Davtyan et al., 2022): one variance for all parameters. Neither h nor v.
    KoalaV = 1,
    /// KOALA-M (Davtyan et al., 2022): one covariance for all parameters and their velocities. h is the velocity, v the
    /// running average of the parameters. A prediction has to precede each step: see koala_predict_tensors and
    /// koala_optimizer_predict.
    KoalaM = 2,
    /// AdamW (Loshchilov and Hutter, 2019). h is the mean of the gradient, v the mean of its square.
    Adamw = 3,
    /// Stochastic gradient descent. h is the momentum, unless that is 0. No v.
    Sgd = 4,
}

from_c!(koala_method_kind { KoalaPlusPlus, KoalaV, KoalaM, Adamw, Sgd });

/// Which optimizer steps, and its numbers that all tensors share. koala_method_init fills it with the defaults of a
/// kind. Numbers of other kinds are not looked at. The variances and the process noise of KOALA-V and KOALA-M move
/// with each step: a koala_optimizer keeps them, and who steps without one calls koala_method_predict and
/// koala_method_correct.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_method {
    /// sizeof(koala_method).
    pub size: usize,
    /// Which optimizer.
    pub kind: MaybeUninit<koala_method_kind>,
    /// SGD, 1: a step follows the gradient and the new momentum, as Nesterov has it, which needs a momentum above 0.
    /// Default 0.
    pub nesterov: u32,
    /// SGD: μ, in [0, 1), what a step keeps of the momentum. Default 0.9.
    pub momentum: f64,
    /// AdamW: β₁, in [0, 1), what a step keeps of the mean of the gradient. Default 0.9.
    pub beta1: f64,
    /// AdamW: β₂, in [0, 1), what a step keeps of the mean of its square. Default 0.999.
    pub beta2: f64,
    /// AdamW: ε ≥ 1e-37, in units of the gradient. Default 1e-8.
    pub epsilon: f64,
    /// KOALA-V, KOALA-M: the variance of every parameter, at least 0, as it is now. Default 0.1.
    pub variance: f64,
    /// KOALA-V, KOALA-M: what that variance grows by in each step, at least 0; for KOALA-M it adapts. Default 0.1, and
    /// for KOALA-M 0.01.
    pub process_noise: f64,
    /// KOALA-M: the covariance of a parameter and its velocity, as it is now. Default 0.
    pub covariance: f64,
    /// KOALA-M: the variance of a velocity, at least 0, as it is now. Default 0.1.
    pub velocity_variance: f64,
    /// KOALA-M: what a prediction leaves of a velocity, in [0, 1]. Default 0.9.
    pub velocity_decay: f64,
    /// KOALA-M: the process noise of a velocity, at least 0. Default 0.01.
    pub velocity_noise: f64,
}

growing!(koala_method, up to velocity_noise);

impl koala_method {
    /// Puts a method's numbers in their places; what another kind has stays as it is.
    fn put(&mut self, method: &Method) {
        match *method {
            Method::KoalaPlusPlus(_) => {}
            Method::KoalaV(KoalaV { variance, process_noise }) => {
                (self.variance, self.process_noise) = (variance, process_noise);
            }
            Method::KoalaM(koala_m) => {
                (self.variance, self.process_noise) = (koala_m.variance, koala_m.process_noise);
                (self.covariance, self.velocity_variance) = (koala_m.covariance, koala_m.velocity_variance);
                (self.velocity_decay, self.velocity_noise) = (koala_m.velocity_decay, koala_m.velocity_noise);
            }
            Method::AdamW(AdamW { beta1, beta2, epsilon }) => {
                (self.beta1, self.beta2, self.epsilon) = (beta1, beta2, epsilon);
            }
            Method::Sgd(Sgd { momentum, nesterov }) => (self.momentum, self.nesterov) = (momentum, nesterov.into()),
        }
    }

    /// The library's, looked at.
    fn method(&self) -> Result<Method, Failure> {
        let koala_method { variance, process_noise, .. } = *self;
        let method = match known(self.kind)? {
            koala_method_kind::KoalaPlusPlus => Method::default(),
            koala_method_kind::KoalaV => Method::KoalaV(KoalaV { variance, process_noise }),
            koala_method_kind::KoalaM => Method::KoalaM(KoalaM {
                variance,
                covariance: self.covariance,
                velocity_variance: self.velocity_variance,
                velocity_decay: self.velocity_decay,
                process_noise,
                velocity_noise: self.velocity_noise,
            }),
            koala_method_kind::Adamw => {
                Method::AdamW(AdamW { beta1: self.beta1, beta2: self.beta2, epsilon: self.epsilon })
            }
            koala_method_kind::Sgd => {
                Method::Sgd(Sgd { momentum: self.momentum, nesterov: flag(self.nesterov, "nesterov")? })
            }
        };
        method.validate()?;
        Ok(method)
    }
}

impl From<&Method> for koala_method {
    fn from(method: &Method) -> Self {
        let kind = match method {
            Method::KoalaPlusPlus(_) => koala_method_kind::KoalaPlusPlus,
            Method::KoalaV(_) => koala_method_kind::KoalaV,
            Method::KoalaM(_) => koala_method_kind::KoalaM,
            Method::AdamW(_) => koala_method_kind::Adamw,
            Method::Sgd(_) => koala_method_kind::Sgd,
        };
        let mut empty = koala_method {
            size: size_of::<Self>(),
            kind: MaybeUninit::new(kind),
            nesterov: 0,
            momentum: 0.0,
            beta1: 0.0,
            beta2: 0.0,
            epsilon: 0.0,
            variance: 0.0,
            process_noise: 0.0,
            covariance: 0.0,
            velocity_variance: 0.0,
            velocity_decay: 0.0,
            velocity_noise: 0.0,
        };
        empty.put(method);
        empty
    }
}

/// The method that a caller gives: KOALA++ for NULL. The numbers of KOALA++ are those of a group's settings.
///
/// # Safety
/// `method` is NULL or what its documentation says.
#[inline(always)]
pub(crate) unsafe fn method_of(method: *const koala_method) -> Result<Method, Failure> {
    // SAFETY: the caller's promise.
    if method.is_null() { Ok(Method::default()) } else { unsafe { other_method(method) } }
}

/// # Safety
/// As [`method_of`].
#[cold]
unsafe fn other_method(method: *const koala_method) -> Result<Method, Failure> {
    // SAFETY: the caller's promise.
    unsafe { look(method) }?.method()
}

/// Fills `method` with the defaults of a kind; numbers of other kinds are zero. `size` is sizeof(koala_method).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_method_init(
    method: *mut koala_method,
    size: usize,
    kind: MaybeUninit<koala_method_kind>,
) -> koala_status {
    guarded(|| {
        let defaults = match known(kind)? {
            koala_method_kind::KoalaPlusPlus => Method::default(),
            koala_method_kind::KoalaV => Method::KoalaV(KoalaV::default()),
            koala_method_kind::KoalaM => Method::KoalaM(KoalaM::default()),
            koala_method_kind::Adamw => Method::AdamW(AdamW::default()),
            koala_method_kind::Sgd => Method::Sgd(Sgd::default()),
        };
        // SAFETY: the caller's promise.
        unsafe { initialize_with(method, size, &(&defaults).into()) }
    })
}

/// Finds out whether an optimizer can step by this method with these numbers, and changes nothing.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_method_validate(method: *const koala_method) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe { look(method) }?.method()?;
        Ok(())
    })
}

/// Moves the shared numbers to the time of the next measurement, before its gradient is taken, for callers without an
/// optimizer, who call this before each step of KOALA-V and KOALA-M. `distance_squared` and `parameters` are what
/// koala_predict_tensors gives; KOALA-M alone reads them. Does nothing to other methods.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_method_predict(
    method: *mut koala_method,
    distance_squared: f64,
    parameters: usize,
) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        change(method, "squared distance", distance_squared, |method| method.predict(distance_squared, parameters))
    })
}

/// Lets the shared numbers learn from a step, for callers without an optimizer, who call this after each step of
/// KOALA-V and KOALA-M. `gain` is the largest one among the tensors that stepped, 0 if none did: that of a
/// koala_report. Does nothing to other methods.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_method_correct(method: *mut koala_method, gain: f64) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { change(method, "gain", gain, |method| method.correct(gain)) })
}

/// # Safety
/// `method` is NULL or what its documentation says, and may be written.
unsafe fn change(
    method: *mut koala_method,
    name: &str,
    number: f64,
    work: impl FnOnce(&mut Method),
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let (mut given, output) = unsafe { (*look(method)?, Output::needed(method)?) };
    let mut changed = given.method()?;
    if !(number.is_finite() && number >= 0.0) {
        let text = format_args!("the {name} is {number}, expected a finite number, at least 0");
        return Err(fail(koala_status::Setting, text));
    }
    work(&mut changed);
    given.put(&changed);
    output.write(&given)
}
