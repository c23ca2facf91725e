//! Level 1 over many tensors: a step of all of them, whatever their types and wherever their buffers are.

use crate::kernel::batches;
use crate::kernel::batches::List;
use crate::methods::plan::{Plan, Scalars};
use crate::step::buffers::AnyBuffers;
use crate::step::tasks::{ApplyPlan, PlanTensor};
use crate::step::{Manner, Step};
use crate::types::error::{Error, check_lengths};

/// What a tensor lends for as long as one pass needs it.
///
/// See the [example](Lender).
#[derive(Debug)]
pub struct Lent<'a> {
    /// What the tensor is stepped with.
    pub step: &'a Step,
    /// Parameters, gradient, v, h, and a copy if there is one.
    pub buffers: AnyBuffers<'a>,
    /// The filter's scalars.
    pub scalars: &'a mut Scalars,
}

/// A tensor whose buffers stay with the caller, and are lent for as long as one pass needs them.
///
/// ```
/// use koala_optim::kernel::{Buffers, Lender, Lent, Measurement, Plan, Scalars, Step, step_tensors};
///
/// struct Layer { parameters: Vec<f32>, gradient: Vec<f32>, v: Vec<f32>, h: Vec<f32>, scalars: Scalars, step: Step }
///
/// impl Lender for Layer {
///     fn step(&self) -> &Step {
///         &self.step
///     }
///     fn len(&self) -> usize {
///         self.parameters.len()
///     }
///     fn lend(&mut self) -> Lent<'_> {
///         let Layer { parameters, gradient, v, h, scalars, step } = self;
///         Lent { step, buffers: Buffers { parameters, gradient, v, h, copy: None }.into(), scalars }
///     }
/// }
///
/// let step = Step::new(Measurement { loss: 0.7, noise: 1.0 });
/// let (v, h, scalars) = (vec![0.0; 2], vec![0.0; 2], Scalars::default());
/// let mut layers = [Layer { parameters: vec![1.0, 2.0], gradient: vec![0.3, 0.4], v, h, scalars, step }];
/// let mut plans = [Plan::default()];
/// step_tensors(&mut layers, &mut plans)?;
/// assert!(plans[0].report().outcome.is_step() && layers[0].parameters[0] < 1.0);
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[allow(clippy::len_without_is_empty)]
pub trait Lender {
    /// What the tensor is stepped with.
    fn step(&self) -> &Step;

    /// The number of parameters.
    fn len(&self) -> usize;

    /// The buffers, which are of that length, the scalars, and the step.
    fn lend(&mut self) -> Lent<'_>;

    /// Whether the gradient's memory may become that of h, if [`exchange`](Self::exchange) is called then: see
    /// [`step_exchanging`](crate::kernel::step_exchanging). Default: no.
    fn offers_exchange(&self) -> bool {
        false
    }

    /// Lets the gradient and h change places.
    fn exchange(&mut self) {}
}

/// One whole step of every tensor, on the calling thread and without allocating. What is done with each, and its report,
/// is in `plans`, which need not hold anything before. Small tensors are worked on together, and a tensor is finished
/// while it is in the cache; but where a tensor's policy lets its trouble keep the others, all are looked at before any
/// is written.
///
/// # Errors
/// [`Error::Length`] if there are not as many plans as tensors or a buffer has not its tensor's length,
/// [`Error::Setting`] if a setting or the noise is out of range, and what a tensor's policy makes an error. Nothing of
/// any tensor has been written then. The error's tensor is its place in the list.
///
/// See the [example](Lender).
pub fn step_tensors<T: Lender>(tensors: &mut [T], plans: &mut [Plan]) -> Result<(), Error> {
    check_lengths([("list of plans", plans.len(), tensors.len())])?;
    for (place, tensor) in tensors.iter_mut().enumerate() {
        validate(tensor).map_err(|error| error.of_place(place))?;
    }
    let atomic = tensors.iter().any(|tensor| tensor.step().policy.is_atomic());
    let mut planned = Planned { tensors, plans };
    if !atomic {
        return batches::plan_and_apply(&mut planned, false);
    }
    let all = 0..planned.count();
    batches::plan(&mut planned, all.clone(), false)?;
    if !batches::all_withheld(&mut planned) {
        batches::apply(&mut planned, all, false);
    }
    Ok(())
}

fn validate<T: Lender>(tensor: &mut T) -> Result<(), Error> {
    tensor.step().validate()?;
    let length = tensor.len();
    let Lent { step, buffers, .. } = tensor.lend();
    check_lengths([("parameters", buffers.len(), length)])?;
    buffers.validate(&step.method)
}

/// Tensors and their plans.
struct Planned<'l, T> {
    tensors: &'l mut [T],
    plans: &'l mut [Plan],
}

impl<T: Lender> List for Planned<'_, T> {
    fn count(&self) -> usize {
        self.tensors.len()
    }

    fn elements(&self, place: usize) -> usize {
        self.tensors[place].len()
    }

    fn prefetch(&mut self, place: usize) {
        self.tensors[place].lend().buffers.prefetch();
    }

    fn plan(&mut self, place: usize, _: bool) -> Result<(), Error> {
        let trouble = plan_any(self.tensors[place].lend(), &mut self.plans[place]);
        trouble.map_or(Ok(()), |error| Err(error.of_place(place)))
    }

    fn apply(&mut self, place: usize, _: bool) {
        let (tensor, plan) = (&mut self.tensors[place], &self.plans[place]);
        let exchange = tensor.offers_exchange();
        if apply_any(tensor.lend(), exchange, plan) && exchange {
            tensor.exchange();
        }
    }

    fn keeps_others(&self, place: usize) -> bool {
        self.plans[place].keeps_others(self.tensors[place].step().policy)
    }

    fn withhold(&mut self, place: usize) {
        self.plans[place].withhold();
    }
}

/// Not generic, so that it is compiled in this crate.
fn plan_any(lent: Lent<'_>, plan: &mut Plan) -> Option<Error> {
    let Lent { step, buffers, scalars } = lent;
    buffers.with(scalars, PlanTensor { step, parallel: false, plan })
}

/// Whether the gradient has to take the place of h, if that was offered. Not generic either.
fn apply_any(lent: Lent<'_>, exchange: bool, plan: &Plan) -> bool {
    let Lent { step, buffers, scalars } = lent;
    buffers.with(scalars, ApplyPlan { backend: step.backend, manner: Manner { parallel: false, exchange }, plan })
}
