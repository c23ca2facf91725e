//! One tensor: both passes and the whole step on every backend, beside the streaming limits, with one thread and with
//! several.

use std::sync::Arc;

use anyhow::Result;
use koala_measure::statistics::{median, ratios, spread};
use koala_measure::{Budget, Contender, Tensor, Width, Workload, rounds, widths};
use koala_optim::{Backend, Optimizer, Threads};
use rayon::ThreadPool;

use super::record::{Figure, Kind, Limit, Part, Pass};

/// What the contenders share.
struct Context {
    workload: Box<dyn Workload>,
    /// With threads, one for each backend.
    optimizers: Vec<Optimizer>,
}

/// What a contender is measured for.
#[derive(Clone, Copy, PartialEq)]
enum Label {
    /// Of that part, with so many threads; there is one of these for each vector width.
    Limit(Part, usize),
    /// Of that part, on the backend of that number, with one thread.
    Pass(Part, usize),
    /// The step on the backend of that number, with all threads.
    Inside(usize),
    /// Likewise, by a caller who does not belong to the pool.
    Outside(usize),
}

pub(super) fn kind(tensor: &Tensor) -> Kind {
    let Tensor { parameters, state, .. } = tensor;
    Kind {
        parameters: parameters.to_string(),
        state: state.beside(*parameters).to_string(),
        weight_decay: tensor.decays(),
    }
}

pub(super) fn figure(times: &[f64]) -> Figure {
    Figure { nanoseconds: median(times), spread: spread(times), rounds: times.len() }
}

fn bytes_per_parameter(tensor: &Tensor, part: Part) -> f64 {
    let bytes = match part {
        Part::Pass1 => tensor.read_bytes(),
        Part::Pass2 => tensor.update_bytes(),
        Part::Step => tensor.read_bytes() + tensor.update_bytes(),
    };
    bytes as f64
}

fn stream(workload: &mut dyn Workload, part: Part, width: Width, parts: usize) {
    match part {
        Part::Pass1 => workload.read_limit(width, parts),
        Part::Pass2 | Part::Step => workload.update_limit(width, parts),
    }
}

fn run(workload: &mut dyn Workload, part: Part, backend: Backend) {
    match part {
        Part::Pass1 => drop(workload.dots(backend)),
        Part::Pass2 => workload.apply(backend),
        Part::Step => workload.step(backend),
    }
}

/// Measures all of it. Without a pool, with one thread only.
pub(super) fn measure(
    tensor: &Tensor,
    backends: &[Backend],
    pool: Option<&Arc<ThreadPool>>,
    budget: Budget,
) -> Result<(Vec<Limit>, Vec<Pass>)> {
    let mut context = Context { workload: tensor.workload(), optimizers: Vec::new() };
    let mut labels = Vec::new();
    let mut contenders: Vec<Contender<Context>> = Vec::new();
    let mut add = |label, contender| {
        labels.push(label);
        contenders.push(contender);
    };
    for part in [Part::Pass1, Part::Pass2] {
        for width in widths() {
            let call = move |parts| move |c: &mut Context| stream(&mut *c.workload, part, width, parts);
            add(Label::Limit(part, 1), Contender::new(call(1)));
            if let Some(pool) = pool {
                let threads = pool.current_num_threads();
                add(Label::Limit(part, threads), Contender::inside(pool, call(threads)));
            }
        }
    }
    for (i, &backend) in backends.iter().enumerate() {
        for part in [Part::Pass1, Part::Pass2, Part::Step] {
            add(Label::Pass(part, i), Contender::new(move |c: &mut Context| run(&mut *c.workload, part, backend)));
        }
        if let Some(pool) = pool {
            context.optimizers.push(tensor.optimizer(backend, Threads::Pool(pool.clone()))?);
            let call = move |c: &mut Context| c.workload.step_by(&mut c.optimizers[i]);
            add(Label::Inside(i), Contender::inside(pool, call));
            add(Label::Outside(i), Contender::new(call));
        }
    }
    let times = rounds(&mut context, contenders, budget);
    let measured = Measured { tensor, labels, times };
    Ok(measured.results(backends, pool.map(|pool| pool.current_num_threads())))
}

struct Measured<'a> {
    tensor: &'a Tensor,
    labels: Vec<Label>,
    times: Vec<Vec<f64>>,
}

impl Measured<'_> {
    /// The fastest of those with that label.
    fn times(&self, label: Label) -> &[f64] {
        let with_label = self.labels.iter().zip(&self.times).filter(|(other, _)| **other == label);
        let fastest = with_label.map(|(_, times)| times).min_by(|a, b| median(a).total_cmp(&median(b)));
        fastest.map_or(&[], |times| times)
    }

    fn results(&self, backends: &[Backend], threads: Option<usize>) -> (Vec<Limit>, Vec<Pass>) {
        let (mut limits, mut passes) = (Vec::new(), Vec::new());
        for threads in [1].into_iter().chain(threads) {
            for part in [Part::Pass1, Part::Pass2] {
                limits.push(Limit {
                    kind: kind(self.tensor),
                    part,
                    parameters: self.tensor.length,
                    threads,
                    bytes_per_parameter: bytes_per_parameter(self.tensor, part),
                    time: figure(self.times(Label::Limit(part, threads))),
                });
            }
        }
        for (i, backend) in backends.iter().enumerate() {
            for part in [Part::Pass1, Part::Pass2, Part::Step] {
                let times = self.times(Label::Pass(part, i));
                let shares = (part != Part::Step).then(|| ratios(self.times(Label::Limit(part, 1)), times));
                passes.push(Pass {
                    share_of_limit: shares.as_deref().map(median),
                    share_spread: shares.as_deref().map(spread),
                    ..self.pass(backend, part, 1, times)
                });
            }
            if let Some(threads) = threads {
                let from_outside = Some(figure(self.times(Label::Outside(i))));
                let inside = self.times(Label::Inside(i));
                passes.push(Pass { from_outside, ..self.pass(backend, Part::Step, threads, inside) });
            }
        }
        (limits, passes)
    }

    fn pass(&self, backend: &Backend, part: Part, threads: usize, times: &[f64]) -> Pass {
        Pass {
            backend: backend.name().to_owned(),
            kind: kind(self.tensor),
            part,
            parameters: self.tensor.length,
            threads,
            bytes_per_parameter: bytes_per_parameter(self.tensor, part),
            time: figure(times),
            share_of_limit: None,
            share_spread: None,
            from_outside: None,
        }
    }
}
