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

/// Starts a pool of that many threads, or none for one.
pub(crate) fn start(count: u32) -> Result<(Threads, Started), Failure> {
    let count = count as usize;
    if count < 2 {
        return Ok((Threads::Count(count), Started(Vec::new())));
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
    Ok((Threads::Pool(Arc::new(pool)), started))
}
