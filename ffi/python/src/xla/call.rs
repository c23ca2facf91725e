//! A call of XLA, looked at: operands, results and attributes by number and name; and the errors that it is answered with.

use std::ffi::{CString, c_int, c_void};

use super::c_api::{
    ATTRIBUTE_SCALAR, Api, BUFFER, Buffer, CallFrame, Error, ErrorCreateArgs, Scalar, Values, code, data_type,
};

/// Why a call did nothing.
pub struct Failure {
    pub code: c_int,
    pub text: String,
}

impl Failure {
    pub fn argument(text: String) -> Self {
        Failure { code: code::INVALID_ARGUMENT, text }
    }

    /// The same as an error of XLA.
    ///
    /// # Safety
    /// `api` is XLA's.
    pub unsafe fn report(self, api: *const Api) -> *mut Error {
        let text: Vec<u8> = self.text.into_bytes().into_iter().filter(|byte| *byte != 0).collect();
        let message = CString::new(text).unwrap_or_default();
        let mut args = ErrorCreateArgs {
            struct_size: size_of::<ErrorCreateArgs>(),
            extension_start: std::ptr::null_mut(),
            message: message.as_ptr(),
            code: self.code,
        };
        // SAFETY: the caller's promise; XLA copies the message.
        unsafe { ((*api).error_create)(&mut args) }
    }
}

/// The frame of a call in its execution stage.
#[derive(Clone, Copy)]
pub struct Call<'a>(&'a CallFrame);

impl<'a> Call<'a> {
    /// # Safety
    /// XLA made the frame, and what it points to stays as it is for as long as this is used, but for results.
    pub unsafe fn new(frame: &'a CallFrame) -> Self {
        Call(frame)
    }

    pub fn operands(self) -> usize {
        usize::try_from(self.0.operands.size).unwrap_or(0)
    }

    pub fn results(self) -> usize {
        usize::try_from(self.0.results.size).unwrap_or(0)
    }

    pub fn operand(self, place: usize) -> Result<Array<'a>, Failure> {
        array(&self.0.operands, self.operands(), "operand", place)
    }

    pub fn result(self, place: usize) -> Result<Array<'a>, Failure> {
        array(&self.0.results, self.results(), "result", place)
    }

    /// An attribute that is an i32.
    pub fn attribute(self, name: &str) -> Result<i32, Failure> {
        let attributes = &self.0.attributes;
        for place in 0..usize::try_from(attributes.size).unwrap_or(0) {
            // SAFETY: by the promise to `new`, each of the three arrays is that long, and the type says what a value is.
            unsafe {
                let span = &**attributes.names.add(place);
                let is_it = span.length == name.len()
                    && std::slice::from_raw_parts(span.pointer, span.length) == name.as_bytes();
                if is_it && *attributes.types.add(place) == ATTRIBUTE_SCALAR {
                    let scalar = &*(*attributes.values.add(place)).cast::<Scalar>();
                    if scalar.data_type == data_type::S32 {
                        return Ok(scalar.value.cast::<i32>().read());
                    }
                }
            }
        }
        Err(Failure::argument(format!("there is no attribute {name} of type s32")))
    }
}

fn array<'a>(values: &'a Values, count: usize, kind: &'static str, place: usize) -> Result<Array<'a>, Failure> {
    // SAFETY: the frame was made by XLA, so both arrays are as long as its size says.
    let buffer = unsafe {
        match place < count && *values.types.add(place) == BUFFER {
            true => &*(*values.values.add(place)).cast::<Buffer>(),
            false => return Err(Failure::argument(format!("{kind} {place} is no buffer"))),
        }
    };
    let dimensions = match usize::try_from(buffer.rank) {
        // SAFETY: likewise. A scalar has no dimensions, and no pointer to them then.
        Ok(rank) if rank > 0 => unsafe { std::slice::from_raw_parts(buffer.dimensions, rank) },
        _ => &[],
    };
    let length = dimensions.iter().try_fold(1, |length: usize, dimension| {
        usize::try_from(*dimension).ok().and_then(|dimension| length.checked_mul(dimension))
    });
    match length {
        Some(length) => Ok(Array { buffer, length, kind, place }),
        None => Err(Failure::argument(format!("{kind} {place} has the impossible dimensions {dimensions:?}"))),
    }
}

/// An operand or a result.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    buffer: &'a Buffer,
    /// Elements.
    pub length: usize,
    kind: &'static str,
    place: usize,
}

impl Array<'_> {
    pub fn data(&self) -> *mut c_void {
        self.buffer.data
    }

    pub fn data_type(&self) -> c_int {
        self.buffer.data_type
    }

    /// A number: f64, f32, or, where jax has no float64, the bits of one in two u32, as the processor has them in memory.
    pub fn number(&self) -> Result<f64, Failure> {
        // SAFETY: XLA's buffer, of that type and that many elements.
        unsafe {
            match (self.data_type(), self.length) {
                (data_type::F64, 1) | (data_type::U32, 2) => Ok(self.data().cast::<f64>().read_unaligned()),
                (data_type::F32, 1) => Ok(self.data().cast::<f32>().read_unaligned().into()),
                _ => Err(self.unexpected("f64[], f32[] or u32[2]")),
            }
        }
    }

    /// Where `count` doubles are, as such or as their bits.
    pub fn doubles(&self, count: usize) -> Result<*mut f64, Failure> {
        match self.data_type() {
            data_type::F64 if self.length == count => Ok(self.data().cast()),
            data_type::U32 if self.length == 2 * count => Ok(self.data().cast()),
            _ => Err(self.unexpected(&format!("f64[{count}] or u32[{}]", 2 * count))),
        }
    }

    /// Where `count` i32 are.
    pub fn integers(&self, count: usize) -> Result<*mut i32, Failure> {
        match self.data_type() {
            data_type::S32 if self.length == count => Ok(self.data().cast()),
            _ => Err(self.unexpected(&format!("s32[{count}]"))),
        }
    }

    pub fn unexpected(&self, expected: &str) -> Failure {
        let Array { length, kind, place, .. } = self;
        let data_type = self.data_type();
        Failure::argument(format!(
            "{kind} {place} has {length} elements of XLA's type {data_type}, expected {expected}"
        ))
    }

    fn size(&self) -> Result<usize, Failure> {
        let width = match self.data_type() {
            data_type::F16 | data_type::BF16 => 2,
            data_type::S32 | data_type::U32 | data_type::F32 => 4,
            data_type::F64 => 8,
            _ => return Err(self.unexpected("floating-point numbers")),
        };
        self.length.checked_mul(width).ok_or_else(|| self.unexpected("less than memory can hold"))
    }

    /// Makes a result hold what an operand does, which it does already where XLA gave both the same memory.
    pub fn begin_as(&self, operand: &Array<'_>) -> Result<(), Failure> {
        if self.data_type() != operand.data_type() || self.length != operand.length {
            return Err(self.unexpected("what its operand is"));
        }
        if self.data() != operand.data() {
            // SAFETY: both are XLA's, of that size, and apart from each other.
            unsafe { self.data().cast::<u8>().copy_from(operand.data().cast(), self.size()?) };
        }
        Ok(())
    }
}
