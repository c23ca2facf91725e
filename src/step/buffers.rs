//! The buffers of a tensor whose types are known only when the program runs: what C and lists of unlike tensors have.
//! What is done with them is compiled once, in this crate, for all types and backends; so the kernel's generic functions
//! hand theirs on to here.

use bytemuck::{cast_slice, cast_slice_mut};
use half::{bf16, f16};

use crate::backend::Backend;
use crate::dots::Input;
use crate::element::{Element, ElementType};
use crate::error::Error;
use crate::kernel::{self, Buffers, Dots, Plan, Scalars, Step, TensorReport};
use crate::methods::{Method, Update};
use crate::pass_1::measure;
use crate::passes::{Manner, apply_plan, step_with_report};
use crate::tasks::{Predict, Task};

macro_rules! pairs_of_types {
    ($($variant:ident: $parameters:ty, $state:ty;)*) => {
        /// The buffers of one tensor, of whatever types: each pair of types that there may be, parameters first.
        ///
        /// ```
        /// use koala_optim::kernel::{AnyBuffers, Buffers, Measurement, Scalars, Step};
        ///
        /// let (mut parameters, gradient) = ([1.0_f32, -2.0, 3.0], [0.1_f32, 0.2, -0.3]);
        /// let (mut v, mut h, mut scalars) = ([0.0_f32; 3], [0.0_f32; 3], Scalars::default());
        /// let buffers = Buffers { parameters: &mut parameters, gradient: &gradient, v: &mut v, h: &mut h, copy: None };
        /// let step = Step::new(Measurement { loss: 0.7, noise: 1.0 });
        /// assert!(AnyBuffers::from(buffers).step(&step, &mut scalars)?.outcome.is_step());
        /// # Ok::<(), koala_optim::Error>(())
        /// ```
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum AnyBuffers<'a> {
            $($variant(Buffers<'a, $parameters, $state>),)*
        }

        $(impl<'a> From<Buffers<'a, $parameters, $state>> for AnyBuffers<'a> {
            fn from(buffers: Buffers<'a, $parameters, $state>) -> Self {
                AnyBuffers::$variant(buffers)
            }
        })*

        impl<'a> AnyBuffers<'a> {
            /// The same buffers. Which pair of types it is, is known when this is compiled; any other does not compile.
            #[inline(always)]
            pub(crate) fn of<P: Element, S: Element>(buffers: Buffers<'a, P, S>) -> Self {
                const { check_pair(P::TYPE, S::TYPE) };
                let Buffers { parameters, gradient, v, h, copy } = buffers;
                $(if P::TYPE == <$parameters>::TYPE && S::TYPE == <$state>::TYPE {
                    return AnyBuffers::$variant(Buffers {
                        parameters: cast_slice_mut(parameters),
                        gradient: cast_slice(gradient),
                        v: cast_slice_mut(v),
                        h: cast_slice_mut(h),
                        copy,
                    });
                })*
                unreachable!("there are no other pairs");
            }
        }

        $(impl Buffers<'_, $parameters, $state> {
            /// A whole step, compiled in this crate. The result says whether the gradient has to take the place of h.
            #[inline(never)]
            fn compiled_step(
                self,
                step: &Step,
                exchange: bool,
                scalars: &mut Scalars,
                report: &mut TensorReport,
            ) -> Result<bool, Error> {
                step_with_report(step, Manner { exchange, ..Manner::default() }, self, scalars, report)
            }
        })*

        $(impl Input<'_, $parameters, $state> {
            /// Pass 1 of KOALA++, compiled in this crate.
            #[inline(never)]
            fn compiled_dots(&self, backend: Backend, weight_decay: f64) -> Dots {
                measure(backend, false, weight_decay, self)
            }
        })*

        /// Pass 1 of KOALA++ over buffers whose types are known when this is compiled, as in [`AnyBuffers::of`].
        #[inline(always)]
        pub(crate) fn dots<P: Element, S: Element>(
            backend: Backend,
            weight_decay: f64,
            input: &Input<'_, P, S>,
        ) -> Dots {
            const { check_pair(P::TYPE, S::TYPE) };
            $(if P::TYPE == <$parameters>::TYPE && S::TYPE == <$state>::TYPE {
                let input = Input::<$parameters, $state> {
                    gradient: cast_slice(input.gradient),
                    parameters: cast_slice(input.parameters),
                    h: cast_slice(input.h),
                    v: cast_slice(input.v),
                };
                return input.compiled_dots(backend, weight_decay);
            })*
            unreachable!("there are no other pairs");
        }

        impl AnyBuffers<'_> {
            /// As [`kernel::step_exchanging`], if `exchange` is true; but it leaves to the caller to let the gradient and h
            /// change places: where the result is true, h has not been written, and the gradient is the new h. The report
            /// is written where it is to be, since it is large for a result.
            ///
            /// # Errors
            /// As [`kernel::step`].
            ///
            /// See the [type's example](Self).
            #[inline(always)]
            pub fn step_exchanging(
                self,
                step: &Step,
                exchange: bool,
                scalars: &mut Scalars,
                report: &mut TensorReport,
            ) -> Result<bool, Error> {
                match self {
                    $(AnyBuffers::$variant(buffers) => buffers.compiled_step(step, exchange, scalars, report),)*
                }
            }

            /// Calls `task` with the buffers in their own types.
            #[inline(always)]
            pub(crate) fn with<T: Task>(self, scalars: &mut Scalars, task: T) -> T::Output {
                match self {
                    $(AnyBuffers::$variant(buffers) => task.run(buffers, scalars),)*
                }
            }

            /// The same for what only looks at them.
            #[inline(always)]
            fn look<L: Look>(&self, look: L) -> L::Output {
                match self {
                    $(AnyBuffers::$variant(buffers) => look.at(buffers),)*
                }
            }
        }
    };
}

pairs_of_types! {
    F32: f32, f32;
    F32Bf16: f32, bf16;
    F64: f64, f64;
    F64F32: f64, f32;
    F64Bf16: f64, bf16;
    Bf16: bf16, bf16;
    Bf16F32: bf16, f32;
    F16: f16, f16;
    F16F32: f16, f32;
    F16Bf16: f16, bf16;
}

/// Does not compile for a pair of types that there is not.
const fn check_pair(parameters: ElementType, state: ElementType) {
    let is_one = parameters as u8 == state as u8 || matches!(state, ElementType::F32 | ElementType::Bf16);
    assert!(is_one, "the state is of the parameters' type, f32 or bf16");
}

/// Something to find out about a tensor's buffers, whatever their types.
trait Look {
    type Output;
    fn at<P: Element, S: Element>(self, buffers: &Buffers<'_, P, S>) -> Self::Output;
}

impl AnyBuffers<'_> {
    /// The number of parameters.
    ///
    /// See the [type's example](Self).
    #[inline]
    pub fn len(&self) -> usize {
        self.look(Length)
    }

    /// Whether there are none.
    ///
    /// See the [type's example](Self).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`kernel::step`].
    ///
    /// # Errors
    /// As [`kernel::step`].
    ///
    /// See the [type's example](Self).
    #[inline(always)]
    pub fn step(self, step: &Step, scalars: &mut Scalars) -> Result<TensorReport, Error> {
        let mut report = TensorReport::default();
        self.step_exchanging(step, false, scalars, &mut report)?;
        Ok(report)
    }

    /// As [`kernel::predict`].
    ///
    /// # Errors
    /// As [`kernel::predict`].
    ///
    /// See the [type's example](Self).
    pub fn predict(self, step: &Step) -> Result<f64, Error> {
        self.with(&mut Scalars::default(), Predict { step })
    }

    /// As [`kernel::dots`].
    ///
    /// # Errors
    /// As [`kernel::dots`].
    ///
    /// See the [type's example](Self).
    pub fn dots(&self, backend: Backend, weight_decay: f64, scalars: &Scalars) -> Result<Dots, Error> {
        self.look(TakeDots { backend, weight_decay, scalars })
    }

    /// As [`kernel::plan`].
    ///
    /// # Errors
    /// As [`kernel::plan`].
    ///
    /// See the [type's example](Self).
    pub fn plan(&self, step: &Step, dots: &Dots, scalars: &Scalars) -> Result<Plan, Error> {
        self.look(Decide { step, dots, scalars })
    }

    /// As [`kernel::apply`].
    ///
    /// # Errors
    /// As [`kernel::apply`].
    ///
    /// See the [type's example](Self).
    pub fn apply(self, backend: Backend, plan: &Plan, scalars: &mut Scalars) -> Result<(), Error> {
        self.with(scalars, Apply { backend, plan })
    }

    pub(crate) fn validate(&self, method: &Method) -> Result<(), Error> {
        self.look(Validate { method })
    }

    #[inline]
    pub(crate) fn prefetch(&self) {
        self.look(Prefetch);
    }
}

struct Length;

impl Look for Length {
    type Output = usize;

    #[inline(always)]
    fn at<P: Element, S: Element>(self, buffers: &Buffers<'_, P, S>) -> usize {
        buffers.parameters.len()
    }
}

struct Validate<'a> {
    method: &'a Method,
}

impl Look for Validate<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn at<P: Element, S: Element>(self, buffers: &Buffers<'_, P, S>) -> Self::Output {
        buffers.validate(self.method)
    }
}

/// Asks for the beginnings of the buffers to be brought into the cache.
struct Prefetch;

impl Look for Prefetch {
    type Output = ();

    #[inline(always)]
    fn at<P: Element, S: Element>(self, buffers: &Buffers<'_, P, S>) {
        let Buffers { parameters, gradient, v, h, .. } = buffers;
        let of_parameters = [cast_slice(parameters), cast_slice(gradient)];
        let of_state = [cast_slice(v), cast_slice(h)];
        of_parameters.into_iter().chain(of_state).for_each(crate::backends::prefetch::prefetch);
    }
}

struct TakeDots<'a> {
    backend: Backend,
    weight_decay: f64,
    scalars: &'a Scalars,
}

impl Look for TakeDots<'_> {
    type Output = Result<Dots, Error>;

    #[inline(always)]
    fn at<P: Element, S: Element>(self, buffers: &Buffers<'_, P, S>) -> Self::Output {
        kernel::dots(self.backend, self.weight_decay, buffers, self.scalars)
    }
}

struct Decide<'a> {
    step: &'a Step,
    dots: &'a Dots,
    scalars: &'a Scalars,
}

impl Look for Decide<'_> {
    type Output = Result<Plan, Error>;

    #[inline(always)]
    fn at<P: Element, S: Element>(self, _: &Buffers<'_, P, S>) -> Self::Output {
        kernel::plan::<P>(self.step, self.dots, self.scalars)
    }
}

struct Apply<'a> {
    backend: Backend,
    plan: &'a Plan,
}

impl Task for Apply<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<P: Element, S: Element>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output {
        buffers.validate(&Method::KoalaPlusPlus)?;
        if !matches!(self.plan.update, Update::KoalaPlusPlus(_)) || self.plan.scaled.is_some() {
            return Err(Error::Halves);
        }
        apply_plan(self.backend, Manner::default(), self.plan, buffers, scalars);
        Ok(())
    }
}
