//! The walk over the tensors of one step: which are worked on together, which by several threads, and in which order.

use crate::kernel::batches;
use crate::kernel::batches::List;
use crate::optimizer::registry::Entry;
use crate::optimizer::tensor::Tensor;
use crate::step::Step;
use crate::types::error::Error;
use crate::types::settings::Policy;
use crate::types::threads::join;

/// Tensors of fewer elements than this together are stepped by one thread, one after the other.
const WORTH_A_TASK: usize = 1 << 16;

/// A tensor from this length on has all threads to itself: two of them at once would have to share the last cache.
const WORTH_ALL_THREADS: usize = 1 << 18;

/// Tensors, in the order of their entries.
pub(crate) struct Walk<'w, 'a> {
    /// What the tensors of each group are stepped with.
    pub steps: &'w [Step],
    /// The optimizer's entries from this number on.
    pub first: usize,
    pub entries: &'w mut [Entry],
    pub tensors: &'w mut [Tensor<'a>],
}

/// What a walk did.
pub(crate) struct Walked {
    /// Whether anything may have been written.
    pub written: bool,
    /// The norm of all gradients together, if they are clipped by it.
    pub gradient_norm: Option<f64>,
}

impl<'w, 'a> Walk<'w, 'a> {
    /// Steps the tensors. If one tensor's trouble can keep all as they are, or if the norm of all is to be known, pass 1
    /// goes over all of them before anything is written; otherwise a tensor is finished while it is in the cache.
    pub fn step(mut self, policy: Policy, clip_norm: Option<f64>, parallel: bool) -> Result<Walked, Error> {
        let mut walked = Walked { written: true, gradient_norm: None };
        if let Some(clip_norm) = clip_norm {
            walked.gradient_norm = Some(self.reborrow().plan_clipped(clip_norm, parallel)?);
        } else if policy.is_atomic() {
            self.reborrow().divided(parallel, &|mut walk, parallel| {
                let all = 0..walk.count();
                batches::plan(&mut walk, all, parallel)
            })?;
        } else {
            self.divided(parallel, &|mut walk, parallel| batches::plan_and_apply(&mut walk, parallel))?;
            return Ok(walked);
        }
        if batches::all_withheld(&mut self) {
            walked.written = false;
            return Ok(walked);
        }
        self.divided(parallel, &|mut walk, parallel| {
            let all = 0..walk.count();
            batches::apply(&mut walk, all, parallel);
            Ok(())
        })?;
        Ok(walked)
    }

    /// Pass 1, the norm of all gradients that are finite, and the decisions that hang on it.
    fn plan_clipped(mut self, clip_norm: f64, parallel: bool) -> Result<f64, Error> {
        self.reborrow().divided(parallel, &|walk, parallel| {
            walk.each(|tensor, entry, step| {
                if !step.settings.frozen {
                    tensor.take_products(&mut entry.state, step, parallel);
                }
            });
            Ok(())
        })?;
        let mut squared = 0.0;
        self.reborrow().each(|tensor, _, step| {
            let of_tensor = tensor.products.squared_norm();
            if !step.settings.frozen && of_tensor.is_finite() {
                squared += of_tensor;
            }
        });
        let norm = f64::sqrt(squared);
        let clip = if norm > clip_norm { clip_norm / norm } else { 1.0 };
        let mut result = Ok(norm);
        self.each(|tensor, entry, step| {
            if let (Err(error), Ok(_)) = (tensor.plan_clipped(&mut entry.state, step, parallel, clip), &result) {
                result = Err(error);
            }
        });
        result
    }

    /// Predicts, and returns Σ‖m − θ‖² over the tensors where it is finite, and the number of their parameters.
    pub fn predict(self, velocity_decay: f64, parallel: bool) -> (f64, usize) {
        let (mut distance, mut parameters) = (0.0, 0);
        self.each(|tensor, entry, step| {
            if !step.settings.frozen {
                let of_tensor = tensor.predict(&mut entry.state, step, parallel, velocity_decay);
                if of_tensor.is_finite() {
                    distance += of_tensor;
                    parameters += tensor.len();
                }
            }
        });
        (distance, parameters)
    }

    /// Does something with each tensor, in order.
    fn each(self, mut work: impl FnMut(&mut Tensor<'a>, &mut Entry, &Step)) {
        for tensor in self.tensors {
            let entry = &mut self.entries[tensor.entry - self.first];
            let step = &self.steps[entry.group];
            work(tensor, entry, step);
        }
    }

    /// Divides the tensors among the threads: a long one is worked on by all of them, shorter ones are taken whole.
    fn divided<W>(self, parallel: bool, work: &W) -> Result<(), Error>
    where
        W: Fn(Walk<'_, 'a>, bool) -> Result<(), Error> + Sync,
    {
        if !parallel {
            return work(self, false);
        }
        let is_long = |tensor: &Tensor| tensor.len() >= WORTH_ALL_THREADS;
        let mut rest = self;
        while let Some(first) = rest.tensors.first() {
            if is_long(first) {
                let (long, after) = rest.split_at(1);
                work(long, true)?;
                rest = after;
            } else {
                let count = rest.tensors.iter().position(is_long).unwrap_or(rest.tensors.len());
                let (short, after) = rest.split_at(count);
                short.halved(work)?;
                rest = after;
            }
        }
        Ok(())
    }

    /// Halves the list by its elements until a part is too small for that. The error is the first tensor's.
    fn halved<W>(self, work: &W) -> Result<(), Error>
    where
        W: Fn(Walk<'_, 'a>, bool) -> Result<(), Error> + Sync,
    {
        let total: usize = self.tensors.iter().map(Tensor::len).sum();
        if self.tensors.len() <= 1 || total < WORTH_A_TASK {
            return work(self, false);
        }
        let mut before = 0;
        let middle = self.tensors.iter().position(|tensor| {
            before += tensor.len();
            before * 2 >= total
        });
        let middle = middle.unwrap_or(0).clamp(1, self.tensors.len() - 1);
        let (left, right) = self.split_at(middle);
        let (left, right) = join(true, || left.halved(work), || right.halved(work));
        left.and(right)
    }

    fn reborrow(&mut self) -> Walk<'_, 'a> {
        Walk { steps: self.steps, first: self.first, entries: self.entries, tensors: self.tensors }
    }

    fn split_at(self, count: usize) -> (Self, Self) {
        let Walk { steps, first, entries, tensors } = self;
        let (tensors, tensors_after) = tensors.split_at_mut(count);
        let middle = tensors_after.first().map_or(entries.len(), |tensor| tensor.entry - first);
        let (entries, entries_after) = entries.split_at_mut(middle);
        let after = Walk { steps, first: first + middle, entries: entries_after, tensors: tensors_after };
        (Walk { steps, first, entries, tensors }, after)
    }
}

impl List for Walk<'_, '_> {
    fn count(&self) -> usize {
        self.tensors.len()
    }

    #[inline]
    fn elements(&self, place: usize) -> usize {
        self.tensors[place].len()
    }

    #[inline]
    fn prefetch(&mut self, place: usize) {
        let tensor = &self.tensors[place];
        tensor.prefetch(&self.entries[tensor.entry - self.first].state);
    }

    #[inline]
    fn plan(&mut self, place: usize, parallel: bool) -> Result<(), Error> {
        let tensor = &mut self.tensors[place];
        let entry = &mut self.entries[tensor.entry - self.first];
        tensor.plan(&mut entry.state, &self.steps[entry.group], parallel)
    }

    #[inline]
    fn apply(&mut self, place: usize, parallel: bool) {
        let tensor = &mut self.tensors[place];
        let entry = &mut self.entries[tensor.entry - self.first];
        tensor.apply(&mut entry.state, &self.steps[entry.group], parallel);
    }

    fn keeps_others(&self, place: usize) -> bool {
        let tensor = &self.tensors[place];
        let entry = &self.entries[tensor.entry - self.first];
        tensor.plan.keeps_others(self.steps[entry.group].policy)
    }

    fn withhold(&mut self, place: usize) {
        self.tensors[place].plan.withhold();
    }
}

/// The caller's tensors in the order of their entries, as they nearly always are; in their own again when this is
/// dropped, whatever happens.
pub(crate) struct Ordered<'o, 'a> {
    pub tensors: &'o mut [Tensor<'a>],
    moved: bool,
}

impl<'o, 'a> Ordered<'o, 'a> {
    pub fn new(tensors: &'o mut [Tensor<'a>]) -> Self {
        let moved = !tensors.is_sorted_by_key(|tensor| tensor.entry);
        if moved {
            tensors.sort_unstable_by_key(|tensor| tensor.entry);
        }
        Ordered { tensors, moved }
    }
}

impl Drop for Ordered<'_, '_> {
    fn drop(&mut self) {
        if self.moved {
            self.tensors.sort_unstable_by_key(|tensor| tensor.position);
        }
    }
}
