//! bf16 and f16 round to nearest, ties to even, once: from every middle between two values, and beside it.

use koala_optim::{Element, bf16, f16};

/// Between every pair of neighbours: just below, at and just above the middle, and the neighbours themselves.
fn rounds_correctly<T: Element>(from_bits: impl Fn(u16) -> T, last_finite: u16) {
    for bits in 0..last_finite {
        let (below, above) = (from_bits(bits), from_bits(bits + 1));
        let middle = below.to_f64() * 0.5 + above.to_f64() * 0.5;
        let even = if bits % 2 == 0 { below } else { above };
        for sign in [1.0, -1.0] {
            let convert = |value: f64| T::rounded(sign * value).to_f64() * sign;
            assert_eq!(convert(below.to_f64()), below.to_f64());
            assert_eq!(convert(middle.next_down()), below.to_f64(), "below the middle after {bits:#x}");
            assert_eq!(convert(middle), even.to_f64(), "the middle after {bits:#x}");
            assert_eq!(convert(middle.next_up()), above.to_f64(), "above the middle after {bits:#x}");
        }
    }
    assert_eq!(T::rounded(1e300).to_f64(), f64::INFINITY);
    assert_eq!(T::rounded(-1e-300).to_f64().to_bits(), (-0.0f64).to_bits());
    assert!(T::rounded(f64::NAN).to_f64().is_nan());
}

/// From f32 as from f64: at every value of bf16, around every middle between two of them, and at what is no number.
#[test]
fn from_f32_as_from_f64() {
    for upper in 0..=u32::from(u16::MAX) {
        for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let value = f32::from_bits(upper << 16 | lower);
            let (bf16_bits, f16_bits) = (bf16::rounded_f32(value).to_bits(), f16::rounded_f32(value).to_bits());
            if value.is_nan() {
                assert!(bf16::rounded_f32(value).is_nan() && f16::rounded_f32(value).is_nan());
            } else {
                assert_eq!(bf16_bits, bf16::rounded(value.into()).to_bits(), "{value:e}");
                assert_eq!(f16_bits, f16::rounded(value.into()).to_bits(), "{value:e}");
            }
        }
    }
}

#[test]
fn bf16_rounds_once() {
    rounds_correctly(bf16::from_bits, bf16::MAX.to_bits());
}

#[test]
fn f16_rounds_once() {
    rounds_correctly(f16::from_bits, f16::MAX.to_bits());
}
