//! Threads: none, unless a count or a pool is asked for. Work is divided in two, again and again, by [`join`]; the
//! contract's trees divide at the same places, so that the number of threads does not show in the results.

use crate::types::error::Error;
#[cfg(feature = "rayon")]
use crate::types::pool::{Pool, counted};

/// How many threads a step may use.
///
/// After `fork`, the child has none of its parent's threads. An optimizer with a count starts its own there, in the
/// first step that needs them. The caller's pool can only be made anew by the caller, and such a step is an error.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Threads {
    /// The calling thread only.
    #[default]
    One,
    /// A pool of that many threads, at most [`Threads::MOST`], made once and kept by the optimizer, which waits for
    /// their end when it ends. 0 stands for as many as there are processors that this process may use. Needs the
    /// feature `rayon` for all but 1.
    Count(usize),
    /// The same for libkoala: each thread calls the function first.
    #[cfg(feature = "rayon")]
    #[doc(hidden)]
    CountWith(usize, fn()),
    /// The caller's pool.
    #[cfg(feature = "rayon")]
    Pool(std::sync::Arc<rayon::ThreadPool>),
}

impl Threads {
    /// The most that can be asked for, and no more than rayon can manage. A step waits for memory, which fewer keep
    /// busy on the largest machines. Each thread of rayon's looks for work with all others as it starts, so that the
    /// time grows with the square: on two busy processors, 512 took half a second, and 4096 took 43 seconds.
    pub const MOST: usize = if usize::BITS < 64 { 255 } else { 512 };
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
    pool: Option<Pool>,
}

impl Crew {
    #[cfg(feature = "rayon")]
    pub fn new(threads: Threads) -> Result<Self, Error> {
        let start = |count, first| match counted(count, Threads::MOST)? {
            1 => Ok(None),
            count => Pool::start(count, first).map(Some),
        };
        let pool = match threads {
            Threads::One => None,
            Threads::Count(count) => start(count, || ())?,
            Threads::CountWith(count, first) => start(count, first)?,
            Threads::Pool(pool) => Some(Pool::lent(pool)),
        };
        Ok(Crew { pool })
    }

    #[cfg(not(feature = "rayon"))]
    pub fn new(threads: Threads) -> Result<Self, Error> {
        match threads {
            Threads::One | Threads::Count(1) => Ok(Crew {}),
            Threads::Count(count) => {
                Err(Error::Threads { count, reason: "this build of koala-optim lacks the feature `rayon`".into() })
            }
        }
    }

    /// Runs `work` for a step over `elements`, and tells it whether dividing pays. The pool is entered once.
    ///
    /// # Errors
    /// [`Error::Threads`] if they can't be had; `work` has not run then.
    pub fn run<R: Send>(&mut self, elements: usize, work: impl FnOnce(bool) -> R + Send) -> Result<R, Error> {
        #[cfg(feature = "rayon")]
        if let Some(pool) = &mut self.pool
            && pool.count() > 1
            && elements >= if pool.is_inside() { WORTH_DIVIDING } else { WORTH_WAKING }
        {
            return Ok(pool.here()?.install(|| work(true)));
        }
        #[cfg(not(feature = "rayon"))]
        let _ = (elements, WORTH_WAKING, WORTH_DIVIDING);
        Ok(work(false))
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
