//! Which backend to use, from what was measured.

use koala_measure::statistics::geometric_mean;

use super::record::{Advice, NOISE_BOUND, Part, Pass, is_noisy};

/// So large a part of the figures may be noisy.
const TOLERABLE: f64 = 0.25;

/// Compares the backends by the whole step of f32 tensors with one thread, over all sizes.
pub(super) fn advise(passes: &[Pass]) -> Advice {
    let counts = |pass: &&Pass| {
        let kind = &pass.kind;
        pass.part == Part::Step && pass.threads == 1 && kind.parameters == "f32" && kind.state == "f32"
    };
    let mut backends: Vec<(&str, f64)> = Vec::new();
    for pass in passes.iter().filter(counts) {
        if backends.iter().all(|(backend, _)| *backend != pass.backend) {
            let of_this = passes.iter().filter(counts).filter(|other| other.backend == pass.backend);
            let times: Vec<f64> = of_this.map(|pass| pass.time.nanoseconds).collect();
            backends.push((&pass.backend, geometric_mean(&times)));
        }
    }
    backends.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    let (backend, best) = backends.first().copied().unwrap_or(("", f64::NAN));
    Advice {
        backend: backend.to_owned(),
        slower_by: backends.iter().skip(1).map(|(name, time)| ((*name).to_owned(), time / best)).collect(),
        noise: noise(passes),
    }
}

fn noise(passes: &[Pass]) -> Option<String> {
    let noisy = passes.iter().filter(|pass| is_noisy(pass.time.spread)).count();
    (noisy as f64 > TOLERABLE * passes.len() as f64).then(|| {
        let bound = NOISE_BOUND * 100.0;
        format!("{noisy} of {} times have quartiles that are more than {bound:.0} % apart", passes.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Figure, Kind};

    fn step(backend: &str, parameters: usize, nanoseconds: f64, spread: f64) -> Pass {
        Pass {
            backend: backend.to_owned(),
            kind: Kind { parameters: "f32".to_owned(), state: "f32".to_owned(), weight_decay: true },
            part: Part::Step,
            parameters,
            threads: 1,
            bytes_per_parameter: 44.0,
            time: Figure { nanoseconds, spread, rounds: 9 },
            share_of_limit: None,
            share_spread: None,
            from_outside: None,
        }
    }

    #[test]
    fn the_fastest_over_all_sizes_is_advised() {
        let mut passes = vec![
            step("scalar", 64, 400.0, 0.1),
            step("avx2", 64, 100.0, 0.1),
            step("scalar", 1024, 1000.0, 0.1),
            step("avx2", 1024, 1000.0, 0.3),
        ];
        // What a step of other types or with more threads takes does not count.
        passes.push(Pass { threads: 2, ..step("scalar", 64, 1.0, 0.0) });
        let advice = advise(&passes);
        assert_eq!((&*advice.backend, advice.noise), ("avx2", None));
        assert_eq!(advice.slower_by.len(), 1);
        assert!(advice.slower_by[0].0 == "scalar" && (advice.slower_by[0].1 - 2.0).abs() < 1e-12);
    }

    #[test]
    fn noise_is_said() {
        let noise = advise(&[step("avx2", 64, 100.0, 0.3), step("avx2", 256, 100.0, 0.1)]).noise;
        assert_eq!(noise.as_deref(), Some("1 of 2 times have quartiles that are more than 25 % apart"));
        assert!(advise(&[]).noise.is_none());
    }
}
