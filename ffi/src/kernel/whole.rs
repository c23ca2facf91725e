//! Level 1 for C: whole steps of tensors whose buffers the caller owns.

use koala_optim::Report;
use koala_optim::kernel::{Plan, TensorReport, step_tensors};

use crate::border::failure::Failure;
use crate::border::growing::Output;
use crate::border::guard::guarded;
use crate::border::pointers::{check, check_array};
use crate::border::ranges::{NOTHING, Named, check_apart, range_of};
use crate::border::status::koala_status;
use crate::kernel::call::Call;
use crate::kernel::list::TensorList;
use crate::kernel::tensor::{Checked, Stepped, koala_tensor};
use crate::words::backends::number;
use crate::words::report::{koala_report, koala_tensor_report};
use crate::words::step::koala_step;

/// Finds out whether tensors can step with this: its groups' settings, its method, its scaling, its policies, its
/// backend and its noise. Steps nothing and changes nothing. A loss may be any number, as policies judge it.
///
/// Returns KOALA_STATUS_SETTING for a number out of its range; koala_last_error names the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_step_validate(step: *const koala_step) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { Call::new(step) }?;
        (0..call.group_count()).try_for_each(|group| call.step_of(group).map(drop))
    })
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
        let call = unsafe { Call::new(step) }?;
        // SAFETY: the caller's promise.
        let mut checked = unsafe { Checked::new(tensor, call.used) }?;
        if !report.is_null() {
            check(report, "report")?;
            checked.check_apart_from("report", range_of(report, 1))?;
            check_apart(&[("report", range_of(report, 1))], &call.read(step, range_of(tensor, 1), NOTHING))?;
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

/// One whole step of each of `count` tensors. Small ones are worked on together, so one call for a model is faster
/// than many. Each tensor gets the same bits as from koala_step_tensor. Allocates nothing but what koala_step says,
/// and uses no thread but the calling one.
///
/// `reports`, unless NULL, receives `count` reports, in the order of the tensors; `report`, unless NULL, the sum. A
/// text names a tensor by its place, from 0. Whether buffers of different tensors overlap is not looked at: if they
/// do, what they hold afterwards is unspecified.
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
        let (call, outputs) = unsafe { (Call::new(step)?, Outputs::new(count, reports, report)?) };
        // SAFETY: the caller's promise.
        let list = unsafe { TensorList::new(&call, call.used, tensors, count, &outputs.ranges()) }?;
        check_apart(&outputs.ranges(), &call.read(step, list.range(), NOTHING))?;
        let steps = call.steps()?;
        let (mut sum, mut gain) = (Report::default(), 0.0);
        let whole_step = |first: usize, tensors: &mut [Stepped], plans: &mut [Plan]| {
            step_tensors(tensors, plans)?;
            for (place, (stepped, plan)) in tensors.iter().zip(&*plans).enumerate() {
                stepped.tensor.store_scalars();
                let report = plan.report();
                sum.count(report.outcome);
                if report.outcome.is_step() {
                    gain = f64::max(gain, report.gain);
                }
                // SAFETY: `reports` is NULL or has room for as many as there are tensors.
                unsafe { outputs.write_one(first + place, report.into()) };
            }
            Ok(())
        };
        list.in_parts(&steps, whole_step)?;
        outputs.write_sum(&call, &sum, gain)
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
    pub fn ranges(&self) -> [Named; 2] {
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

    pub fn write_sum(self, call: &Call, sum: &Report, gain: f64) -> Result<(), Failure> {
        let mut report = koala_report { gain, ..koala_report::empty(number(call.backend)?, call.measurement.noise) };
        report.count(sum);
        self.report.write(&report)
    }
}
