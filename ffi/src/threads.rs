//! The threads of an optimizer: they are joined when it ends, and their panics do not print.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use koala_optim::{Error, Threads};

use crate::failure::Failure;
use crate::guard::mark_thread;

/// Threads that were started. When this is dropped, they are waited for: their pool has to have ended before.
pub(crate) struct Started(Vec<JoinHandle<()>>);

impl Drop for Started {
    fn drop(&mut self) {
        // A thread of a pool does not panic by itself: the pool catches what its tasks do.
        self.0.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Starts a pool of that many threads, or none for one. Where both are variables, what is named last is dropped first:
/// that has to be the pool, or its end is waited for before it has been told to end.
pub(crate) fn start(count: u32) -> Result<(Started, Threads), Failure> {
    let count = count as usize;
    if count < 2 {
        return Ok((Started(Vec::new()), Threads::Count(count)));
    }
    let handles = Mutex::new(Vec::new());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .spawn_handler(|thread| {
            let name = format!("koala-{}", thread.index());
            let run = || {
                mark_thread();
                thread.run();
            };
            let handle = std::thread::Builder::new().name(name).spawn(run)?;
            handles.lock().map_err(|_| io::ErrorKind::Other)?.push(handle);
            Ok(())
        })
        .build();
    let started = Started(handles.into_inner().unwrap_or_default());
    let pool = pool.map_err(|error| Error::Threads { count, reason: error.to_string() })?;
    Ok((started, Threads::Pool(Arc::new(pool))))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts the threads that have ended: what a thread keeps for itself is dropped at its end.
    struct Ending(Arc<AtomicUsize>);

    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    thread_local!(static ENDING: RefCell<Option<Ending>> = const { RefCell::new(None) });

    #[test]
    fn they_have_ended_when_the_optimizer_has() {
        for _ in 0..20 {
            let ended = Arc::new(AtomicUsize::new(0));
            {
                let (_started, threads) = start(3).unwrap();
                let Threads::Pool(pool) = &threads else { panic!("three threads need a pool") };
                pool.broadcast(|_| ENDING.set(Some(Ending(ended.clone()))));
                assert_eq!(ended.load(Ordering::SeqCst), 0);
            }
            assert_eq!(ended.load(Ordering::SeqCst), 3);
        }
    }
}
