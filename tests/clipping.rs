//! Clipping by the norm of all gradients: where it is not reached nothing changes, and what cancels out stays exact. And
//! what goes over tensors block by block needs little stack.

mod common;

use common::methods::METHODS;
use common::{backends, largest, offset_vector, random_vector};
use koala_optim::{
    Config, Element, ElementType, Error, HalfCopy, Loss, Method, Optimizer, Report, Scaling, Settings, StateType,
    Tensor, TensorReport, TensorState, Threads, bf16, f16,
    kernel::{Measurement, Step},
};

/// Parameters, states, shared numbers and reports, to be compared with `==`.
type Outcome<P> = (Vec<Vec<P>>, Vec<[Vec<f64>; 2]>, Method, Vec<Report>, Vec<TensorReport>);

/// Steps tensors with weight decay and without, on gradients that are given.
fn run<P: Element>(config: Config, state: StateType, vectors: &[[Vec<f64>; 3]]) -> Result<Outcome<P>, Error> {
    let mut optimizer = Optimizer::new(Config { details: true, ..config })?;
    let names: Vec<String> = (0..vectors.len()).map(|i| format!("tensor {i}")).collect();
    let settings = Settings { learning_rate: 0.05, weight_decay: 0.01, ..Settings::default() };
    let groups = [optimizer.add_group(settings)?, optimizer.add_group(Settings { weight_decay: 0.0, ..settings })?];
    for (i, name) in names.iter().enumerate() {
        optimizer.add_tensor(name, vectors[i][0].len(), P::TYPE, state, groups[i % 2])?;
    }
    let of_all = |which: usize| vectors.iter().map(|of_tensor| offset_vector::<P>(&of_tensor[which], 0)).collect();
    let mut parameters: Vec<Vec<P>> = of_all(0);
    let (mut reports, mut details) = (Vec::new(), Vec::new());
    for step in 1..3 {
        let gradients: Vec<Vec<P>> = of_all(step);
        let tensors = names.iter().zip(&mut parameters).zip(&gradients);
        let mut tensors: Vec<Tensor> = tensors.map(|((name, p), g)| Tensor::new(name, p, g)).collect();
        optimizer.predict(&mut tensors)?;
        reports.push(optimizer.step(Loss::new(0.8, 0.9), &mut tensors)?);
        details.extend_from_slice(optimizer.details());
    }
    let states = names.iter().filter_map(|name| optimizer.state(name)).map(|state| [state.h(), state.v()]).collect();
    Ok((parameters, states, optimizer.method(), reports, details))
}

/// Tensors of several chunks too, for which threads are worth their while.
#[test]
fn a_norm_that_is_not_reached_changes_nothing() -> Result<(), Error> {
    fn check<P: Element>(state: StateType, vectors: &[[Vec<f64>; 3]]) -> Result<(), Error> {
        for method in METHODS.into_iter().chain([Method::default()]) {
            for scaling in [Scaling::default(), Scaling { factor: 0.3, limit: 0.05 }] {
                let config = Config { method, scaling, ..Config::default() };
                let unclipped = run::<P>(config.clone(), state, vectors)?;
                for (i, backend) in backends().into_iter().enumerate() {
                    let count = [1, 2, 7][i % 3];
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
                    let pool = std::sync::Arc::new(pool);
                    let threads = Threads::Pool(pool.clone());
                    let config = Config { backend, threads, clip_norm: Some(1e4), ..config.clone() };
                    let mut found = pool.install(|| run::<P>(config, state, vectors))?;
                    for report in &mut found.3 {
                        assert!(report.gradient_norm.take().is_some_and(|norm| 0.0 < norm && norm < 1e4));
                    }
                    let which = format!("{method:?} in {} beside {state:?}, {}", P::TYPE, backend.name());
                    assert!(found == unclipped, "{which}, {count} threads");
                }
            }
        }
        Ok(())
    }
    let sizes = [(1 << 18) + 17, 1000, 70_001, 1].into_iter().filter(|size| *size <= largest());
    let vectors: Vec<[Vec<f64>; 3]> = sizes
        .zip(0..)
        .map(|(size, i)| [(0, 1.0), (100, 0.1), (200, 0.1)].map(|(seed, scale)| random_vector(seed + i, size, scale)))
        .collect();
    for state in [StateType::Same, StateType::F32, StateType::Bf16] {
        check::<f32>(state, &vectors)?;
        check::<f64>(state, &vectors)?;
        check::<bf16>(state, &vectors)?;
        check::<f16>(state, &vectors)?;
    }
    Ok(())
}

/// g = −wd·θ, nearly: H·H and H·h are of what is left, not of the rounding of g·g and θ·θ.
#[test]
fn what_cancels_out_stays_exact() -> Result<(), Error> {
    const N: usize = 3000;
    const WEIGHT_DECAY: f64 = 0.5;
    // Beyond the norm of the gradients, and just below it.
    for clip_norm in [1e3, 27.36] {
        for backend in backends() {
            let config = Config { clip_norm: Some(clip_norm), details: true, backend, ..Config::default() };
            let mut optimizer = Optimizer::new(config)?;
            // So that the parameters stay.
            let settings = Settings { weight_decay: WEIGHT_DECAY, learning_rate: 0.0, ..Settings::default() };
            let group = optimizer.add_group(settings)?;
            optimizer.add_tensor("weight", N, ElementType::F32, StateType::Same, group)?;
            let mut weight = vec![1.0_f32; N];
            let mut before: Option<f64> = None;
            for left in [1e-4_f32, 3e-4] {
                let gradient = vec![left - 0.5; N];
                let report =
                    optimizer.step(Loss::new(0.8, 0.9), &mut [Tensor::new("weight", &mut weight, &gradient)])?;
                let norm = report.gradient_norm.unwrap_or(f64::NAN);
                assert_eq!(norm > clip_norm, clip_norm < 100.0);
                let clip = f64::from(f64::min(1.0, clip_norm / norm) as f32);
                let measurement = clip * f64::from(gradient[0]) + WEIGHT_DECAY;
                let details = optimizer.details()[0];
                let expected = measurement * (N as f64).sqrt();
                let error = details.norms.unwrap_or_default().measurement / expected - 1.0;
                assert!(error.abs() < 1e-5, "clipped by {clip_norm}: ‖H‖ is off by {error:e}");
                if let Some(before) = before {
                    let error = details.alpha / (measurement / before) - 1.0;
                    // Pass 2 rounds H to 2⁻²⁶.
                    assert!(error.abs() < 1e-3, "clipped by {clip_norm}: H·h/h·h is off by {error:e}");
                }
                before = Some(measurement);
            }
        }
    }
    Ok(())
}

/// As threads of musl and of other languages' runtimes have it.
#[test]
fn long_tensors_need_little_stack() {
    const N: usize = 1 << 22;
    if N > 4 * largest() {
        return println!("length {N} is above four times KOALA_TEST_LARGEST: not tested");
    }
    let vector = |scale: f64| (0..N).map(|i| scale * ((i * 7919 % 2001) as f64 - 1000.5)).collect::<Vec<f64>>();
    let (mut parameters, gradient, mut copy) = (vector(1e-3), vector(1e-5), vec![bf16::ZERO; N]);
    let settings = Settings { weight_decay: 0.01, ..Settings::default() };
    let scaling = Scaling { factor: 0.3, limit: 1e-3 };
    let work = move || -> Result<(), Error> {
        let config = Config { scaling, clip_norm: Some(0.1), ..Config::default() };
        let mut optimizer = Optimizer::new(config)?;
        let group = optimizer.add_group(settings)?;
        optimizer.add_tensor("weight", N, ElementType::F64, StateType::Same, group)?;
        let tensor = Tensor::new("weight", &mut parameters, &gradient).with_bf16_copy(&mut copy);
        assert_eq!(optimizer.step(Loss::new(0.8, 0.9), &mut [tensor])?.stepped, 1);
        // What is scaled but not clipped, KOALA-M's prediction and its update in the arithmetic type.
        let step = Step { scaling, settings, ..Step::new(Measurement { loss: 0.8, noise: 1.0 }) };
        let method = METHODS[1];
        let mut state = TensorState::of_method::<f64>(&method, N, StateType::Bf16)?;
        let step = Step { method, ..step };
        state.predict(&step, &mut parameters, Some(HalfCopy::Bf16(&mut copy)))?;
        let report = state.step(&step, &mut parameters, &gradient, Some(HalfCopy::Bf16(&mut copy)))?;
        assert!(report.outcome.is_step());
        Ok(())
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap();
    thread.join().unwrap().unwrap();
}
