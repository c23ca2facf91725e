//! Level 1 for C: whole steps of tensors whose buffers the caller owns.

use std::mem::MaybeUninit;

use koala_optim::kernel::{Measurement, Plan, Step, step_tensors};
use koala_optim::{Report, Settings};

use crate::backends::{chosen, koala_backend, number};
use crate::growing::{Growing, Output, initialize, read};
use crate::guard::guarded;
use crate::pointers::{COutput, check_array, check_optional, flag};
use crate::report::{koala_report, koala_tensor_report};
use crate::settings::{from_c, koala_on_breakdown, koala_on_non_finite, koala_settings, policy};
use crate::status::{Failure, fail, koala_status};
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
    /// How many groups there are; not looked at if `groups` is NULL.
    pub group_count: usize,
    /// L, the minibatch's mean loss. Default 0.
    pub loss: f64,
    /// R ≥ 0, the variance of the measurement noise: see koala_noise_update. Default 1.
    pub noise: f64,
    /// Where to run. Default KOALA_BACKEND_FASTEST.
    pub backend: MaybeUninit<koala_backend>,
    /// Default KOALA_ON_NON_FINITE_KEEP_TENSOR. Under the other two, koala_step_tensors and koala_apply_tensors allocate
    /// some hundred bytes per tensor until they return, if they are given more than 16 tensors.
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
        check_optional(report, "report")?;
        checked.check_apart_from("report", range_of(report, 1))?;
        let step = call.step_of(&checked)?;
        let exchange = checked.offers_exchange();
        let (buffers, scalars) = checked.any_buffers();
        let found = match exchange {
            false => buffers.step(&step, scalars)?,
            true => {
                let (report, exchanged) = buffers.step_exchanging(&step, scalars)?;
                if exchanged {
                    checked.exchange();
                }
                report
            }
        };
        checked.store_scalars();
        // SAFETY: the caller's promise, and it is aligned.
        unsafe { report.write_where_wanted(found.into()) };
        Ok(())
    })
}

/// One whole step of each of `count` tensors. Small ones are worked on together, so one call for a model is faster than
/// many. Each tensor's bits are those of koala_step_tensor. Allocates nothing but what `on_non_finite` says, and uses
/// no thread but the calling one.
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
        list.in_parts(whole_step)?;
        outputs.write_sum(&call, &sum);
        Ok(())
    })
}

/// What a call is told about its step, looked at.
pub(crate) struct Call {
    pub step: Step,
    groups: *const koala_settings,
    group_count: usize,
    group_size: usize,
}

impl Call {
    /// # Safety
    /// `step` is NULL or what its documentation says.
    #[inline]
    pub unsafe fn new(step: *const koala_step) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let given = unsafe { read(step) }?;
        let step = Step {
            backend: chosen(given.backend)?,
            settings: Settings::default(),
            policy: policy(given.on_non_finite, given.on_breakdown)?,
            measurement: Measurement { loss: given.loss, noise: given.noise },
            norms: flag(given.norms, "norms")?,
        };
        if given.noise < 0.0 {
            koala_optim::Noise::Fixed(given.noise).validate()?;
        }
        let mut call = Call { step, groups: given.groups, group_count: given.group_count, group_size: 0 };
        if call.groups.is_null() {
            call.group_count = 1;
            return Ok(call);
        }
        check_array(call.groups, call.group_count, "groups")?;
        if call.group_count > 0 {
            // SAFETY: not NULL, aligned; the caller's promise.
            call.group_size = unsafe { call.groups.cast::<usize>().read() };
            crate::growing::check_size::<koala_settings>(call.group_size)?;
        }
        for group in 0..call.group_count {
            call.settings(group)?;
        }
        Ok(call)
    }

    /// The settings of a group that there is.
    #[inline]
    fn settings(&self, group: usize) -> Result<Settings, Failure> {
        if self.groups.is_null() {
            return Ok(Settings::default());
        }
        // SAFETY: within the caller's array, whose elements all have the size of the first.
        let pointer = unsafe { self.groups.byte_add(group * self.group_size) };
        // SAFETY: the caller's promise.
        let settings = unsafe { read(pointer) }?;
        if settings.size != self.group_size {
            return Err(unequal_sizes("groups", group));
        }
        let settings = from_c(&settings)?;
        settings.validate()?;
        Ok(settings)
    }

    /// What a tensor is stepped with.
    #[inline]
    pub fn step_of(&self, tensor: &Checked) -> Result<Step, Failure> {
        if tensor.group as usize >= self.group_count {
            return Err(fail(
                koala_status::UnknownGroup,
                format_args!("the tensor's group is {}, but there are {} groups", tensor.group, self.group_count),
            ));
        }
        Ok(Step { settings: self.settings(tensor.group as usize)?, ..self.step })
    }
}

#[cold]
pub(crate) fn unequal_sizes(list: &str, place: usize) -> Failure {
    fail(koala_status::StructSize, format_args!("the size in element {place} of {list} is not that of the first one"))
}

/// Where `count` elements are; nowhere for NULL.
pub(crate) fn range_of<T>(pointer: *const T, count: usize) -> Range {
    if pointer.is_null() { (0, 0) } else { (pointer.addr(), pointer.addr() + count * size_of::<T>()) }
}

/// An array of tensors, all of which have been looked at.
pub(crate) struct TensorList<'c> {
    call: &'c Call,
    tensors: *const koala_tensor,
    stride: usize,
    pub count: usize,
}

/// Tensors that are worked on together: their descriptions, which are on the stack, are in the first cache.
const PART: usize = 16;

impl<'c> TensorList<'c> {
    /// # Safety
    /// `tensors` is NULL or an array of `count` tensors as their documentation says. `others` are what the call writes
    /// besides.
    pub unsafe fn new(
        call: &'c Call,
        tensors: *const koala_tensor,
        count: usize,
        others: &[(&'static str, Range)],
    ) -> Result<Self, Failure> {
        check_array(tensors, count, "tensors")?;
        let mut list = TensorList { call, tensors, stride: 0, count };
        if count > 0 {
            // SAFETY: not NULL, aligned; the caller's promise.
            list.stride = unsafe { tensors.cast::<usize>().read() };
            crate::growing::check_size::<koala_tensor>(list.stride)?;
        }
        for place in 0..count {
            list.look(place, others).map_err(|failure| in_tensor(failure, place))?;
        }
        Ok(list)
    }

    fn pointer(&self, place: usize) -> *const koala_tensor {
        // SAFETY: within the caller's array, whose elements all have the size of the first.
        unsafe { self.tensors.byte_add(place * self.stride) }
    }

    fn look(&self, place: usize, others: &[(&'static str, Range)]) -> Result<(), Failure> {
        let pointer = self.pointer(place);
        // SAFETY: the caller's promise.
        let size = unsafe { pointer.cast::<usize>().read() };
        if size != self.stride {
            return Err(unequal_sizes("tensors", place));
        }
        let tensor = self.get(place)?;
        for (name, range) in others {
            tensor.check_apart_from(name, *range)?;
        }
        self.call.step_of(&tensor).map(|_| ())
    }

    fn get(&self, place: usize) -> Result<Checked, Failure> {
        // SAFETY: the caller's promise.
        unsafe { Checked::new(self.pointer(place)) }
    }

    fn stepped(&self, place: usize) -> Result<Stepped, Failure> {
        let tensor = self.get(place)?;
        Ok(Stepped { step: self.call.step_of(&tensor)?, tensor })
    }

    /// Calls `work` for the tensors, part by part, or with all at once where one's trouble may keep others. It is given
    /// the place of the first one, the tensors, and room for their plans.
    pub fn in_parts(
        &self,
        mut work: impl FnMut(usize, &mut [Stepped], &mut [Plan]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        if self.count > PART && self.call.step.policy.is_atomic() {
            let memory = |_| fail(koala_status::Memory, format_args!("not enough memory for {} plans", self.count));
            let (mut tensors, mut plans) = (Vec::new(), Vec::new());
            tensors.try_reserve_exact(self.count).map_err(memory)?;
            plans.try_reserve_exact(self.count).map_err(memory)?;
            plans.resize(self.count, Plan::default());
            for place in 0..self.count {
                tensors.push(self.stepped(place)?);
            }
            return work(0, &mut tensors, &mut plans);
        }
        let mut plans = [Plan::default(); PART];
        for first in (0..self.count).step_by(PART) {
            let count = PART.min(self.count - first);
            // A tensor once more is as good as none where there are fewer.
            let mut tensors = [self.stepped(first)?; PART];
            for (place, tensor) in tensors[1..count].iter_mut().enumerate() {
                *tensor = self.stepped(first + 1 + place)?;
            }
            work(first, &mut tensors[..count], &mut plans[..count])?;
        }
        Ok(())
    }
}

/// The same failure, its text begun with the tensor's place.
#[cold]
pub(crate) fn in_tensor(failure: Failure, place: usize) -> Failure {
    crate::status::prefix(format_args!("tensor \"{place}\": "));
    failure
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
        let mut report = koala_report::empty(number(call.step.backend), call.step.measurement.noise);
        report.count(sum);
        self.report.write(&report);
    }
}
