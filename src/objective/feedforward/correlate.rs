//! [`sum_terms`] and [`add_products`]: sums of products of shifted planes, the arithmetic of a convolution.

use std::hint::black_box;

use super::Scalar;
use crate::simd::{has_avx2, has_avx512, vectorised};

/// Rows of weights, or planes, that go together: their sums fill the registers.
pub(super) const ROWS: usize = 8;
/// Positions are computed in blocks of at most so many.
pub(super) const BLOCK: usize = 32;
/// Offsets that go together in [`add_products`].
const TAPS: usize = 3;
/// Positions that products go over at a time, few enough that [`ROWS`] planes of them stay in the cache.
const RUN: usize = 2048;

/// For each row r and position p the sum over i of weights(r, i) · source(offsetᵢ + p).
#[derive(Clone, Copy)]
pub(super) struct Term<'a, T> {
    /// By [`pack`].
    pub(super) weights: &'a [T],
    pub(super) source: &'a [T],
    pub(super) offsets: &'a [usize],
}

/// Numbers that [`pack`] makes of `rows` × `columns` weights.
pub(super) fn packed(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(ROWS) * columns
}

/// Appends weights(row, column) with [`ROWS`] rows side by side, zeros where there are no more.
pub(super) fn pack<T: Scalar>(
    target: &mut Vec<T>,
    rows: usize,
    columns: usize,
    weight: impl Fn(usize, usize) -> T,
) {
    for start in (0..rows).step_by(ROWS) {
        for column in 0..columns {
            target.extend((start..start + ROWS).map(|row| match row < rows {
                true => weight(row, column),
                false => T::ZERO,
            }));
        }
    }
}

/// What a processor has of vector registers and instructions.
#[derive(Clone, Copy)]
enum Registers {
    /// 32 of 64 bytes, and fused multiplication and addition.
    Wide,
    /// 16 of 32 bytes or 32 of 16, and fused multiplication and addition.
    Fused,
    Plain,
}

fn registers() -> Registers {
    if has_avx512() {
        Registers::Wide
    } else if has_avx2() || cfg!(target_arch = "aarch64") {
        Registers::Fused
    } else {
        Registers::Plain
    }
}

vectorised! {
    /// Writes the sum of the terms for `rows` rows, which are `pitch` apart, and `len` positions, rounded up
    /// to a [`BLOCK`].
    pub(super) fn sum_terms<T: Scalar>(
        terms: &[Option<Term<T>>],
        rows: usize,
        out: &mut [T],
        pitch: usize,
        len: usize,
    ) {
        match (registers(), size_of::<T>()) {
            (Registers::Wide, 4) => blocks::<T, 32, 8, true>(terms, rows, out, pitch, len),
            (Registers::Wide, _) => blocks::<T, 16, 8, true>(terms, rows, out, pitch, len),
            (Registers::Fused, 4) => blocks::<T, 16, 4, true>(terms, rows, out, pitch, len),
            (Registers::Fused, _) => blocks::<T, 8, 4, true>(terms, rows, out, pitch, len),
            (Registers::Plain, 4) => blocks::<T, 8, 4, false>(terms, rows, out, pitch, len),
            (Registers::Plain, _) => blocks::<T, 4, 4, false>(terms, rows, out, pitch, len),
        }
    }

    /// Adds to sums(r, i) for `rows` planes, which are `pitch` apart, the sum over the first `len` positions of
    /// plane(r, p) · source(offsetᵢ + p), and what lies there up to the end of a vector.
    pub(super) fn add_products<T: Scalar>(
        planes: (&[T], usize, usize),
        source: &[T],
        offsets: &[usize],
        len: usize,
        sums: &mut [T],
    ) {
        match (registers(), size_of::<T>()) {
            (Registers::Wide, 4) => products::<T, 16, 8, true>(planes, source, offsets, len, sums),
            (Registers::Wide, _) => products::<T, 8, 8, true>(planes, source, offsets, len, sums),
            (Registers::Fused, 4) => products::<T, 8, 4, true>(planes, source, offsets, len, sums),
            (Registers::Fused, _) => products::<T, 4, 4, true>(planes, source, offsets, len, sums),
            (Registers::Plain, _) => products::<T, 4, 4, false>(planes, source, offsets, len, sums),
        }
    }

    /// Adds to each of the sums that over the first `len` positions of its plane; the planes are `pitch` apart.
    pub(super) fn add_sums<T: Scalar>(planes: &[T], pitch: usize, len: usize, sums: &mut [T]) {
        for (plane, sum) in planes.chunks(pitch).zip(sums) {
            let mut lanes = [T::ZERO; 16];
            let (chunks, rest) = plane[..len].as_chunks::<16>();
            for chunk in chunks {
                for i in 0..16 {
                    lanes[i] += chunk[i];
                }
            }
            for (lane, value) in lanes.iter_mut().zip(rest) {
                *lane += *value;
            }
            *sum += total(&lanes);
        }
    }
}

/// ab + c
#[inline(always)]
fn multiply_add<T: Scalar, const FUSED: bool>(a: T, b: T, c: T) -> T {
    // Without the instruction, `mul_add` is a slow function.
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

// In both of the following the innermost loops are those that compilers unroll, and the one around them that
// over a vector, which they turn into instructions; the other way round the sums do not stay in registers.

/// R rows and N positions at a time.
#[inline(always)]
fn blocks<T: Scalar, const N: usize, const R: usize, const FUSED: bool>(
    terms: &[Option<Term<T>>],
    rows: usize,
    out: &mut [T],
    pitch: usize,
    len: usize,
) {
    for p in (0..len).step_by(N) {
        for start in (0..rows).step_by(R) {
            let mut sums = [[T::ZERO; N]; R];
            for term in terms.iter().flatten() {
                let columns = term.offsets.len();
                let pack = &term.weights[start / ROWS * ROWS * columns..][..ROWS * columns];
                for (weights, offset) in pack.as_chunks::<ROWS>().0.iter().zip(term.offsets) {
                    let weights: &[T; R] = chunk(weights, start % ROWS);
                    let values: &[T; N] = chunk(term.source, offset + p);
                    for i in 0..N {
                        for r in 0..R {
                            sums[r][i] =
                                multiply_add::<T, FUSED>(values[i], weights[r], sums[r][i]);
                        }
                    }
                }
            }
            for r in 0..R {
                if start + r < rows {
                    out[(start + r) * pitch + p..][..N].copy_from_slice(&sums[r]);
                }
            }
        }
    }
}

/// R planes and a few offsets at a time, N positions side by side.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "arrays of a constant length")]
fn products<T: Scalar, const N: usize, const R: usize, const FUSED: bool>(
    (planes, rows, pitch): (&[T], usize, usize),
    source: &[T],
    offsets: &[usize],
    len: usize,
    sums: &mut [T],
) {
    for run in (0..len).step_by(RUN) {
        let count = (len - run).min(RUN).div_ceil(N);
        for start in (0..rows).step_by(R) {
            // The last again where there are no more.
            let mut left = [&[][..]; R];
            for r in 0..R {
                let row = (start + r).min(rows - 1);
                left[r] = chunks::<T, N>(planes, row * pitch + run, count);
            }
            for first in (0..offsets.len()).step_by(TAPS) {
                let mut right = [&[][..]; TAPS];
                for t in 0..TAPS {
                    let offset = offsets[(first + t).min(offsets.len() - 1)];
                    right[t] = chunks::<T, N>(source, offset + run, count);
                }
                let mut lanes = [[[T::ZERO; N]; TAPS]; R];
                for q in 0..count {
                    for i in 0..N {
                        for r in 0..R {
                            for t in 0..TAPS {
                                let (a, b) = (left[r][q][i], right[t][q][i]);
                                lanes[r][t][i] = multiply_add::<T, FUSED>(a, b, lanes[r][t][i]);
                            }
                        }
                    }
                }
                // In memory from here on, lest they be there above.
                let lanes = black_box(lanes);
                for r in 0..R.min(rows - start) {
                    for t in 0..TAPS.min(offsets.len() - first) {
                        sums[(start + r) * offsets.len() + first + t] += total(&lanes[r][t]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn chunk<T, const N: usize>(source: &[T], at: usize) -> &[T; N] {
    source[at..].first_chunk().expect("a margin")
}

#[inline(always)]
fn chunks<T, const N: usize>(source: &[T], at: usize, count: usize) -> &[[T; N]] {
    &source[at..].as_chunks().0[..count]
}

/// The sum, by fours.
#[inline(always)]
fn total<T: Scalar, const N: usize>(lanes: &[T; N]) -> T {
    let mut sums = [T::ZERO; 4];
    for lanes in lanes.as_chunks::<4>().0 {
        for i in 0..4 {
            sums[i] += lanes[i];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}
