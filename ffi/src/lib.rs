//! `libkoala`, the C ABI of koala-optim. What is written on functions, structs and constants here is written for who
//! calls them from C: `include/koala.h` is made from it, and `cargo test -p koala-header` compares the two
//! (`KOALA_WRITE_HEADER=1` writes it anew).
//!
//! A folder imports only from the ones before it: `border`, `words`, `kernel`, `optimizer`, `cuda` (tests/layers.rs).
//!
//! Each function checks what it is given, calls [`koala_optim`], and turns what comes of it into a status; `guard`
//! keeps panics on this side of the border. Names are the ones that C sees.

#![allow(non_camel_case_types)]
// The head of the header says what a caller has to promise. It holds for every function.
#![allow(clippy::missing_safety_doc)]

mod border;
mod cuda;
mod kernel;
mod optimizer;
mod words;

pub use border::last_error::*;
pub use border::status::*;
pub use border::version::*;
pub use cuda::create::*;
pub use cuda::handle::*;
pub use cuda::numbers::*;
pub use cuda::reading::*;
pub use cuda::step::*;
pub use kernel::halves::*;
pub use kernel::predict::*;
pub use kernel::tensor::*;
pub use kernel::whole::*;
pub use optimizer::checkpoint::*;
pub use optimizer::config::*;
pub use optimizer::groups::*;
pub use optimizer::handle::*;
pub use optimizer::shared::*;
pub use optimizer::step::*;
pub use optimizer::tensors::*;
pub use words::backends::*;
pub use words::method::*;
pub use words::report::*;
pub use words::scalars::*;
pub use words::settings::*;
pub use words::step::*;
