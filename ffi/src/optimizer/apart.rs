//! Whether the buffers of a step lie apart: none that is written may overlap another one.

use crate::border::failure::{Failure, no_memory};
use crate::border::ranges::{Range, overlaps};

/// One buffer of a step.
#[derive(Clone, Copy)]
pub(crate) struct Occupied {
    pub range: Range,
    /// Its tensor's place in the list, and which of the tensor's buffers it is.
    pub place: usize,
    pub buffer: usize,
}

/// The buffers of a tensor. All but the gradient, which is the second, are written.
pub(crate) const BUFFERS: [&str; 3] = ["parameters", "gradient", "copy"];
const GRADIENT: usize = 1;

/// All buffers of a step, in the order of their addresses in the last one: that is likely to be their order in the next
/// one too, so that sorting them takes one look.
#[derive(Default)]
pub(crate) struct Sorted(Vec<Occupied>);

impl Sorted {
    /// Makes room, so that a step of that many tensors with so many buffers each does not allocate.
    pub fn make_room(&mut self, tensors: usize, buffers: usize) -> Result<(), Failure> {
        let more = (buffers * tensors).saturating_sub(self.0.len());
        self.0.try_reserve(more).map_err(|_| no_memory("a tensor"))
    }

    /// The first two buffers that overlap, if any do. `ranges` gives where a tensor's buffers lie; a range is empty
    /// where there is no buffer.
    pub fn overlap<const N: usize>(
        &mut self,
        tensors: usize,
        ranges: impl Fn(usize) -> [Range; N],
    ) -> Option<(Occupied, Occupied)> {
        if self.0.len() != N * tensors {
            self.0.clear();
            let (range, places, buffers) = ((0, 0), 0..tensors, 0..N);
            self.0
                .extend(places.flat_map(|place| buffers.clone().map(move |buffer| Occupied { range, place, buffer })));
        }
        for one in &mut self.0 {
            one.range = ranges(one.place)[one.buffer];
        }
        self.0.sort_unstable_by_key(|one| one.range.0);
        // Of the buffers before this one: the one that reaches furthest, and the written one that does.
        let (mut furthest, mut furthest_written) = (None, None);
        for one in self.0.iter().filter(|one| one.range.0 < one.range.1) {
            let written = one.buffer != GRADIENT;
            let before: Option<Occupied> = if written { furthest } else { furthest_written };
            if let Some(before) = before.filter(|before| before.range.1 > one.range.0) {
                return Some((before, *one));
            }
            let further = |than: Option<Occupied>| than.is_none_or(|than| than.range.1 < one.range.1);
            if further(furthest) {
                furthest = Some(*one);
            }
            if written && further(furthest_written) {
                furthest_written = Some(*one);
            }
        }
        None
    }

    /// The first buffer that is written and overlaps this range, which is no buffer's.
    pub fn writing(&self, range: Range) -> Option<Occupied> {
        self.0.iter().copied().find(|one| one.buffer != GRADIENT && overlaps(one.range, range))
    }

    /// The first buffer that overlaps this range, which is no buffer's.
    pub fn overlapping(&self, range: Range) -> Option<Occupied> {
        self.0.iter().copied().find(|one| overlaps(one.range, range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap(tensors: &[[Range; 3]]) -> Option<[(usize, usize); 2]> {
        let found = Sorted::default().overlap(tensors.len(), |place| tensors[place])?;
        Some([(found.0.place, found.0.buffer), (found.1.place, found.1.buffer)])
    }

    #[test]
    fn what_is_written_may_not_overlap() {
        let apart = [[(0, 4), (4, 8), (0, 0)], [(100, 104), (96, 100), (8, 10)]];
        assert_eq!(overlap(&apart), None);
        // Two gradients may be one.
        assert_eq!(overlap(&[[(0, 4), (4, 8), (0, 0)], [(100, 104), (4, 8), (0, 0)]]), None);
        assert_eq!(overlap(&[[(0, 4), (3, 7), (0, 0)]]), Some([(0, 0), (0, 1)]));
        assert_eq!(overlap(&[[(50, 60), (20, 30), (0, 0)], [(0, 10), (59, 69), (9, 11)]]), Some([(1, 0), (1, 2)]));
        // Within a long gradient, behind a short one.
        assert_eq!(overlap(&[[(0, 0), (0, 100), (0, 0)], [(50, 52), (10, 12), (0, 0)]]), Some([(0, 1), (1, 0)]));
        // Within long parameters, behind a gradient elsewhere.
        assert_eq!(overlap(&[[(0, 100), (200, 300), (0, 0)], [(110, 112), (90, 92), (0, 0)]]), Some([(0, 0), (1, 1)]));
        assert_eq!(overlap(&[]), None);
    }

    #[test]
    fn the_order_of_the_last_step_does_no_harm() {
        let mut sorted = Sorted::default();
        let up = |place: usize| [(10 * place, 10 * place + 5), (1000 + place, 1001 + place), (0, 0)];
        let down = |place: usize| up(9 - place);
        assert!(sorted.overlap(10, up).is_none() && sorted.overlap(10, down).is_none());
        assert!(sorted.overlap(4, up).is_none() && sorted.overlapping((34, 36)).is_some());
        assert!(sorted.writing((34, 36)).is_some() && sorted.writing((35, 40)).is_none());
        // A gradient is not written.
        assert!(sorted.overlapping((1000, 1001)).is_some() && sorted.writing((1000, 1001)).is_none());
        assert!(sorted.overlap(4, |place| [(place, place + 2), (0, 0), (0, 0)]).is_some());
    }
}
