//! Records to test with, made up: a server of two threads, a laptop of another architecture, and one with nothing.

use super::super::record::{
    Advice, Cache, Figure, Kind, Limit, Long, Model, Part, Pass, Processor, Record, SCHEMA, Small,
};
use super::view::footprint;

/// What a made-up machine reaches: GB/s by level, and each backend's most, in elements per nanosecond.
struct Machine {
    processor: Processor,
    bandwidths: [f64; 4],
    backends: &'static [(&'static str, f64)],
}

/// Two cores, AVX-512, and a server's memory.
pub(crate) fn server() -> Record {
    let caches = [(1, 32 << 10, Some(1)), (2, 1 << 20, Some(1)), (3, 32 << 20, Some(2))];
    Machine {
        processor: processor(
            "AMD EPYC 9R14 Processor",
            "x86_64",
            2,
            "sse2 avx f16c fma avx2 avx512f avx512dq",
            &caches,
        ),
        bandwidths: [230.0, 120.0, 62.0, 26.0],
        backends: &[("scalar", 0.9), ("portable", 6.0), ("avx2", 11.5), ("avx512", 15.0)],
    }
    .record()
}

/// Eight cores, 128-bit vectors, two levels of cache.
pub(crate) fn laptop() -> Record {
    let caches = [(1, 128 << 10, None), (2, 12 << 20, Some(4))];
    Machine {
        processor: processor("Apple M2 <& friends>", "aarch64", 8, "neon fp16 bf16", &caches),
        bandwidths: [190.0, 105.0, 70.0, 70.0],
        backends: &[("scalar", 1.4), ("portable", 9.0), ("neon", 9.8)],
    }
    .record()
}

/// No figure at all.
pub(crate) fn empty() -> Record {
    Record {
        schema: SCHEMA.to_owned(),
        version: String::new(),
        date: String::new(),
        quick: true,
        seconds: 0.0,
        processor: processor("", "", 0, "", &[]),
        limits: Vec::new(),
        passes: Vec::new(),
        small: Vec::new(),
        models: Vec::new(),
        long: None,
        left_out: Vec::new(),
        advice: Advice { backend: String::new(), slower_by: Vec::new(), noise: None },
    }
}

fn processor(
    name: &str,
    architecture: &str,
    threads: usize,
    features: &str,
    caches: &[(u8, u64, Option<usize>)],
) -> Processor {
    Processor {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
        threads,
        features: features.split_whitespace().map(str::to_owned).collect(),
        caches: caches.iter().map(|&(level, bytes, shared_by)| Cache { level, bytes, shared_by }).collect(),
        memory_bytes: if threads == 0 { 0 } else { 16 << 30 },
    }
}

/// A spread that looks like one, and is too large now and then.
fn figure(nanoseconds: f64) -> Figure {
    let wave = (nanoseconds * 7919.0).sin().abs();
    Figure { nanoseconds, spread: if wave > 0.995 { 0.4 } else { 0.02 + 0.08 * wave }, rounds: 41 }
}

impl Machine {
    /// The nanoseconds of the limit.
    fn limit(&self, kind: &Kind, parameters: usize, bytes: f64, threads: usize) -> f64 {
        let filled = footprint(kind).unwrap_or(16.0) * parameters as f64;
        let caches = &self.processor.caches;
        let level = caches.iter().position(|cache| 0.8 * cache.bytes as f64 >= filled).unwrap_or(caches.len());
        let gain = if level >= caches.len() { 1.4 } else { 0.95 * threads as f64 };
        let gain = if threads == 1 { 1.0 } else { gain };
        4.0 + if threads == 1 { 0.0 } else { 2500.0 } + bytes * parameters as f64 / (self.bandwidths[level] * gain)
    }

    fn record(self) -> Record {
        let mut record = Record { quick: false, seconds: 312.4, ..empty() };
        (record.version, record.date) = ("0.1.0".to_owned(), "2026-11-24T08:17:13Z".to_owned());
        let (best, most) = *self.backends.last().expect("a machine has backends");
        let kinds = [
            ("f32", "f32", true),
            ("f32", "f32", false),
            ("f64", "f64", true),
            ("bf16", "bf16", true),
            ("f16", "f16", true),
            ("f32", "bf16", true),
        ];
        for (parameters, state, weight_decay) in kinds {
            let kind = Kind { parameters: parameters.to_owned(), state: state.to_owned(), weight_decay };
            for threads in [1, self.processor.threads] {
                for power in (6..=26).step_by(2).filter(|power| threads == 1 || *power >= 14) {
                    self.measure(&mut record, &kind, 1 << power, threads);
                }
            }
        }
        for parameters in [1, 16, 17, 64, 256, 1000] {
            for (backend, speed) in self.backends {
                let alone = 28.0 + 2.5 * parameters as f64 / speed;
                let small = |alone, in_model| Small { backend: (*backend).to_owned(), parameters, alone, in_model };
                record.small.push(small(figure(alone), figure(1.4 * alone + 35.0)));
            }
        }
        for (name, tensors, parameters) in [("ResNet-50", 161, 25_557_032), ("GPT-2 small", 148, 124_439_808)] {
            for threads in [1, self.processor.threads] {
                self.model(&mut record, (name, tensors, parameters), threads, best);
            }
        }
        let others = self.backends.iter().rev().skip(1);
        let slower_by = others.map(|(name, speed)| ((*name).to_owned(), (most / speed).powf(0.6))).collect();
        record.advice = Advice { backend: best.to_owned(), slower_by, noise: None };
        record.long = Some(Long {
            backend: best.to_owned(),
            parameters: 1_000_000_000,
            time: figure(1.74e9),
            shorter_parameters: 1 << 26,
            shorter_time: figure(1.16e8),
            ratio: 1.007,
            vectors_bytes: 16_000_000_000,
            resident_bytes: 16_001_000_000,
        });
        record.left_out = vec!["Llama 2 7B, 6738.4 million parameters: too little memory".to_owned()];
        record.processor = self.processor;
        record
    }

    fn measure(&self, record: &mut Record, kind: &Kind, parameters: usize, threads: usize) {
        let one = footprint(kind).unwrap_or(16.0) / 4.0;
        let read = if kind.weight_decay { 4.0 * one } else { 3.0 * one };
        let parts = [(Part::Pass1, read, 12.0, 1.0), (Part::Pass2, 7.0 * one, 9.0, 0.8)];
        for (part, bytes_per_parameter, ..) in parts {
            let time = figure(self.limit(kind, parameters, bytes_per_parameter, threads));
            record.limits.push(Limit { kind: kind.clone(), part, parameters, threads, bytes_per_parameter, time });
        }
        for (backend, speed) in self.backends {
            let time = |(_, bytes, start, effort): (Part, f64, f64, f64)| {
                let alone = start + effort * parameters as f64 / (speed * threads as f64);
                let limit = self.limit(kind, parameters, bytes, threads);
                (alone.powi(4) + (1.02 * limit).powi(4)).powf(0.25)
            };
            let whole = (Part::Step, 11.0 * one, 0.0, 0.0);
            for part in parts.into_iter().chain([whole]) {
                let is_whole = part.0 == Part::Step;
                let nanoseconds = if is_whole { parts.into_iter().map(time).sum() } else { time(part) };
                let share = self.limit(kind, parameters, part.1, threads) / nanoseconds;
                record.passes.push(Pass {
                    backend: (*backend).to_owned(),
                    kind: kind.clone(),
                    part: part.0,
                    parameters,
                    threads,
                    bytes_per_parameter: part.1,
                    time: figure(nanoseconds),
                    share_of_limit: (!is_whole).then_some(share),
                    share_spread: (!is_whole).then_some(0.5 * figure(nanoseconds).spread),
                    from_outside: (is_whole && threads > 1).then(|| figure(1.05 * nanoseconds + 6000.0)),
                });
            }
        }
    }

    fn model(&self, record: &mut Record, model: (&str, usize, usize), threads: usize, backend: &str) {
        let bandwidth = self.bandwidths[3] * if threads == 1 { 1.0 } else { 1.4 };
        let rows = [
            ("AdamW-shaped pass", None, "f32", 28.0),
            ("KOALA++", Some(backend), "f32", 37.0),
            ("KOALA++", Some(backend), "bf16", 25.0),
        ];
        for (optimizer, backend, state, bytes) in rows {
            record.models.push(Model {
                name: model.0.to_owned(),
                tensors: model.1,
                parameters: model.2,
                optimizer: optimizer.to_owned(),
                backend: backend.map(str::to_owned),
                state: state.to_owned(),
                threads,
                time: figure(bytes * model.2 as f64 / bandwidth),
                ratio_to_adamw: Some(bytes / 28.0),
                ratio_spread: Some(0.03),
            });
        }
    }
}
