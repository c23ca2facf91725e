//! Memory to stream through: aligned to a cache line, and each stream on a different one within its page.

use bytemuck::Pod;

/// A cache line.
pub(crate) const LINE: usize = 64;

/// Streams that are a multiple of 4096 bytes apart get into each other's way in the first cache. So each one starts this
/// much further into its memory than the one before.
const APART: usize = 17 * LINE;

/// A vector that starts on a cache line.
pub(crate) struct Stream<T> {
    elements: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Pod> Stream<T> {
    /// The stream of that number, from 0, among those that are walked together.
    pub fn new(number: usize, length: usize, value: impl Fn(usize) -> T) -> Self {
        // Zeroed memory comes from the system untouched: the loop below is the only one over it.
        let mut elements = bytemuck::zeroed_vec::<T>(length + (LINE + number * APART) / size_of::<T>());
        let start = elements.as_ptr().align_offset(LINE) + number * APART / size_of::<T>();
        for (i, element) in elements[start..start + length].iter_mut().enumerate() {
            *element = value(i);
        }
        Stream { elements, start, length }
    }

    pub fn get(&self) -> &[T] {
        &self.elements[self.start..self.start + self.length]
    }

    pub fn get_mut(&mut self) -> &mut [T] {
        &mut self.elements[self.start..self.start + self.length]
    }
}

/// Numbers of a size that tells no backend anything: `scale` times a saw tooth of that period, about zero.
pub fn saw_tooth(scale: f64, period: usize) -> impl Fn(usize) -> f64 {
    move |i| scale * ((i % period) as f64 - 0.5 * period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_starts_on_a_line_of_its_own() {
        let streams: Vec<_> = (0..4).map(|number| Stream::<u16>::new(number, 5000, |i| i as u16)).collect();
        for stream in &streams {
            assert_eq!(stream.get().as_ptr().addr() % LINE, 0);
            assert!(stream.get().iter().enumerate().all(|(i, &element)| element == i as u16));
        }
    }
}
