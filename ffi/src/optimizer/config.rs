//! How an optimizer is made, and ended.

use std::mem::MaybeUninit;

use koala_optim::{Config, Error, Optimizer, Scaling, Threads};

use crate::border::failure::Failure;
use crate::border::growing::{copy_or_default, growing, initialize, look};
use crate::border::guard::{guarded, mark_thread};
use crate::border::pointers::{check, flag};
use crate::border::ranges::{bytes_at, check_apart, range_of};
use crate::border::status::koala_status;
use crate::optimizer::handle::{Handle, Inner, koala_optimizer};
use crate::words::backends::{chosen, koala_backend, number};
use crate::words::method::{koala_method, method_of};
use crate::words::settings::{koala_noise, koala_on_breakdown, koala_on_non_finite, noise_rule, policy};

/// What an optimizer is made with. koala_config_init fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_config {
    /// sizeof(koala_config).
    pub size: usize,
    /// Which optimizer steps; it is copied. NULL, the default: KOALA++.
    pub method: *const koala_method,
    /// At least 1e-37: what gradients are multiplied by as they are loaded, at no pass over memory. Default 1. See
    /// koala_optimizer_set_scaling.
    pub gradient_factor: f64,
    /// At least 1e-37: no element of a gradient, scaled, is taken to be farther from zero. Default infinite, which is
    /// no limit. What is NaN or infinite before it counts as that.
    pub gradient_limit: f64,
    /// Above 0: the Euclidean norm of all gradients of a step together, scaled, above which they are shrunk to that
    /// norm. The first pass then goes over all tensors before any is written. Default infinite, which is no limit.
    pub clip_norm: f64,
    /// R before the first step, at least 0; with KOALA_NOISE_FIXED, R for ever. Default 1, the paper's.
    pub initial_noise: f64,
    /// The decay of KOALA_NOISE_AVERAGED, in [0, 1]. Default 0.9, the paper's.
    pub noise_decay: f64,
    /// Default KOALA_NOISE_AVERAGED.
    pub noise: MaybeUninit<koala_noise>,
    /// Where steps run. Default KOALA_BACKEND_FASTEST.
    pub backend: MaybeUninit<koala_backend>,
    /// Default KOALA_ON_NON_FINITE_KEEP_TENSOR.
    pub on_non_finite: MaybeUninit<koala_on_non_finite>,
    /// Default KOALA_ON_BREAKDOWN_RESTART.
    pub on_breakdown: MaybeUninit<koala_on_breakdown>,
    /// How many threads a step uses, at most 512 (255 where pointers have 32 bits); 0 is as many as there are
    /// processors that this process may use. Default 1: the calling one, and none is started. No bit of the results
    /// depends on it.
    pub threads: u32,
    /// 1: the reports of tensors have their norms, which may cost a pass more over gradient and parameters. Default 0.
    pub norms: u32,
}

growing!(koala_config, up to norms);

impl Default for koala_config {
    fn default() -> Self {
        koala_config {
            size: size_of::<Self>(),
            method: std::ptr::null(),
            gradient_factor: 1.0,
            gradient_limit: f64::INFINITY,
            clip_norm: f64::INFINITY,
            initial_noise: 1.0,
            noise_decay: 0.9,
            noise: MaybeUninit::new(koala_noise::Averaged),
            backend: MaybeUninit::new(koala_backend::Fastest),
            on_non_finite: MaybeUninit::new(koala_on_non_finite::KeepTensor),
            on_breakdown: MaybeUninit::new(koala_on_breakdown::Restart),
            threads: 1,
            norms: 0,
        }
    }
}

/// Their panics do not print.
pub(crate) fn threads(count: u32) -> Threads {
    Threads::CountWith(count as usize, mark_thread)
}

/// Fills `config` with the defaults. `size` is sizeof(koala_config).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_config_init(config: *mut koala_config, size: usize) -> koala_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { initialize(config, size) })
}

/// The library's configuration.
///
/// # Safety
/// `config` is what its documentation says.
unsafe fn config_of(config: &koala_config) -> Result<Config, Failure> {
    Ok(Config {
        // SAFETY: the caller's promise.
        method: unsafe { method_of(config.method) }?,
        noise: noise_rule(config.noise, config.noise_decay, config.initial_noise)?,
        policy: policy(config.on_non_finite, config.on_breakdown)?,
        scaling: Scaling { factor: config.gradient_factor, limit: config.gradient_limit },
        clip_norm: Some(config.clip_norm).filter(|norm| *norm != f64::INFINITY),
        backend: chosen(config.backend)?,
        threads: threads(config.threads),
        details: flag(config.norms, "norms")?,
    })
}

/// Finds out whether an optimizer can have this configuration, its method included. Makes none, and starts no thread.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range, and KOALA_STATUS_THREADS for too many threads;
/// koala_last_error names the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_config_validate(config: *const koala_config) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (given, config) = unsafe { (look(config)?, config_of(look(config)?)?) };
        let count = given.threads as usize;
        if count > Threads::MOST {
            return Err(Error::Threads { count, reason: format!("at most {} are possible", Threads::MOST) }.into());
        }
        Ok(config.validate()?)
    })
}

/// Makes an optimizer without tensors. `config` may be NULL, for the defaults. `*optimizer` is the caller's to destroy.
/// Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_create(
    config: *const koala_config,
    optimizer: *mut *mut koala_optimizer,
) -> koala_status {
    guarded(|| {
        check(optimizer, "optimizer")?;
        let place = config;
        // SAFETY: the caller's promise.
        let config = unsafe { copy_or_default(place) }?;
        let read = [("config", bytes_at(place, config.size)), ("method", range_of(config.method, 1))];
        check_apart(&[("optimizer", range_of(optimizer, 1))], &read)?;
        // SAFETY: the caller's promise.
        let config = unsafe { config_of(&config) }?;
        let backend = number(config.backend)?;
        let made = Optimizer::new(config)?;
        let inner = Inner {
            optimizer: made,
            backend,
            groups: Default::default(),
            names: Default::default(),
            log: None,
            differences: String::new(),
            given: Vec::new(),
            sorted: Default::default(),
        };
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { koala_optimizer::give(inner, optimizer) }
    })
}

/// Ends an optimizer, frees its memory, and joins its threads. NULL does nothing. The pointer is of no use afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_destroy(optimizer: *mut koala_optimizer) -> koala_status {
    // SAFETY: from `koala_optimizer_create`, and not destroyed before, by the caller's promise.
    guarded(|| unsafe { koala_optimizer::destroy(optimizer) })
}
