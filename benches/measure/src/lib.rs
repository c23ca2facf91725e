//! What koala-optim is measured with, by the `koala bench` command and by the benches beside this crate: a tensor of any
//! type to step, the streaming limits, an AdamW to compare with, the shapes of well-known models, and rounds in which
//! everything that is compared is measured in turn.

mod adamw;
mod filter;
mod limit;
mod model;
pub mod models;
mod rounds;
pub mod statistics;
mod stream;
mod workload;

pub use adamw::AdamW;
pub use filter::{LOSS, NOISE, numbers, settings, step};
pub use limit::{Width, widths};
pub use model::Model;
pub use rounds::{Budget, Contender, rounds};
pub use stream::saw_tooth;
pub use workload::{Tensor, Workload};
