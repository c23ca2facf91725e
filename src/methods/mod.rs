//! The optimizers that share this crate's kernels, a file each: what a method is stands in [`rule`], and what is decided by
//! in [`plan`].
//!
//! How tensors are divided, in which types they are stored, what backends do and what the
//! [contract](crate::types::contract) promises does not depend on the method.

pub(crate) mod number;
pub(crate) mod plan;
pub(crate) mod reach;
pub(crate) mod rule;

use crate::methods::number::Number;
use crate::methods::plan::{Plan, Update};
use crate::methods::reach::Reach;
use crate::methods::rule::{Placed, Planned, Reaching, Rules, Wanted};
use crate::passes::update::Pass;
use crate::simd::vector::Real;
use crate::types::error::Error;

pub(crate) use crate::methods::koala_m::Predict;
pub use crate::methods::koala_plus_plus::Variant;
pub(crate) use crate::methods::koala_plus_plus::{CompiledPass, KoalaPlusPlus as Compiled};

/// From the list of methods: the enum, and a call of the method's file for everything that is asked of one.
macro_rules! methods {
    ($($(#[$doc:meta])* $file:ident: $method:ident;)*) => {
        $(mod $file; pub use $file::$method;)*

        /// Which optimizer steps, and its numbers. Those that all tensors share move with each step: they are the
        /// variances of [`KoalaV`] and [`KoalaM`].
        ///
        /// ```
        /// use koala_optim::{AdamW, Config, Method, Optimizer};
        /// let method = Method::AdamW(AdamW { beta2: 0.95, ..AdamW::default() });
        /// let optimizer = Optimizer::new(Config { method, ..Config::default() })?;
        /// # Ok::<(), koala_optim::Error>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
        pub enum Method {
            $($(#[$doc])* $method($method),)*
        }

        /// The place of each method in the list.
        #[derive(Clone, Copy)]
        enum Place { $($method,)* }

        $(impl Placed for $method {
            const PLACE: u8 = Place::$method as u8;
        })*

        $(impl From<$method> for Method {
            fn from(numbers: $method) -> Self {
                Method::$method(numbers)
            }
        })*

        /// Every method, in the order of the list, with its default numbers.
        fn all() -> impl Iterator<Item = Method> {
            [$(Method::$method($method::default()),)*].into_iter()
        }

        /// Calls `$call` with the method's numbers.
        macro_rules! of_method {
            ($value:expr, $numbers:ident => $call:expr) => {
                match $value { $(Method::$method($numbers) => $call,)* }
            };
        }

        /// Calls the method in whose file a rule stands.
        macro_rules! of_rule {
            ($number:expr, $rules:ident => $call:expr) => {
                match $number.method {
                    $(<$method as Placed>::PLACE => { type $rules = $method; $call })*
                    _ => unreachable!("no file has such a rule"),
                }
            };
        }
    };
}

methods! {
    /// KOALA++ (Xia, Davtyan, Favaro, 2025).
    koala_plus_plus: KoalaPlusPlus;
    /// KOALA-V (Davtyan et al., 2022): one variance for all parameters.
    koala_v: KoalaV;
    /// KOALA-M (Davtyan et al., 2022): one covariance for all parameters and their velocities.
    koala_m: KoalaM;
    /// AdamW (Loshchilov and Hutter, 2019).
    adamw: AdamW;
    /// Stochastic gradient descent, with momentum.
    sgd: Sgd;
}

impl Default for Method {
    fn default() -> Self {
        Method::KoalaPlusPlus(KoalaPlusPlus::default())
    }
}

impl Method {
    /// The method of that [name](Self::name), with its default numbers.
    ///
    /// ```
    /// use koala_optim::{AdamW, Method};
    /// assert_eq!(Method::by_name("adamw"), Some(Method::AdamW(AdamW::default())));
    /// assert_eq!(Method::by_name("abacus"), None);
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        all().find(|method| method.name() == name)
    }

    /// The name by which commands and other languages know it: `koala++`, `koala-v`, `koala-m`, `adamw` or `sgd`.
    ///
    /// ```
    /// assert_eq!(koala_optim::Method::default().name(), "koala++");
    /// ```
    pub fn name(&self) -> &'static str {
        fn name<R: Rules>(_: &R) -> &'static str {
            R::NAME
        }
        of_method!(self, numbers => name(numbers))
    }

    /// The table of its numbers: their names, and what they may be.
    ///
    /// ```
    /// let names: Vec<_> = koala_optim::Method::default().numbers().iter().map(|number| number.name).collect();
    /// assert_eq!(names, ["initial_variance", "process_noise", "variant", "prior_variance"]);
    /// ```
    pub fn numbers(&self) -> &'static [Number] {
        fn numbers<R: Rules>(_: &R) -> &'static [Number] {
            R::NUMBERS
        }
        of_method!(self, own => numbers(own))
    }

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not, its value and its range.
    ///
    /// ```
    /// use koala_optim::{Method, Sgd};
    /// assert!(Method::Sgd(Sgd { momentum: 1.0, ..Sgd::default() }).validate().is_err());
    /// ```
    #[inline]
    pub fn validate(&self) -> Result<(), Error> {
        of_method!(self, numbers => numbers.validate())
    }

    /// What the state's two vectors hold, h first, or `None` where there is no such vector, and its slice is empty.
    ///
    /// ```
    /// use koala_optim::{Method, Sgd};
    /// let method = Method::Sgd(Sgd::default());
    /// assert_eq!(method.state_vectors(), [Some("momentum"), None]);
    /// ```
    pub fn state_vectors(&self) -> [Option<&'static str>; 2] {
        of_method!(self, numbers => numbers.vectors())
    }

    /// The lengths of h and v beside parameters of that length.
    #[inline(always)]
    pub(crate) fn state_lengths(&self, length: usize) -> [usize; 2] {
        match self.filters() {
            true => [length; 2],
            false => self.state_vectors().map(|vector| vector.map_or(0, |_| length)),
        }
    }

    /// Whether the state of one is that of the other, their numbers aside.
    pub(crate) fn is_like(&self, other: &Method) -> bool {
        self.name() == other.name() && self.state_vectors() == other.state_vectors()
    }

    /// Moves the shared numbers to the time of the next measurement, before its gradient is taken: paper of KOALA,
    /// section 3. `distance_squared` is Σ‖m − θ‖² over that many parameters, which KOALA-M alone reads: see
    /// [`kernel::predict`](crate::kernel::predict). [`Optimizer`](crate::Optimizer) does this by itself.
    ///
    /// ```
    /// use koala_optim::{KoalaV, Method};
    /// let mut method = Method::KoalaV(KoalaV { variance: 0.5, process_noise: 0.25 });
    /// method.predict(0.0, 0);
    /// assert_eq!(method, Method::KoalaV(KoalaV { variance: 0.75, process_noise: 0.25 }));
    /// ```
    pub fn predict(&mut self, distance_squared: f64, parameters: usize) {
        of_method!(self, numbers => numbers.predict(distance_squared, parameters));
    }

    /// Lets the shared numbers learn from a step: `gain` is the largest [`TensorReport::gain`](crate::TensorReport::gain)
    /// among the tensors that stepped, 0 if none did. [`Optimizer`](crate::Optimizer) does this by itself.
    ///
    /// ```
    /// use koala_optim::{KoalaV, Method};
    /// let mut method = Method::KoalaV(KoalaV { variance: 0.5, process_noise: 0.25 });
    /// method.correct(1.5);
    /// assert_eq!(method, Method::KoalaV(KoalaV { variance: 0.125, process_noise: 0.25 }));
    /// ```
    pub fn correct(&mut self, gain: f64) {
        of_method!(self, numbers => numbers.correct(gain));
    }

    /// Whether its numbers belong to the optimizer, and not to a group of tensors.
    pub(crate) fn is_shared(&self) -> bool {
        fn shared<R: Rules>(_: &R) -> bool {
            R::SHARED
        }
        of_method!(self, numbers => shared(numbers))
    }

    #[inline(always)]
    fn wanted(&self) -> Wanted {
        #[inline(always)]
        fn wanted<R: Rules>(_: &R) -> Wanted {
            R::WANTED
        }
        of_method!(self, numbers => wanted(numbers))
    }

    /// Whether the state is that of a filter, which is divided by, and which pass 1 reads.
    #[inline(always)]
    pub(crate) fn filters(&self) -> bool {
        self.wanted() == Wanted::Filter
    }

    /// Whether a step needs the loss: its rate then depends on H·H and θ·θ too. Otherwise pass 1 only looks whether the
    /// gradient is finite.
    ///
    /// ```
    /// use koala_optim::{AdamW, Method};
    /// assert!(Method::default().measures() && !Method::AdamW(AdamW::default()).measures());
    /// ```
    pub fn measures(&self) -> bool {
        matches!(self.wanted(), Wanted::Filter | Wanted::Measurement)
    }

    /// Whether H is g + wd·θ, and not g.
    pub(crate) fn couples(&self) -> bool {
        self.wanted() != Wanted::Decoupled
    }

    /// What a prediction leaves of the velocities of a tensor, if there is a prediction before its gradient is taken.
    pub(crate) fn velocity_decay(&self) -> Option<f64> {
        of_method!(self, numbers => numbers.velocity_decay())
    }

    /// The numbers of the method whose passes are compiled for pairs of types, if this is it. Its definite variant goes the
    /// way of all other methods.
    #[inline(always)]
    pub(crate) fn compiled(&self) -> Option<&Compiled> {
        match self {
            Method::KoalaPlusPlus(numbers) if numbers.variant != Variant::Definite => Some(numbers),
            _ => None,
        }
    }

    /// Decides about one tensor, for arithmetic in `F`.
    pub(crate) fn plan<F: Real>(&self, planned: Planned<'_>) -> Plan {
        of_method!(self, numbers => numbers.plan::<F>(planned))
    }
}

/// How far an update can take the elements of a tensor.
pub(crate) fn reach(update: Update, reaching: Reaching) -> Reach {
    of_rule!(update.rule, R => R::reach(update, reaching))
}

/// Whether an update is that of a filter, whose state pass 1 reads.
pub(crate) fn filters(update: Update) -> bool {
    of_rule!(update.rule, R => R::WANTED == Wanted::Filter)
}

/// Whether θ becomes a part of the state by an update.
pub(crate) fn takes_parameters(update: Update) -> bool {
    of_rule!(update.rule, R => R::takes_parameters(update))
}

/// Calls `work` with the pass 2 of an update.
pub(crate) fn with_pass<F: Real>(update: Update, work: &mut dyn FnMut(&dyn Pass<F, F>)) {
    of_rule!(update.rule, R => R::with_pass::<F>(update, work))
}
