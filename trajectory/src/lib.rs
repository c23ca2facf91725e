//! Recorded trajectories of KOALA++, KOALA-V and KOALA-M: inputs of an optimizer and what they lead to, computed in
//! float64 apart from this project's code, in files of the format `koala-trajectory-1`; and a runner that puts a
//! backend beside them.
//!
//! ```
//! use koala_optim::{Backend, Threads};
//! use koala_trajectory::{Precision, embedded, run};
//!
//! let (_, trajectory) = embedded().next().unwrap();
//! let run = run(&trajectory, Backend::detect(), Precision::F64, Threads::One)?;
//! assert!(run.errors.largest() < 1e-12);
//! # Ok::<(), koala_optim::Error>(())
//! ```

mod format;
mod read;
mod run;

pub use format::{Expected, KoalaM, KoalaPlusPlus, KoalaV, Noise, Settings, Step, Trajectory};
pub use read::{Problem, ReadError};
pub use run::{Errors, Precision, Run, run};

macro_rules! files {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../data/", $name, ".json.gz")).as_slice())),*]
    };
}

/// Of KOALA++: several tensors of 1 to 127 elements over 12 steps, in both variants, with gradients of zero among them;
/// longer tensors; and real gradients, of softmax regression on the UCI digits. Of KOALA-V and KOALA-M: the like of the
/// first. Each under four settings.
const FILES: [(&str, &[u8]); 24] = files![
    "koalapp-sym-lanes-0" "koalapp-sym-lanes-1" "koalapp-sym-lanes-2" "koalapp-sym-lanes-3"
    "koalapp-van-lanes-0" "koalapp-van-lanes-1" "koalapp-van-lanes-2" "koalapp-van-lanes-3"
    "koalapp-long-0" "koalapp-long-1" "koalapp-long-2" "koalapp-long-3"
    "koalapp-digits-0" "koalapp-digits-1" "koalapp-digits-2" "koalapp-digits-3"
    "koalav-0" "koalav-1" "koalav-2" "koalav-3" "koalam-0" "koalam-1" "koalam-2" "koalam-3"
];

/// The trajectories that are part of this crate, each with its name.
///
/// ```
/// assert_eq!(koala_trajectory::embedded().count(), 24);
/// ```
pub fn embedded() -> impl Iterator<Item = (&'static str, Trajectory)> {
    FILES.into_iter().map(|(name, bytes)| match Trajectory::parse(bytes) {
        Ok(trajectory) => (name, trajectory),
        Err(problem) => unreachable!("{name}, which the tests of this crate have read: {problem}"),
    })
}
