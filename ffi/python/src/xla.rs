//! The step of a whole model as one operation of XLA on the CPU, for JAX: `koala_xla_step`, a handler of XLA's FFI.
//!
//! ```text
//! operands:   learning_rate, weight_decay, initial_variance, process_noise, prior_variance, noise_decay,
//!             initial_noise, loss, second_moment, noise, scalars, then parameters of each of n tensors, gradient of
//!             each, v of each, h of each
//! results:    noise, scalars, outcomes, then parameters of each, v of each, h of each
//! attributes: variant, noise_rule, backend, on_non_finite, on_breakdown: the numbers of koala.h's enums, as s32
//! ```
//!
//! The first ten operands are numbers: f64, f32, or the bits of a double as u32\[2\]. `noise` is R of the step before,
//! and NaN before the first one. `scalars` are koala_scalars of each tensor, as f64\[n, 4\] or u32\[n, 8\]. The results
//! `noise` and `scalars` have their operands' types, `outcomes` is s32\[n\].
//! Parameters, v and h are written in place where XLA gives an operand and its result the same memory, as it does if they
//! are declared as aliases; else they are copied first.
//!
//! One call does what one step of koala_optimizer does, the noise included, with the same bits, on the calling thread.
//!
//! There is no handler for CUDA. XLA would give it the stream, and addresses on the device for all operands and results;
//! but koala_cuda keeps R, the settings and the table of tensors in memory of its own, and writes that table with a wait
//! whenever parameters, v or h are elsewhere than in the step before, as XLA's buffers may be in every call. So what lacks
//! is a kernel before the step, which makes that table, the settings and R of the operands, and one after it, which
//! writes noise and outcomes where XLA wants them; and all of that in memory that belongs to the call.

mod c_api;
mod call;
mod floating_point;

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use c_api::{CallFrame, Error, MetadataExtension, code, data_type};
use call::{Array, Call, Failure};
use floating_point::DefaultState;
use koala::{
    koala_backend, koala_copy_type, koala_element_type, koala_last_error, koala_loss, koala_noise, koala_noise_update,
    koala_on_breakdown, koala_on_non_finite, koala_report, koala_scalars, koala_settings, koala_state_type,
    koala_status, koala_step, koala_step_tensors, koala_tensor, koala_tensor_report, koala_variant,
};

/// Operands that are numbers.
const NUMBERS: usize = 10;
/// The operand `scalars`.
const SCALARS: usize = NUMBERS;
/// The first tensor's parameters among the operands.
const FIRST_OPERAND: usize = SCALARS + 1;
/// The first tensor's parameters among the results.
const FIRST_RESULT: usize = 3;

/// The handler: see the top of this file.
///
/// # Safety
/// XLA calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_xla_step(frame: *mut CallFrame) -> *mut Error {
    // SAFETY: XLA's frame, which it keeps as it is until this returns.
    let frame = unsafe { &*frame };
    let answer = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: likewise.
        if unsafe { answers_metadata(frame) } {
            return Ok(());
        }
        if frame.struct_size < size_of::<CallFrame>() {
            return Err(Failure::argument(format!("XLA's call frame has {} bytes only", frame.struct_size)));
        }
        if frame.stage != c_api::STAGE_EXECUTE {
            return Err(Failure::argument(format!("stage {} of koala_xla_step does not exist", frame.stage)));
        }
        // SAFETY: likewise.
        step(unsafe { Call::new(frame) })
    }));
    let panicked = || Failure { code: code::INTERNAL, text: "a mistake in koala_xla_step".into() };
    match answer.unwrap_or_else(|_| Err(panicked())) {
        Ok(()) => null_mut(),
        // SAFETY: XLA's own.
        Err(failure) => unsafe { failure.report(frame.api) },
    }
}

/// Tells XLA which version of its interface this is, if that is what it asks.
///
/// # Safety
/// XLA made the frame.
unsafe fn answers_metadata(frame: &CallFrame) -> bool {
    let extension = frame.extension_start;
    // SAFETY: XLA's, and of the type that it says.
    unsafe {
        if extension.is_null() || (*extension).kind != c_api::EXTENSION_METADATA {
            return false;
        }
        let metadata = &mut *(*extension.cast::<MetadataExtension>()).metadata;
        metadata.api_version.major_version = c_api::MAJOR;
        // What is used here is the same in all versions up to this one, and some take their own only. The first did not
        // tell of itself here.
        let version = frame.api.as_ref().map_or(1, |api| api.api_version.minor_version);
        metadata.api_version.minor_version = c_api::MINOR.min(version);
        metadata.traits = 0;
    }
    true
}

fn step(call: Call) -> Result<(), Failure> {
    let count = count_tensors(call)?;
    let [rate, weight_decay, initial_variance, process_noise, prior_variance, noise @ ..] = numbers(call)?;
    let [decay, initial, mean, second_moment, last] = noise;
    let averaged = call.attribute("noise_rule")? == koala_noise::Averaged as i32;
    let before = if averaged && !last.is_nan() { last } else { initial };
    let settings = koala_settings {
        size: size_of::<koala_settings>(),
        learning_rate: rate,
        weight_decay,
        initial_variance,
        process_noise,
        variant: value::<koala_variant>(call, "variant")?,
        frozen: 0,
        prior_variance,
    };
    let mut step = koala_step {
        size: size_of::<koala_step>(),
        groups: &settings,
        group_count: 1,
        loss: mean,
        noise: before,
        backend: value::<koala_backend>(call, "backend")?,
        on_non_finite: value::<koala_on_non_finite>(call, "on_non_finite")?,
        on_breakdown: value::<koala_on_breakdown>(call, "on_breakdown")?,
        norms: 0,
        ..koala_step::default()
    };

    let _default = DefaultState::set();
    let finite = mean.is_finite() && (second_moment.is_finite() || !averaged);
    if !finite {
        // Keeps every tensor as it is, or is an error, as the policy has it.
        step.loss = f64::NAN;
    } else if averaged {
        let loss = koala_loss { mean, second_moment };
        // SAFETY: both are here.
        check(unsafe { koala_noise_update(decay, &loss, &mut step.noise) })?;
    }

    let noise = call.result(0)?;
    noise.doubles(1)?;
    let outcomes = call.result(2)?.integers(count)?;
    let mut tensors = tensors(call, count)?;
    let empty = koala_tensor_report {
        outcome: MaybeUninit::uninit(),
        reserved: 0,
        innovation_variance: 0.0,
        alpha: 0.0,
        lambda: 0.0,
        w: 0.0,
        gain: 0.0,
        gradient_norm: 0.0,
        measurement_norm: 0.0,
        parameters_norm: 0.0,
    };
    let mut reports = vec![empty; count];
    // SAFETY: numbers only.
    let mut report: koala_report = unsafe { MaybeUninit::zeroed().assume_init() };
    report.size = size_of::<koala_report>();
    // SAFETY: all of it is here, or XLA's and of the types and lengths that it says.
    let status = unsafe { koala_step_tensors(&step, tensors.as_mut_ptr(), count, reports.as_mut_ptr(), &mut report) };
    check(status)?;

    for (place, report) in reports.iter().enumerate() {
        // SAFETY: the result has that many elements; the step has told of every tensor.
        unsafe { outcomes.add(place).write_unaligned(report.outcome.assume_init() as i32) };
    }
    let on_non_finite = call.attribute("on_non_finite")?;
    let kept_all = report.non_finite > 0 && on_non_finite == koala_on_non_finite::KeepAll as i32;
    let after = if finite && !kept_all { step.noise } else { before };
    // SAFETY: room for one double.
    unsafe { noise.doubles(1)?.write_unaligned(after) };
    Ok(())
}

/// n: the operands and results must be as many as that makes.
fn count_tensors(call: Call) -> Result<usize, Failure> {
    let (operands, results) = (call.operands(), call.results());
    let count = operands.saturating_sub(FIRST_OPERAND) / 4;
    match operands == FIRST_OPERAND + 4 * count && results == FIRST_RESULT + 3 * count {
        true => Ok(count),
        false => Err(Failure::argument(format!(
            "{operands} operands and {results} results, expected {FIRST_OPERAND} + 4·n and {FIRST_RESULT} + 3·n"
        ))),
    }
}

fn numbers(call: Call) -> Result<[f64; NUMBERS], Failure> {
    let mut numbers = [0.0; NUMBERS];
    for (place, number) in numbers.iter_mut().enumerate() {
        *number = call.operand(place)?.number()?;
    }
    Ok(numbers)
}

/// An attribute as a value of one of koala.h's enums, which libkoala looks at.
fn value<T: Copy>(call: Call, name: &str) -> Result<MaybeUninit<T>, Failure> {
    const { assert!(size_of::<T>() == size_of::<i32>()) };
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: of the same size, and any bytes may be there.
    unsafe { value.as_mut_ptr().cast::<i32>().write(call.attribute(name)?) };
    Ok(value)
}

/// The results as libkoala's tensors, each as it was before the step.
fn tensors(call: Call, count: usize) -> Result<Vec<koala_tensor>, Failure> {
    let scalars = call.result(1)?;
    scalars.begin_as(&call.operand(SCALARS)?)?;
    let scalars = scalars.doubles(4 * count)?.cast::<koala_scalars>();
    (0..count).map(|place| tensor(call, count, place, scalars)).collect()
}

fn tensor(call: Call, count: usize, place: usize, scalars: *mut koala_scalars) -> Result<koala_tensor, Failure> {
    let operand = |kind: usize| call.operand(FIRST_OPERAND + kind * count + place);
    let result = |kind: usize| call.result(FIRST_RESULT + kind * count + place);
    let (parameters, gradient, v, h) = (result(0)?, operand(1)?, result(1)?, result(2)?);
    parameters.begin_as(&operand(0)?)?;
    v.begin_as(&operand(2)?)?;
    h.begin_as(&operand(3)?)?;
    for other in [&gradient, &v, &h] {
        if other.length != parameters.length {
            return Err(other.unexpected(&format!("{} of tensor {place}", parameters.length)));
        }
    }
    if gradient.data_type() != parameters.data_type() || h.data_type() != v.data_type() {
        return Err(Failure::argument(format!(
            "tensor {place}: gradient and parameters, and v and h, are expected to be of one type"
        )));
    }
    Ok(koala_tensor {
        size: size_of::<koala_tensor>(),
        length: parameters.length,
        r#type: MaybeUninit::new(element_type(&parameters)?),
        state_type: MaybeUninit::new(state_type(&parameters, &v)?),
        copy_type: MaybeUninit::new(koala_copy_type::None),
        group: 0,
        exchange: 0,
        reserved: 0,
        parameters: parameters.data(),
        gradient: gradient.data(),
        v: v.data(),
        h: h.data(),
        copy: null_mut(),
        // In an array of as many.
        scalars: scalars.wrapping_add(place),
    })
}

fn element_type(parameters: &Array) -> Result<koala_element_type, Failure> {
    match parameters.data_type() {
        data_type::F32 => Ok(koala_element_type::F32),
        data_type::F64 => Ok(koala_element_type::F64),
        data_type::BF16 => Ok(koala_element_type::Bf16),
        data_type::F16 => Ok(koala_element_type::F16),
        _ => Err(parameters.unexpected("f32, f64, bf16 or f16")),
    }
}

fn state_type(parameters: &Array, v: &Array) -> Result<koala_state_type, Failure> {
    match v.data_type() {
        same if same == parameters.data_type() => Ok(koala_state_type::Same),
        data_type::F32 => Ok(koala_state_type::F32),
        data_type::BF16 => Ok(koala_state_type::Bf16),
        _ => Err(v.unexpected("the parameters' type, f32 or bf16")),
    }
}

/// What libkoala says of a call, as XLA's error.
fn check(status: koala_status) -> Result<(), Failure> {
    let code: c_int = match status {
        koala_status::Ok => return Ok(()),
        koala_status::NonFinite | koala_status::Breakdown => code::FAILED_PRECONDITION,
        koala_status::Memory => code::RESOURCE_EXHAUSTED,
        koala_status::Panic => code::INTERNAL,
        _ => code::INVALID_ARGUMENT,
    };
    let mut text = [0_u8; 512];
    let mut length = 0;
    // SAFETY: the buffer has that capacity.
    unsafe { koala_last_error(text.as_mut_ptr().cast::<c_char>(), text.len(), &mut length) };
    Err(Failure { code, text: String::from_utf8_lossy(&text[..length.min(text.len() - 1)]).into_owned() })
}
