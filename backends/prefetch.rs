//! Asking for memory before it is needed. It reads nothing, and changes no result.

/// Bytes of a vector that are asked for: what comes after them, the processor sees coming.
const BEGINNING: usize = 512;

/// Asks for the beginning of a vector to be brought into the first cache, where the processor can be asked.
#[inline(always)]
pub fn prefetch(vector: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in vector[..vector.len().min(BEGINNING)].chunks(64) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is a part of x86-64, and no address is wrong for a prefetch.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (vector, BEGINNING);
}
