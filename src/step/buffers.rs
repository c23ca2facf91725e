//! The buffers of one tensor, in types that are known when a program is compiled and in types that are known when it runs.
//! This is the only place where types are told apart.

use bytemuck::{cast_slice, cast_slice_mut};
use half::{bf16, f16};

use crate::backends::prefetch::prefetch;
use crate::methods::Method;
use crate::methods::plan::Scalars;
use crate::passes::update::HalfCopy;
use crate::simd::vector::Operand;
use crate::types::element::{Element, ElementType};
use crate::types::error::{Error, check_lengths};

/// The buffers of one tensor, all of one length n; 0 is legal and does nothing. `P` is what the parameters are stored
/// in, `S` the state: the same type, f32 or bf16. With any other state, what takes the buffers does not compile:
///
/// ```compile_fail,E0080
/// use koala_optim::kernel::{Buffers, Measurement, Scalars, Step, step};
///
/// let (mut v, mut h) = ([0.0_f64], [0.0_f64]); // Of f32 it compiles.
/// let buffers = Buffers { parameters: &mut [1.0_f32], gradient: &[0.1_f32], v: &mut v, h: &mut h, copy: None };
/// step(&Step::new(Measurement { loss: 0.7, noise: 1.0 }), buffers, &mut Scalars::default())?;
/// # Ok::<(), koala_optim::Error>(())
/// ```
///
/// ```compile_fail,E0080
/// use koala_optim::{Backend, f16, kernel::{Buffers, Scalars, dots}};
///
/// let (mut v, mut h) = ([f16::ZERO], [f16::ZERO]); // Of f32 it compiles.
/// let buffers = Buffers { parameters: &mut [1.0_f32], gradient: &[0.1_f32], v: &mut v, h: &mut h, copy: None };
/// dots(Backend::detect(), 0.5, &buffers, &Scalars::default())?;
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Debug)]
pub struct Buffers<'a, P, S> {
    /// θ: read and written.
    pub parameters: &'a mut [P],
    /// g = ∂L/∂θ of the minibatch's mean loss: read.
    pub gradient: &'a [P],
    /// v = H·P, the product of gradient and covariance: read (but for a first step) and written. What other methods keep
    /// here, and whether it is empty, [`Method::state_vectors`] says; theirs is all zeros before a first step.
    pub v: &'a mut [S],
    /// h, the measurement row of the step before. It is read and written as v is.
    pub h: &'a mut [S],
    /// Written with the new parameters, rounded, where there is one and the step is taken. What is too large for it
    /// becomes infinite.
    pub copy: Option<HalfCopy<'a>>,
}

impl<P: Element, S: Element> Buffers<'_, P, S> {
    pub(crate) fn validate(&self, method: &Method) -> Result<(), Error> {
        self.validate_lengths(method.state_lengths(self.parameters.len()))
    }

    /// For the state of a filter, which has both vectors.
    #[inline(always)]
    pub(crate) fn validate_filter(&self) -> Result<(), Error> {
        self.validate_lengths([self.parameters.len(); 2])
    }

    #[inline(always)]
    fn validate_lengths(&self, [h, v]: [usize; 2]) -> Result<(), Error> {
        let length = self.parameters.len();
        check_lengths([
            ("gradient", self.gradient.len(), length),
            ("state v", self.v.len(), v),
            ("state h", self.h.len(), h),
            ("half-precision copy", self.copy.as_ref().map_or(length, HalfCopy::len), length),
        ])
    }
}

/// Calls a macro with every pair of types that there may be, parameters first, and which [way](crate::step::whole) its steps
/// take: to compile the loops of a rare pair takes as long as to compile those of a frequent one.
macro_rules! pairs_of_types {
    ($callback:ident) => {
        $callback! {
            F32: f32, f32, compiled;
            F32Bf16: f32, bf16, compiled;
            F64: f64, f64, compiled;
            F64F32: f64, f32, staged;
            F64Bf16: f64, bf16, staged;
            Bf16: bf16, bf16, compiled;
            Bf16F32: bf16, f32, staged;
            F16: f16, f16, compiled;
            F16F32: f16, f32, staged;
            F16Bf16: f16, bf16, staged;
        }
    };
}
pub(crate) use pairs_of_types;

/// Does not compile for a pair of types that there is not.
pub(crate) const fn check_pair(parameters: ElementType, state: ElementType) {
    let is_one = parameters as u8 == state as u8 || matches!(state, ElementType::F32 | ElementType::Bf16);
    assert!(is_one, "the state is of the parameters' type, f32 or bf16");
}

macro_rules! any_buffers {
    ($($variant:ident: $parameters:ty, $state:ty, $way:ident;)*) => {
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

            /// The buffers whose bytes these are: parameters and gradient of the first type, the state of the second. The
            /// bytes are those of elements of these types.
            #[inline(always)]
            pub(crate) fn of_bytes(
                types: [ElementType; 2],
                parameters: &'a mut [u8],
                gradient: &'a [u8],
                [v, h]: [&'a mut [u8]; 2],
                copy: Option<HalfCopy<'a>>,
            ) -> Self {
                match types {
                    $([<$parameters>::TYPE, <$state>::TYPE] => AnyBuffers::$variant(Buffers {
                        parameters: cast_slice_mut(parameters),
                        gradient: cast_slice(gradient),
                        v: cast_slice_mut(v),
                        h: cast_slice_mut(h),
                        copy,
                    }),)*
                    _ => unreachable!("there are no other pairs"),
                }
            }

            /// Calls `task` with the buffers in their own types.
            #[inline(always)]
            pub(crate) fn with<T: Task>(self, scalars: &mut Scalars, task: T) -> T::Output {
                match self {
                    $(AnyBuffers::$variant(buffers) => task.$way(buffers, scalars),)*
                }
            }

            /// Calls `look` with the buffers in their own types, which it does not change.
            #[inline(always)]
            pub(crate) fn look<L: Look>(&self, look: L) -> L::Output {
                match self {
                    $(AnyBuffers::$variant(buffers) => look.at(buffers),)*
                }
            }
        }
    };
}

pairs_of_types!(any_buffers);

/// Something to do with a tensor's buffers, whatever their types.
pub(crate) trait Task {
    type Output;

    /// For types whose loops are compiled.
    #[inline(always)]
    fn compiled<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output
    where
        Self: Sized,
    {
        self.staged(buffers, scalars)
    }

    /// For types whose blocks are staged in the arithmetic type, and for what is staged in every type.
    fn staged<P: Operand, S: Operand>(self, buffers: Buffers<'_, P, S>, scalars: &mut Scalars) -> Self::Output;
}

/// Something to find out about a tensor's buffers, whatever their types.
pub(crate) trait Look {
    type Output;
    fn at<P: Operand, S: Operand>(self, buffers: &Buffers<'_, P, S>) -> Self::Output;
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

    pub(crate) fn validate(&self, method: &Method) -> Result<(), Error> {
        self.look(Validate { method })
    }

    /// Asks for the beginnings of the buffers to be brought into the cache.
    #[inline]
    pub(crate) fn prefetch(&self) {
        self.look(Prefetch);
    }
}

struct Length;

impl Look for Length {
    type Output = usize;

    #[inline(always)]
    fn at<P: Operand, S: Operand>(self, buffers: &Buffers<'_, P, S>) -> usize {
        buffers.parameters.len()
    }
}

struct Validate<'a> {
    method: &'a Method,
}

impl Look for Validate<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn at<P: Operand, S: Operand>(self, buffers: &Buffers<'_, P, S>) -> Self::Output {
        buffers.validate(self.method)
    }
}

struct Prefetch;

impl Look for Prefetch {
    type Output = ();

    #[inline(always)]
    fn at<P: Operand, S: Operand>(self, buffers: &Buffers<'_, P, S>) {
        let Buffers { parameters, gradient, v, h, .. } = buffers;
        for buffer in [cast_slice(parameters), cast_slice(gradient), cast_slice(v), cast_slice(h)] {
            prefetch(buffer);
        }
    }
}
