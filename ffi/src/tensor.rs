//! A tensor whose buffers the caller owns, from C's description of it to slices.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::kernel::{AnyBuffers, Buffers, HalfCopy, Lender, Scalars, Step};
use koala_optim::{Element, ElementType, StateType, bf16, f16};

use crate::growing::{Growing, read};
use crate::pointers::{check, flag, known};
use crate::settings::{koala_copy_type, koala_element_type, koala_state_type};
use crate::status::{Failure, fail, koala_status};

/// The scalars of one tensor's filter between two steps: four doubles, all zero before the first step. A caller may
/// keep them as an array of doubles, and save them as such. This struct never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_scalars {
    /// x = h·h, with h the measurement row of the step before.
    pub h_h: f64,
    /// y = h·v.
    pub h_v: f64,
    /// s, the innovation variance S of the step before.
    pub innovation_variance: f64,
    /// Steps taken: a whole number. At 0, v and h are not read, and the next step is a first step.
    pub steps: f64,
}

impl koala_scalars {
    #[inline(always)]
    fn to_core(self) -> Result<Scalars, Failure> {
        let koala_scalars { h_h, h_v, innovation_variance, steps } = self;
        let whole = steps as u64;
        if whole as f64 == steps && steps <= LARGEST_WHOLE {
            return Ok(Scalars { h_h, h_v, innovation_variance, steps: whole });
        }
        Err(fail(
            koala_status::Setting,
            format_args!("the steps in the scalars are {steps}, expected a whole number from 0 to 2^53"),
        ))
    }
}

/// Above it, a double can't hold every whole number.
const LARGEST_WHOLE: f64 = (1_u64 << 53) as f64;

impl From<Scalars> for koala_scalars {
    #[inline(always)]
    fn from(scalars: Scalars) -> Self {
        let Scalars { h_h, h_v, innovation_variance, steps } = scalars;
        koala_scalars { h_h, h_v, innovation_variance, steps: steps as f64 }
    }
}

/// A tensor of n = `length` parameters whose buffers are the caller's, for the functions that need no optimizer. Begin
/// with zeros, then set `size`, and what applies.
///
/// Each buffer is aligned for its elements, has n of them, and overlaps no other one of the same call; all may be NULL if
/// n is 0. `parameters` and `gradient` are of `type`, `v` and `h` of `state_type`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct koala_tensor {
    /// sizeof(koala_tensor).
    pub size: usize,
    /// n, the number of parameters; 0 is legal and does nothing.
    pub length: usize,
    /// What parameters and gradient are stored in.
    pub r#type: MaybeUninit<koala_element_type>,
    /// What v and h are stored in.
    pub state_type: MaybeUninit<koala_state_type>,
    /// What `copy` is stored in: KOALA_COPY_TYPE_NONE if there is none, and then `copy` is not looked at.
    pub copy_type: MaybeUninit<koala_copy_type>,
    /// Its group: a place in koala_step's `groups`.
    pub group: u32,
    /// 1: the call may let `gradient` and `h` change places in this struct, which saves writing h: it does if the
    /// tensor steps, has no weight decay, and has its state in its own type. Either way `h` is the state afterwards, and
    /// what `gradient` holds is of no use. The gradient's memory must be writable then. Only koala_step_tensor and
    /// koala_step_tensors look at this.
    pub exchange: u32,
    /// Zero.
    pub reserved: u32,
    /// θ: read and written.
    pub parameters: *mut c_void,
    /// g = ∂L/∂θ of the minibatch's mean loss: read.
    pub gradient: *const c_void,
    /// v = H·P, the product of gradient and covariance: read (but for a first step) and written. It need not be
    /// initialized before the first step.
    pub v: *mut c_void,
    /// h, the measurement row of the step before: read (but for a first step) and written. It need not be initialized
    /// before the first step.
    pub h: *mut c_void,
    /// Written with the new parameters, rounded, if the tensor steps.
    pub copy: *mut c_void,
    /// Read and written; not NULL.
    pub scalars: *mut koala_scalars,
}

// SAFETY: two numbers of 8 bytes, six of 4, and six pointers, all 8-byte aligned; any bytes are a value.
unsafe impl Growing for koala_tensor {
    const NAME: &'static str = "koala_tensor";
    const FIRST_SIZE: usize = 88;

    fn default() -> Self {
        koala_tensor {
            size: size_of::<Self>(),
            length: 0,
            r#type: MaybeUninit::new(koala_element_type::F32),
            state_type: MaybeUninit::new(koala_state_type::Same),
            copy_type: MaybeUninit::new(koala_copy_type::None),
            group: 0,
            exchange: 0,
            reserved: 0,
            parameters: std::ptr::null_mut(),
            gradient: std::ptr::null(),
            v: std::ptr::null_mut(),
            h: std::ptr::null_mut(),
            copy: std::ptr::null_mut(),
            scalars: std::ptr::null_mut(),
        }
    }
}

/// Addresses from the first byte to the one after the last.
pub(crate) type Range = (usize, usize);

/// A tensor that has been looked at: all its values are known ones, its buffers are there, aligned, and apart from each
/// other.
#[derive(Clone, Copy)]
pub(crate) struct Checked {
    /// The caller's struct, for an exchange.
    source: *mut koala_tensor,
    pub length: usize,
    pub element_type: ElementType,
    state_type: StateType,
    copy_type: koala_copy_type,
    pub group: u32,
    exchange: bool,
    parameters: *mut c_void,
    gradient: *const c_void,
    v: *mut c_void,
    h: *mut c_void,
    copy: *mut c_void,
    c_scalars: *mut koala_scalars,
    scalars: Scalars,
}

impl Checked {
    /// # Safety
    /// `source` is NULL or a tensor as its documentation says, and stays so for as long as the result is used.
    #[inline]
    pub unsafe fn new(source: *const koala_tensor) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let tensor = unsafe { read(source) }?;
        let element_type: ElementType = known(tensor.r#type)?.into();
        let state_type: StateType = known(tensor.state_type)?.into();
        let copy_type = known(tensor.copy_type)?;
        let exchange = flag(tensor.exchange, "exchange")?;
        check(tensor.scalars, "scalars")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let scalars = unsafe { *tensor.scalars }.to_core()?;
        let checked = Checked {
            source: source.cast_mut(),
            length: tensor.length,
            element_type,
            state_type,
            copy_type,
            group: tensor.group,
            exchange,
            parameters: tensor.parameters,
            gradient: tensor.gradient,
            v: tensor.v,
            h: tensor.h,
            copy: tensor.copy,
            c_scalars: tensor.scalars,
            scalars,
        };
        checked.check_buffers()?;
        Ok(checked)
    }

    /// Where the buffers are, and their names. `copy` is where nothing is if there is none.
    #[inline(always)]
    fn buffers(&self) -> [(&'static str, Range); 6] {
        let bytes = |size: usize| self.length * size;
        let range = |address: usize, bytes: usize| (address, address + bytes);
        let (size, state_size) = (self.element_type.size(), self.state_type.beside(self.element_type).size());
        let copy = if self.copy_type == koala_copy_type::None { (0, 0) } else { range(self.copy.addr(), bytes(2)) };
        [
            ("parameters", range(self.parameters.addr(), bytes(size))),
            ("gradient", range(self.gradient.addr(), bytes(size))),
            ("v", range(self.v.addr(), bytes(state_size))),
            ("h", range(self.h.addr(), bytes(state_size))),
            ("copy", copy),
            ("scalars", range(self.c_scalars.addr(), size_of::<koala_scalars>())),
        ]
    }

    #[inline(always)]
    fn check_buffers(&self) -> Result<(), Failure> {
        if self.length == 0 {
            return Ok(());
        }
        let size = self.element_type.size();
        let state_size = self.state_type.beside(self.element_type).size();
        check_buffer(self.parameters, self.length, size, "parameters")?;
        check_buffer(self.gradient, self.length, size, "gradient")?;
        check_buffer(self.v, self.length, state_size, "v")?;
        check_buffer(self.h, self.length, state_size, "h")?;
        if self.copy_type != koala_copy_type::None {
            check_buffer(self.copy, self.length, 2, "copy")?;
        }
        let buffers = self.buffers();
        let mut overlap = false;
        for i in 1..buffers.len() {
            for j in 0..i {
                overlap |= overlaps(buffers[i].1, buffers[j].1);
            }
        }
        if overlap { Err(overlap_among(&buffers)) } else { Ok(()) }
    }

    /// Whether what a call writes besides lies within the tensor.
    pub fn check_apart_from(&self, name: &'static str, range: Range) -> Result<(), Failure> {
        if range.0 == range.1 {
            return Ok(());
        }
        let buffers = self.buffers();
        let used = if self.length == 0 { &buffers[5..] } else { &buffers[..] };
        match used.iter().find(|(_, buffer)| overlaps(*buffer, range)) {
            Some((buffer, _)) => {
                Err(fail(koala_status::Overlap, format_args!("{name} and {buffer} of the tensor overlap")))
            }
            None => Ok(()),
        }
    }

    #[inline(always)]
    pub fn any_buffers(&mut self) -> (AnyBuffers<'_>, &mut Scalars) {
        use ElementType::{Bf16, F16, F32, F64};
        // SAFETY: in each arm, the types are those that the lengths and alignments were checked with.
        let buffers = unsafe {
            match (self.element_type, self.state_type.beside(self.element_type)) {
                (F32, Bf16) => self.typed::<f32, bf16>().into(),
                (F32, _) => self.typed::<f32, f32>().into(),
                (F64, F32) => self.typed::<f64, f32>().into(),
                (F64, Bf16) => self.typed::<f64, bf16>().into(),
                (F64, _) => self.typed::<f64, f64>().into(),
                (Bf16, F32) => self.typed::<bf16, f32>().into(),
                (Bf16, _) => self.typed::<bf16, bf16>().into(),
                (F16, F32) => self.typed::<f16, f32>().into(),
                (F16, Bf16) => self.typed::<f16, bf16>().into(),
                (F16, _) => self.typed::<f16, f16>().into(),
            }
        };
        (buffers, &mut self.scalars)
    }

    /// # Safety
    /// The element types are `P` and `S`.
    #[inline(always)]
    unsafe fn typed<'a, P: Element, S: Element>(&self) -> Buffers<'a, P, S> {
        let length = self.length;
        if length == 0 {
            return Buffers { parameters: &mut [], gradient: &[], v: &mut [], h: &mut [], copy: None };
        }
        // SAFETY: each is there, aligned, as long as that, and apart from the others: `new` has looked. That nobody else
        // uses them during the call is the promise of who called `new`. The result is used before the call ends, one
        // at a time.
        unsafe {
            Buffers {
                parameters: std::slice::from_raw_parts_mut(self.parameters.cast(), length),
                gradient: std::slice::from_raw_parts(self.gradient.cast(), length),
                v: std::slice::from_raw_parts_mut(self.v.cast(), length),
                h: std::slice::from_raw_parts_mut(self.h.cast(), length),
                copy: match self.copy_type {
                    koala_copy_type::None => None,
                    koala_copy_type::Bf16 => {
                        Some(HalfCopy::Bf16(std::slice::from_raw_parts_mut(self.copy.cast(), length)))
                    }
                    koala_copy_type::F16 => {
                        Some(HalfCopy::F16(std::slice::from_raw_parts_mut(self.copy.cast(), length)))
                    }
                },
            }
        }
    }

    pub fn scalars(&self) -> &Scalars {
        &self.scalars
    }

    pub fn offers_exchange(&self) -> bool {
        self.exchange
    }

    /// Lets gradient and h change places in the caller's struct.
    pub fn exchange(&mut self) {
        // SAFETY: the caller's struct, which `new` has read.
        unsafe {
            (*self.source).gradient = self.h;
            (*self.source).h = self.gradient.cast_mut();
        }
        (self.gradient, self.h) = (self.h, self.gradient.cast_mut());
    }

    /// Writes the scalars where the caller keeps them.
    #[inline(always)]
    pub fn store_scalars(&self) {
        // SAFETY: not NULL and aligned: `new` has looked.
        unsafe { self.c_scalars.write(self.scalars.into()) };
    }
}

/// Whether a buffer of `length` elements may be there.
#[inline(always)]
pub(crate) fn check_buffer(pointer: *const c_void, length: usize, size: usize, name: &str) -> Result<(), Failure> {
    let end = length.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize);
    let end = end.and_then(|bytes| pointer.addr().checked_add(bytes));
    if !pointer.is_null() && pointer.addr() & (size - 1) == 0 && end.is_some() {
        return Ok(());
    }
    Err(trouble_of(pointer, length, size, name))
}

#[cold]
fn trouble_of(pointer: *const c_void, length: usize, size: usize, name: &str) -> Failure {
    if pointer.is_null() {
        return fail(koala_status::NullPointer, format_args!("{name} is NULL, with a length of {length}"));
    }
    if pointer.addr() & (size - 1) != 0 {
        return fail(koala_status::Misaligned, format_args!("{name} is {pointer:p}, expected a multiple of {size}"));
    }
    fail(koala_status::Length, format_args!("{length} elements in {name} are more than memory can hold"))
}

#[inline(always)]
pub(crate) fn overlaps(left: Range, right: Range) -> bool {
    (left.0 < right.1) & (right.0 < left.1)
}

#[cold]
fn overlap_among(buffers: &[(&str, Range)]) -> Failure {
    for (i, (name, range)) in buffers.iter().enumerate() {
        if let Some((other, _)) = buffers[..i].iter().find(|(_, other)| overlaps(*range, *other)) {
            return fail(koala_status::Overlap, format_args!("{other} and {name} of the tensor overlap"));
        }
    }
    fail(koala_status::Overlap, format_args!("buffers of the tensor overlap"))
}

/// A tensor, and what it is stepped with.
#[derive(Clone, Copy)]
pub(crate) struct Stepped {
    pub tensor: Checked,
    pub step: Step,
}

impl Lender for Stepped {
    fn step(&self) -> &Step {
        &self.step
    }

    fn len(&self) -> usize {
        self.tensor.length
    }

    fn lend(&mut self) -> (AnyBuffers<'_>, &mut Scalars) {
        self.tensor.any_buffers()
    }

    fn offers_exchange(&self) -> bool {
        self.tensor.offers_exchange()
    }

    fn exchange(&mut self) {
        self.tensor.exchange();
    }
}
