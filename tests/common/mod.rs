//! What the tests share: which backends to test, random tensors, and the bits of a result.
#![allow(dead_code, missing_docs)]

pub mod methods;
pub mod reference;

use std::cell::RefCell;
use std::rc::Rc;

use koala_optim::kernel::{HalfCopy, Measurement, Scalars, Step, TensorReport};
use koala_optim::{Backend, Element, ElementType, KoalaPlusPlus, Settings, StateType, TensorState, Variant, bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The backends under test: all that are present, or the one that `KOALA_BACKEND` names.
pub fn backends() -> Vec<Backend> {
    match std::env::var_os("KOALA_BACKEND") {
        None => Backend::present(),
        Some(_) => vec![Backend::from_environment().unwrap()],
    }
}

/// The largest length to test: `KOALA_TEST_LARGEST`, for emulators, or 2²⁰ + 1.
pub fn largest() -> usize {
    match std::env::var("KOALA_TEST_LARGEST") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => (1 << 20) + 1,
    }
}

/// Every pair of parameters' and state's types.
pub const TYPES: [(ElementType, StateType); 12] = {
    use ElementType::*;
    [
        (F32, StateType::Same),
        (F32, StateType::F32),
        (F32, StateType::Bf16),
        (F64, StateType::Same),
        (F64, StateType::F32),
        (F64, StateType::Bf16),
        (Bf16, StateType::Same),
        (Bf16, StateType::F32),
        (Bf16, StateType::Bf16),
        (F16, StateType::Same),
        (F16, StateType::F32),
        (F16, StateType::Bf16),
    ]
};

/// What a state's type is, given the parameters'.
pub fn state_element(parameters: ElementType, state: StateType) -> ElementType {
    match state {
        StateType::Same => parameters,
        StateType::F32 => ElementType::F32,
        StateType::Bf16 => ElementType::Bf16,
    }
}

/// `value` rounded to a type, as f64.
pub fn round_to(element: ElementType, value: f64) -> f64 {
    match element {
        ElementType::F32 => f32::rounded(value).to_f64(),
        ElementType::F64 => value,
        ElementType::Bf16 => bf16::rounded(value).to_f64(),
        ElementType::F16 => f16::rounded(value).to_f64(),
    }
}

/// A number in (−scale, scale), of a magnitude that varies.
pub fn random(rng: &mut ChaCha8Rng, scale: f64) -> f64 {
    let bits = rng.next_u64();
    let uniform = (bits >> 12) as f64 / (1u64 << 52) as f64 - 0.5;
    uniform * 2.0 * scale * 0.5f64.powi((bits % 8) as i32)
}

pub fn random_vector(seed: u64, length: usize, scale: f64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..length).map(|_| random(&mut rng, scale)).collect()
}

/// One tensor, three steps: the input of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub length: usize,
    pub parameters: ElementType,
    pub state: StateType,
    pub weight_decay: f64,
    pub variant: Variant,
    /// Elements by which the caller's buffers are off from where they were allocated.
    pub offset: usize,
}

impl Case {
    pub const STEPS: usize = 3;

    /// A case of that length and those types; the rest follows from the length, so that all of it is met.
    pub fn new(length: usize, (parameters, state): (ElementType, StateType), weight_decay: f64) -> Self {
        let variant = if length % 3 == 1 { Variant::Vanilla } else { Variant::Symmetric };
        Case { length, parameters, state, weight_decay, variant, offset: length % 5 }
    }

    pub fn settings(&self) -> Settings {
        Settings { learning_rate: 0.3, weight_decay: self.weight_decay, frozen: false }
    }

    /// KOALA++ with the numbers of the case.
    pub fn koala(&self) -> KoalaPlusPlus {
        KoalaPlusPlus { initial_variance: 0.2, process_noise: 0.05, variant: self.variant, prior_variance: 0.15 }
    }

    pub fn measurement(step: usize) -> Measurement {
        Measurement { loss: 0.9 - 0.2 * step as f64, noise: 1.0 + 0.1 * step as f64 }
    }

    pub fn initial(&self) -> Vec<f64> {
        self.inputs().initial.clone()
    }

    pub fn gradient(&self, step: usize) -> Vec<f64> {
        self.inputs().gradients[step].clone()
    }

    /// Those that were asked for last are kept: every method and backend has the same.
    fn inputs(&self) -> Rc<Inputs> {
        thread_local! {
            static LAST: RefCell<Option<(usize, ElementType, Rc<Inputs>)>> = const { RefCell::new(None) };
        }
        LAST.with_borrow_mut(|last| match last {
            Some((length, parameters, inputs)) if (*length, *parameters) == (self.length, self.parameters) => {
                inputs.clone()
            }
            _ => {
                let inputs = Rc::new(Inputs::new(self.length, self.parameters));
                *last = Some((self.length, self.parameters, inputs.clone()));
                inputs
            }
        })
    }
}

/// The parameters before the first step, and the gradient of each.
struct Inputs {
    initial: Vec<f64>,
    gradients: [Vec<f64>; Case::STEPS],
}

impl Inputs {
    /// A gradient has something of the one before, so that none of the scalars is near zero.
    fn new(length: usize, parameters: ElementType) -> Self {
        let common = random_vector(1000 + length as u64, length, 0.1);
        let gradient = |step: usize| {
            let own = random_vector(2000 + 7 * length as u64 + step as u64, length, 0.05);
            common.iter().zip(&own).map(|(common, own)| round_to(parameters, common + own)).collect()
        };
        let initial = random_vector(length as u64, length, 1.0);
        let initial = initial.into_iter().map(|value| round_to(parameters, value)).collect();
        Inputs { initial, gradients: std::array::from_fn(gradient) }
    }
}

/// Everything that the contract speaks of, as bits.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bits {
    pub parameters: Vec<u64>,
    pub v: Vec<u64>,
    pub h: Vec<u64>,
    pub scalars: [u64; 4],
    pub reports: Vec<[u64; 8]>,
    pub copy: Vec<u16>,
}

impl Bits {
    /// The first difference, in words.
    pub fn difference(&self, expected: &Bits) -> Option<String> {
        let parts = [
            ("parameters", &self.parameters, &expected.parameters),
            ("v", &self.v, &expected.v),
            ("h", &self.h, &expected.h),
        ];
        for (name, found, expected) in parts {
            if let Some(i) = (0..expected.len()).find(|i| found.get(*i) != Some(&expected[*i])) {
                let value = |bits: &[u64]| bits.get(i).map(|bits| f64::from_bits(*bits));
                return Some(format!("{name}[{i}] is {:?}, expected {:?}", value(found), value(expected)));
            }
        }
        let rest = (&self.scalars, &self.reports, &self.copy);
        let expected_rest = (&expected.scalars, &expected.reports, &expected.copy);
        if rest != expected_rest {
            return Some(format!("scalars, reports, copy are {rest:?}, expected {expected_rest:?}"));
        }
        (self != expected).then(|| "the lengths differ".into())
    }
}

pub fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

pub fn scalar_bits(scalars: &Scalars) -> [u64; 4] {
    [scalars.h_h.to_bits(), scalars.h_v.to_bits(), scalars.innovation_variance.to_bits(), scalars.steps]
}

pub fn report_bits(report: &TensorReport) -> [u64; 8] {
    let norms = report.norms.unwrap_or_default();
    [
        report.outcome as u64,
        report.innovation_variance.to_bits(),
        report.alpha.to_bits(),
        report.lambda.to_bits(),
        report.w.to_bits(),
        norms.gradient.to_bits(),
        norms.measurement.to_bits(),
        norms.parameters.to_bits(),
    ]
}

/// The case on a backend.
pub fn run(case: &Case, backend: Backend) -> Bits {
    match case.parameters {
        ElementType::F32 => run_typed::<f32>(case, backend),
        ElementType::F64 => run_typed::<f64>(case, backend),
        ElementType::Bf16 => run_typed::<bf16>(case, backend),
        ElementType::F16 => run_typed::<f16>(case, backend),
    }
}

/// That every backend gives the bits of the plain loops.
pub fn agrees_with_reference(case: &Case) {
    let expected = reference::run(case);
    for backend in backends() {
        let differs = run(case, backend).difference(&expected);
        assert!(differs.is_none(), "{} in {case:?}: {}", backend.name(), differs.unwrap_or_default());
    }
}

/// A copy of the values, `offset` elements after an allocation's start.
pub fn offset_vector<P: Element>(values: &[f64], offset: usize) -> Vec<P> {
    let padding = std::iter::repeat_n(0.0, offset);
    padding.chain(values.iter().copied()).map(P::rounded).collect()
}

fn run_typed<P: Element>(case: &Case, backend: Backend) -> Bits {
    let mut state = TensorState::new::<P>(case.length, case.state).unwrap();
    let mut parameters = offset_vector::<P>(&case.initial(), case.offset);
    let parameters = &mut parameters[case.offset..];
    let mut copy = vec![bf16::ZERO; case.length + 1];
    let mut result = Bits::default();
    for step in 0..Case::STEPS {
        let gradient = offset_vector::<P>(&case.gradient(step), case.offset + 1);
        let (settings, method) = (case.settings(), case.koala().into());
        let settings = Step { backend, method, settings, norms: true, ..Step::new(Case::measurement(step)) };
        let copy = Some(HalfCopy::Bf16(&mut copy[1..]));
        let report = state.step(&settings, parameters, &gradient[case.offset + 1..], copy).unwrap();
        result.reports.push(report_bits(&report));
    }
    result.parameters = parameters.iter().map(|value| value.to_f64().to_bits()).collect();
    result.v = bits(&state.v());
    result.h = bits(&state.h());
    result.scalars = scalar_bits(&state.scalars());
    result.copy = copy[1..].iter().map(|value| value.to_bits()).collect();
    result
}
