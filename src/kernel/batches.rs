//! The order in which a thread goes over a list of tensors: small ones are planned together and then written together.

use std::ops::Range;

use crate::types::error::Error;

/// Elements of small tensors that are planned together and then written together, while they are in the first cache:
/// what one of them waits for, another makes use of.
const BATCH: usize = 1 << 11;

/// Tensors that are planned, and written, one by one.
pub(crate) trait List {
    fn count(&self) -> usize;
    fn elements(&self, place: usize) -> usize;
    /// Asks for the beginnings of the tensor's buffers to be brought into the cache.
    fn prefetch(&mut self, place: usize);
    /// Pass 1 and the recursion: nothing is written but the plan.
    fn plan(&mut self, place: usize, parallel: bool) -> Result<(), Error>;
    /// Pass 2.
    fn apply(&mut self, place: usize, parallel: bool);
    /// Whether this tensor's trouble keeps every other tensor as it is.
    fn keeps_others(&self, place: usize) -> bool;
    /// Leaves the tensor as it is after all.
    fn withhold(&mut self, place: usize);
}

/// Both passes over all, batch by batch.
pub(crate) fn plan_and_apply(list: &mut impl List, parallel: bool) -> Result<(), Error> {
    let mut first = 0;
    while first < list.count() {
        let mut elements = list.elements(first);
        let mut end = first + 1;
        while end < list.count() && elements + list.elements(end) <= BATCH {
            elements += list.elements(end);
            end += 1;
        }
        plan(list, first..end, parallel)?;
        apply(list, first..end, parallel);
        first = end;
    }
    Ok(())
}

/// While a tensor is planned, the beginning of the next is on its way into the cache: it would be waited for otherwise,
/// since a processor does not look as far ahead as a whole step.
pub(crate) fn plan(list: &mut impl List, places: Range<usize>, parallel: bool) -> Result<(), Error> {
    for place in places.clone() {
        if place + 1 < places.end {
            list.prefetch(place + 1);
        }
        list.plan(place, parallel)?;
    }
    Ok(())
}

/// Whether one tensor's trouble keeps all as they are; none is to be written then.
pub(crate) fn all_withheld(list: &mut impl List) -> bool {
    let withheld = (0..list.count()).any(|place| list.keeps_others(place));
    if withheld {
        (0..list.count()).for_each(|place| list.withhold(place));
    }
    withheld
}

pub(crate) fn apply(list: &mut impl List, places: Range<usize>, parallel: bool) {
    for place in places {
        list.apply(place, parallel);
    }
}
