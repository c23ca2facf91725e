//! A step of many tensors of unlike types, whose owner lends their buffers, gives the bits of the reference; and one
//! tensor's trouble keeps what its policy says.

mod common;

use common::{Bits, Case, TYPES, backends, reference, report_bits, scalar_bits, state_element};
use koala_optim::kernel::{AnyBuffers, Buffers, Lender, Lent, Plan, Scalars, Step, step_tensors};
use koala_optim::{
    Backend, Element, ElementType, Error, OnBreakdown, OnNonFinite, Outcome, Policy, StateType, bf16, f16,
};

/// A tensor of any types. With exchange, the gradient and h change places as the library says.
struct Owned<P, S> {
    parameters: Vec<P>,
    gradient: Vec<P>,
    v: Vec<S>,
    h: Vec<S>,
    scalars: Scalars,
    step: Step,
}

impl<P: Element, S: Element> Lender for Owned<P, S>
where
    for<'a> AnyBuffers<'a>: From<Buffers<'a, P, S>>,
{
    fn step(&self) -> &Step {
        &self.step
    }

    fn len(&self) -> usize {
        self.parameters.len()
    }

    fn lend(&mut self) -> Lent<'_> {
        let Owned { parameters, gradient, v, h, scalars, step } = self;
        Lent { step, buffers: Buffers { parameters, gradient, v, h, copy: None }.into(), scalars }
    }

    fn offers_exchange(&self) -> bool {
        P::TYPE == S::TYPE
    }

    fn exchange(&mut self) {
        bytemuck::cast_slice_mut::<P, u8>(&mut self.gradient).swap_with_slice(bytemuck::cast_slice_mut(&mut self.h));
    }
}

/// What a test does with a tensor of any types.
trait AnyTensor: Lender {
    fn set(&mut self, gradient: &[f64], step: Step);
    fn bits(&self) -> Bits;
}

impl<P: Element, S: Element> AnyTensor for Owned<P, S>
where
    for<'a> AnyBuffers<'a>: From<Buffers<'a, P, S>>,
{
    fn set(&mut self, gradient: &[f64], step: Step) {
        self.gradient = rounded(gradient);
        self.step = step;
    }

    fn bits(&self) -> Bits {
        Bits {
            parameters: widened(&self.parameters),
            v: widened(&self.v),
            h: widened(&self.h),
            scalars: scalar_bits(&self.scalars),
            ..Bits::default()
        }
    }
}

struct Boxed(Box<dyn AnyTensor>);

impl Lender for Boxed {
    fn step(&self) -> &Step {
        self.0.step()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn lend(&mut self) -> Lent<'_> {
        self.0.lend()
    }
    fn offers_exchange(&self) -> bool {
        self.0.offers_exchange()
    }
    fn exchange(&mut self) {
        self.0.exchange();
    }
}

fn rounded<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|value| T::rounded(*value)).collect()
}

fn widened<T: Element>(elements: &[T]) -> Vec<u64> {
    elements.iter().map(|element| element.to_f64().to_bits()).collect()
}

fn owned<P: Element, S: Element>(case: &Case) -> Boxed
where
    for<'a> AnyBuffers<'a>: From<Buffers<'a, P, S>>,
{
    let nothing = || vec![S::rounded(0.0); case.length];
    let (parameters, gradient) = (rounded(&case.initial()), vec![P::rounded(0.0); case.length]);
    let (v, h, scalars) = (nothing(), nothing(), Scalars::default());
    Boxed(Box::new(Owned::<P, S> { parameters, gradient, v, h, scalars, step: Step::new(Case::measurement(0)) }))
}

fn tensor(case: &Case) -> Boxed {
    use ElementType::{Bf16, F16, F32, F64};
    match (case.parameters, state_element(case.parameters, case.state)) {
        (F32, Bf16) => owned::<f32, bf16>(case),
        (F32, _) => owned::<f32, f32>(case),
        (F64, F32) => owned::<f64, f32>(case),
        (F64, Bf16) => owned::<f64, bf16>(case),
        (F64, _) => owned::<f64, f64>(case),
        (Bf16, F32) => owned::<bf16, f32>(case),
        (Bf16, _) => owned::<bf16, bf16>(case),
        (F16, F32) => owned::<f16, f32>(case),
        (F16, Bf16) => owned::<f16, bf16>(case),
        (F16, _) => owned::<f16, f16>(case),
    }
}

fn step(case: &Case, backend: Backend, number: usize, policy: Policy) -> Step {
    Step {
        backend,
        method: case.koala().into(),
        settings: case.settings(),
        policy,
        ..Step::new(Case::measurement(number))
    }
}

#[test]
fn a_list_of_unlike_tensors_has_the_bits_of_the_reference() {
    let mut cases = Vec::new();
    for length in [0, 1, 16, 17, 64, 300, 1000, 2500] {
        for (i, types) in TYPES.into_iter().enumerate() {
            cases.push(Case::new(length, types, [0.0, 0.01][(i + length) % 2]));
        }
    }
    let expected: Vec<Bits> = cases.iter().map(reference::run).collect();
    for backend in backends() {
        for non_finite in [OnNonFinite::KeepTensor, OnNonFinite::KeepAll] {
            let policy = Policy { non_finite, ..Policy::default() };
            let mut tensors: Vec<Boxed> = cases.iter().map(tensor).collect();
            let mut plans = vec![Plan::default(); cases.len()];
            let mut reports = vec![Vec::new(); cases.len()];
            for number in 0..Case::STEPS {
                for (tensor, case) in tensors.iter_mut().zip(&cases) {
                    tensor.0.set(&case.gradient(number), step(case, backend, number, policy));
                }
                step_tensors(&mut tensors, &mut plans).unwrap();
                reports.iter_mut().zip(&plans).for_each(|(reports, plan)| reports.push(report_bits(&plan.report())));
            }
            for (i, case) in cases.iter().enumerate() {
                let mut expected = expected[i].clone();
                expected.reports.iter_mut().for_each(|report| report[5..].fill(0));
                expected.copy.clear();
                let found = Bits { reports: std::mem::take(&mut reports[i]), ..tensors[i].0.bits() };
                let difference = found.difference(&expected);
                assert!(difference.is_none(), "{case:?} on {}: {}", backend.name(), difference.unwrap_or_default());
            }
        }
    }
}

/// Three tensors that have stepped once, the gradient of the second then set to NaN.
fn with_a_nan(policy: Policy) -> Vec<Boxed> {
    let case = Case::new(20, (ElementType::F32, StateType::Same), 0.0);
    let mut tensors: Vec<Boxed> = (0..3).map(|_| tensor(&case)).collect();
    for number in 0..2 {
        for (i, tensor) in tensors.iter_mut().enumerate() {
            let mut gradient = case.gradient(number);
            if number == 1 && i == 1 {
                gradient[7] = f64::NAN;
            }
            tensor.0.set(&gradient, step(&case, Backend::detect(), number, policy));
        }
        if number == 0 {
            step_tensors(&mut tensors, &mut vec![Plan::default(); 3]).unwrap();
        }
    }
    tensors
}

fn outcomes(plans: &[Plan]) -> Vec<Outcome> {
    plans.iter().map(|plan| plan.report().outcome).collect()
}

#[test]
fn a_policy_says_what_one_tensors_trouble_keeps() {
    use Outcome::{NonFinite, Stepped, Withheld};
    let policy = |non_finite| Policy { non_finite, breakdown: OnBreakdown::Restart };
    let all_bits = |tensors: &[Boxed]| tensors.iter().map(|tensor| tensor.0.bits()).collect::<Vec<Bits>>();
    let mut plans = vec![Plan::default(); 3];

    let mut tensors = with_a_nan(policy(OnNonFinite::KeepTensor));
    let before = all_bits(&tensors);
    step_tensors(&mut tensors, &mut plans).unwrap();
    assert_eq!(outcomes(&plans), [Stepped, NonFinite, Stepped]);
    let changed: Vec<bool> = all_bits(&tensors).iter().zip(&before).map(|(now, before)| now != before).collect();
    assert_eq!(changed, [true, false, true]);

    let mut tensors = with_a_nan(policy(OnNonFinite::KeepAll));
    step_tensors(&mut tensors, &mut plans).unwrap();
    assert_eq!(outcomes(&plans), [Withheld, NonFinite, Withheld]);
    assert!(all_bits(&tensors) == before);

    let mut tensors = with_a_nan(policy(OnNonFinite::Error));
    let error = step_tensors(&mut tensors, &mut plans).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { tensor, .. } if tensor == "1"), "{error}");
    assert!(all_bits(&tensors) == before);

    let error = step_tensors(&mut tensors, &mut plans[..2]).unwrap_err();
    assert_eq!(error.to_string(), "the tensor: expected 3 elements, found 2 in the list of plans");
    tensors[2].0.set(&[0.5; 19], Step::new(Case::measurement(1)));
    let error = step_tensors(&mut tensors, &mut plans).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"2\": expected 20 elements, found 19 in the gradient");
    assert!(all_bits(&tensors) == before);
}
