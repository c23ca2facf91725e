//! The processor's floating-point state: XLA runs its programs with denormals flushed to zero, libkoala needs them kept.

/// The default state, until this is dropped.
pub struct DefaultState {
    before: Register,
}

impl DefaultState {
    pub fn set() -> Self {
        let before = read();
        write(DEFAULT);
        DefaultState { before }
    }
}

impl Drop for DefaultState {
    fn drop(&mut self) {
        write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
use x86_64::{DEFAULT, Register, read, write};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    pub type Register = u32;

    /// Of MXCSR: no exception is trapped, round to nearest, denormals kept.
    pub const DEFAULT: Register = 0x1f80;

    pub fn read() -> Register {
        let mut value = 0;
        // SAFETY: writes the register to the variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: the value is the default or was there before.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::{DEFAULT, Register, read, write};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::asm;

    pub type Register = u64;

    /// Of FPCR: no exception is trapped, round to nearest, denormals kept.
    pub const DEFAULT: Register = 0;

    pub fn read() -> Register {
        let value;
        // SAFETY: reads a register that every program may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub fn write(value: Register) {
        // SAFETY: the value is the default or was there before.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other::{DEFAULT, Register, read, write};

/// Nothing is known of others: what XLA leaves is taken as it is.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other {
    pub type Register = ();

    pub const DEFAULT: Register = ();

    pub fn read() -> Register {}

    pub fn write((): Register) {}
}
