//! `libkoala`, the C ABI of koala-optim. What is written on functions, structs and constants here is written for who
//! calls them from C: `include/koala.h` is made from it, and `cargo test -p koala-ffi` compares the two
//! (`KOALA_WRITE_HEADER=1` writes it anew).
//!
//! Each function checks what it is given, calls [`koala_optim`], and turns what comes of it into a status; `guard`
//! keeps panics on this side of the border. Names are the ones that C sees.

#![allow(non_camel_case_types)]
// What a caller has to promise is the same for all, and stands at the header's head.
#![allow(clippy::missing_safety_doc)]

mod apart;
mod backends;
mod call;
mod checkpoint;
mod cuda;
mod cuda_numbers;
mod cuda_reading;
mod cuda_step;
mod failure;
mod growing;
mod guard;
mod halves;
mod handle;
mod kernel;
mod list;
mod method;
mod numbers;
mod optimizer;
mod optimizer_step;
mod pointers;
mod predict;
mod report;
mod settings;
mod status;
mod step;
mod tensor;
mod values;
mod version;

pub use backends::*;
pub use checkpoint::*;
pub use cuda::*;
pub use cuda_numbers::*;
pub use cuda_reading::*;
pub use cuda_step::*;
pub use failure::koala_last_error;
pub use halves::*;
pub use handle::koala_optimizer;
pub use kernel::*;
pub use method::*;
pub use optimizer::*;
pub use optimizer_step::*;
pub use predict::*;
pub use report::*;
pub use settings::*;
pub use status::*;
pub use step::*;
pub use tensor::*;
pub use version::*;
