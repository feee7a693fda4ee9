//! [`SparseMatrix`]: matrices without their zeros, and their products with dense matrices.
//!
//! A product reads the rows of the dense factor that belong to the non-zeros. It does so block by block, so that these rows come from
//! the first-level cache, and keeps a row of the result in registers. Multiplications then run at half to two thirds of the rate of a
//! dense product, but there are only as many as non-zeros.

use std::ops::Range;
use std::sync::OnceLock;

use super::Scalar;
use super::registers::{Array, Register, Registers, registers};
use super::simd::vectorised;

/// Number of columns of a block.
const BLOCK: usize = 64;
/// Bytes of a dense row that are processed together: eight of the largest registers. With [`BLOCK`] rows this is the first-level cache.
const PANEL_BYTES: usize = 512;
/// Number of `f32` values in a panel.
const PANEL: usize = PANEL_BYTES / size_of::<f32>();

/// A matrix without its zeros, in blocks of columns.
///
/// The entries of a block follow one another, row by row.
pub(crate) struct SparseMatrix<T> {
    rows: usize,
    columns: usize,
    /// For each block and row, the index of its first entry; at the end, the number of entries.
    starts: Vec<u32>,
    /// The column of each entry, counted from its block's first.
    offsets: Vec<u8>,
    values: Vec<T>,
}

impl<T: Scalar> SparseMatrix<T> {
    /// Compresses a row-major matrix.
    pub(crate) fn new(dense: &[T], rows: usize, columns: usize) -> Self {
        assert_eq!(dense.len(), rows * columns);
        let mut matrix = Self {
            rows,
            columns,
            starts: Vec::with_capacity(columns.div_ceil(BLOCK) * rows + 1),
            offsets: Vec::with_capacity(dense.len() / 4),
            values: Vec::with_capacity(dense.len() / 4),
        };
        matrix.starts.push(0);
        compress(dense, columns, &mut matrix);
        matrix.offsets.shrink_to_fit();
        matrix.values.shrink_to_fit();
        matrix
    }

    /// The transposed matrix.
    pub(crate) fn transposed(&self) -> Self {
        let (rows, blocks) = (self.columns, self.rows.div_ceil(BLOCK));
        // Number of entries before each row of each block, one place further on: filling the rows moves each to its place.
        let mut starts = vec![0u32; blocks * rows + 2];
        self.for_each(|row, column, _| starts[row / BLOCK * rows + column + 2] += 1);
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let mut offsets = vec![0; self.offsets.len()];
        let mut values = vec![T::ZERO; self.values.len()];
        self.for_each(|row, column, value| {
            let next = &mut starts[row / BLOCK * rows + column + 1];
            offsets[*next as usize] = (row % BLOCK) as u8;
            values[*next as usize] = value;
            *next += 1;
        });
        starts.pop();
        Self {
            rows,
            columns: self.rows,
            starts,
            offsets,
            values,
        }
    }

    /// Calls `f` with the row, column and value of each entry; in a row, columns ascend, and in a column, rows.
    #[inline(always)]
    fn for_each(&self, mut f: impl FnMut(usize, usize, T)) {
        for block in 0..self.columns.div_ceil(BLOCK) {
            for row in 0..self.rows {
                let (offsets, values) = self.entries(block, row);
                for (offset, value) in offsets.iter().zip(values) {
                    f(row, block * BLOCK + usize::from(*offset), *value);
                }
            }
        }
    }

    /// The entries of a row in a block.
    #[inline(always)]
    fn entries(&self, block: usize, row: usize) -> (&[u8], &[T]) {
        let i = block * self.rows + row;
        let range = self.starts[i] as usize..self.starts[i + 1] as usize;
        (&self.offsets[range.clone()], &self.values[range])
    }

    fn bytes(&self) -> usize {
        self.starts.len() * size_of::<u32>() + self.values.len() * (1 + size_of::<T>())
    }
}

/// The inputs of a tile of samples as a sparse matrix, by rows for a forward pass and by columns for a gradient.
pub(crate) struct SparseTile<T> {
    rows: SparseMatrix<T>,
    columns: OnceLock<SparseMatrix<T>>,
}

impl<T: Scalar> SparseTile<T> {
    /// Compresses row-major inputs with `columns` values per row.
    pub(crate) fn new(inputs: &[T], columns: usize) -> Self {
        Self {
            rows: SparseMatrix::new(inputs, inputs.len() / columns, columns),
            columns: OnceLock::new(),
        }
    }

    pub(crate) fn rows(&self) -> &SparseMatrix<T> {
        &self.rows
    }

    /// The transposed matrix, made by the first call.
    pub(crate) fn columns(&self) -> &SparseMatrix<T> {
        self.columns.get_or_init(|| self.rows.transposed())
    }

    /// Size in memory, including the transposed matrix.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.rows.bytes()
    }
}

vectorised! {
    /// Appends the non-zeros of a row-major matrix.
    fn compress<T: Scalar>(dense: &[T], columns: usize, matrix: &mut SparseMatrix<T>) {
        for block in (0..columns).step_by(BLOCK) {
            for row in dense.chunks_exact(columns) {
                let row = &row[block..columns.min(block + BLOCK)];
                let mut bytes = [0u8; BLOCK];
                for (byte, value) in bytes.iter_mut().zip(row) {
                    *byte = u8::from(*value != T::ZERO);
                }
                // One bit per value, the first one in the lowest bit.
                let mut mask = 0u64;
                for (i, eight) in bytes.as_chunks().0.iter().enumerate() {
                    let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                    mask |= bits << (8 * i);
                }
                let (mut offsets, mut values) = ([0; BLOCK], [T::ZERO; BLOCK]);
                let count = mask.count_ones() as usize;
                for (offset, value) in offsets.iter_mut().zip(&mut values).take(count) {
                    let at = mask.trailing_zeros();
                    *offset = at as u8;
                    *value = row[at as usize];
                    mask &= mask - 1;
                }
                matrix.offsets.extend_from_slice(&offsets[..count]);
                matrix.values.extend_from_slice(&values[..count]);
                matrix.starts.push(matrix.values.len() as u32);
            }
        }
    }

    /// C ← AB, or C ← C + AB if `add`, with row-major B and C of `n` columns.
    pub(crate) fn multiply_sparse<T: Scalar>(
        c: &mut [T],
        a: &SparseMatrix<T>,
        b: &[T],
        n: usize,
        add: bool,
    ) {
        assert!(c.len() == a.rows * n && b.len() == a.columns * n);
        match registers() {
            Registers::Wide => panels::<T, T::Wide>(c, a, b, n, add),
            Registers::Fused => panels::<T, T::Fused>(c, a, b, n, add),
            Registers::Plain => panels::<T, Array<T, false>>(c, a, b, n, add),
        }
    }
}

/// A panel of B's columns, and a block of its rows, at a time.
#[inline(always)]
fn panels<T: Scalar, V: Register<T>>(
    c: &mut [T],
    a: &SparseMatrix<T>,
    b: &[T],
    n: usize,
    add: bool,
) {
    if a.columns == 0 && !add {
        c.fill(T::ZERO);
    }
    let (lanes, panel) = (lanes::<T, V>(), PANEL_BYTES / size_of::<T>());
    let mut packed = Aligned([T::ZERO; BLOCK * PANEL]);
    for first in (0..n).step_by(panel) {
        let width = panel.min(n - first);
        let pitch = width.next_multiple_of(lanes);
        for (block, rows) in b.chunks(BLOCK * n).enumerate() {
            let rows = match pitch == n && is_aligned(rows) {
                true => V::lanes(rows),
                // Rows far apart would compete for the same lines of the cache, and a register that does not begin at a line reads two.
                false => {
                    let packed = &mut packed.0;
                    for (row, packed) in rows.chunks_exact(n).zip(packed.chunks_exact_mut(pitch)) {
                        packed[..width].copy_from_slice(&row[first..first + width]);
                    }
                    V::lanes(packed)
                }
            };
            let add = add || block > 0;
            let mut done = 0;
            while done < width {
                let strip = Strip::<T, V> {
                    block,
                    rows: &rows[done / lanes..],
                    pitch: pitch / lanes,
                    columns: first + done..first + width,
                    add,
                };
                done += lanes
                    * match (width - done).div_ceil(lanes) {
                        8.. => strip.multiply::<8>(c, n, a),
                        4.. => strip.multiply::<4>(c, n, a),
                        2.. => strip.multiply::<2>(c, n, a),
                        _ => strip.multiply::<1>(c, n, a),
                    };
            }
        }
    }
}

/// A block of rows that begins at a line of the cache.
#[repr(align(64))]
struct Aligned<T>([T; BLOCK * PANEL]);

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Whether the values begin at a line of the cache.
fn is_aligned<T>(values: &[T]) -> bool {
    values.as_ptr().addr().is_multiple_of(LINE)
}

/// A block of rows of B, and the columns of C that it belongs to.
struct Strip<'a, T, V: Register<T>> {
    /// Index of the block.
    block: usize,
    /// The rows, from the first of these columns on.
    rows: &'a [V::Lanes],
    /// Distance of two rows in registers.
    pitch: usize,
    columns: Range<usize>,
    /// Whether the products are added to C.
    add: bool,
}

impl<T: Scalar, V: Register<T>> Strip<'_, T, V> {
    /// Multiplies the first M registers of the rows, or as many as there are columns. Returns M.
    #[inline(always)]
    fn multiply<const M: usize>(&self, c: &mut [T], n: usize, a: &SparseMatrix<T>) -> usize {
        let width = self.columns.len().min(M * lanes::<T, V>());
        for r in 0..a.rows {
            let (offsets, values) = a.entries(self.block, r);
            if offsets.is_empty() && self.add {
                continue;
            }
            let c = &mut c[r * n + self.columns.start..][..width];
            let mut sums = match self.add {
                true => load::<T, V, M>(c),
                false => [V::splat(T::ZERO); M],
            };
            for (offset, value) in offsets.iter().zip(values) {
                let row = self.rows[usize::from(*offset) * self.pitch..].first_chunk::<M>();
                let (row, value) = (row.expect("M registers"), V::splat(*value));
                for m in 0..M {
                    sums[m] = V::load(&row[m]).mul_add(value, sums[m]);
                }
            }
            store(sums, c);
        }
        M
    }
}

/// Number of values of a register.
const fn lanes<T, V>() -> usize {
    size_of::<V>() / size_of::<T>()
}

/// Loads up to M registers.
#[inline(always)]
fn load<T: Scalar, V: Register<T>, const M: usize>(values: &[T]) -> [V; M] {
    let mut loaded = [V::splat(T::ZERO); M];
    let mut fill = |values: &[T]| {
        for (register, lanes) in loaded.iter_mut().zip(V::lanes(values)) {
            *register = V::load(lanes);
        }
    };
    match values.len() == M * lanes::<T, V>() {
        true => fill(values),
        false => {
            let mut padded = [T::ZERO; PANEL];
            padded[..values.len()].copy_from_slice(values);
            fill(&padded);
        }
    }
    loaded
}

/// Stores as many values as `target` holds.
#[inline(always)]
fn store<T: Scalar, V: Register<T>, const M: usize>(sums: [V; M], target: &mut [T]) {
    match V::lanes_mut(target).first_chunk_mut::<M>() {
        Some(lanes) => *lanes = sums.map(V::store),
        None => {
            let mut padded = [T::ZERO; PANEL];
            for (lanes, sum) in V::lanes_mut(&mut padded).iter_mut().zip(sums) {
                *lanes = sum.store();
            }
            target.copy_from_slice(&padded[..target.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{has_avx2, has_avx512};

    /// Values of which two thirds are zero, with a row and a column of zeros.
    fn sparse<T: Scalar>(rows: usize, columns: usize) -> Vec<T> {
        let value = |i: usize| match (i / columns, i % columns) {
            (2, _) | (_, 5) => 0.0,
            (row, column) if (7 * row + 3 * column) % 3 > 0 => 0.0,
            _ => (i as f64).sin(),
        };
        let values = (0..rows * columns).map(value);
        values.map(T::from_f64).collect()
    }

    fn dense<T: Scalar>(len: usize) -> Vec<T> {
        let values = (0..len).map(|i| (0.3 * i as f64).cos());
        values.map(T::from_f64).collect()
    }

    /// Compares each kind of register that this processor has with sums computed one by one.
    fn check<T: Scalar, V: Register<T>>(epsilon: f64) {
        for (rows, columns) in [(1, 1), (3, 64), (70, 150), (131, 65)] {
            let a = sparse::<T>(rows, columns);
            let matrix = SparseMatrix::new(&a, rows, columns);
            for n in [1, 7, 16, 100, 128, 150, 256] {
                let (b, start) = (dense::<T>(columns * n), dense::<T>(rows * n));
                for add in [false, true] {
                    let mut c = start.clone();
                    panels::<T, V>(&mut c, &matrix, &b, n, add);
                    for (i, found) in c.iter().enumerate() {
                        let (row, column) = (i / n, i % n);
                        let product =
                            |k: usize| a[row * columns + k].f64() * b[k * n + column].f64();
                        let before = if add { start[i].f64() } else { 0.0 };
                        let sum = before + (0..columns).map(product).sum::<f64>();
                        let error = (found.f64() - sum).abs();
                        let limit = 2.0 * columns as f64 * epsilon;
                        assert!(
                            error < limit,
                            "{rows} × {columns} × {n}, {i}: {found:?}, not {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn registers_of_all_kinds_give_the_product() {
        fn all<T: Scalar>(epsilon: f64) {
            check::<T, Array<T, false>>(epsilon);
            if has_avx2() {
                check::<T, T::Fused>(epsilon);
            }
            if has_avx512() {
                check::<T, T::Wide>(epsilon);
            }
        }
        all::<f64>(f64::EPSILON);
        all::<f32>(f32::EPSILON.into());
    }

    /// Aligned rows are read in place, and others are copied.
    #[test]
    fn product_has_the_same_bits_wherever_rows_begin() {
        let (rows, columns, n) = (70, 150, 128);
        let matrix = SparseMatrix::new(&sparse::<f32>(rows, columns), rows, columns);
        let b = dense::<f32>(columns * n);
        let products = (0..LINE / size_of::<f32>()).map(|shift| {
            let shifted = [&vec![0.0; shift], &b[..]].concat();
            let mut c = vec![0.0; rows * n];
            multiply_sparse(&mut c, &matrix, &shifted[shift..], n, false);
            c
        });
        let products: Vec<_> = products.collect();
        assert!(products[0].iter().any(|c| *c != 0.0));
        assert!(products.iter().all(|product| *product == products[0]));
    }

    #[test]
    fn transposed_matrix_is_that_of_the_transposed_values() {
        let (rows, columns) = (131, 70);
        let values = sparse::<f64>(rows, columns);
        let mut swapped = vec![0.0; values.len()];
        for (i, value) in swapped.iter_mut().enumerate() {
            *value = values[i % rows * columns + i / rows];
        }
        let found = SparseMatrix::new(&values, rows, columns).transposed();
        let expected = SparseMatrix::new(&swapped, columns, rows);
        assert_eq!(found.starts, expected.starts);
        assert_eq!(found.offsets, expected.offsets);
        assert_eq!(found.values, expected.values);
    }
}
