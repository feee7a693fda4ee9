//! Sums of slices, element by element.

use super::Scalar;
use super::simd::vectorised;

vectorised! {
    /// y ← a + b
    pub(crate) fn sum<T: Scalar>(a: &[T], b: &[T], y: &mut [T]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a + *b;
        }
    }

    /// y ← y + x
    pub(crate) fn add<T: Scalar>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x;
        }
    }

    /// Writes `row` into each row of `rows`.
    pub(crate) fn repeat<T: Scalar>(row: &[T], rows: &mut [T]) {
        for target in rows.chunks_exact_mut(row.len()) {
            target.copy_from_slice(row);
        }
    }

    /// Adds the rows to `sum`.
    pub(crate) fn add_rows<T: Scalar>(rows: &[T], sum: &mut [T]) {
        for row in rows.chunks_exact(sum.len()) {
            for (s, r) in sum.iter_mut().zip(row) {
                *s += *r;
            }
        }
    }
}
