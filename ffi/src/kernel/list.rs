//! The array of tensors of a call of level 1.

use koala_optim::kernel::{Plan, Step};
use smallvec::SmallVec;

use crate::border::failure::{Failure, fail, prefix};
use crate::border::growing::Array;
use crate::border::ranges::{Named, Range};
use crate::border::status::koala_status;
use crate::kernel::call::Call;
use crate::kernel::tensor::{Checked, Stepped, Used, koala_tensor};

/// Tensors that are worked on together: what is kept of them, on the stack, is in the first cache then.
const PART: usize = 16;

/// An array of tensors, all of which have been looked at.
pub(crate) struct TensorList {
    tensors: Array<koala_tensor>,
    used: Used,
    /// Whether one's trouble may keep others.
    atomic: bool,
}

impl TensorList {
    /// # Safety
    /// `tensors` is NULL or an array of `count` tensors as their documentation says, and stays so for as long as the
    /// result is used. `others` are what the call writes besides.
    pub unsafe fn new(
        call: &Call,
        used: Used,
        tensors: *const koala_tensor,
        count: usize,
        others: &[Named],
    ) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let tensors = unsafe { Array::new(tensors, count, "tensors") }?;
        let list = TensorList { tensors, used, atomic: call.policy.is_atomic() };
        for place in 0..count {
            list.check(call, place, others).map_err(|failure| in_tensor(failure, place))?;
        }
        Ok(list)
    }

    #[inline(always)]
    fn check(&self, call: &Call, place: usize, others: &[Named]) -> Result<(), Failure> {
        // SAFETY: within the caller's array, by the promise to `new`.
        let tensor = unsafe { Checked::new(self.tensors.get(place)?, self.used) }?;
        for (name, range) in others {
            tensor.check_apart_from(name, *range)?;
        }
        call.check_group(tensor.group())
    }

    /// What the array occupies.
    pub fn range(&self) -> Range {
        self.tensors.range()
    }

    /// Calls `work` for the tensors, part by part, or with all at once where one's trouble may keep others. It is given
    /// the place of the first one, the tensors, and room for their plans.
    pub fn in_parts<'s>(
        &self,
        steps: &'s [Step],
        mut work: impl FnMut(usize, &mut [Stepped<'s>], &mut [Plan]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let all = self.tensors.count;
        let part = if self.atomic { all } else { all.min(PART) };
        let memory = |_| fail(koala_status::Memory, format_args!("not enough memory for {part} plans"));
        let mut tensors = SmallVec::<[Stepped; PART]>::new();
        let mut plans = SmallVec::<[Plan; PART]>::new();
        tensors.try_reserve_exact(part).map_err(memory)?;
        plans.try_reserve_exact(part).map_err(memory)?;
        plans.resize(part, Plan::default());
        let mut first = 0;
        while first < all {
            let count = part.min(all - first);
            tensors.clear();
            for place in first..first + count {
                // SAFETY: `new` has looked at all of them, and by the promise to it.
                let tensor = unsafe { Checked::looked_at(self.tensors.pointer(place), self.used) }?;
                let step = steps.get(tensor.group()).ok_or(Failure(koala_status::UnknownGroup))?;
                tensors.push(Stepped { tensor, step });
            }
            work(first, &mut tensors, &mut plans[..count])?;
            first += count;
        }
        Ok(())
    }
}

/// The same failure, its text begun with the tensor's place.
#[cold]
pub(crate) fn in_tensor(failure: Failure, place: usize) -> Failure {
    prefix(format_args!("tensor \"{place}\": "));
    failure
}
