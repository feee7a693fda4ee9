//! [`Scalar`]: `f32` and `f64`, with elementary functions that compilers vectorise.
//!
//! They have no branches and no calls, so that loops over them vectorise. The error is at most a few units in the
//! last place.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

#[cfg(not(target_arch = "x86_64"))]
use super::registers::Array;
#[cfg(not(target_arch = "x86_64"))]
use super::registers::transposed as transposed_f32;
#[cfg(target_arch = "x86_64")]
use super::registers::x86::{self, transposed as transposed_f32};
use super::registers::{Register, transposed};

/// A floating-point type of the hand-derived engine.
pub(crate) trait Scalar:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const TWO: Self;

    /// Vector register on processors with AVX-512.
    type Wide: Register<Self>;
    /// Vector register on processors with AVX2 and fused multiply-add.
    type Fused: Register<Self>;

    fn from_f64(x: f64) -> Self;
    fn f64(self) -> f64;
    fn abs(self) -> Self;
    fn max(self, other: Self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn sqrt(self) -> Self;

    /// self · factor + term, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;

    /// s and p with eˣ = s(1 + p), s a power of two and |p| < ½; x is clamped to the type's range.
    fn split_exp(self) -> (Self, Self);

    /// ln(1 + x) for 0 ≤ x ≤ 1.
    fn ln_1p(self) -> Self;

    fn erf(self) -> Self;

    fn transposed(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4];

    /// eˣ
    #[inline(always)]
    fn exp(self) -> Self {
        let (scale, rest) = self.split_exp();
        scale + scale * rest
    }

    /// eˣ − 1, without cancellation for small x.
    #[inline(always)]
    fn exp_m1(self) -> Self {
        let (scale, rest) = self.split_exp();
        scale * rest + (scale - Self::ONE)
    }

    /// 1 / (1 + e⁻ˣ)
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        let e = (-Self::TWO * self.abs()).exp_m1();
        (-e / (Self::TWO + e)).copysign(self)
    }

    /// ln(1 + eˣ)
    #[inline(always)]
    fn softplus(self) -> Self {
        self.max(Self::ZERO) + (-self.abs()).exp().ln_1p()
    }
}

/// 1/1!, 1/2!, 1/3!, …
const fn inverse_factorials<const N: usize>() -> [f64; N] {
    let mut coefficients = [1.0; N];
    let mut k = 1;
    while k < N {
        coefficients[k] = coefficients[k - 1] / (k + 1) as f64;
        k += 1;
    }
    coefficients
}

macro_rules! scalar {
    (
        $float:ident, clamp: $clamp:expr, round: $round:expr, bias: $bias:expr,
        mantissa: $mantissa:expr, ln2: ($high:expr, $low:expr), exp_terms: $exp_terms:expr,
        ln_terms: $ln_terms:expr, erf: $erf:path, transposed: $transposed:path, wide: $wide:ident, fused: $fused:ident
    ) => {
        impl Scalar for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const TWO: Self = 2.0;

            #[cfg(target_arch = "x86_64")]
            type Wide = x86::$wide;
            #[cfg(target_arch = "x86_64")]
            type Fused = x86::$fused;
            #[cfg(not(target_arch = "x86_64"))]
            type Wide = Array<Self, true>;
            #[cfg(not(target_arch = "x86_64"))]
            type Fused = Array<Self, true>;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $float
            }

            #[inline(always)]
            fn f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn abs(self) -> Self {
                $float::abs(self)
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other { self } else { other }
            }

            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                $float::copysign(self, sign)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $float::sqrt(self)
            }

            #[inline(always)]
            fn mul_add(self, factor: Self, term: Self) -> Self {
                $float::mul_add(self, factor, term)
            }

            #[inline(always)]
            fn split_exp(self) -> (Self, Self) {
                const COEFFICIENTS: [f64; $exp_terms] = inverse_factorials();
                let x = if self > $clamp { $clamp } else { self };
                let x = if x < -$clamp { -$clamp } else { x };
                // x = n ln 2 + r with |r| ≤ ln 2 / 2. Adding `round`, which is too large to have a fractional part,
                // rounds to an integer; its last bits then hold n.
                let shifted = x * std::$float::consts::LOG2_E + $round;
                let n = shifted - $round;
                let r = x - n * $high - n * $low;
                let mut rest = 0.0;
                for c in COEFFICIENTS.iter().rev() {
                    rest = (rest + *c as $float) * r;
                }
                let exponent = shifted.to_bits().wrapping_add($bias) << $mantissa;
                ($float::from_bits(exponent), rest)
            }

            #[inline(always)]
            fn ln_1p(self) -> Self {
                // The series of 2 artanh(s), with s ≤ 1/3.
                let s = self / (2.0 + self);
                let square = s * s;
                let mut sum = 0.0;
                for k in (0..$ln_terms).rev() {
                    sum = sum * square + 1.0 / (2 * k + 1) as $float;
                }
                2.0 * s * sum
            }

            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }

            #[inline(always)]
            fn transposed(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
                $transposed(rows)
            }
        }
    };
}

scalar! {
    f32, clamp: 87.0, round: 12_582_912.0, bias: 127, mantissa: 23,
    ln2: (0.693_359_4, -2.121_944_4e-4), exp_terms: 7, ln_terms: 8,
    erf: candle_core::cpu::erf::erf_f32, transposed: transposed_f32, wide: Wide32, fused: Fused32
}
scalar! {
    f64, clamp: 708.0, round: 6_755_399_441_055_744.0, bias: 1023, mantissa: 52,
    ln2: (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10), exp_terms: 13, ln_terms: 17,
    erf: candle_core::cpu::erf::erf_f64, transposed: transposed, wide: Wide64, fused: Fused64
}

#[cfg(test)]
mod tests {
    use super::Scalar;

    fn check<T: Scalar>(epsilon: f64) {
        for i in -4_000..=4_000 {
            let x = T::from_f64(f64::from(i) / 173.0);
            let exact = x.f64();
            let close = |name: &str, found: T, expected: f64| {
                let error = (found.f64() - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
                assert!(
                    error <= 8.0 * epsilon,
                    "{name}({exact}): {found:?} is not {expected:e}"
                );
            };
            close("exp", x.exp(), exact.exp());
            close("exp_m1", x.exp_m1(), exact.exp_m1());
            close("sigmoid", x.sigmoid(), 1.0 / (1.0 + (-exact).exp()));
            close("tanh", x.tanh(), exact.tanh());
            close("softplus", x.softplus(), exact.exp().ln_1p());
        }
        for extreme in [-1e30, -1e-30, 0.0, 1e-30, 1e30].map(T::from_f64) {
            let tanh = extreme.f64().tanh();
            assert!((extreme.tanh().f64() - tanh).abs() <= epsilon * tanh.abs());
            assert!((0.0..=1.0).contains(&extreme.sigmoid().f64()));
        }
    }

    #[test]
    fn elementary_functions() {
        check::<f32>(f64::from(f32::EPSILON));
        check::<f64>(f64::EPSILON);
    }
}
