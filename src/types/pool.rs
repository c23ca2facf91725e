//! The pool of an optimizer's threads, its own or the caller's, and what becomes of it in a process that was forked.
//!
//! Of all threads, only the one that called `fork` goes on in the child: there, a pool's memory is a copy, and its
//! threads do not exist, so that who waits for one of them waits for ever. Therefore a pool remembers its process. In
//! another one it is neither used nor ended but forgotten, and one of the library's own is made anew when it is needed.
//!
//! A process is known by its id. A child that has its parent's own is therefore taken for its parent: the first one in
//! another pid namespace, where both have the id 1, or one that got the id of a parent that has ended.

use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::types::error::Error;

/// The stack of a thread, in bytes: what Rust gives one by default.
const STACK: usize = 2 << 20;

/// A pool of threads.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: Arc<ThreadPool>,
    /// After the pool, which tells its threads to end.
    own: Option<Own>,
    /// Whose threads they are.
    process: u32,
}

/// What there is of a pool that was started here.
#[derive(Debug)]
struct Own {
    count: usize,
    first: fn(),
    started: Started,
}

/// Threads that were started. When this is dropped, they are waited for: their pool has to have ended before.
#[derive(Debug, Default)]
struct Started(Vec<JoinHandle<()>>);

impl Drop for Started {
    fn drop(&mut self) {
        // A thread of a pool does not panic by itself: the pool catches what its tasks do.
        self.0.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// How many threads a count stands for, of which there can be at most so many.
///
/// # Errors
/// [`Error::Threads`] for more than there can be.
pub(crate) fn counted(count: usize, most: usize) -> Result<usize, Error> {
    match count {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(most)),
        _ if count <= most => Ok(count),
        _ => Err(Error::Threads { count, reason: format!("at most {most} are possible") }),
    }
}

impl Pool {
    /// A pool of so many threads, each of which calls `first` first.
    ///
    /// # Errors
    /// [`Error::Threads`] if they can't be had.
    pub fn start(count: usize, first: fn()) -> Result<Self, Error> {
        // Dropped after the pool, also where the pool can't be made.
        let mut started = Started::default();
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(|thread| {
                let name = format!("koala-{}", thread.index());
                let run = move || {
                    first();
                    thread.run();
                };
                // With a size of its own, no environment variable is asked for one.
                started.0.push(std::thread::Builder::new().name(name).stack_size(STACK).spawn(run)?);
                Ok(())
            })
            .build()
            .map_err(|error| Error::Threads { count, reason: error.to_string() })?;
        Ok(Pool { pool: pool.into(), own: Some(Own { count, first, started }), process: std::process::id() })
    }

    /// The caller's.
    pub fn lent(pool: Arc<ThreadPool>) -> Self {
        Pool { pool, own: None, process: std::process::id() }
    }

    /// How many threads it has.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Whether this thread is one of them.
    pub fn is_inside(&self) -> bool {
        self.pool.current_thread_index().is_some()
    }

    /// The pool, with threads of this process.
    ///
    /// # Errors
    /// [`Error::Threads`] if they can't be had.
    pub fn here(&mut self) -> Result<&ThreadPool, Error> {
        if self.is_of_another_process() {
            let Some(Own { count, first, .. }) = self.own else {
                let reason = "the pool's are in the process that was forked: set new ones here".into();
                return Err(Error::Threads { count: self.count(), reason });
            };
            *self = Pool::start(count, first)?;
        }
        Ok(&self.pool)
    }

    fn is_of_another_process(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.is_of_another_process() {
            mem::forget(self.pool.clone());
            let started = self.own.as_mut().map(|own| mem::take(&mut own.started.0));
            mem::forget(started);
        }
    }
}
