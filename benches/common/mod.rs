//! What the benches share: the streaming limit (the same streams, no arithmetic) and a tensor to step.
#![allow(dead_code, missing_docs)]

use std::hint::black_box;

use koala_optim::kernel::{Buffers, Measurement, Plan, Scalars, Step, apply, dots, plan, step};
use koala_optim::{Backend, Settings};
use pulp::{Simd, WithSimd};

/// One tensor of f32 with its state, all of it aligned to a cache line.
pub struct Workload {
    pub gradient: Aligned,
    pub parameters: Aligned,
    pub h: Aligned,
    pub v: Aligned,
    pub scalars: Scalars,
    pub step: Step,
    pub plan: Plan,
}

/// A vector that starts on a cache line, a different one in each stream: streams that are a multiple of 4096 bytes
/// apart get into each other's way in the first cache.
pub struct Aligned(Vec<f32>, usize, usize);

impl Aligned {
    fn new(stream: usize, length: usize, value: impl Fn(usize) -> f32) -> Self {
        let mut elements = vec![0.0; length + 16 + 64 * 16];
        let offset = elements.as_ptr().align_offset(64) + stream * 17 * 16;
        for (i, element) in elements[offset..offset + length].iter_mut().enumerate() {
            *element = value(i);
        }
        Aligned(elements, offset, length)
    }

    pub fn get(&self) -> &[f32] {
        &self.0[self.1..self.1 + self.2]
    }

    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.0[self.1..self.1 + self.2]
    }
}

impl Workload {
    pub fn new(length: usize, weight_decay: f64) -> Self {
        let wave = |scale: f32, period: usize| move |i: usize| scale * ((i % period) as f32 - 0.5 * period as f32);
        // A tiny learning rate and no noise keep the numbers where they are, however often the step is repeated.
        let settings = Settings { learning_rate: 1e-9, weight_decay, process_noise: 1e-3, ..Settings::default() };
        let step = Step { settings, ..Step::new(Measurement { loss: 1.0, noise: 1.0 }) };
        let mut workload = Workload {
            gradient: Aligned::new(0, length, wave(1e-4, 251)),
            parameters: Aligned::new(1, length, wave(1e-3, 241)),
            h: Aligned::new(2, length, |_| 0.0),
            v: Aligned::new(3, length, |_| 0.0),
            scalars: Scalars::default(),
            step,
            plan: Plan::default(),
        };
        workload.step(Backend::detect());
        let found = workload.dots(Backend::detect());
        workload.plan = plan::<f32>(&workload.step, &found, &workload.scalars).unwrap();
        workload
    }

    fn buffers(&mut self) -> Buffers<'_, f32, f32> {
        Buffers {
            parameters: self.parameters.get_mut(),
            gradient: self.gradient.get(),
            v: self.v.get_mut(),
            h: self.h.get_mut(),
            copy: None,
        }
    }

    /// Pass 1.
    pub fn dots(&mut self, backend: Backend) -> koala_optim::kernel::Dots {
        let (weight_decay, scalars) = (self.step.settings.weight_decay, self.scalars);
        dots(backend, weight_decay, &self.buffers(), &scalars).unwrap()
    }

    /// Pass 2.
    pub fn apply(&mut self, backend: Backend) {
        let (plan, mut scalars) = (self.plan, self.scalars);
        apply(backend, &plan, self.buffers(), &mut scalars).unwrap();
    }

    /// The whole step.
    pub fn step(&mut self, backend: Backend) {
        let (settings, mut scalars) = (Step { backend, ..self.step }, self.scalars);
        let report = step(&settings, self.buffers(), &mut scalars).unwrap();
        assert!(report.outcome.is_step());
        self.scalars = scalars;
    }

    /// Reads what pass 1 reads.
    pub fn read_limit(&self, width: pulp::Arch) {
        let parameters = if self.step.settings.weight_decay == 0.0 { &[] } else { self.parameters.get() };
        width.dispatch(ReadLimit([self.gradient.get(), parameters, self.h.get(), self.v.get()]));
    }

    /// Reads and writes what pass 2 reads and writes, and changes nothing.
    pub fn update_limit(&mut self, width: pulp::Arch) {
        width.dispatch(UpdateLimit {
            gradient: self.gradient.get(),
            parameters: self.parameters.get_mut(),
            h: self.h.get_mut(),
            v: self.v.get_mut(),
        });
    }
}

/// The vector widths of this processor: which of them streams fastest depends on the size.
pub fn widths() -> Vec<pulp::Arch> {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = pulp::x86::V3::try_new().map(pulp::Arch::V3);
        let v4 = pulp::x86::V4::try_new().map(pulp::Arch::V4);
        let found: Vec<_> = v3.into_iter().chain(v4).collect();
        if !found.is_empty() {
            return found;
        }
    }
    vec![pulp::Arch::new()]
}

struct ReadLimit<'a>([&'a [f32]; 4]);

impl WithSimd for ReadLimit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Or-ing is what a load costs at least: something has to depend on it.
        let [gradient, parameters, h, v] = self.0.map(|stream| bits::<S>(stream));
        let mut seen = [simd.splat_u32s(0); 8];
        if parameters.is_empty() {
            let streams = gradient.as_chunks::<2>().0.iter().zip(h.as_chunks::<2>().0).zip(v.as_chunks::<2>().0);
            for ((gradient, h), v) in streams {
                for i in 0..2 {
                    seen[i] = simd.or_u32s(seen[i], gradient[i]);
                    seen[2 + i] = simd.or_u32s(seen[2 + i], h[i]);
                    seen[4 + i] = simd.or_u32s(seen[4 + i], v[i]);
                }
            }
        } else {
            let left = gradient.as_chunks::<2>().0.iter().zip(parameters.as_chunks::<2>().0);
            let right = h.as_chunks::<2>().0.iter().zip(v.as_chunks::<2>().0);
            for ((gradient, parameters), (h, v)) in left.zip(right) {
                for i in 0..2 {
                    seen[i] = simd.or_u32s(seen[i], gradient[i]);
                    seen[2 + i] = simd.or_u32s(seen[2 + i], parameters[i]);
                    seen[4 + i] = simd.or_u32s(seen[4 + i], h[i]);
                    seen[6 + i] = simd.or_u32s(seen[6 + i], v[i]);
                }
            }
        }
        black_box(seen);
    }
}

struct UpdateLimit<'a> {
    gradient: &'a [f32],
    parameters: &'a mut [f32],
    h: &'a mut [f32],
    v: &'a mut [f32],
}

impl WithSimd for UpdateLimit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // The compiler can't know that nothing changes.
        let zero = black_box(simd.splat_u32s(0));
        let (parameters, h, v) = (bits_mut::<S>(self.parameters), bits_mut::<S>(self.h), bits_mut::<S>(self.v));
        for (((gradient, parameters), h), v) in bits::<S>(self.gradient).iter().zip(parameters).zip(h).zip(v) {
            *h = simd.xor_u32s(*h, simd.and_u32s(*gradient, zero));
            *parameters = simd.xor_u32s(*parameters, zero);
            *v = simd.xor_u32s(*v, zero);
        }
    }
}

#[inline(always)]
fn bits<S: Simd>(stream: &[f32]) -> &[S::u32s] {
    S::as_simd_u32s(bytemuck::cast_slice(stream)).0
}

#[inline(always)]
fn bits_mut<S: Simd>(stream: &mut [f32]) -> &mut [S::u32s] {
    S::as_mut_simd_u32s(bytemuck::cast_slice_mut(stream)).0
}
