//! The streaming limits: the streams of a pass without its arithmetic, in every vector width of the processor. Which of
//! them streams fastest depends on the size.

use std::hint::black_box;

use bytemuck::Pod;
use pulp::{Simd, WithSimd};

/// A vector width of this processor.
#[derive(Clone, Copy, Debug)]
pub struct Width(pub(crate) pulp::Arch);

/// Those of this processor, the narrowest first.
pub fn widths() -> Vec<Width> {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = pulp::x86::V3::try_new().map(pulp::Arch::V3);
        let v4 = pulp::x86::V4::try_new().map(pulp::Arch::V4);
        let found: Vec<_> = v3.into_iter().chain(v4).map(Width).collect();
        if !found.is_empty() {
            return found;
        }
    }
    vec![Width(pulp::Arch::new())]
}

/// Where to divide what `parts` threads share: for the first half of them, on a boundary of a cache line.
fn middle(length: usize, parts: usize) -> usize {
    length / parts * (parts / 2) / 64 * 64
}

/// Reads. The second stream of the parameters' type may be empty.
pub(crate) fn read<P: Pod + Sync, S: Pod + Sync>(width: Width, parts: usize, [g, t]: [&[P]; 2], [h, v]: [&[S]; 2]) {
    if parts > 1 {
        let middle = middle(g.len(), parts);
        let (g, t) = (g.split_at(middle), t.split_at(middle.min(t.len())));
        let (h, v) = (h.split_at(middle), v.split_at(middle));
        rayon::join(
            || read(width, parts / 2, [g.0, t.0], [h.0, v.0]),
            || read(width, parts - parts / 2, [g.1, t.1], [h.1, v.1]),
        );
        return;
    }
    let (parameters, state) = ([words(g), words(t)], [words(h), words(v)]);
    match (size_of::<P>(), size_of::<S>()) {
        (p, s) if p == s => width.0.dispatch(Read::<2, 2> { parameters, state }),
        (p, s) if p == 2 * s => width.0.dispatch(Read::<2, 1> { parameters, state }),
        (p, s) if p == 4 * s => width.0.dispatch(Read::<4, 1> { parameters, state }),
        (p, s) if p * 2 == s => width.0.dispatch(Read::<1, 2> { parameters, state }),
        sizes => unreachable!("no tensor has elements of {sizes:?} bytes"),
    }
}

/// Reads the first stream, reads and writes the others.
pub(crate) fn update<P: Pod + Send + Sync, S: Pod + Send>(
    width: Width,
    parts: usize,
    g: &[P],
    t: &mut [P],
    [h, v]: [&mut [S]; 2],
) {
    if parts > 1 {
        let middle = middle(g.len(), parts);
        let (g, t) = (g.split_at(middle), t.split_at_mut(middle));
        let (h, v) = (h.split_at_mut(middle), v.split_at_mut(middle));
        rayon::join(
            || update(width, parts / 2, g.0, t.0, [h.0, v.0]),
            || update(width, parts - parts / 2, g.1, t.1, [h.1, v.1]),
        );
        return;
    }
    let (gradient, parameters, state) = (words(g), words_mut(t), [words_mut(h), words_mut(v)]);
    match (size_of::<P>(), size_of::<S>()) {
        (p, s) if p == s => width.0.dispatch(Update::<1, 1> { gradient, parameters, state }),
        (p, s) if p == 2 * s => width.0.dispatch(Update::<2, 1> { gradient, parameters, state }),
        (p, s) if p == 4 * s => width.0.dispatch(Update::<4, 1> { gradient, parameters, state }),
        (p, s) if p * 2 == s => width.0.dispatch(Update::<1, 2> { gradient, parameters, state }),
        sizes => unreachable!("no tensor has elements of {sizes:?} bytes"),
    }
}

/// The whole words of a stream.
fn words<T: Pod>(stream: &[T]) -> &[u32] {
    bytemuck::pod_align_to(stream).1
}

fn words_mut<T: Pod>(stream: &mut [T]) -> &mut [u32] {
    bytemuck::pod_align_to_mut(stream).1
}

/// So many vectors at a time of the streams of the parameters' type, and of the state's.
struct Read<'a, const P: usize, const S: usize> {
    parameters: [&'a [u32]; 2],
    state: [&'a [u32]; 2],
}

impl<const P: usize, const S: usize> WithSimd for Read<'_, P, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<I: Simd>(self, simd: I) {
        // Or-ing is what a load costs at least: something has to depend on it.
        let [g, t] = self.parameters.map(rows::<I, P>);
        let [h, v] = self.state.map(rows::<I, S>);
        let mut of_parameters = [[simd.splat_u32s(0); P]; 2];
        let mut of_state = [[simd.splat_u32s(0); S]; 2];
        if t.is_empty() {
            for ((g, h), v) in g.iter().zip(h).zip(v) {
                or(simd, &mut of_parameters[0], g);
                or(simd, &mut of_state[0], h);
                or(simd, &mut of_state[1], v);
            }
        } else {
            for (((g, t), h), v) in g.iter().zip(t).zip(h).zip(v) {
                or(simd, &mut of_parameters[0], g);
                or(simd, &mut of_parameters[1], t);
                or(simd, &mut of_state[0], h);
                or(simd, &mut of_state[1], v);
            }
        }
        black_box((of_parameters, of_state));
    }
}

/// Likewise.
struct Update<'a, const P: usize, const S: usize> {
    gradient: &'a [u32],
    parameters: &'a mut [u32],
    state: [&'a mut [u32]; 2],
}

/// So many such rows of vectors at a time, or the loop itself would be the limit.
const UNROLLED: usize = 4;

impl<const P: usize, const S: usize> WithSimd for Update<'_, P, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<I: Simd>(self, simd: I) {
        // The compiler can't know that nothing changes.
        let zero = black_box(simd.splat_u32s(0));
        let (g, g_rest) = rows::<I, P>(self.gradient).as_chunks::<UNROLLED>();
        let (t, t_rest) = rows_mut::<I, P>(self.parameters).as_chunks_mut::<UNROLLED>();
        let [(h, h_rest), (v, v_rest)] = self.state.map(|s| rows_mut::<I, S>(s).as_chunks_mut::<UNROLLED>());
        for (((g, t), h), v) in g.iter().zip(t).zip(h).zip(v) {
            rewrite(simd, zero, g, t, h, v);
        }
        rewrite(simd, zero, g_rest, t_rest, h_rest, v_rest);
    }
}

#[inline(always)]
fn rewrite<I: Simd, const P: usize, const S: usize>(
    simd: I,
    zero: I::u32s,
    g: &[[I::u32s; P]],
    t: &mut [[I::u32s; P]],
    h: &mut [[I::u32s; S]],
    v: &mut [[I::u32s; S]],
) {
    for (t, g) in t.as_flattened_mut().iter_mut().zip(g.as_flattened()) {
        *t = simd.xor_u32s(*t, simd.and_u32s(*g, zero));
    }
    for state in [h, v] {
        for state in state.as_flattened_mut() {
            *state = simd.xor_u32s(*state, zero);
        }
    }
}

#[inline(always)]
fn or<I: Simd, const N: usize>(simd: I, seen: &mut [I::u32s; N], row: &[I::u32s; N]) {
    for i in 0..N {
        seen[i] = simd.or_u32s(seen[i], row[i]);
    }
}

#[inline(always)]
fn rows<I: Simd, const N: usize>(words: &[u32]) -> &[[I::u32s; N]] {
    I::as_simd_u32s(words).0.as_chunks().0
}

#[inline(always)]
fn rows_mut<I: Simd, const N: usize>(words: &mut [u32]) -> &mut [[I::u32s; N]] {
    I::as_mut_simd_u32s(words).0.as_chunks_mut().0
}
