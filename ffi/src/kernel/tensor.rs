//! A tensor whose buffers the caller owns, from C's description of it to slices.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use koala_optim::kernel::{AnyBuffers, Buffers, HalfCopy, Lender, Lent, Scalars, Step};
use koala_optim::{Element, ElementType, Method, StateType, bf16, f16};

use crate::border::failure::{Failure, fail};
use crate::border::growing::{growing, look};
use crate::border::pointers::{check, flag, known, misaligned, null, too_long};
use crate::border::ranges::{Range, bytes_at, end_of, overlaps, range_of};
use crate::border::status::koala_status;
use crate::words::scalars::koala_scalars;
use crate::words::settings::{koala_copy_type, koala_element_type, koala_state_type};

/// A tensor of n = `length` parameters whose buffers are the caller's, for the functions that need no optimizer. Begin
/// with zeros, then set `size`, and what applies.
///
/// Each buffer is aligned for its elements, has n of them, and overlaps no other one of the same call; all may be NULL
/// if n is 0. `parameters` and `gradient` are of `type`, `v` and `h` of `state_type`.
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
    /// tensor steps by KOALA++ with its gradient as it is, in another variant than the definite one, has no weight
    /// decay, and has its state in its own type. Either way `h` is the state afterwards, and what `gradient` holds is
    /// of no use. The gradient's memory must be writable then. Only koala_step_tensor and koala_step_tensors look at
    /// this.
    pub exchange: u32,
    /// Zero.
    pub reserved: u32,
    /// θ: read and written.
    pub parameters: *mut c_void,
    /// g = ∂L/∂θ of the minibatch's mean loss: read.
    pub gradient: *const c_void,
    /// v = H·P, the product of gradient and covariance: read (but for a first step) and written. It need not be
    /// initialized before the first step. With another method than KOALA++: what koala_method_kind says, zero before
    /// the first step, and not looked at where the method has no such vector.
    pub v: *mut c_void,
    /// h, the measurement row of the step before: read (but for a first step) and written, and otherwise as v.
    pub h: *mut c_void,
    /// Written with the new parameters, rounded, if the tensor steps; what is too large for it becomes infinite.
    pub copy: *mut c_void,
    /// Read and written; not NULL.
    pub scalars: *mut koala_scalars,
}

growing!(koala_tensor, up to scalars);

/// Which of a tensor's buffers a call uses; the others are not looked at. Parameters and scalars it always uses.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub gradient: bool,
    pub h: bool,
    pub v: bool,
}

impl Used {
    /// By a step.
    #[inline(always)]
    pub fn by(method: &Method) -> Self {
        let [h, v] = match method {
            Method::KoalaPlusPlus(_) => [true; 2],
            other => other.state_vectors().map(|vector| vector.is_some()),
        };
        Used { gradient: true, h, v }
    }
}

/// The buffers of a tensor.
const BUFFERS: [&str; 6] = ["parameters", "gradient", "v", "h", "copy", "scalars"];

/// A tensor that has been looked at: all its values are known ones, its buffers are there, aligned, and apart from each
/// other. Its scalars are here as the library has them, until `store_scalars`.
#[derive(Clone, Copy)]
pub(crate) struct Checked {
    source: *mut koala_tensor,
    element_type: ElementType,
    /// Of v and h.
    state_type: ElementType,
    copy_type: koala_copy_type,
    used: Used,
    scalars: Scalars,
}

impl Checked {
    /// # Safety
    /// `source` is NULL or a tensor as its documentation says, and stays so for as long as the result is used.
    #[inline(always)]
    pub unsafe fn new(source: *const koala_tensor, used: Used) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let checked = unsafe { Self::looked_at(source, used) }?;
        flag(checked.source().exchange, "exchange")?;
        checked.check_buffers(checked.source())?;
        Ok(checked)
    }

    /// Of a tensor whose buffers have been looked at before.
    ///
    /// # Safety
    /// As [`new`](Self::new), which has returned one for this tensor.
    #[inline(always)]
    pub unsafe fn looked_at(source: *const koala_tensor, used: Used) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let tensor = unsafe { look(source) }?;
        let element_type: ElementType = known(tensor.r#type)?.into();
        let state_type = StateType::from(known(tensor.state_type)?).beside(element_type);
        let copy_type = known(tensor.copy_type)?;
        check(tensor.scalars, "scalars")?;
        // SAFETY: not NULL, aligned, and the caller's promise.
        let scalars = unsafe { &*tensor.scalars }.as_core()?;
        Ok(Checked { source: source.cast_mut(), element_type, state_type, copy_type, used, scalars })
    }

    #[inline(always)]
    fn source(&self) -> &koala_tensor {
        // SAFETY: `new` has looked, and by the promise to it; an exchange writes there while no such reference is used.
        unsafe { &*self.source }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.source().length
    }

    #[inline(always)]
    pub fn group(&self) -> usize {
        self.source().group as usize
    }

    /// Where the buffers are, in the order of `BUFFERS`; an empty range where there is none.
    #[inline(always)]
    fn ranges(&self, tensor: &koala_tensor) -> [Range; BUFFERS.len()] {
        let range = |used: bool, pointer: *const c_void, size: usize| match used {
            true => bytes_at(pointer, tensor.length * size),
            false => (0, 0),
        };
        let (size, state_size) = (self.element_type.size(), self.state_type.size());
        [
            range(true, tensor.parameters, size),
            range(self.used.gradient, tensor.gradient, size),
            range(self.used.v, tensor.v, state_size),
            range(self.used.h, tensor.h, state_size),
            range(self.copy_type != koala_copy_type::None, tensor.copy, 2),
            range_of(tensor.scalars, 1),
        ]
    }

    #[inline(always)]
    fn check_buffers(&self, tensor: &koala_tensor) -> Result<(), Failure> {
        if tensor.length == 0 {
            return Ok(());
        }
        let (size, state_size) = (self.element_type.size(), self.state_type.size());
        check_buffer(tensor.parameters, tensor.length, size, "parameters")?;
        if self.used.gradient {
            check_buffer(tensor.gradient, tensor.length, size, "gradient")?;
        }
        if self.used.v {
            check_buffer(tensor.v, tensor.length, state_size, "v")?;
        }
        if self.used.h {
            check_buffer(tensor.h, tensor.length, state_size, "h")?;
        }
        let has_copy = self.copy_type != koala_copy_type::None;
        if has_copy {
            check_buffer(tensor.copy, tensor.length, 2, "copy")?;
        }
        let ranges = self.ranges(tensor);
        let [parameters, gradient, v, h, copy, scalars] = ranges;
        let mut overlap = any_overlap([parameters, gradient, v, h, scalars]);
        if has_copy {
            // One of them is the copy itself.
            overlap |= ranges.iter().filter(|range| overlaps(**range, copy)).count() > 1;
        }
        if overlap { Err(overlap_among(ranges)) } else { Ok(()) }
    }

    /// Whether what a call writes besides lies within the tensor.
    #[inline(always)]
    pub fn check_apart_from(&self, name: &'static str, range: Range) -> Result<(), Failure> {
        match range.0 == range.1 {
            true => Ok(()),
            false => self.check_apart_from_some(name, range),
        }
    }

    fn check_apart_from_some(&self, name: &'static str, range: Range) -> Result<(), Failure> {
        let ranges = self.ranges(self.source());
        match ranges.iter().zip(BUFFERS).find(|(buffer, _)| overlaps(**buffer, range)) {
            Some((_, buffer)) => {
                Err(fail(koala_status::Overlap, format_args!("{name} and {buffer} of the tensor overlap")))
            }
            None => Ok(()),
        }
    }

    #[inline(always)]
    pub fn any_buffers(&mut self) -> (AnyBuffers<'_>, &mut Scalars) {
        use ElementType::{Bf16, F16, F32, F64};
        // SAFETY: lengths and alignments were checked with each arm's types.
        let buffers = unsafe {
            match (self.element_type, self.state_type) {
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
        let tensor = self.source();
        let length = tensor.length;
        if length == 0 {
            return Buffers { parameters: &mut [], gradient: &[], v: &mut [], h: &mut [], copy: None };
        }
        // SAFETY: each that is used is there, aligned, as long as that, and apart from the others: `new` has looked.
        // That nobody else uses them during the call is the promise of who called `new`. The result is used before the
        // call ends, one at a time.
        unsafe {
            Buffers {
                parameters: std::slice::from_raw_parts_mut(tensor.parameters.cast(), length),
                gradient: match self.used.gradient {
                    true => std::slice::from_raw_parts(tensor.gradient.cast(), length),
                    false => &[],
                },
                v: if self.used.v { std::slice::from_raw_parts_mut(tensor.v.cast(), length) } else { &mut [] },
                h: if self.used.h { std::slice::from_raw_parts_mut(tensor.h.cast(), length) } else { &mut [] },
                copy: match self.copy_type {
                    koala_copy_type::None => None,
                    koala_copy_type::Bf16 => {
                        Some(HalfCopy::Bf16(std::slice::from_raw_parts_mut(tensor.copy.cast(), length)))
                    }
                    koala_copy_type::F16 => {
                        Some(HalfCopy::F16(std::slice::from_raw_parts_mut(tensor.copy.cast(), length)))
                    }
                },
            }
        }
    }

    pub fn scalars(&self) -> &Scalars {
        &self.scalars
    }

    #[inline(always)]
    pub fn offers_exchange(&self) -> bool {
        self.source().exchange != 0
    }

    /// Lets gradient and h change places in the caller's struct.
    pub fn exchange(&mut self) {
        // SAFETY: the caller's struct, at which `new` has looked.
        unsafe {
            let h = (*self.source).h;
            (*self.source).h = (*self.source).gradient.cast_mut();
            (*self.source).gradient = h;
        }
    }

    /// Writes the scalars where the caller keeps them.
    #[inline(always)]
    pub fn store_scalars(&self) {
        // SAFETY: not NULL and aligned: `new` has looked.
        unsafe { self.source().scalars.write(self.scalars.into()) };
    }
}

/// Whether a buffer of `length` elements may be there.
#[inline(always)]
pub(crate) fn check_buffer(pointer: *const c_void, length: usize, size: usize, name: &str) -> Result<(), Failure> {
    let address = pointer.addr();
    if address != 0 && address & (alignment(size) - 1) == 0 && end_of(address, length, size).is_some() {
        return Ok(());
    }
    Err(trouble_of(address, length, size, name))
}

/// That of elements of so many bytes, which for a double is 4 bytes on 32-bit x86.
const fn alignment(size: usize) -> usize {
    if size < align_of::<f64>() { size } else { align_of::<f64>() }
}

#[cold]
fn trouble_of(address: usize, length: usize, size: usize, name: &str) -> Failure {
    if address == 0 {
        return null(name);
    }
    if address & (alignment(size) - 1) != 0 {
        return misaligned(address, alignment(size), name);
    }
    too_long(length, name)
}

#[inline(always)]
fn any_overlap<const N: usize>(ranges: [Range; N]) -> bool {
    let mut any = false;
    for i in 1..N {
        for j in 0..i {
            any |= overlaps(ranges[i], ranges[j]);
        }
    }
    any
}

#[cold]
fn overlap_among(ranges: [Range; BUFFERS.len()]) -> Failure {
    let pairs = (1..ranges.len()).flat_map(|i| (0..i).map(move |j| (j, i)));
    let found = pairs.into_iter().find(|(j, i)| overlaps(ranges[*j], ranges[*i]));
    let (one, other) = found.map_or(("buffers", "others"), |(j, i)| (BUFFERS[j], BUFFERS[i]));
    fail(koala_status::Overlap, format_args!("{one} and {other} of the tensor overlap"))
}

/// A tensor, and what it is stepped with.
#[derive(Clone, Copy)]
pub(crate) struct Stepped<'s> {
    pub tensor: Checked,
    pub step: &'s Step,
}

impl Lender for Stepped<'_> {
    fn step(&self) -> &Step {
        self.step
    }

    fn len(&self) -> usize {
        self.tensor.len()
    }

    fn lend(&mut self) -> Lent<'_> {
        let step = self.step;
        let (buffers, scalars) = self.tensor.any_buffers();
        Lent { step, buffers, scalars }
    }

    fn offers_exchange(&self) -> bool {
        self.tensor.offers_exchange()
    }

    fn exchange(&mut self) {
        self.tensor.exchange();
    }
}
