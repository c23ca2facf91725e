//! Level 1 in two halves, for callers whose tensors are split over processes: dots, a sum of theirs, and apply.

use koala_optim::kernel::{self, Plan};
use koala_optim::{Error, Method, Report, Scaling};

use crate::border::failure::Failure;
use crate::border::guard::guarded;
use crate::border::pointers::{Place, check, check_array};
use crate::border::ranges::{NOTHING, check_apart, range_of};
use crate::border::status::koala_status;
use crate::kernel::call::Call;
use crate::kernel::list::{TensorList, in_tensor};
use crate::kernel::tensor::{Checked, Stepped, koala_tensor};
use crate::kernel::whole::Outputs;
use crate::words::report::{koala_report, koala_tensor_report};
use crate::words::step::koala_step;

/// The dot products of a tensor, or of a part of one: five doubles. Add up the parts member by member, by
/// koala_dots_add or by any all-reduce of arrays of doubles, and you have the dots of the whole tensor. This struct
/// never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_dots {
    /// a = H·h; 0 on a first step.
    pub a: f64,
    /// b = H·v; 0 on a first step.
    pub b: f64,
    /// c = H·H.
    pub c: f64,
    /// t = θ·θ; 0 without weight decay.
    pub t: f64,
    /// g·g, or infinity where it is known to be above the bound below which a tensor is skipped.
    pub gradient_squared: f64,
}

impl From<kernel::Dots> for koala_dots {
    fn from(dots: kernel::Dots) -> Self {
        let kernel::Dots { a, b, c, t, gradient_squared } = dots;
        koala_dots { a, b, c, t, gradient_squared: gradient_squared.unwrap_or(f64::INFINITY) }
    }
}

impl From<koala_dots> for kernel::Dots {
    fn from(dots: koala_dots) -> Self {
        let koala_dots { a, b, c, t, gradient_squared } = dots;
        kernel::Dots { a, b, c, t, gradient_squared: Some(gradient_squared).filter(|squared| squared.is_finite()) }
    }
}

/// Adds the dots of a part of a tensor to a sum, member by member. `sum` and `part` may be the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_dots_add(sum: *mut koala_dots, part: *const koala_dots) -> koala_status {
    guarded(|| {
        check(sum, "sum")?;
        check(part, "part")?;
        if sum.cast_const() != part {
            check_apart(&[("sum", range_of(sum, 1))], &[("part", range_of(part, 1))])?;
        }
        // SAFETY: not NULL, aligned, and the caller's promise.
        unsafe {
            let (one, other) = (*sum, *part);
            sum.write(koala_dots {
                a: one.a + other.a,
                b: one.b + other.b,
                c: one.c + other.c,
                t: one.t + other.t,
                gradient_squared: one.gradient_squared + other.gradient_squared,
            });
        }
        Ok(())
    })
}

/// A step that may be taken in halves.
///
/// # Safety
/// As [`Call::new`].
unsafe fn half_of(step: *const koala_step) -> Result<Call, Failure> {
    // SAFETY: the caller's promise.
    let call = unsafe { Call::new(step) }?;
    match matches!(call.method()?, Method::KoalaPlusPlus(_)) && call.scaling == Scaling::default() {
        true => Ok(call),
        false => Err(Error::Halves.into()),
    }
}

fn dots_of(stepped: &mut Stepped<'_>) -> Result<koala_dots, Failure> {
    let (backend, settings) = (stepped.step.backend, stepped.step.settings);
    let scalars = *stepped.tensor.scalars();
    // A frozen tensor's would not be looked at.
    if settings.frozen {
        return Ok(kernel::Dots::default().into());
    }
    Ok(stepped.tensor.any_buffers().0.dots(backend, settings.weight_decay, &scalars)?.into())
}

/// The first half of a step: the dots of a tensor, or of the part of one that this process has. Reads only: parameters,
/// gradient, and, but for a first step, v and h. Allocates nothing.
///
/// If a tensor is divided, the sum of its parts' dots may differ in the last bits of float64 from the dots of the
/// undivided tensor.
///
/// Returns KOALA_STATUS_HALVES, as do the three functions below, for another method than KOALA++ and for gradients that
/// are scaled or limited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_dots_tensor(
    step: *const koala_step,
    tensor: *const koala_tensor,
    dots: *mut koala_dots,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { half_of(step) }?;
        // SAFETY: the caller's promise.
        let checked = unsafe { Checked::new(tensor, call.used) }?;
        // SAFETY: the caller's promise.
        let dots = unsafe { Place::needed(dots, "dots") }?;
        checked.check_apart_from("dots", dots.range())?;
        check_apart(&[("dots", dots.range())], &call.read(step, range_of(tensor, 1), NOTHING))?;
        let step = call.step_of(checked.group())?;
        let found = dots_of(&mut Stepped { step: &step, tensor: checked })?;
        dots.write(found)
    })
}

/// The first half of a step of `count` tensors: `dots` receives as many. See koala_dots_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_dots_tensors(
    step: *const koala_step,
    tensors: *const koala_tensor,
    count: usize,
    dots: *mut koala_dots,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { half_of(step) }?;
        check_array(dots, count, "dots")?;
        // SAFETY: the caller's promise.
        let list = unsafe { TensorList::new(&call, call.used, tensors, count, &[("dots", range_of(dots, count))]) }?;
        check_apart(&[("dots", range_of(dots, count))], &call.read(step, list.range(), NOTHING))?;
        list.in_parts(&call.steps()?, |first, tensors, _| {
            for (place, tensor) in tensors.iter_mut().enumerate() {
                let found = dots_of(tensor)?;
                // SAFETY: `dots` has room for as many as there are tensors.
                unsafe { dots.add(first + place).write(found) };
            }
            Ok(())
        })
    })
}

/// The second half of a step: decides by the dots of the whole tensor, and writes the tensor, or the part of one that
/// this process has. Every process that has a part decides the same, given the same `step`, dots and scalars.
/// Allocates nothing.
///
/// Give the same `step` and `tensor` as to koala_dots_tensor. `report`, unless NULL, receives what was done, without
/// norms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_apply_tensor(
    step: *const koala_step,
    tensor: *const koala_tensor,
    dots: *const koala_dots,
    report: *mut koala_tensor_report,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { half_of(step) }?;
        // SAFETY: the caller's promise.
        let checked = unsafe { Checked::new(tensor, call.used) }?;
        check(dots, "dots")?;
        // SAFETY: the caller's promise.
        let report = unsafe { Place::optional(report, "report") }?;
        checked.check_apart_from("dots", range_of(dots, 1))?;
        checked.check_apart_from("report", report.range())?;
        let read = call.read(step, range_of(tensor, 1), ("dots", range_of(dots, 1)));
        check_apart(&[("report", report.range())], &read)?;
        let step = call.step_of(checked.group())?;
        let mut stepped = Stepped { step: &step, tensor: checked };
        // SAFETY: not NULL, aligned, and the caller's promise.
        let plan = plan_of(&mut stepped, unsafe { *dots })?;
        carry_out(&mut stepped, &plan)?;
        report.write(plan.report().into())
    })
}

/// The second half of a step of `count` tensors, with as many dots. `reports`, unless NULL, receives as many reports,
/// and `report`, unless NULL, the sum. Allocates nothing but what koala_step says. See koala_apply_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_apply_tensors(
    step: *const koala_step,
    tensors: *const koala_tensor,
    count: usize,
    dots: *const koala_dots,
    reports: *mut koala_tensor_report,
    report: *mut koala_report,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { half_of(step) }?;
        check_array(dots, count, "dots")?;
        // SAFETY: the caller's promise.
        let outputs = unsafe { Outputs::new(count, reports, report) }?;
        let [reports, report] = outputs.ranges();
        let dots_range = ("dots", range_of(dots, count));
        let others = [dots_range, reports, report];
        // SAFETY: the caller's promise.
        let list = unsafe { TensorList::new(&call, call.used, tensors, count, &others) }?;
        check_apart(&[reports, report], &call.read(step, list.range(), dots_range))?;
        let mut sum = Report::default();
        list.in_parts(&call.steps()?, |first, tensors, plans| {
            for (place, (tensor, plan)) in tensors.iter_mut().zip(&mut *plans).enumerate() {
                // SAFETY: there are as many dots as tensors.
                *plan = plan_of(tensor, unsafe { *dots.add(first + place) })
                    .map_err(|failure| in_tensor(failure, first + place))?;
            }
            if plans.iter().any(|plan| plan.keeps_others(call.policy)) {
                plans.iter_mut().for_each(Plan::withhold);
            }
            for (place, (tensor, plan)) in tensors.iter_mut().zip(&*plans).enumerate() {
                carry_out(tensor, plan)?;
                sum.count(plan.report().outcome);
                // SAFETY: `reports` is NULL or has room for as many as there are tensors.
                unsafe { outputs.write_one(first + place, plan.report().into()) };
            }
            Ok(())
        })?;
        outputs.write_sum(&call, &sum, 0.0)
    })
}

fn plan_of(stepped: &mut Stepped<'_>, dots: koala_dots) -> Result<Plan, Failure> {
    let (step, scalars) = (stepped.step, *stepped.tensor.scalars());
    Ok(stepped.tensor.any_buffers().0.plan(step, &dots.into(), &scalars)?)
}

fn carry_out(stepped: &mut Stepped<'_>, plan: &Plan) -> Result<(), Failure> {
    let backend = stepped.step.backend;
    let (buffers, scalars) = stepped.tensor.any_buffers();
    buffers.apply(backend, plan, scalars)?;
    stepped.tensor.store_scalars();
    Ok(())
}
