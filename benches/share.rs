//! How much of the streaming limit each backend reaches: `cargo bench --bench share [-- LARGEST]`, LARGEST a power of
//! two (default 24). Everything in a row is measured in turn, again and again, and compared within its turn, so that a
//! machine whose speed drifts gives the same shares. The limit is the same streams without arithmetic, in the vector
//! width that is fastest for it.

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{Workload, widths};
use koala_optim::Backend;

/// The time of one call in nanoseconds, over enough calls to fill a third of a millisecond.
fn time<R>(repeats: usize, mut call: impl FnMut() -> R) -> f64 {
    call();
    let start = Instant::now();
    for _ in 0..repeats {
        black_box(call());
    }
    start.elapsed().as_nanos() as f64 / repeats as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let largest = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(24);
    let backends = Backend::present();
    println!("one thread, f32; GB/s of the limit, then each backend's share of it, then the step in ns per parameter");
    for weight_decay in [1e-3, 0.0] {
        println!("\nweight decay {weight_decay}");
        print!("{:>6} {:>7}", "n", "limit 1");
        backends.iter().for_each(|backend| print!(" {:>8}", backend.name()));
        print!(" {:>7}", "limit 2");
        backends.iter().for_each(|backend| print!(" {:>8}", backend.name()));
        print!("  step:");
        backends.iter().for_each(|backend| print!(" {:>8}", backend.name()));
        println!();
        for power in (12..=largest).step_by(2) {
            row(power, weight_decay, &backends);
        }
    }
    println!("\nsmall tensors: the step in ns");
    for n in [1, 16, 17, 64, 256, 1000] {
        let mut workload = Workload::new(n, 1e-3);
        print!("{n:>6}");
        for backend in &backends {
            let times = (0..21).map(|_| time(2000, || workload.step(*backend))).collect();
            print!(" {:>8} {:7.1}", backend.name(), median(times));
        }
        println!();
    }
}

fn row(power: u32, weight_decay: f64, backends: &[Backend]) {
    let n = 1usize << power;
    let mut workload = Workload::new(n, weight_decay);
    let repeats = (400_000 / n).max(1);
    let rounds = if n > 1 << 20 { 11 } else { 41 };
    let widths = widths();
    let mut reads = Vec::new();
    let mut updates = Vec::new();
    let mut shares = vec![(Vec::new(), Vec::new(), Vec::new()); backends.len()];
    for _ in 0..rounds {
        let fastest = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min);
        let read = fastest(widths.iter().map(|width| time(repeats, || workload.read_limit(*width))).collect());
        let update = fastest(widths.iter().map(|width| time(repeats, || workload.update_limit(*width))).collect());
        for (backend, share) in backends.iter().zip(&mut shares) {
            share.0.push(read / time(repeats, || workload.dots(*backend)));
            share.1.push(update / time(repeats, || workload.apply(*backend)));
            share.2.push(time(repeats, || workload.step(*backend)) / n as f64);
        }
        reads.push(read);
        updates.push(update);
    }
    let streams = if weight_decay == 0.0 { 3.0 } else { 4.0 };
    print!("  2^{power:<2} {:>7.1}", streams * 4.0 * n as f64 / median(reads));
    shares.iter().for_each(|share| print!(" {:>7.0}%", 100.0 * median(share.0.clone())));
    print!(" {:>7.1}", 28.0 * n as f64 / median(updates));
    shares.iter().for_each(|share| print!(" {:>7.0}%", 100.0 * median(share.1.clone())));
    print!("  step:");
    shares.iter().for_each(|share| print!(" {:>8.2}", median(share.2.clone())));
    println!();
}
