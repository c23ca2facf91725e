//! What of `xla/ffi/api/c_api.h` is needed to answer a call: its structs up to the last member that is used. Version 0.3;
//! what is here is the same in 0.1 and 0.2.

use std::ffi::{c_char, c_int, c_void};

/// `XLA_FFI_API_MAJOR`.
pub const MAJOR: c_int = 0;
/// `XLA_FFI_API_MINOR`.
pub const MINOR: c_int = 3;

/// `XLA_FFI_Extension_Metadata`.
pub const EXTENSION_METADATA: c_int = 1;
/// `XLA_FFI_ExecutionStage_EXECUTE`.
pub const STAGE_EXECUTE: c_int = 3;
/// `XLA_FFI_ArgType_BUFFER` and `XLA_FFI_RetType_BUFFER`.
pub const BUFFER: c_int = 1;
/// `XLA_FFI_AttrType_SCALAR`.
pub const ATTRIBUTE_SCALAR: c_int = 3;

/// `XLA_FFI_DataType`, those that occur here.
pub mod data_type {
    use std::ffi::c_int;

    pub const S32: c_int = 4;
    pub const U32: c_int = 8;
    pub const F16: c_int = 10;
    pub const F32: c_int = 11;
    pub const F64: c_int = 12;
    pub const BF16: c_int = 16;
}

/// `XLA_FFI_Error_Code`, those that occur here.
pub mod code {
    use std::ffi::c_int;

    pub const INVALID_ARGUMENT: c_int = 3;
    pub const RESOURCE_EXHAUSTED: c_int = 8;
    pub const FAILED_PRECONDITION: c_int = 9;
    pub const INTERNAL: c_int = 13;
}

/// An error of XLA's own making.
pub enum Error {}

#[repr(C)]
pub struct ExtensionBase {
    pub struct_size: usize,
    pub kind: c_int,
    pub next: *mut ExtensionBase,
}

#[repr(C)]
pub struct ApiVersion {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub major_version: c_int,
    pub minor_version: c_int,
}

#[repr(C)]
pub struct Metadata {
    pub struct_size: usize,
    pub api_version: ApiVersion,
    pub traits: u32,
}

#[repr(C)]
pub struct MetadataExtension {
    pub extension_base: ExtensionBase,
    pub metadata: *mut Metadata,
}

#[repr(C)]
pub struct ErrorCreateArgs {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub message: *const c_char,
    pub code: c_int,
}

#[repr(C)]
pub struct Api {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub api_version: ApiVersion,
    pub internal_api: *const c_void,
    pub error_create: unsafe extern "C" fn(*mut ErrorCreateArgs) -> *mut Error,
}

#[repr(C)]
pub struct Buffer {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub data_type: c_int,
    pub data: *mut c_void,
    pub rank: i64,
    pub dimensions: *const i64,
}

#[repr(C)]
pub struct ByteSpan {
    pub pointer: *const u8,
    pub length: usize,
}

#[repr(C)]
pub struct Scalar {
    pub data_type: c_int,
    pub value: *const c_void,
}

/// `XLA_FFI_Args` and `XLA_FFI_Rets`.
#[repr(C)]
pub struct Values {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub size: i64,
    pub types: *const c_int,
    pub values: *const *const c_void,
}

#[repr(C)]
pub struct Attributes {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub size: i64,
    pub types: *const c_int,
    pub names: *const *const ByteSpan,
    pub values: *const *const c_void,
}

#[repr(C)]
pub struct CallFrame {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub api: *const Api,
    pub context: *mut c_void,
    pub stage: c_int,
    pub operands: Values,
    pub results: Values,
    pub attributes: Attributes,
}
