//! What is finite does not become infinite by a step: a tensor for which it would is kept, and its outcome says so; a
//! tensor that comes near is stepped.

mod common;

use common::backends;
use koala_optim::kernel::{Measurement, Outcome, Scalars, Step, TensorReport};
use koala_optim::{
    AdamW, Backend, Config, Element, ElementType, Error, KoalaM, KoalaPlusPlus, KoalaV, Loss, Method, OnNonFinite,
    Optimizer, Policy, Scaling, Settings, Sgd, StateType, Tensor, TensorState, bf16, f16,
};

use ElementType::{Bf16, F16, F32, F64};

/// More than a block, and a tail.
const N: usize = 1100;

/// A tensor whose parameters are all 1.
struct One<P> {
    parameters: Vec<P>,
    state: TensorState,
}

impl<P: Element> One<P> {
    fn new(step: &Step, state: StateType) -> Self {
        let state = TensorState::of_method::<P>(&step.method, N, state).unwrap();
        One { parameters: vec![P::rounded(1.0); N], state }
    }

    /// Steps with that gradient at one place, and zeros elsewhere: at another one in each second step.
    fn step(&mut self, step: &Step, gradient: f64) -> Result<TensorReport, Error> {
        let mut gradients = vec![P::rounded(0.0); N];
        gradients[N - 1 - self.state.scalars().steps as usize % 2] = P::rounded(gradient);
        self.state.step(step, &mut self.parameters, &gradients, None)
    }

    fn bits(&self) -> (Vec<u8>, Vec<Vec<u8>>, Scalars) {
        let state = self.state.bytes().map(<[u8]>::to_vec).to_vec();
        (bytemuck::cast_slice(&self.parameters).to_vec(), state, self.state.scalars())
    }

    fn is_finite(&self) -> bool {
        let parameters = self.parameters.iter().map(|x| x.to_f64());
        parameters.chain(self.state.v()).chain(self.state.h()).all(f64::is_finite)
    }
}

fn step_of(backend: Backend, method: Method, settings: Settings) -> Step {
    Step { backend, method, settings, ..Step::new(Measurement { loss: 0.7, noise: 1.0 }) }
}

fn variances(of_both: f64) -> Method {
    KoalaPlusPlus { initial_variance: of_both, process_noise: of_both, ..KoalaPlusPlus::default() }.into()
}

fn rate(learning_rate: f64) -> Settings {
    Settings { learning_rate, ..Settings::default() }
}

/// The outcome of a first step, after which all is finite, and, where it is none, all is as it was.
fn first_outcome(types: (ElementType, StateType), step: &Step, gradient: f64) -> Outcome {
    fn of<P: Element>(state: StateType, step: &Step, gradient: f64) -> Outcome {
        let mut one = One::<P>::new(step, state);
        let before = one.bits();
        let outcome = one.step(step, gradient).unwrap().outcome;
        assert!(one.is_finite(), "{step:?}, gradient {gradient}");
        assert!(outcome.is_step() || one.bits() == before, "{step:?}, gradient {gradient}");
        outcome
    }
    match types.0 {
        F32 => of::<f32>(types.1, step, gradient),
        F64 => of::<f64>(types.1, step, gradient),
        Bf16 => of::<bf16>(types.1, step, gradient),
        F16 => of::<f16>(types.1, step, gradient),
    }
}

#[test]
fn a_first_step_that_overflows_writes_nothing() {
    use StateType::Same;
    let koala = Method::default();
    let cases = [
        // What overflows is σ·H, in the state's type or in that of the arithmetic.
        ((F32, Same), variances(1e38), Settings::default(), 4.0),
        ((F16, Same), variances(1e5), Settings::default(), 4.0),
        ((Bf16, Same), variances(1e38), Settings::default(), 4.0),
        ((F32, StateType::Bf16), variances(3.395e38), Settings::default(), 1.001),
        ((F64, Same), variances(1e308), Settings::default(), 4.0),
        ((F64, StateType::F32), variances(1e38), Settings::default(), 4.0),
        ((F16, StateType::F32), variances(1e38), Settings::default(), 4.0),
        // H itself, which a narrower state can't hold.
        ((F64, StateType::F32), koala, Settings::default(), 1e39),
        // The parameters.
        ((F16, StateType::F32), koala, rate(1e6), 4.0),
        ((F16, Same), Method::KoalaV(KoalaV::default()), rate(1e8), 4.0),
        ((F16, Same), Method::KoalaM(KoalaM::default()), rate(1e8), 4.0),
        ((F16, Same), Method::AdamW(AdamW::default()), rate(1e6), 4.0),
        ((F16, Same), Method::Sgd(Sgd::default()), rate(1e5), 4.0),
        ((F16, Same), Method::Sgd(Sgd { momentum: 0.0, nesterov: false }), rate(1e5), 4.0),
        ((F32, Same), Method::Sgd(Sgd { momentum: 0.0, nesterov: false }), rate(1e38), 4.0),
        // A velocity, and a mean of squares.
        ((F16, Same), Method::KoalaM(KoalaM { variance: 1e-6, covariance: 1e3, ..KoalaM::default() }), rate(1e3), 4.0),
        ((F16, Same), Method::AdamW(AdamW::default()), rate(1e-3), 2e4),
        // Weight decay.
        ((F32, Same), Method::Sgd(Sgd::default()), Settings { weight_decay: 3e38, ..rate(2.0) }, 4.0),
        ((F32, Same), Method::AdamW(AdamW::default()), Settings { weight_decay: 1e38, ..rate(3.5) }, 4.0),
    ];
    for backend in backends() {
        for (types, method, settings, gradient) in cases {
            let step = step_of(backend, method, settings);
            assert_eq!(first_outcome(types, &step, gradient), Outcome::NonFinite, "{types:?}, {step:?}");
        }
    }
}

#[test]
fn what_comes_near_is_stepped() {
    use StateType::Same;
    let koala = Method::default();
    let cases = [
        ((F32, Same), variances(4e37), Settings::default(), 4.0),
        ((F16, Same), variances(8e3), Settings::default(), 4.0),
        ((Bf16, Same), variances(4e37), Settings::default(), 4.0),
        ((F64, Same), variances(4e307), Settings::default(), 1.0),
        ((F16, StateType::F32), variances(1e5), Settings::default(), 4.0),
        ((F64, StateType::F32), koala, Settings::default(), 1e38),
        ((F16, Same), Method::AdamW(AdamW::default()), rate(1e-3), 5e3),
        ((F16, Same), Method::Sgd(Sgd::default()), rate(1e-3), 6e4),
        ((F16, Same), Method::Sgd(Sgd::default()), rate(1e4), 6.0),
        ((F16, Same), Method::KoalaV(KoalaV::default()), rate(4e5), 4.0),
        ((F16, Same), Method::KoalaM(KoalaM::default()), rate(4e5), 4.0),
        ((F32, Same), Method::Sgd(Sgd::default()), Settings { weight_decay: 1e37, ..rate(2.0) }, 4.0),
    ];
    for backend in backends() {
        for (types, method, settings, gradient) in cases {
            let step = step_of(backend, method, settings);
            assert_eq!(first_outcome(types, &step, gradient), Outcome::FirstStep, "{types:?}, {step:?}");
        }
    }
}

/// Gradients that grow until no step of theirs can be held, then are small again.
#[test]
fn later_steps_that_overflow_write_nothing() {
    let methods = [
        variances(2.0),
        Method::KoalaV(KoalaV::default()),
        Method::KoalaM(KoalaM::default()),
        Method::AdamW(AdamW::default()),
        Method::Sgd(Sgd::default()),
        Method::Sgd(Sgd { nesterov: true, ..Sgd::default() }),
    ];
    for backend in backends() {
        for method in methods {
            let settings = Settings { learning_rate: 1e-3, weight_decay: 1e-2, ..Settings::default() };
            let step = step_of(backend, method, settings);
            let mut one = One::<f16>::new(&step, StateType::Same);
            let (mut stepped, mut kept) = (0, 0);
            for growth in (0..60).map(|power| 1.25_f64.powi(power).min(6e4)).chain([1.0; 3]) {
                let before = one.bits();
                match one.step(&step, growth).unwrap().outcome {
                    Outcome::NonFinite => {
                        kept += 1;
                        assert!(one.bits() == before);
                    }
                    _ => stepped += 1,
                }
                assert!(one.is_finite(), "{step:?}, gradient {growth}");
            }
            assert!(stepped > 20, "{method:?}: {stepped} steps, {kept} kept");
            // KOALA-V has no state, and the KOALA family divides by the gradient's square.
            let may_be_kept = matches!(method, Method::KoalaPlusPlus(_) | Method::AdamW(_) | Method::Sgd(_));
            assert_eq!(kept > 0, may_be_kept, "{method:?}: {stepped} steps, {kept} kept");
        }
    }
}

/// A square that f16 does not hold, of a gradient that is zero in the next step: its mean is divided by ε alone then.
#[test]
fn a_mean_without_its_square() {
    for (epsilon, outcome) in [(1e-14, Outcome::NonFinite), (1e-8, Outcome::Stepped)] {
        let method = Method::AdamW(AdamW { epsilon, ..AdamW::default() });
        let step = step_of(Backend::detect(), method, rate(1e-3));
        let mut one = One::<f16>::new(&step, StateType::Same);
        assert_eq!(one.step(&step, 1e-4).unwrap().outcome, Outcome::FirstStep);
        assert_eq!(one.step(&step, 1e-4).unwrap().outcome, outcome, "{epsilon}");
        assert!(one.is_finite());
    }
}

fn optimizer(config: Config) -> Result<Optimizer, Error> {
    let mut optimizer = Optimizer::new(config)?;
    let usual = optimizer.add_group(Settings::default())?;
    let large = optimizer.add_group_with(Settings::default(), variances(1e38))?;
    optimizer.add_tensor("usual", 2, F32, StateType::Same, usual)?;
    optimizer.add_tensor("large", 2, F32, StateType::Same, large)?;
    Ok(optimizer)
}

/// The outcomes of a first step of two tensors, the second of which would overflow.
fn outcomes(config: Config) -> Result<[Outcome; 2], Error> {
    let (mut usual, mut large) = ([1.0_f32, 2.0], [1.0_f32, 2.0]);
    let mut tensors = [Tensor::new("usual", &mut usual, &[0.5, 0.5]), Tensor::new("large", &mut large, &[4.0, 4.0])];
    let mut optimizer = optimizer(Config { details: true, ..config })?;
    optimizer.step(Loss::new(0.7, 0.6), &mut tensors)?;
    assert_eq!(large, [1.0, 2.0]);
    Ok([optimizer.details()[0].outcome, optimizer.details()[1].outcome])
}

#[test]
fn it_is_what_the_policies_are_for() {
    let with = |non_finite| Config { policy: Policy { non_finite, ..Policy::default() }, ..Config::default() };
    assert_eq!(outcomes(with(OnNonFinite::KeepTensor)).unwrap(), [Outcome::FirstStep, Outcome::NonFinite]);
    assert_eq!(outcomes(with(OnNonFinite::KeepAll)).unwrap(), [Outcome::Withheld, Outcome::NonFinite]);
    let error = outcomes(with(OnNonFinite::Error)).unwrap_err();
    assert!(error.to_string().starts_with("tensor \"large\": an element of the new state is not finite: "), "{error}");
}

#[test]
fn scaled_and_clipped_gradients_too() {
    let scaled = Config { scaling: Scaling { factor: 0.9, ..Scaling::default() }, ..Config::default() };
    let clipped = Config { clip_norm: Some(5.0), ..Config::default() };
    for config in [scaled, clipped] {
        assert_eq!(outcomes(config).unwrap(), [Outcome::FirstStep, Outcome::NonFinite]);
    }
    // Clipped that far, it does not overflow.
    let step = |clip_norm| {
        let mut optimizer = optimizer(Config { clip_norm, ..Config::default() }).unwrap();
        let mut large = [1.0_f32, 2.0];
        optimizer.step(Loss::new(0.7, 0.6), &mut [Tensor::new("large", &mut large, &[4.0, 4.0])]).unwrap().first_steps
    };
    assert_eq!((step(Some(1.0)), step(None)), (1, 0));
}

/// Parameters that a narrower state can't hold: of a momentum by the weight decay, and of a running average.
#[test]
fn a_narrower_state_takes_no_parameters_that_it_can_not_hold() {
    let momentum = Method::Sgd(Sgd::default());
    let nesterov = Method::Sgd(Sgd { nesterov: true, ..Sgd::default() });
    let koala_m = Method::KoalaM(KoalaM::default());
    let cases = [
        (momentum, 0.1, 1e40, Outcome::NonFinite),
        (momentum, 5e-4, 1e43, Outcome::NonFinite),
        (nesterov, 5e-4, 1e43, Outcome::NonFinite),
        (momentum, 5e-4, 1e41, Outcome::FirstStep),
        (momentum, 0.0, 1e43, Outcome::FirstStep),
        (koala_m, 0.0, 1e40, Outcome::NonFinite),
        (koala_m, 1e-2, 1e40, Outcome::NonFinite),
        (koala_m, 0.0, 1e39, Outcome::FirstStep),
        (Method::KoalaV(KoalaV::default()), 1e-2, 1e40, Outcome::FirstStep),
        (Method::AdamW(AdamW::default()), 1e-2, 1e40, Outcome::FirstStep),
        (Method::Sgd(Sgd { momentum: 0.0, nesterov: false }), 1e-2, 1e40, Outcome::FirstStep),
        (Method::default(), 1e-2, 1e41, Outcome::NonFinite),
    ];
    for (backend, state) in backends().into_iter().flat_map(|b| [(b, StateType::F32), (b, StateType::Bf16)]) {
        for (method, weight_decay, parameter, outcome) in cases {
            let step = step_of(backend, method, Settings { weight_decay, ..rate(0.1) });
            let mut one = One::<f64>::new(&step, state);
            one.parameters[N - 3] = parameter;
            for outcome in [outcome, if outcome.is_step() { Outcome::Stepped } else { outcome }] {
                let before = one.bits();
                assert_eq!(one.step(&step, 1.0).unwrap().outcome, outcome, "{method:?}, {parameter}, {state:?}");
                assert!(one.is_finite(), "{method:?}, {parameter}, {state:?}");
                assert!(outcome.is_step() || one.bits() == before);
            }
        }
    }
}

/// A running average of parameters that are zero before a step that a narrower state can't hold.
#[test]
fn a_narrower_state_takes_no_new_parameters_that_it_can_not_hold() {
    for (state, rates) in [(StateType::F32, [1e39, 1e42]), (StateType::Bf16, [1e39, 1e42])] {
        let outcomes = rates.map(|of| {
            let step = step_of(Backend::detect(), Method::KoalaM(KoalaM::default()), rate(of));
            let mut one = One::<f64>::new(&step, state);
            one.parameters.fill(0.0);
            let outcome = one.step(&step, 1.0).unwrap().outcome;
            assert!(one.is_finite(), "{state:?}, rate {of}");
            outcome
        });
        assert_eq!(outcomes, [Outcome::FirstStep, Outcome::NonFinite], "{state:?}");
    }
}

/// Where a parameter is not finite already, that is the caller's, whether or not somebody looks.
#[test]
fn a_parameter_that_is_infinite_already_stops_nothing() {
    for variance in [0.1, 4e37] {
        let step = step_of(Backend::detect(), variances(variance), Settings::default());
        let mut one = One::<f32>::new(&step, StateType::Same);
        one.parameters[0] = f32::INFINITY;
        assert_eq!(one.step(&step, 4.0).unwrap().outcome, Outcome::FirstStep);
        assert_eq!(one.parameters[0], f32::INFINITY);
    }
}
