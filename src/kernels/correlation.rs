//! [`sum_terms`] and [`add_products`]: sums of products of shifted planes, the arithmetic of a convolution.

use std::hint::black_box;

use super::Scalar;
use super::registers::{Array, Register, Registers, registers};
use crate::kernels::simd::vectorised;

/// Number of rows of weights, or planes, processed together: their sums fill the registers.
pub(crate) const ROWS: usize = 8;
/// Maximum number of positions in a block.
pub(crate) const BLOCK: usize = 32;
/// Number of offsets processed together in [`add_products`].
const TAPS: usize = 3;
/// Number of positions per run of products, so that [`ROWS`] planes of them stay in the cache.
const RUN: usize = 2048;

/// The sum over i of weights(r, i) · source(offsetᵢ + p), for each row r and position p.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a, T> {
    /// Packed by [`pack`].
    pub(crate) weights: &'a [T],
    pub(crate) source: &'a [T],
    pub(crate) offsets: &'a [usize],
}

/// Length of [`pack`]'s output for `rows` × `columns` weights.
pub(crate) fn packed(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(ROWS) * columns
}

/// Appends weights(row, column) with [`ROWS`] rows interleaved, padded with zeros.
pub(crate) fn pack<T: Scalar>(
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

vectorised! {
    /// Writes the sum of the terms for `rows` rows, `pitch` apart, and `len` positions, rounded up to a [`BLOCK`].
    pub(crate) fn sum_terms<T: Scalar>(
        terms: &[Option<Term<T>>],
        rows: usize,
        out: &mut [T],
        pitch: usize,
        len: usize,
    ) {
        match registers() {
            Registers::Wide => blocks::<T, T::Wide, 2, 8>(terms, rows, out, pitch, len),
            Registers::Fused => blocks::<T, T::Fused, 2, 4>(terms, rows, out, pitch, len),
            Registers::Plain => {
                blocks::<T, Array<T, false>, 2, 4>(terms, rows, out, pitch, len);
            }
        }
    }

    /// Adds the sum of plane(r, p) · source(offsetᵢ + p) over the first `len` positions, rounded up to a whole
    /// vector, to sums(r, i), for `rows` planes, `pitch` apart.
    pub(crate) fn add_products<T: Scalar>(
        planes: (&[T], usize, usize),
        source: &[T],
        offsets: &[usize],
        len: usize,
        sums: &mut [T],
    ) {
        match registers() {
            Registers::Wide => products::<T, T::Wide, 8>(planes, source, offsets, len, sums),
            Registers::Fused => products::<T, T::Fused, 4>(planes, source, offsets, len, sums),
            Registers::Plain => {
                products::<T, Array<T, false>, 4>(planes, source, offsets, len, sums);
            }
        }
    }

    /// Adds the sum over the first `len` positions of each plane to the sums; the planes are `pitch` apart.
    pub(crate) fn add_sums<T: Scalar>(planes: &[T], pitch: usize, len: usize, sums: &mut [T]) {
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

/// R rows and M registers of positions at a time.
#[inline(always)]
fn blocks<T: Scalar, V: Register<T>, const M: usize, const R: usize>(
    terms: &[Option<Term<T>>],
    rows: usize,
    out: &mut [T],
    pitch: usize,
    len: usize,
) {
    let step = M * size_of::<V>() / size_of::<T>();
    for p in (0..len).step_by(step) {
        for start in (0..rows).step_by(R) {
            let mut sums = [[V::splat(T::ZERO); M]; R];
            for term in terms.iter().flatten() {
                let columns = term.offsets.len();
                let pack = &term.weights[start / ROWS * ROWS * columns..][..ROWS * columns];
                for (weights, offset) in pack.as_chunks::<ROWS>().0.iter().zip(term.offsets) {
                    let weights: &[T; R] = chunk(weights, start % ROWS);
                    let values: &[V::Lanes; M] = chunk(V::lanes(&term.source[offset + p..]), 0);
                    for m in 0..M {
                        let value = V::load(&values[m]);
                        for r in 0..R {
                            sums[r][m] = value.mul_add(V::splat(weights[r]), sums[r][m]);
                        }
                    }
                }
            }
            for r in 0..R {
                if start + r < rows {
                    let out = &mut out[(start + r) * pitch + p..][..step];
                    for (out, sum) in V::lanes_mut(out).iter_mut().zip(sums[r]) {
                        *out = sum.store();
                    }
                }
            }
        }
    }
}

/// R planes and a few offsets at a time, a register of positions side by side.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "arrays of a constant length")]
fn products<T: Scalar, V: Register<T>, const R: usize>(
    (planes, rows, pitch): (&[T], usize, usize),
    source: &[T],
    offsets: &[usize],
    len: usize,
    sums: &mut [T],
) {
    for run in (0..len).step_by(RUN) {
        let count = (len - run)
            .min(RUN)
            .div_ceil(size_of::<V>() / size_of::<T>());
        for start in (0..rows).step_by(R) {
            // Repeats the last row where fewer than R remain.
            let mut left = [&[][..]; R];
            for r in 0..R {
                let row = (start + r).min(rows - 1);
                left[r] = &V::lanes(&planes[row * pitch + run..])[..count];
            }
            for first in (0..offsets.len()).step_by(TAPS) {
                let mut right = [&[][..]; TAPS];
                for t in 0..TAPS {
                    let offset = offsets[(first + t).min(offsets.len() - 1)];
                    right[t] = &V::lanes(&source[offset + run..])[..count];
                }
                let mut lanes = [[V::splat(T::ZERO); TAPS]; R];
                for q in 0..count {
                    let mut b = [V::splat(T::ZERO); TAPS];
                    for t in 0..TAPS {
                        b[t] = V::load(&right[t][q]);
                    }
                    for r in 0..R {
                        let a = V::load(&left[r][q]);
                        for t in 0..TAPS {
                            lanes[r][t] = a.mul_add(b[t], lanes[r][t]);
                        }
                    }
                }
                // Forces the lanes into memory here, so that they stay in registers above.
                let lanes = black_box(lanes);
                for r in 0..R.min(rows - start) {
                    for t in 0..TAPS.min(offsets.len() - first) {
                        sums[(start + r) * offsets.len() + first + t] +=
                            total(lanes[r][t].store().as_ref());
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

/// The sum, in four parallel partial sums.
#[inline(always)]
fn total<T: Scalar>(lanes: &[T]) -> T {
    let mut sums = [T::ZERO; 4];
    for lanes in lanes.as_chunks::<4>().0 {
        for i in 0..4 {
            sums[i] += lanes[i];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{has_avx2, has_avx512};

    const POSITIONS: usize = 70;
    const PITCH: usize = POSITIONS + BLOCK;
    const OFFSETS: [usize; 7] = [0, 1, 2, 9, 10, 31, 40];
    const ROWS_HERE: usize = 11;

    fn numbers<T: Scalar>(count: usize, seed: f64) -> Vec<T> {
        (0..count)
            .map(|i| T::from_f64((i as f64 * seed).sin()))
            .collect()
    }

    /// Compares each kind of register that this processor has with sums computed one by one.
    fn check<T: Scalar, V: Register<T>, const R: usize>(epsilon: f64) {
        let source = numbers::<T>(PITCH + 64, 0.7);
        let weight =
            |row: usize, column: usize| T::from_f64((row as f64 * 0.3 + column as f64).cos());
        let mut weights = Vec::new();
        pack(&mut weights, ROWS_HERE, OFFSETS.len(), weight);
        let term = Term {
            weights: &weights,
            source: &source,
            offsets: &OFFSETS,
        };
        let mut out = vec![T::ZERO; ROWS_HERE * PITCH];
        blocks::<T, V, 2, R>(&[Some(term), None], ROWS_HERE, &mut out, PITCH, POSITIONS);
        for row in 0..ROWS_HERE {
            for p in 0..POSITIONS {
                let term = |i: usize| weight(row, i).f64() * source[OFFSETS[i] + p].f64();
                let sum: f64 = (0..OFFSETS.len()).map(term).sum();
                assert!((out[row * PITCH + p].f64() - sum).abs() < 16.0 * epsilon);
            }
        }

        // Zeros after the positions, up to the end of a register.
        let mut planes = numbers::<T>(ROWS_HERE * PITCH, 0.2);
        for plane in planes.chunks_mut(PITCH) {
            plane[POSITIONS..].fill(T::ZERO);
        }
        let mut sums = vec![T::ONE; ROWS_HERE * OFFSETS.len()];
        let shape = (&planes[..], ROWS_HERE, PITCH);
        products::<T, V, R>(shape, &source, &OFFSETS, POSITIONS, &mut sums);
        for row in 0..ROWS_HERE {
            for (i, offset) in OFFSETS.iter().enumerate() {
                let product = |p: usize| planes[row * PITCH + p].f64() * source[offset + p].f64();
                let sum = 1.0 + (0..POSITIONS).map(product).sum::<f64>();
                assert!((sums[row * OFFSETS.len() + i].f64() - sum).abs() < 128.0 * epsilon);
            }
        }
    }

    fn check_all<T: Scalar>(epsilon: f64) {
        check::<T, Array<T, false>, 4>(epsilon);
        check::<T, Array<T, true>, 4>(epsilon);
        if has_avx2() {
            check::<T, T::Fused, 4>(epsilon);
        }
        if has_avx512() {
            check::<T, T::Wide, 8>(epsilon);
        }
    }

    #[test]
    fn registers_of_all_kinds_give_the_sums() {
        check_all::<f64>(f64::EPSILON);
        check_all::<f32>(f32::EPSILON.into());
    }
}
