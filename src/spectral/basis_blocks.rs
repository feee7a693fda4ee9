//! Operations of an orthonormal basis with many vectors at once, by matrix products.
//!
//! A basis of thousands of vectors is far larger than any cache. It is read from memory once for a whole block of vectors, and the
//! arithmetic runs at the rate of matrix products. Sums over ranges of rows are added in order: the bits do not depend on the
//! number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::orthonormal::{row_ranges, sum_in_order};
use crate::error::Result;
use crate::kernels::matrix::{Matrix, multiply};
use crate::kernels::row_products::{add_dot_products, add_row_multiples};
use crate::kernels::simd::vectorised;
use crate::progress;
use crate::recycled;

/// Number of vectors from which matrix products are faster than one vector after another.
pub(super) const MIN_BLOCK: usize = 8;

/// Largest number of ranges of rows, and their smallest size.
const RANGES: usize = 64;
const MIN_RANGE: usize = 256;

/// Rows of a tile, and basis vectors of a panel. A tile of both fits in a core's cache.
const ROWS: usize = 512;
const PANEL: usize = 32;

/// Rows of a tile of all vectors, and number of sums from which they are computed by a matrix product.
const NARROW: usize = 256;
const MIN_SUMS: usize = 64;

/// Entries of a tile of all vectors for fewer sums, a quarter of a core's cache, and rows that are added together.
const FEW_ENTRIES: usize = 32 << 10;
const LANES: usize = 8;

/// Removes the components along the orthonormal `basis` from the vectors of `block`, once, and returns them, a row for each
/// vector. Rounding leaves components of about ε times the length of a vector.
pub(super) fn project_block(block: &mut [Vec<f64>], basis: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (b, m) = (block.len(), basis.len());
    if b == 0 || m == 0 {
        return vec![Vec::new(); b];
    }
    let size = block[0].len().div_ceil(RANGES).max(MIN_RANGE);
    let components = components(block, basis, size);
    let negative: Vec<f64> = (0..m * b).map(|i| -components[i % b * m + i / b]).collect();
    let ranges = row_ranges(block, size).into_par_iter().enumerate();
    ranges.for_each(|(i, mut range)| {
        for rows in tiles(range[0].len(), ROWS) {
            let in_basis = i * size + rows.start..i * size + rows.end;
            let mut tile: Vec<&mut [f64]> =
                range.iter_mut().map(|w| &mut w[rows.clone()]).collect();
            for (c, vectors) in negative.chunks(PANEL * b).zip(basis.chunks(PANEL)) {
                let panel = slices(vectors, &in_basis);
                add_row_multiples(&mut tile, c, b, &panel);
            }
        }
    });
    components.chunks_exact(m).map(<[f64]>::to_vec).collect()
}

/// Returns WᵀQ, of shape `(block, basis)`, from ranges of `size` rows.
fn components(block: &[Vec<f64>], basis: &[Vec<f64>], size: usize) -> Vec<f64> {
    let (n, b, m) = (block[0].len(), block.len(), basis.len());
    let ranges = (0..n.div_ceil(size)).into_par_iter();
    let parts = ranges.map(|i| {
        let (start, end) = (i * size, ((i + 1) * size).min(n));
        let mut part = vec![0.0; b * m];
        for rows in tiles(end - start, ROWS) {
            let rows = start + rows.start..start + rows.end;
            let tile = slices(block, &rows);
            add_dot_products(&tile, &slices(basis, &rows), &mut part, m);
        }
        part
    });
    sum_in_order(&parts.collect::<Vec<_>>(), b * m)
}

/// These rows of each vector.
fn slices<'a>(vectors: &'a [Vec<f64>], rows: &Range<usize>) -> Vec<&'a [f64]> {
    vectors.iter().map(|v| &v[rows.clone()]).collect()
}

/// Replaces the vectors qᵢ by Σᵢ cᵢ qᵢ for each list of coefficients c, at most as many lists as vectors. It needs memory for a
/// few rows only.
///
/// # Errors
/// An interrupt. The vectors are then lost.
pub(super) fn replace_by_sums(vectors: &mut Vec<Vec<f64>>, coefficients: &[&[f64]]) -> Result<()> {
    let (n, m, k) = (
        vectors.first().map_or(0, Vec::len),
        vectors.len(),
        coefficients.len(),
    );
    let all = coefficients.concat();
    let size = match k < MIN_SUMS {
        true => (FEW_ENTRIES / m.max(1)).clamp(LANES, ROWS),
        false => NARROW,
    };
    let range = n.div_ceil(RANGES).next_multiple_of(size);
    let buffers = || (Vec::new(), Vec::new());
    let ranges = row_ranges(vectors, range).into_par_iter();
    ranges.try_for_each_init(buffers, |(tile, sums), mut range| -> Result<()> {
        for rows in tiles(range[0].len(), size) {
            progress::check()?;
            if k < MIN_SUMS {
                pack_lanes(tile, range.iter().map(|q| &q[rows.clone()]));
                write_sums(&mut range[..k], rows, coefficients, tile.as_chunks().0);
                continue;
            }
            pack(tile, range.iter().map(|q| &q[rows.clone()]));
            sums.resize(k * rows.len(), 0.0);
            multiply(
                sums,
                Matrix::new(&all, k, m),
                Matrix::new(tile, m, rows.len()),
                false,
            );
            for (q, sum) in range.iter_mut().zip(sums.chunks_exact(rows.len())) {
                q[rows.clone()].copy_from_slice(sum);
            }
        }
        Ok(())
    })?;
    recycled::keep(vectors.drain(k..));
    Ok(())
}

vectorised! {
    /// Writes Σᵢ cᵢ qᵢ to `rows` of a target for each list of coefficients c, four sums at a time. `tile` holds these rows of all
    /// qᵢ, in lanes.
    fn write_sums(
        targets: &mut [&mut [f64]],
        rows: Range<usize>,
        coefficients: &[&[f64]],
        tile: &[[f64; LANES]],
    ) {
        let m = coefficients.first().map_or(1, |c| c.len());
        for (start, q) in rows.clone().step_by(LANES).zip(tile.chunks_exact(m)) {
            let rows = start..(start + LANES).min(rows.end);
            let (targets4, c4) = (targets.chunks_exact_mut(4), coefficients.chunks_exact(4));
            for (targets, c) in targets4.zip(c4) {
                let sums = lane_sums([c[0], c[1], c[2], c[3]], q);
                for (target, sum) in targets.iter_mut().zip(sums) {
                    target[rows.clone()].copy_from_slice(&sum[..rows.len()]);
                }
            }
            let first = coefficients.len() / 4 * 4;
            for (target, c) in targets[first..].iter_mut().zip(&coefficients[first..]) {
                let [sum] = lane_sums([c], q);
                target[rows.clone()].copy_from_slice(&sum[..rows.len()]);
            }
        }
    }
}

/// Σᵢ cᵢ qᵢ for each of some lists c, in the order of `add_multiples`.
#[inline(always)]
fn lane_sums<const S: usize>(c: [&[f64]; S], q: &[[f64; LANES]]) -> [[f64; LANES]; S] {
    let (q4, rest) = q.as_chunks::<4>();
    let first = 4 * q4.len();
    let mut sums = [[0.0; LANES]; S];
    for (i, q) in (first..).zip(rest) {
        for s in 0..S {
            for l in 0..LANES {
                sums[s][l] += c[s][i] * q[l];
            }
        }
    }
    let c4 = c.map(|c| c.as_chunks::<4>().0);
    for (i, q) in q4.iter().enumerate() {
        for s in 0..S {
            let c = c4[s][i];
            for l in 0..LANES {
                sums[s][l] += c[0] * q[0][l] + c[1] * q[1][l] + c[2] * q[2][l] + c[3] * q[3][l];
            }
        }
    }
    sums
}

/// Splits `len` rows into tiles of `size`.
fn tiles(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let tile = move |start: usize| start..(start + size).min(len);
    (0..len).step_by(size).map(tile)
}

/// Copies rows, one after another.
fn pack<'a>(target: &mut Vec<f64>, rows: impl Iterator<Item = &'a [f64]>) {
    target.clear();
    rows.for_each(|row| target.extend_from_slice(row));
}

/// Copies rows of equal length in lanes: the first entries of all rows, then the next ones. The last lanes may be longer than the
/// rows; their other entries are arbitrary.
fn pack_lanes<'a>(target: &mut Vec<f64>, rows: impl ExactSizeIterator<Item = &'a [f64]>) {
    let m = rows.len();
    for (i, row) in rows.enumerate() {
        target.resize(row.len().div_ceil(LANES) * m * LANES, 0.0);
        let (lanes, _) = target.as_chunks_mut::<LANES>();
        for (lane, part) in lanes[i..].iter_mut().step_by(m).zip(row.chunks(LANES)) {
            lane[..part.len()].copy_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal};
    use crate::spectral::orthonormal::{combine, extend, orthogonalize};
    use crate::vector::{axpy, largest};

    fn vectors(count: usize, n: usize) -> Vec<Vec<f64>> {
        let draw = |i| normal(n, Purpose::Lanczos, 5, i);
        (0..count as u64).map(draw).collect()
    }

    fn orthonormal(count: usize, n: usize) -> Vec<Vec<f64>> {
        let mut basis = Vec::new();
        for v in vectors(count, n) {
            basis.extend(extend(v, &basis, 0.0).2);
        }
        basis
    }

    #[test]
    fn a_block_loses_its_components_like_single_vectors() {
        for (n, m, b) in [(70, 40, 9), (300, 1, 8), (5_000, 70, 16)] {
            let basis = orthonormal(m, n);
            let mut block = vectors(b, n);
            let expected: Vec<_> = block
                .iter()
                .map(|w| {
                    let mut w = w.clone();
                    (orthogonalize(&mut w, &basis), w)
                })
                .collect();
            let found = project_block(&mut block, &basis);
            for ((c, w), (expected_c, expected_w)) in found.iter().zip(&block).zip(&expected) {
                for (found, expected) in [(c, expected_c), (w, expected_w)] {
                    let mut difference = found.clone();
                    axpy(-1.0, expected, &mut difference);
                    assert!(largest(&difference) < 1e-13, "{n} {m} {b}");
                }
            }
        }
    }

    #[test]
    fn sums_in_place_are_those_of_copies() {
        for (n, m, k) in [
            (500, 90, 90),
            (1_500, 80, 70),
            (70_001, 23, 14),
            (700, 30, 5),
            (3, 2, 1),
        ] {
            let basis = vectors(m, n);
            let coefficients = vectors(k, m);
            let expected = combine(&basis, &coefficients);
            let mut found = basis;
            let slices: Vec<&[f64]> = coefficients.iter().map(Vec::as_slice).collect();
            replace_by_sums(&mut found, &slices).unwrap();
            assert_eq!(found.len(), k);
            if k < MIN_SUMS {
                assert_eq!(found, expected, "{n} {m} {k}");
            }
            for (mut found, expected) in found.into_iter().zip(&expected) {
                axpy(-1.0, expected, &mut found);
                assert!(largest(&found) < 1e-11, "{n} {m} {k}");
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let (basis, block) = (orthonormal(50, 3_000), vectors(8, 3_000));
        let coefficients = vectors(7, 50);
        let coefficients: Vec<&[f64]> = coefficients.iter().map(Vec::as_slice).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let (mut block, mut sums) = (block.clone(), basis.clone());
                replace_by_sums(&mut sums, &coefficients).unwrap();
                (project_block(&mut block, &basis), block, sums)
            })
        };
        assert_eq!(run(1), run(3));
    }
}
