//! Operations of an orthonormal basis with many vectors at once, by matrix products.
//!
//! A basis of thousands of vectors is far larger than any cache. It is read from memory once for a whole block of vectors, and the
//! arithmetic runs at the rate of matrix products. Sums over ranges of rows are added in order: the bits do not depend on the
//! number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::orthonormal::{add_multiples, row_ranges, sum_in_order};
use crate::error::Result;
use crate::kernels::matrix::{Matrix, multiply, multiply_strided};
use crate::progress;
use crate::recycled;

/// Number of vectors from which matrix products are faster than one vector after another.
pub(super) const MIN_BLOCK: usize = 8;

/// Largest number of ranges of rows, and their smallest size.
const RANGES: usize = 64;
const MIN_RANGE: usize = 256;

/// Rows of a tile, and basis vectors of a panel. A tile of both fits in a core's cache.
const ROWS: usize = 1024;
const PANEL: usize = 32;

/// Rows of a tile of all vectors, and number of sums from which they are computed by a matrix product.
const NARROW: usize = 256;
const MIN_SUMS: usize = 64;

/// Removes the components along the orthonormal `basis` from the vectors of `block`, once, and returns them, a row for each
/// vector. Rounding leaves components of about ε times the length of a vector.
pub(super) fn project_block(block: &mut [Vec<f64>], basis: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (b, m) = (block.len(), basis.len());
    if b == 0 || m == 0 {
        return vec![Vec::new(); b];
    }
    let size = block[0].len().div_ceil(RANGES).max(MIN_RANGE);
    let components = components(block, basis, size);
    let negative: Vec<f64> = components.iter().map(|c| -c).collect();
    let ranges = row_ranges(block, size).into_par_iter().enumerate();
    ranges.for_each(|(i, mut range)| {
        let (mut tile, mut panel) = (Vec::new(), Vec::new());
        for rows in tiles(range[0].len()) {
            pack(&mut tile, range.iter().map(|w| &w[rows.clone()]));
            let in_basis = i * size + rows.start..i * size + rows.end;
            for (j, vectors) in (0..).step_by(PANEL).zip(basis.chunks(PANEL)) {
                pack(&mut panel, vectors.iter().map(|q| &q[in_basis.clone()]));
                let c = Matrix::strided(&negative[j..], b, vectors.len(), m);
                let q = Matrix::new(&panel, vectors.len(), rows.len());
                multiply(&mut tile, c, q, true);
            }
            for (w, row) in range.iter_mut().zip(tile.chunks_exact(rows.len())) {
                w[rows.clone()].copy_from_slice(row);
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
        let (mut tile, mut panel) = (Vec::new(), Vec::new());
        for rows in tiles(end - start) {
            let rows = start + rows.start..start + rows.end;
            pack(&mut tile, block.iter().map(|w| &w[rows.clone()]));
            let w = Matrix::new(&tile, b, rows.len());
            for (j, vectors) in (0..).step_by(PANEL).zip(basis.chunks(PANEL)) {
                pack(&mut panel, vectors.iter().map(|q| &q[rows.clone()]));
                let q = Matrix::new(&panel, vectors.len(), rows.len());
                multiply_strided(&mut part[j..], m, w, q.t(), true);
            }
        }
        part
    });
    sum_in_order(&parts.collect::<Vec<_>>(), b * m)
}

/// Replaces the vectors qᵢ by Σᵢ cᵢ qᵢ for each list of coefficients c, at most as many lists as vectors. It needs memory for a
/// few rows only.
///
/// # Errors
/// An interrupt. The vectors are then lost.
pub(super) fn replace_by_sums(vectors: &mut Vec<Vec<f64>>, coefficients: &[&[f64]]) -> Result<()> {
    let (m, k) = (vectors.len(), coefficients.len());
    let all = coefficients.concat();
    let buffers = || (Vec::new(), Vec::new());
    let ranges = row_ranges(vectors, NARROW).into_par_iter();
    ranges.try_for_each_init(buffers, |(tile, sums), mut rows| -> Result<()> {
        progress::check()?;
        let len = rows[0].len();
        if k < MIN_SUMS {
            let tile: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
            for (row, c) in rows.iter_mut().zip(coefficients) {
                row.fill(0.0);
                add_multiples(row, c, &tile, 0, 1.0);
            }
            return Ok(());
        }
        pack(tile, rows.iter().map(|row| &row[..]));
        sums.resize(k * len, 0.0);
        multiply(
            sums,
            Matrix::new(&all, k, m),
            Matrix::new(tile, m, len),
            false,
        );
        for (row, sum) in rows.iter_mut().zip(sums.chunks_exact(len)) {
            row.copy_from_slice(sum);
        }
        Ok(())
    })?;
    recycled::keep(vectors.drain(k..));
    Ok(())
}

/// Splits `len` rows into tiles.
fn tiles(len: usize) -> impl Iterator<Item = Range<usize>> {
    let tile = move |start: usize| start..(start + ROWS).min(len);
    (0..len).step_by(ROWS).map(tile)
}

/// Copies rows, one after another.
fn pack<'a>(target: &mut Vec<f64>, rows: impl Iterator<Item = &'a [f64]>) {
    target.clear();
    rows.for_each(|row| target.extend_from_slice(row));
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
        for (n, m, k) in [(500, 90, 90), (1_500, 80, 70), (700, 30, 5), (3, 2, 1)] {
            let basis = vectors(m, n);
            let coefficients = vectors(k, m);
            let expected = combine(&basis, &coefficients);
            let mut found = basis;
            let slices: Vec<&[f64]> = coefficients.iter().map(Vec::as_slice).collect();
            replace_by_sums(&mut found, &slices).unwrap();
            assert_eq!(found.len(), k);
            for (mut found, expected) in found.into_iter().zip(&expected) {
                axpy(-1.0, expected, &mut found);
                assert!(largest(&found) < 1e-11, "{n} {m} {k}");
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let (basis, block) = (orthonormal(50, 3_000), vectors(8, 3_000));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut block = block.clone();
                (project_block(&mut block, &basis), block)
            })
        };
        assert_eq!(run(1), run(3));
    }
}
