//! Which line is which: its colour, its mark, its name.

use maud::{Markup, html};

use super::plot::{Point, Series};
use super::view::{distinct, mark};

/// The lines of some panels and what they are.
pub(crate) fn legend<'a>(series: impl Iterator<Item = &'a Series>) -> Markup {
    let drawn = series.filter(|series| series.points.iter().any(Point::is_drawn));
    html! {
        ul class="legend" {
            @for (name, look) in distinct(drawn.map(|series| (&series.name, series.look))) {
                li {
                    svg viewBox="0 0 30 12" aria-hidden="true" {
                        path class=(format!("line {}", look.class)) d="M1 6H29" {}
                        g class=(format!("point {}", look.class)) { path d=(mark(look.mark, 15.0, 6.0)) {} }
                    }
                    (name)
                }
            }
        }
    }
}
