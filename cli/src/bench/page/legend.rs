//! Which line is which: its colour, its mark, its name.

use maud::{Markup, html};

use super::plot::{Point, Series};
use super::view::{Mark, distinct};

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

/// The outline of a mark around a point.
pub(crate) fn mark(mark: Mark, x: f64, y: f64) -> String {
    let start = |dx: f64, dy: f64| format!("M{:.1} {:.1}", x + dx, y + dy);
    match mark {
        Mark::Circle => start(-3.5, 0.0) + "a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z",
        Mark::Square => start(-3.0, -3.0) + "h6v6h-6Z",
        Mark::Triangle => start(0.0, -4.0) + "l4 7h-8Z",
        Mark::Diamond => start(0.0, -4.5) + "l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
        Mark::Cross => start(-1.5, -4.5) + "h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    }
}
