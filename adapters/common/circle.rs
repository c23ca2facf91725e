//! The task of the examples with networks: which of 128 points are inside of a circle?

pub const POINTS: usize = 128;

/// Points of a square from -1 to 1, and for each whether it is inside: 1 or 0.
pub fn points() -> (Vec<[f32; 2]>, Vec<f32>) {
    let points: Vec<[f32; 2]> = (0..POINTS).map(|i| [spread(i, 0.618_034), spread(i, 0.754_878)]).collect();
    let inside = points.iter().map(|[x, y]| f32::from(x * x + y * y < 0.6)).collect();
    (points, inside)
}

/// From -1 to 1, evenly: the coordinates, and what a network begins with.
pub fn spread(i: usize, ratio: f32) -> f32 {
    2.0 * ((i + 1) as f32 * ratio).fract() - 1.0
}

/// Whether so many right ones are enough.
pub fn judged(right: usize) -> Result<(), Box<dyn std::error::Error>> {
    if right * 100 >= POINTS * 90 { Ok(()) } else { Err("fewer than 90 % of the points are right".into()) }
}
