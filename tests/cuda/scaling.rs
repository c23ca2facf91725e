//! Gradients that are scaled and limited as they are loaded: by what the host knows, and by what a gradient scaler keeps on
//! the device.

use koala_optim::{Loss, Noise, Scaling, Variant};

use crate::bits::{agrees, plain_shapes, settings, shapes};
use crate::model::{Model, Numbers};

const SCALINGS: [Scaling; 4] = [
    Scaling { factor: 1.0 / 3.0, limit: f64::INFINITY },
    Scaling { factor: 1.0, limit: 0.04 },
    Scaling { factor: 7.0, limit: 0.6 },
    // No limit in f32.
    Scaling { factor: 1e-3, limit: 1e300 },
];

#[test]
fn every_type_and_length_scaled_and_limited() {
    for (i, length) in [0, 1, 15, 17, 128, 129, 1023, 1025, 5000, 8193, 70_003].into_iter().enumerate() {
        let settings = settings([Variant::Symmetric, Variant::Vanilla, Variant::Definite][i % 3]);
        // Each limit, and what has none, at every second length.
        for scaling in SCALINGS.into_iter().skip(i / 2 % 2).step_by(2) {
            agrees(&Model { scaling, ..Model::new(shapes(length), settings.clone()) });
        }
    }
}

/// The host knows none of them, and the step is captured too, where each launch reads them anew.
#[test]
fn numbers_on_the_device() {
    let numbers: fn(usize) -> Numbers = |step| Numbers {
        learning_rate: [0.3, 0.0, 1.7][step % 3],
        scale: [1024.0, 512.0, 3.0, 0.1][step % 4],
        found_infinite: [0.0, 0.0, 1.0, 0.0, f64::NAN][step % 5],
    };
    for captured in [false, true] {
        for scaling in [Scaling::default(), SCALINGS[2]] {
            let model = Model {
                steps: 11,
                captured,
                scaling,
                numbers: Some(numbers),
                ..Model::new(shapes(1500), settings(Variant::Symmetric))
            };
            let Some(trace) = agrees(&model) else { return };
            let kept = trace.reports.iter().filter(|(report, _)| report.non_finite == model.shapes.len()).count();
            assert_eq!(kept, 4, "steps 2, 4, 7 and 9");
        }
    }
}

/// What is infinite, or whose square is, counts as that, whatever the limit would make of it; and so does the norm of it.
#[test]
fn a_limit_hides_nothing() {
    let change: fn(usize, usize, &mut [f64]) = |step, tensor, gradient| match (step, tensor) {
        (1, 0) => gradient[3000] = f64::INFINITY,
        (1, 1) => gradient[1023] = f64::NAN,
        (1, 2) => gradient[1024] = -3e38,
        (2, 0) => gradient[8192] = f64::NEG_INFINITY,
        _ => {}
    };
    let scaling = Scaling { factor: 0.5, limit: 0.01 };
    for group in [0, 1] {
        let shapes = plain_shapes(&[9000, 2000, 2000, 2000], group);
        let model = Model { change, scaling, ..Model::new(shapes, settings(Variant::Symmetric)) };
        let Some(trace) = agrees(&model) else { return };
        let non_finite: Vec<usize> = trace.reports.iter().map(|(report, _)| report.non_finite).collect();
        assert_eq!(non_finite, [0, 3, 1]);
    }
}

/// Their norm is above the bound only before they are scaled.
#[test]
fn gradients_that_scaling_makes_vanish_are_skipped() {
    let scaling = Scaling { factor: 1e-12, limit: f64::INFINITY };
    for group in [0, 1] {
        let shapes = plain_shapes(&[1000], group);
        let noise = Noise::Fixed(1.0);
        let Some(trace) = agrees(&Model { scaling, noise, ..Model::new(shapes, settings(Variant::Symmetric)) }) else {
            return;
        };
        assert!(trace.reports.iter().all(|(report, _)| report.skipped == 1));
    }
}

/// A loss that is not finite, beside a scaler that found nothing.
#[test]
fn a_scaler_hides_no_loss() {
    let loss: fn(usize) -> Loss = |step| Loss::new(if step == 1 { f64::INFINITY } else { 0.5 }, 0.4);
    let numbers: fn(usize) -> Numbers = |_| Numbers { learning_rate: 0.5, scale: 8.0, found_infinite: 0.0 };
    let model = Model { loss, numbers: Some(numbers), ..Model::new(shapes(40), settings(Variant::Symmetric)) };
    let Some(trace) = agrees(&model) else { return };
    assert_eq!(trace.reports[1].0.non_finite, model.shapes.len());
}
