//! One tensor of a thousand million parameters: whether a step costs as much per parameter as that of a shorter one, and
//! whether the process holds more memory than the tensor's vectors.

use koala_measure::statistics::{median, ratios};
use koala_measure::{Budget, Contender, Tensor, Workload, rounds};
use koala_optim::Backend;

use super::passes::figure;
use super::record::Long;
use crate::processor;

/// Measures a tensor and a longer one.
pub(super) fn measure([shorter, long]: [Tensor; 2], backend: Backend, budget: Budget) -> Long {
    let resident = || processor::resident().unwrap_or(0);
    let mut workloads: Vec<Box<dyn Workload>> = vec![shorter.workload()];
    let before = resident();
    workloads.push(long.workload());
    let contender = |i: usize| Contender::new(move |w: &mut Vec<Box<dyn Workload>>| w[i].step(backend));
    let times = rounds(&mut workloads, vec![contender(0), contender(1)], budget);
    let resident_bytes = resident().saturating_sub(before);
    Long {
        backend: backend.name().to_owned(),
        parameters: long.length,
        time: figure(&times[1]),
        shorter_parameters: shorter.length,
        shorter_time: figure(&times[0]),
        ratio: median(&ratios(&times[1], &times[0])) * shorter.length as f64 / long.length as f64,
        vectors_bytes: long.bytes() as u64,
        resident_bytes,
    }
}
