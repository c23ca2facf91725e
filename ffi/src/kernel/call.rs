//! What a call of level 1 is told about its step: looked at, and made the library's.

use koala_optim::kernel::{Measurement, Step};
use koala_optim::{Backend, Method, Policy, Scaling, Settings};
use smallvec::SmallVec;

use crate::border::failure::{Failure, fail};
use crate::border::growing::{Array, look};
use crate::border::pointers::flag;
use crate::border::ranges::{Named, Range, range_of};
use crate::border::status::koala_status;
use crate::kernel::tensor::Used;
use crate::words::backends::chosen;
use crate::words::method::{koala_method, method_of};
use crate::words::settings::{koala_settings, policy, settings_of};
use crate::words::step::koala_step;

/// The steps of all groups of a call: on the stack, if they are few.
pub(crate) type Steps = SmallVec<[Step; 16]>;

/// All of a step but its settings, which each group of tensors has for itself.
pub(crate) struct Call {
    pub backend: Backend,
    pub policy: Policy,
    pub measurement: Measurement,
    pub scaling: Scaling,
    /// Which buffers its steps use.
    pub used: Used,
    norms: bool,
    /// Looked at. Where it is, not what it says: that would be a large copy.
    method: *const koala_method,
    /// None: a single group with the defaults.
    groups: Option<Array<koala_settings>>,
}

impl Call {
    /// # Safety
    /// `step` is NULL or what its documentation says, and stays so for as long as the result is used.
    #[inline(always)]
    pub unsafe fn new(step: *const koala_step) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let given = unsafe { look(step) }?;
        if given.noise < 0.0 {
            return Err(negative_noise(given.noise));
        }
        let groups = match given.groups.is_null() {
            true => None,
            // SAFETY: the caller's promise.
            false => Some(unsafe { Array::new(given.groups, given.group_count, "groups") }?),
        };
        let scaling = Scaling { factor: given.gradient_factor, limit: given.gradient_limit };
        if scaling != Scaling::default() {
            scaling.validate()?;
        }
        // SAFETY: the caller's promise.
        let used = Used::by(&unsafe { method_of(given.method) }?);
        Ok(Call {
            backend: chosen(given.backend)?,
            policy: policy(given.on_non_finite, given.on_breakdown)?,
            measurement: Measurement { loss: given.loss, noise: given.noise },
            scaling,
            used,
            norms: flag(given.norms, "norms")?,
            method: given.method,
            groups,
        })
    }

    pub fn group_count(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    /// What a call reads of these, its tensors, and something else: see [`check_apart`].
    pub fn read(&self, step: *const koala_step, tensors: Range, other: Named) -> [Named; 5] {
        [
            ("step", range_of(step, 1)),
            ("method", range_of(self.method, 1)),
            ("groups", self.groups.map_or((0, 0), |groups| groups.range())),
            ("tensors", tensors),
            other,
        ]
    }

    /// What tensors of a group are stepped with.
    #[inline(always)]
    pub fn step_of(&self, group: usize) -> Result<Step, Failure> {
        self.check_group(group)?;
        let Call { backend, policy, measurement, scaling, norms, .. } = *self;
        let (settings, method) = self.settings(group)?;
        Ok(Step { backend, method, settings, policy, measurement, scaling, norms })
    }

    #[inline(always)]
    pub fn method(&self) -> Result<Method, Failure> {
        // SAFETY: the promise to `new`.
        unsafe { method_of(self.method) }
    }

    #[inline(always)]
    fn settings(&self, group: usize) -> Result<(Settings, Method), Failure> {
        let method = self.method()?;
        let Some(groups) = self.groups else { return Ok((Settings::default(), method)) };
        // SAFETY: there is such a group: `step_of` has looked.
        let (settings, method) = unsafe { groups.with(group, |given| settings_of(given, method)) }??;
        settings.validate()?;
        method.validate()?;
        Ok((settings, method))
    }

    /// The steps of all groups.
    pub fn steps(&self) -> Result<Steps, Failure> {
        let mut steps = Steps::new();
        let count = self.group_count();
        steps
            .try_reserve_exact(count)
            .map_err(|_| fail(koala_status::Memory, format_args!("not enough memory for {count} groups")))?;
        for group in 0..count {
            steps.push(self.step_of(group)?);
        }
        Ok(steps)
    }

    /// Whether there is such a group.
    #[inline(always)]
    pub fn check_group(&self, group: usize) -> Result<(), Failure> {
        if group < self.group_count() { Ok(()) } else { Err(unknown_group(group, self.group_count())) }
    }
}

#[cold]
fn unknown_group(group: usize, count: usize) -> Failure {
    fail(koala_status::UnknownGroup, format_args!("the tensor's group is {group}, but there are {count} groups"))
}

#[cold]
fn negative_noise(noise: f64) -> Failure {
    koala_optim::Noise::Fixed(noise).validate().map_or_else(Failure::from, |()| Failure(koala_status::Setting))
}
