//! Threads: none, unless a count or a pool is asked for. Work is divided in two, again and again, by [`join`]; the
//! contract's trees divide at the same places, so that the number of threads does not show in the results.

use crate::error::Error;

/// How many threads a step may use.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Threads {
    /// The calling thread only.
    #[default]
    One,
    /// A pool of that many threads, made once and kept by the optimizer. Needs the feature `rayon` above 1.
    Count(usize),
    /// The caller's pool.
    #[cfg(feature = "rayon")]
    Pool(std::sync::Arc<rayon::ThreadPool>),
}

/// Elements above which a pool is woken for a step. The step moves to another thread then, whose caches are cold: at a
/// quarter of this, one tensor was 8 to 14 % slower than on the calling thread (`cargo bench --bench threads`).
const WORTH_WAKING: usize = 1 << 21;

/// Elements above which a step is divided where the calling thread belongs to the pool already. At half of this, two
/// threads gained nothing.
const WORTH_DIVIDING: usize = 1 << 18;

/// The threads of one optimizer.
#[derive(Debug)]
pub(crate) struct Crew {
    #[cfg(feature = "rayon")]
    pool: Option<std::sync::Arc<rayon::ThreadPool>>,
}

impl Crew {
    pub fn new(threads: Threads) -> Result<Self, Error> {
        match threads {
            Threads::Count(0) => Err(Error::Threads { count: 0, reason: "at least one is needed".into() }),
            #[cfg(feature = "rayon")]
            Threads::One | Threads::Count(1) => Ok(Crew { pool: None }),
            #[cfg(feature = "rayon")]
            Threads::Count(count) => match rayon::ThreadPoolBuilder::new().num_threads(count).build() {
                Ok(pool) => Ok(Crew { pool: Some(pool.into()) }),
                Err(error) => Err(Error::Threads { count, reason: error.to_string() }),
            },
            #[cfg(feature = "rayon")]
            Threads::Pool(pool) => Ok(Crew { pool: Some(pool) }),
            #[cfg(not(feature = "rayon"))]
            Threads::One | Threads::Count(1) => Ok(Crew {}),
            #[cfg(not(feature = "rayon"))]
            Threads::Count(count) => {
                Err(Error::Threads { count, reason: "this build of koala-optim lacks the feature `rayon`".into() })
            }
        }
    }

    /// Runs `work` for a step over `elements`, and tells it whether dividing pays. The pool is entered once.
    pub fn run<R: Send>(&self, elements: usize, work: impl FnOnce(bool) -> R + Send) -> R {
        #[cfg(feature = "rayon")]
        if let Some(pool) = &self.pool {
            let inside = pool.current_thread_index().is_some();
            if pool.current_num_threads() > 1 && elements >= if inside { WORTH_DIVIDING } else { WORTH_WAKING } {
                return pool.install(|| work(true));
            }
        }
        #[cfg(not(feature = "rayon"))]
        let _ = (elements, WORTH_WAKING, WORTH_DIVIDING);
        work(false)
    }
}

/// Does both, at once if `parallel`.
pub(crate) fn join<A: Send, B: Send>(
    parallel: bool,
    left: impl FnOnce() -> A + Send,
    right: impl FnOnce() -> B + Send,
) -> (A, B) {
    #[cfg(feature = "rayon")]
    if parallel {
        return rayon::join(left, right);
    }
    let _ = parallel;
    (left(), right())
}
