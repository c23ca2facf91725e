//! One tensor of any type to step, again and again, and the same streams without arithmetic.

use koala_optim::kernel::{self, Buffers, Dots, Measurement, Plan, Scalars, Step};
use koala_optim::{Backend, Config, Element, ElementType, Error, Optimizer, StateType, Threads, bf16, f16};

use crate::filter::{self, LOSS, NOISE};
use crate::limit::{self, Width};
use crate::stream::{Stream, saw_tooth};

/// The name that an optimizer knows the tensor by.
const NAME: &str = "tensor";

/// A tensor whose types are a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    /// What its parameters are stored in.
    pub parameters: ElementType,
    /// What v and h are stored in.
    pub state: StateType,
    /// Its length.
    pub length: usize,
    /// With 0, pass 1 does not read θ.
    pub weight_decay: f64,
}

/// What can be done with a tensor, over and over: none of it moves the numbers away from where they are.
pub trait Workload: Send {
    /// Pass 1.
    fn dots(&mut self, backend: Backend) -> Dots;
    /// Pass 2.
    fn apply(&mut self, backend: Backend);
    /// The whole step, by the kernel.
    fn step(&mut self, backend: Backend);
    /// The whole step, by an optimizer that [`Tensor::optimizer`] made.
    fn step_by(&mut self, optimizer: &mut Optimizer);
    /// Reads what pass 1 reads. In parts at once if there are several, by the rayon pool that this is called in.
    fn read_limit(&mut self, width: Width, parts: usize);
    /// Reads and writes what pass 2 reads and writes, and changes nothing. In parts as `read_limit` does.
    fn update_limit(&mut self, width: Width, parts: usize);
}

impl Tensor {
    /// Whether pass 1 reads θ.
    pub fn decays(&self) -> bool {
        self.weight_decay != 0.0
    }

    /// The size of an element of v and h.
    fn state_size(&self) -> usize {
        self.state.beside(self.parameters).size()
    }

    /// What pass 1 reads, in bytes per parameter.
    pub fn read_bytes(&self) -> usize {
        (1 + usize::from(self.decays())) * self.parameters.size() + 2 * self.state_size()
    }

    /// What pass 2 reads and writes, in bytes per parameter.
    pub fn update_bytes(&self) -> usize {
        3 * self.parameters.size() + 4 * self.state_size()
    }

    /// The memory of its four vectors.
    pub fn bytes(&self) -> usize {
        self.length * (2 * self.parameters.size() + 2 * self.state_size())
    }

    /// The memory of its state alone.
    pub fn state_bytes(&self) -> usize {
        self.length * 2 * self.state_size()
    }

    /// An optimizer for it.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is none for the state, [`Error::Threads`] if they can't be had.
    pub fn optimizer(&self, backend: Backend, threads: Threads) -> Result<Optimizer, Error> {
        let types = (self.parameters, self.state);
        let config = Config { backend, threads, ..Config::default() };
        filter::optimizer([(NAME, self.length)], types, self.weight_decay, config)
    }

    /// Fills the memory.
    pub fn workload(&self) -> Box<dyn Workload> {
        fn with<P: Element>(tensor: &Tensor) -> Box<dyn Workload> {
            match tensor.state {
                StateType::Same => Box::new(Typed::<P, P>::new(tensor)),
                StateType::F32 => Box::new(Typed::<P, f32>::new(tensor)),
                StateType::Bf16 => Box::new(Typed::<P, bf16>::new(tensor)),
            }
        }
        match self.parameters {
            ElementType::F32 => with::<f32>(self),
            ElementType::F64 => with::<f64>(self),
            ElementType::Bf16 => with::<bf16>(self),
            ElementType::F16 => with::<f16>(self),
        }
    }
}

struct Typed<P, S> {
    gradient: Stream<P>,
    parameters: Stream<P>,
    h: Stream<S>,
    v: Stream<S>,
    scalars: Scalars,
    step: Step,
    plan: Plan,
}

impl<P: Element, S: Element> Typed<P, S> {
    fn new(tensor: &Tensor) -> Self {
        let (gradient, parameters) = (saw_tooth(1e-4, 251), saw_tooth(1e-3, 241));
        let step = Step::new(Measurement { loss: LOSS.mean, noise: NOISE });
        let mut typed = Typed {
            gradient: Stream::new(0, tensor.length, |i| P::rounded(gradient(i))),
            parameters: Stream::new(1, tensor.length, |i| P::rounded(parameters(i))),
            h: Stream::new(2, tensor.length, |_| S::rounded(0.0)),
            v: Stream::new(3, tensor.length, |_| S::rounded(0.0)),
            scalars: Scalars::default(),
            step: Step { settings: filter::settings(tensor.weight_decay), method: filter::quiet(step.method), ..step },
            plan: Plan::default(),
        };
        typed.step(Backend::detect());
        let found = typed.dots(Backend::detect());
        typed.plan = kernel::plan::<P>(&typed.step, &found, &typed.scalars).expect("the settings are good");
        typed
    }

    /// Beside what else a pass needs.
    fn split(&mut self) -> (Buffers<'_, P, S>, &mut Scalars) {
        let buffers = Buffers {
            parameters: self.parameters.get_mut(),
            gradient: self.gradient.get(),
            v: self.v.get_mut(),
            h: self.h.get_mut(),
            copy: None,
        };
        (buffers, &mut self.scalars)
    }
}

const EQUAL: &str = "all lengths are the same";

impl<P: Element, S: Element> Workload for Typed<P, S> {
    fn dots(&mut self, backend: Backend) -> Dots {
        let weight_decay = self.step.settings.weight_decay;
        let (buffers, scalars) = self.split();
        kernel::dots(backend, weight_decay, &buffers, scalars).expect(EQUAL)
    }

    fn apply(&mut self, backend: Backend) {
        let plan = self.plan;
        let (buffers, scalars) = self.split();
        kernel::apply(backend, &plan, buffers, &mut scalars.clone()).expect(EQUAL);
    }

    fn step(&mut self, backend: Backend) {
        let step = Step { backend, ..self.step };
        let (buffers, scalars) = self.split();
        let report = kernel::step(&step, buffers, scalars).expect(EQUAL);
        assert!(report.outcome.is_step(), "{:?}", report.outcome);
    }

    fn step_by(&mut self, optimizer: &mut Optimizer) {
        let tensor = koala_optim::Tensor::new(NAME, self.parameters.get_mut(), self.gradient.get());
        filter::step(optimizer, &mut [tensor]);
    }

    fn read_limit(&mut self, width: Width, parts: usize) {
        let parameters = if self.step.settings.weight_decay == 0.0 { &[] } else { self.parameters.get() };
        limit::read(width, parts, [self.gradient.get(), parameters], [self.h.get(), self.v.get()]);
    }

    fn update_limit(&mut self, width: Width, parts: usize) {
        let (read, parameters) = (self.gradient.get(), self.parameters.get_mut());
        limit::update(width, parts, read, parameters, [self.h.get_mut(), self.v.get_mut()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::widths;

    #[test]
    fn every_type_steps_again_and_again_on_every_backend() {
        for parameters in [ElementType::F32, ElementType::F64, ElementType::Bf16, ElementType::F16] {
            for state in [StateType::Same, StateType::F32, StateType::Bf16] {
                for weight_decay in [0.0, 1e-3] {
                    let mut workload = Tensor { parameters, state, length: 1000, weight_decay }.workload();
                    for backend in Backend::present() {
                        for _ in 0..50 {
                            workload.step(backend);
                            workload.apply(backend);
                        }
                    }
                    let before = workload.dots(Backend::detect());
                    for width in widths() {
                        workload.read_limit(width, 3);
                        workload.update_limit(width, 3);
                    }
                    let after = workload.dots(Backend::detect());
                    assert_eq!((before.a, before.b), (after.a, after.b), "the limit changes nothing");
                    assert!(after.c.is_finite() && after.c > 0.0);
                }
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_cost_model() {
        let tensor = Tensor { parameters: ElementType::F32, state: StateType::Same, length: 10, weight_decay: 1e-3 };
        assert_eq!((tensor.read_bytes(), tensor.update_bytes(), tensor.bytes()), (16, 28, 160));
        let half = Tensor { state: StateType::Bf16, weight_decay: 0.0, ..tensor };
        assert_eq!((half.read_bytes(), half.update_bytes(), half.bytes()), (8, 20, 120));
    }
}
