//! Level 1 for C: whole steps of tensors whose buffers the caller owns.

use std::mem::MaybeUninit;

use koala_optim::Report;
use koala_optim::kernel::{Plan, TensorReport, step_tensors};

use crate::backends::{koala_backend, number};
use crate::call::{Call, NOTHING, check_apart, range_of};
use crate::growing::{Growing, Output, initialize};
use crate::guard::guarded;
use crate::list::TensorList;
use crate::pointers::{check, check_array};
use crate::report::{koala_report, koala_tensor_report};
use crate::settings::{koala_on_breakdown, koala_on_non_finite, koala_settings};
use crate::status::{Failure, koala_status};
use crate::tensor::{Checked, Range, Stepped, koala_tensor};

/// Everything about a step but the tensors, for the functions that need no optimizer. koala_step_init fills it with the
/// defaults; `loss` and `noise` are to be set for every step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_step {
    /// sizeof(koala_step).
    pub size: usize,
    /// The settings of the groups of tensors, each of the same size. NULL: a single group with the defaults.
    pub groups: *const koala_settings,
    /// How many groups there are; not looked at if `groups` is NULL. For more than 16, the functions that take an array of
    /// tensors allocate some hundred bytes per group until they return.
    pub group_count: usize,
    /// L, the minibatch's mean loss. Default 0.
    pub loss: f64,
    /// R ≥ 0, the variance of the measurement noise: see koala_noise_update. Default 1.
    pub noise: f64,
    /// Where to run. Default KOALA_BACKEND_FASTEST.
    pub backend: MaybeUninit<koala_backend>,
    /// Default KOALA_ON_NON_FINITE_KEEP_TENSOR. Under the other two, koala_step_tensors and koala_apply_tensors allocate
    /// some hundred bytes per tensor until they return, if there are more than 16.
    pub on_non_finite: MaybeUninit<koala_on_non_finite>,
    /// Default KOALA_ON_BREAKDOWN_RESTART. KOALA_ON_BREAKDOWN_ERROR allocates as above.
    pub on_breakdown: MaybeUninit<koala_on_breakdown>,
    /// 1: whole steps report the norms, which may cost a pass more over gradient and parameters. Default 0.
    pub norms: u32,
}

// SAFETY: a number, a pointer and three numbers of 8 bytes, and four of 4; any bytes are a value.
unsafe impl Growing for koala_step {
    const NAME: &'static str = "koala_step";
    const FIRST_SIZE: usize = 56;

    fn default() -> Self {
        koala_step {
            size: size_of::<Self>(),
            groups: std::ptr::null(),
            group_count: 0,
            loss: 0.0,
            noise: 1.0,
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

/// One whole step of one tensor: two passes over its buffers, or one read-only pass where it is skipped. Allocates
/// nothing, and uses no thread but the calling one. Several threads may step different tensors at once.
///
/// `report`, unless NULL, receives what was done. `tensor` is changed by an exchange only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_step_tensor(
    step: *const koala_step,
    tensor: *mut koala_tensor,
    report: *mut koala_tensor_report,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (call, mut checked) = unsafe { (Call::new(step)?, Checked::new(tensor)?) };
        if !report.is_null() {
            check(report, "report")?;
            checked.check_apart_from("report", range_of(report, 1))?;
            check_apart(&[("report", range_of(report, 1))], &call.read(step, tensor, 1, NOTHING))?;
        }
        let step = call.step_of(checked.group())?;
        let exchange = checked.offers_exchange();
        let (buffers, scalars) = checked.any_buffers();
        let mut found = TensorReport::default();
        if buffers.step_exchanging(&step, exchange, scalars, &mut found)? {
            checked.exchange();
        }
        checked.store_scalars();
        if !report.is_null() {
            // SAFETY: aligned, and the caller's to write.
            unsafe { report.write(found.into()) };
        }
        Ok(())
    })
}

/// One whole step of each of `count` tensors. Small ones are worked on together, so one call for a model is faster than
/// many. Each tensor's bits are those of koala_step_tensor. Allocates nothing but what koala_step says, and uses no
/// thread but the calling one.
///
/// `reports`, unless NULL, receives `count` reports, in the order of the tensors; `report`, unless NULL, the sum. A text
/// names a tensor by its place, from 0. Whether buffers of different tensors overlap is not looked at: what becomes of
/// those is unspecified then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_step_tensors(
    step: *const koala_step,
    tensors: *mut koala_tensor,
    count: usize,
    reports: *mut koala_tensor_report,
    report: *mut koala_report,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { Call::new(step) }?;
        // SAFETY: the caller's promise.
        let outputs = unsafe { Outputs::new(count, reports, report) }?;
        // SAFETY: the caller's promise.
        let list = unsafe { TensorList::new(&call, tensors, count, &outputs.ranges()) }?;
        check_apart(&outputs.ranges(), &call.read(step, tensors, count, NOTHING))?;
        let steps = call.steps()?;
        let mut sum = Report::default();
        let whole_step = |first: usize, tensors: &mut [Stepped], plans: &mut [Plan]| {
            step_tensors(tensors, plans)?;
            for (place, (stepped, plan)) in tensors.iter().zip(&*plans).enumerate() {
                stepped.tensor.store_scalars();
                sum.count(plan.report().outcome);
                // SAFETY: `reports` is NULL or has room for as many as there are tensors.
                unsafe { outputs.write_one(first + place, plan.report().into()) };
            }
            Ok(())
        };
        list.in_parts(&steps, whole_step)?;
        outputs.write_sum(&call, &sum);
        Ok(())
    })
}

/// Where the reports of a list go.
pub(crate) struct Outputs {
    reports: *mut koala_tensor_report,
    count: usize,
    report: Output<koala_report>,
}

impl Outputs {
    /// # Safety
    /// `reports` is NULL or has room for `count` reports; `report` is NULL or what its documentation says.
    pub unsafe fn new(
        count: usize,
        reports: *mut koala_tensor_report,
        report: *mut koala_report,
    ) -> Result<Self, Failure> {
        if !reports.is_null() {
            check_array(reports, count, "reports")?;
        }
        // SAFETY: the caller's promise.
        Ok(Outputs { reports, count, report: unsafe { Output::optional(report) }? })
    }

    /// What will be written.
    pub fn ranges(&self) -> [(&'static str, Range); 2] {
        [("reports", range_of(self.reports, self.count)), ("report", self.report.range())]
    }

    /// # Safety
    /// `place` is that of a tensor.
    pub unsafe fn write_one(&self, place: usize, report: koala_tensor_report) {
        if !self.reports.is_null() {
            // SAFETY: there is room for that many, by the promise to `new`.
            unsafe { self.reports.add(place).write(report) };
        }
    }

    pub fn write_sum(self, call: &Call, sum: &Report) {
        let mut report = koala_report::empty(number(call.backend), call.measurement.noise);
        report.count(sum);
        self.report.write(&report);
    }
}
