//! How far a step can take the elements of a tensor from zero, as its scalars show it: what is finite must not become
//! infinite by a step. Nearly always the scalars alone show that it does not. Where they do not, pass 2 is tried on
//! copies before anything is written, in `step/overflow.rs`.
//!
//! What is taken for granted of what no dot measures, [`contract`](crate::contract) says.

use crate::types::element::{Element, ElementType};

/// Squares of bounds: dots are squares too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Of an element of the new state; of what it moves by, where it moves by something.
    pub state_squared: f64,
    /// Of what is subtracted from a parameter.
    pub step_squared: f64,
}

impl Reach {
    /// Nothing is known.
    pub const UNKNOWN: Reach = Reach { state_squared: f64::NAN, step_squared: f64::NAN };

    #[inline(always)]
    pub fn is_within(self, room: Room) -> bool {
        self.state_squared <= room.state_squared && self.step_squared <= room.step_squared
    }
}

/// Up to where a step may reach and nobody looks at the elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    state_squared: f64,
    step_squared: f64,
}

impl Room {
    /// All that a float64 can hold: for a caller who has no elements to look at.
    pub const ENDLESS: Room = Room { state_squared: f64::INFINITY, step_squared: f64::INFINITY };

    /// That of parameters and state of those types.
    #[inline(always)]
    pub const fn of<P: Element, S: Element>() -> Room {
        const { Room { state_squared: room_squared(S::TYPE), step_squared: room_squared(P::TYPE) } }
    }
}

/// A quarter of the type's largest number, squared: with what was there before, at most half of it, and with the rounding
/// of all bounds, that is below the largest.
const fn room_squared(of: ElementType) -> f64 {
    let room = of.largest() / 4.0;
    let squared = room * room;
    if squared < f64::MAX { squared } else { f64::MAX }
}
