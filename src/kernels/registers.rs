//! [`Register`]: values that fit into one vector register of the processor; [`registers`]: which kind it has.
//!
//! The compiler also vectorises loops over arrays, but only if it optimises twice; with `codegen-units = 1`, common
//! in release profiles, it optimises once, and a convolution's weight gradient took 26 times as long.

use super::Scalar;
use super::simd::{has_avx2, has_avx512};

/// Vector registers and instructions of the processor.
#[derive(Clone, Copy)]
pub(super) enum Registers {
    /// 32 registers of 64 bytes, and fused multiply-add.
    Wide,
    /// 16 registers of 32 bytes or 32 of 16, and fused multiply-add.
    Fused,
    Plain,
}

pub(super) fn registers() -> Registers {
    if has_avx512() {
        Registers::Wide
    } else if has_avx2() || cfg!(target_arch = "aarch64") {
        Registers::Fused
    } else {
        Registers::Plain
    }
}

pub(crate) trait Register<T>: Copy {
    /// The register's values in memory.
    type Lanes: AsRef<[T]> + Copy;

    /// The values in register-sized chunks, without the remainder.
    fn lanes(numbers: &[T]) -> &[Self::Lanes];
    fn lanes_mut(numbers: &mut [T]) -> &mut [Self::Lanes];
    fn load(lanes: &Self::Lanes) -> Self;
    fn store(self) -> Self::Lanes;
    fn splat(x: T) -> Self;

    /// self · factor + term
    fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// Fallback for processors without vector instructions, or with ones not named below.
#[derive(Clone, Copy)]
pub(crate) struct Array<T, const FUSED: bool>([T; 4]);

impl<T: Scalar, const FUSED: bool> Register<T> for Array<T, FUSED> {
    type Lanes = [T; 4];

    #[inline(always)]
    fn lanes(numbers: &[T]) -> &[[T; 4]] {
        numbers.as_chunks().0
    }

    #[inline(always)]
    fn lanes_mut(numbers: &mut [T]) -> &mut [[T; 4]] {
        numbers.as_chunks_mut().0
    }

    #[inline(always)]
    fn load(lanes: &[T; 4]) -> Self {
        Self(*lanes)
    }

    #[inline(always)]
    fn store(self) -> [T; 4] {
        self.0
    }

    #[inline(always)]
    fn splat(x: T) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "arrays of a constant length")]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        let mut sums = term.0;
        for i in 0..4 {
            // Without the instruction, `mul_add` is a slow function call.
            sums[i] = match FUSED {
                true => self.0[i].mul_add(factor.0[i], sums[i]),
                false => self.0[i] * factor.0[i] + sums[i],
            };
        }
        Self(sums)
    }
}

#[inline(always)]
pub(super) fn transposed<T: Copy>(rows: [[T; 4]; 4]) -> [[T; 4]; 4] {
    let mut columns = rows;
    for i in 0..4 {
        for j in 0..4 {
            columns[i][j] = rows[j][i];
        }
    }
    columns
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::{
        __m128, __m256, __m256d, __m512, __m512d, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps,
        _mm_unpacklo_ps, _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_set1_pd, _mm256_set1_ps,
        _mm512_fmadd_pd, _mm512_fmadd_ps, _mm512_set1_pd, _mm512_set1_ps,
    };

    use super::Register;

    macro_rules! register {
        ($name:ident, $float:ident, $lanes:literal, $register:ident, $splat:ident, $mul_add:ident) => {
            /// Only for functions that are compiled for, and called on, processors with these registers.
            #[derive(Clone, Copy)]
            pub(crate) struct $name($register);

            #[allow(unsafe_code)]
            impl Register<$float> for $name {
                type Lanes = [$float; $lanes];

                #[inline(always)]
                fn lanes(numbers: &[$float]) -> &[Self::Lanes] {
                    numbers.as_chunks().0
                }

                #[inline(always)]
                fn lanes_mut(numbers: &mut [$float]) -> &mut [Self::Lanes] {
                    numbers.as_chunks_mut().0
                }

                #[inline(always)]
                fn load(lanes: &Self::Lanes) -> Self {
                    // SAFETY: both types have the same size, and every bit pattern is valid.
                    Self(unsafe { std::mem::transmute_copy(lanes) })
                }

                #[inline(always)]
                fn store(self) -> Self::Lanes {
                    // SAFETY: as above.
                    unsafe { std::mem::transmute(self.0) }
                }

                #[inline(always)]
                fn splat(x: $float) -> Self {
                    // SAFETY: the processor has the instruction; see above.
                    Self(unsafe { $splat(x) })
                }

                #[inline(always)]
                fn mul_add(self, factor: Self, term: Self) -> Self {
                    // SAFETY: as above.
                    Self(unsafe { $mul_add(self.0, factor.0, term.0) })
                }
            }
        };
    }

    register!(Wide32, f32, 16, __m512, _mm512_set1_ps, _mm512_fmadd_ps);
    register!(Wide64, f64, 8, __m512d, _mm512_set1_pd, _mm512_fmadd_pd);
    register!(Fused32, f32, 8, __m256, _mm256_set1_ps, _mm256_fmadd_ps);
    register!(Fused64, f64, 4, __m256d, _mm256_set1_pd, _mm256_fmadd_pd);

    /// The compiler would move the entries one by one.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn transposed(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
        // SAFETY: both types have the same size, and every bit pattern is valid. All x86-64 processors have these
        // instructions.
        unsafe {
            let [a, b, c, d]: [__m128; 4] = std::mem::transmute(rows);
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            std::mem::transmute([
                _mm_movelh_ps(ab, cd),
                _mm_movehl_ps(cd, ab),
                _mm_movelh_ps(ab_high, cd_high),
                _mm_movehl_ps(cd_high, ab_high),
            ])
        }
    }
}
