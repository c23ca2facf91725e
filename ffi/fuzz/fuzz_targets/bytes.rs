//! Numbers, names, methods and buffers from the fuzzer's bytes.

use koala::{koala_element_type, koala_method, koala_method_init, koala_method_kind, koala_state_type};

use crate::any;

/// What is left of the input. Zeros follow it.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % end
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One time in 256, or more often: a fuzzer likes that byte.
    pub fn rarely(&mut self) -> bool {
        self.byte() == 255
    }

    /// A number that is mostly small and positive.
    pub fn real(&mut self) -> f64 {
        match self.byte() {
            255 => f64::NAN,
            254 => f64::INFINITY,
            253 => -1.0,
            252 => 1e300,
            251 => 1e-300,
            250 => f64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            other => f64::from(other) / 64.0,
        }
    }

    /// An enum's number, mostly one that it has.
    pub fn choice(&mut self, count: usize) -> i32 {
        if self.rarely() { i32::from(self.byte()) - 128 } else { self.below(count) as i32 }
    }

    /// A number that is mostly 1, and so changes nothing.
    pub fn mostly_one(&mut self) -> f64 {
        if self.byte() < 192 { 1.0 } else { self.real() }
    }

    /// A number that is mostly infinite, and so no limit.
    pub fn mostly_infinite(&mut self) -> f64 {
        if self.byte() < 192 { f64::INFINITY } else { self.real() }
    }

    /// A method of any kind, with its defaults but for one number, sometimes.
    pub fn method(&mut self) -> koala_method {
        let mut method = std::mem::MaybeUninit::zeroed();
        let (kind, number) = (self.below(5) as i32, self.real());
        // SAFETY: of that size; any bytes are one.
        let mut method = unsafe {
            crate::is_ok(koala_method_init(method.as_mut_ptr(), size_of::<koala_method>(), any(kind)));
            method.assume_init()
        };
        match self.byte() {
            0..16 => method.momentum = number,
            16..32 => method.beta1 = number,
            32..48 => method.epsilon = number,
            48..64 => method.variance = number,
            64..80 => method.process_noise = number,
            80..96 => method.velocity_decay = number,
            96..128 => method.momentum = 0.0,
            128..160 => method.nesterov = 1,
            255 => method.kind = any(self.choice(5)),
            _ => {}
        }
        method
    }

    /// Of these names, some are given twice, and the last one is no UTF-8.
    pub fn name(&mut self) -> &'static std::ffi::CStr {
        [c"a", c"b", c"c", c"d", c"", c"\xC3\xA9", c"a longer name", c"\xFF"][self.below(8)]
    }
}

/// Memory for elements of any type.
#[derive(Clone, PartialEq)]
pub struct Buffer(Vec<u64>);

impl Buffer {
    pub fn new(length: usize, size: usize) -> Self {
        Buffer(vec![0; (length * size).div_ceil(8).max(1)])
    }

    pub fn pointer<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    /// All of it, in elements.
    pub fn elements(&self, size: usize, bf16: bool) -> Vec<u64> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
        elements(&bytes, size, bf16)
    }

    /// Elements of a kind that the fuzzer chooses: zeros, usual ones, with a huge one, with one that is not finite.
    pub fn fill(&mut self, length: usize, size: usize, bf16: bool, bytes: &mut Bytes) {
        let (kind, seed) = (bytes.byte(), u32::from(bytes.byte()));
        if kind < 16 || length == 0 {
            return self.0.fill(0);
        }
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        for place in 0..length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.put(place, size, bf16, (f64::from(state) - f64::from(1_u32 << 31)) / f64::from(1_u32 << 30));
        }
        let special = [f64::NAN, f64::INFINITY, 3e38, 6e4, 1e-40];
        if let Some(number) = special.get(usize::from(kind).wrapping_sub(240) / 2) {
            self.put(seed as usize % length, size, bf16, *number);
        }
    }

    fn put(&mut self, place: usize, size: usize, bf16: bool, number: f64) {
        let bits = (number as f32).to_bits();
        // Half precision is cut: the exponent is moved, and what it cannot hold becomes infinity or zero.
        let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
        let half = match exponent {
            31.. => 0x7c00 | if number.is_nan() { 0x200 } else { 0 },
            1..=30 => (exponent as u32) << 10 | bits >> 13 & 0x3ff,
            _ => 0,
        } | bits >> 16 & 0x8000;
        // SAFETY: the place is within the buffer, by its length.
        unsafe {
            match size {
                8 => self.pointer::<f64>().add(place).write(number),
                4 => self.pointer::<u32>().add(place).write(bits),
                _ => self.pointer::<u16>().add(place).write(if bf16 { bits >> 16 } else { half } as u16),
            }
        }
    }
}

/// The bits of elements, all NaN being one: the contract promises nothing of theirs.
pub fn elements(bytes: &[u8], size: usize, bf16: bool) -> Vec<u64> {
    let (sign, infinity) = match size {
        8 => (1 << 63, 0x7ff0_0000_0000_0000),
        4 => (1 << 31, 0x7f80_0000),
        _ => (1 << 15, if bf16 { 0x7f80 } else { 0x7c00 }),
    };
    let element = |bytes: &[u8]| {
        let bits = bytes.iter().rev().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        if bits & !sign > infinity { u64::MAX } else { bits }
    };
    bytes.chunks_exact(size).map(element).collect()
}

/// Whether a tensor's elements are bfloat16, and whether those of its state are.
pub fn are_bf16(r#type: i32, state_type: i32) -> [bool; 2] {
    let bf16 = r#type == koala_element_type::Bf16 as i32;
    let same = state_type == koala_state_type::Same as i32;
    [bf16, if same { bf16 } else { state_type == koala_state_type::Bf16 as i32 }]
}

/// Which of a tensor's vectors there are under a method: v, h.
pub fn vectors_of(method: &koala_method) -> [bool; 2] {
    // SAFETY: the library has written it.
    match unsafe { method.kind.assume_init() } {
        koala_method_kind::KoalaV => [false; 2],
        koala_method_kind::Sgd => [false, method.momentum != 0.0],
        _ => [true; 2],
    }
}

/// The sizes of an element and of its state's.
pub fn sizes(r#type: i32, state_type: i32) -> (usize, usize) {
    let size = match r#type {
        t if t == koala_element_type::F64 as i32 => 8,
        t if t == koala_element_type::F32 as i32 => 4,
        _ => 2,
    };
    let state = match state_type {
        s if s == koala_state_type::F32 as i32 => 4,
        s if s == koala_state_type::Bf16 as i32 => 2,
        _ => size,
    };
    (size, state)
}
