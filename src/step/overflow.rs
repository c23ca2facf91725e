//! What a step must not do: make a finite element infinite. It is tried on copies, and the policy says what follows.

use crate::dispatch::Backend;
use crate::methods::plan::{Plan, Trouble};
use crate::passes::staging::part;
use crate::simd::vector::Operand;
use crate::step::apply::staged_update;
use crate::step::buffers::Buffers;
use crate::types::contract::BLOCK;
use crate::types::element::Element;

/// The first element that pass 2 would make infinite, or NaN: found on copies, so that nothing is written. Where a
/// parameter is not finite before it, that stays the caller's.
#[cold]
#[inline(never)]
pub(crate) fn overflow<P: Operand, S: Element>(
    backend: Backend,
    plan: &Plan,
    buffers: &Buffers<'_, P, S>,
) -> Option<Trouble> {
    let (mut of_parameters, mut of_v, mut of_h) = ([P::zeroed(); BLOCK], [S::zeroed(); BLOCK], [S::zeroed(); BLOCK]);
    let length = buffers.parameters.len();
    for start in (0..length).step_by(BLOCK) {
        let range = start..(start + BLOCK).min(length);
        let old = &buffers.parameters[range.clone()];
        let parameters = copied(old, &mut of_parameters);
        let v = copied(part(buffers.v, &range), &mut of_v);
        let h = copied(part(buffers.h, &range), &mut of_h);
        let gradient = &buffers.gradient[range];
        let block = Buffers { parameters: &mut *parameters, gradient, v: &mut *v, h: &mut *h, copy: None };
        staged_update(backend, false, plan, block);
        for place in (0..old.len()).filter(|place| old[*place].to_f64().is_finite()) {
            let state = [v.get(place), h.get(place)].into_iter().flatten().map(|new| new.to_f64());
            let named = state.map(|new| ("an element of the new state", new));
            let parameter = ("an element of the new parameters", parameters[place].to_f64());
            let mut all = named.chain([parameter]);
            if let Some((quantity, value)) = all.find(|(_, new)| !new.is_finite()) {
                return Some(Trouble { quantity, value });
            }
        }
    }
    None
}

/// A copy of at most a block.
fn copied<'b, T: Copy>(elements: &[T], block: &'b mut [T; BLOCK]) -> &'b mut [T] {
    let block = &mut block[..elements.len()];
    block.copy_from_slice(elements);
    block
}
