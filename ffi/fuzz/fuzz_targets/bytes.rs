//! Numbers, names and buffers from the fuzzer's bytes.

use koala::{koala_element_type, koala_state_type};

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
