//! Matrix products of row-major slices, by the `gemm` crate, on the calling thread.

use gemm::Parallelism;

use super::Scalar;

/// A row-major matrix inside a slice: `rows` rows of `columns` values, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl<'a, T: Scalar> Matrix<'a, T> {
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix whose rows are `stride` apart.
    pub(crate) fn strided(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || data.len() >= (rows - 1) * stride + columns);
        Self {
            data,
            rows,
            columns,
            stride,
            transposed: false,
        }
    }

    /// The transposed matrix, without a copy.
    pub(crate) fn t(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    fn shape(&self) -> (usize, usize) {
        match self.transposed {
            false => (self.rows, self.columns),
            true => (self.columns, self.rows),
        }
    }

    /// Steps in memory to the next row and the next column.
    fn strides(&self) -> (isize, isize) {
        match self.transposed {
            false => (self.stride as isize, 1),
            true => (1, self.stride as isize),
        }
    }
}

/// C ← AB, or C ← C + AB if `add`, with C row-major.
pub(crate) fn multiply<T: Scalar>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, add: bool) {
    multiply_strided(c, b.shape().1, a, b, add);
}

/// The same with rows of C that are `stride` apart.
#[allow(unsafe_code)]
pub(crate) fn multiply_strided<T: Scalar>(
    c: &mut [T],
    stride: usize,
    a: Matrix<T>,
    b: Matrix<T>,
    add: bool,
) {
    let ((m, k), (k2, n)) = (a.shape(), b.shape());
    assert!(k == k2 && stride >= n && (m == 0 || c.len() >= (m - 1) * stride + n));
    let ((a_row, a_column), (b_row, b_column)) = (a.strides(), b.strides());
    // SAFETY: `Matrix::strided` and the assertion above have checked that all three matrices lie within
    // their slices, and `c` is borrowed for writing alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a_column,
            a_row,
            b.data.as_ptr(),
            b_column,
            b_row,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
