//! Which backends this processor has, and the choice among them, made once and at run time.

#[cfg(target_arch = "aarch64")]
use crate::backends::neon::Neon;
use crate::backends::portable::Portable;
use crate::backends::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::backends::{avx2::Avx2, avx512::Avx512};
use crate::simd::vector::{InstructionSet, Operation, Real};
use crate::types::error::{Error, owned};

/// The environment variable that forces a backend: `KOALA_BACKEND=avx2`, say.
pub const ENVIRONMENT_VARIABLE: &str = "KOALA_BACKEND";

/// A backend that this processor has: to hold one is the proof. All of them give the same bits.
///
/// ```
/// use koala_optim::Backend;
///
/// let fastest = Backend::detect();
/// assert!(Backend::present().contains(&fastest));
/// assert_eq!(Backend::by_name(fastest.name())?, fastest);
/// # Ok::<(), koala_optim::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Backend(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Scalar(Scalar),
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

/// A backend that this library knows, and whether it can run here.
#[derive(Clone, Copy, Debug)]
pub struct BackendStatus {
    /// The name that [`Backend::by_name`] takes.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// The backend, where it is present.
    pub backend: Option<Backend>,
    /// Why it is not, where it is absent.
    pub absent_because: Option<&'static str>,
}

impl Backend {
    /// The fastest backend that this processor has.
    ///
    /// ```
    /// println!("{}", koala_optim::Backend::detect().name());
    /// ```
    pub fn detect() -> Self {
        Self::avx512().or_else(Self::avx2).or_else(Self::neon).unwrap_or_else(Self::portable)
    }

    /// The backend that the environment variable `KOALA_BACKEND` names, or the fastest where it is not set.
    ///
    /// # Errors
    /// [`Error::UnknownBackend`] and [`Error::AbsentBackend`], both with the names of those present.
    ///
    /// ```
    /// let backend = koala_optim::Backend::from_environment()?;
    /// # Ok::<(), koala_optim::Error>(())
    /// ```
    pub fn from_environment() -> Result<Self, Error> {
        match std::env::var_os(ENVIRONMENT_VARIABLE) {
            None => Ok(Self::detect()),
            Some(name) => Self::by_name(&name.to_string_lossy()),
        }
    }

    /// The backend of that name.
    ///
    /// # Errors
    /// [`Error::UnknownBackend`] if there is none, [`Error::AbsentBackend`] if this processor lacks it; both list the
    /// names of those present.
    ///
    /// ```
    /// let error = koala_optim::Backend::by_name("abacus").unwrap_err();
    /// assert!(error.to_string().contains("abacus") && error.to_string().contains("scalar"));
    /// ```
    pub fn by_name(name: &str) -> Result<Self, Error> {
        let present = || {
            let (statuses, mut names) = (Self::statuses(), Vec::new());
            // An error is not to end the process where there is no memory.
            if names.try_reserve_exact(statuses.len()).is_ok() {
                names.extend(statuses.iter().filter_map(|status| status.backend.map(|_| status.name)));
            }
            names
        };
        match Self::statuses().iter().find(|status| status.name == name) {
            None => Err(Error::UnknownBackend { name: owned(name), present: present() }),
            Some(BackendStatus { backend: Some(backend), .. }) => Ok(*backend),
            Some(status) => Err(Error::AbsentBackend {
                name: status.name,
                reason: status.absent_because.unwrap_or_default(),
                present: present(),
            }),
        }
    }

    /// Plain Rust, one element at a time. Always present.
    ///
    /// ```
    /// assert_eq!(koala_optim::Backend::scalar().name(), "scalar");
    /// ```
    pub fn scalar() -> Self {
        Self(Kind::Scalar(Scalar))
    }

    /// 128-bit vectors in what the build target guarantees. Always present.
    ///
    /// ```
    /// assert_eq!(koala_optim::Backend::portable().name(), "portable");
    /// ```
    pub fn portable() -> Self {
        Self(Kind::Portable(Portable))
    }

    /// AVX2 with F16C, where the processor has them.
    ///
    /// ```
    /// if let Some(backend) = koala_optim::Backend::avx2() {
    ///     assert_eq!(backend.name(), "avx2");
    /// }
    /// ```
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Avx2::new().map(|token| Self(Kind::Avx2(token)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// AVX-512 F and DQ, where the processor has them.
    ///
    /// ```
    /// if let Some(backend) = koala_optim::Backend::avx512() {
    ///     assert_eq!(backend.name(), "avx512");
    /// }
    /// ```
    pub fn avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Avx512::new().map(|token| Self(Kind::Avx512(token)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// NEON, where the processor has it (every 64-bit Arm processor).
    ///
    /// ```
    /// if let Some(backend) = koala_optim::Backend::neon() {
    ///     assert_eq!(backend.name(), "neon");
    /// }
    /// ```
    pub fn neon() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        return Neon::new().map(|token| Self(Kind::Neon(token)));
        #[cfg(not(target_arch = "aarch64"))]
        None
    }

    /// The name that [`by_name`](Self::by_name) takes.
    ///
    /// ```
    /// assert_eq!(koala_optim::Backend::scalar().name(), "scalar");
    /// ```
    pub fn name(&self) -> &'static str {
        match self.0 {
            Kind::Scalar(_) => "scalar",
            Kind::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "neon",
        }
    }

    /// The backends that this processor has, slowest first.
    ///
    /// ```
    /// assert!(koala_optim::Backend::present().len() >= 2);
    /// ```
    pub fn present() -> Vec<Self> {
        Self::statuses().iter().filter_map(|status| status.backend).collect()
    }

    /// Every backend that this library knows: present, or absent and why.
    ///
    /// ```
    /// for status in koala_optim::Backend::statuses() {
    ///     println!("{}: {}", status.name, status.absent_because.unwrap_or("present"));
    /// }
    /// ```
    pub fn statuses() -> [BackendStatus; 5] {
        let status = |name, description, backend: Option<Self>, reason| BackendStatus {
            name,
            description,
            backend,
            absent_because: if backend.is_none() { Some(reason) } else { None },
        };
        let lacking = |architecture, here: bool, feature| if here { feature } else { architecture };
        let x86 = cfg!(target_arch = "x86_64");
        let arm = cfg!(target_arch = "aarch64");
        [
            status("scalar", "plain Rust, one element at a time", Some(Self::scalar()), ""),
            status("portable", "128-bit vectors of the build target", Some(Self::portable()), ""),
            status(
                "neon",
                "128-bit vectors of 64-bit Arm",
                Self::neon(),
                lacking("not a 64-bit Arm processor", arm, "the processor lacks NEON"),
            ),
            status(
                "avx2",
                "256-bit vectors of x86-64",
                Self::avx2(),
                lacking("not an x86-64 processor", x86, "the processor lacks AVX2 or F16C"),
            ),
            status(
                "avx512",
                "512-bit vectors of x86-64",
                Self::avx512(),
                lacking("not an x86-64 processor", x86, "the processor lacks AVX-512 F or DQ"),
            ),
        ]
    }

    /// Runs a loop over vectors in a function that is compiled for this backend.
    #[inline(always)]
    pub(crate) fn run<F: Real, O: Operation<F>>(self, operation: O) -> O::Output {
        match self.0 {
            Kind::Scalar(scalar) => scalar.vectorize(operation),
            Kind::Portable(portable) => portable.vectorize(operation),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(avx2) => avx2.vectorize(operation),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(avx512) => avx512.vectorize(operation),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(neon) => neon.vectorize(operation),
        }
    }
}

impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Backend {}

impl Default for Backend {
    /// The same as [`Backend::detect`].
    fn default() -> Self {
        Self::detect()
    }
}
