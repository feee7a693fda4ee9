//! [`transpose`] and [`add_transposed`]: transposed matrices and their sums.

use super::Scalar;
use super::simd::vectorised;

/// Side of the blocks that are transposed one after another, so that their lines stay in the cache.
const SIDE: usize = 16;

vectorised! {
    /// B ← Aᵀ for an `shape[0]` × `shape[1]` matrix A; rows of A and B are `pitches` apart.
    pub(crate) fn transpose<T: Scalar>(a: &[T], b: &mut [T], shape: [usize; 2], pitches: [usize; 2]) {
        over_blocks(a, b, shape, pitches, |b, a| *b = a);
    }

    /// B ← B + Aᵀ.
    pub(crate) fn add_transposed<T: Scalar>(
        a: &[T],
        b: &mut [T],
        shape: [usize; 2],
        pitches: [usize; 2],
    ) {
        over_blocks(a, b, shape, pitches, |b, a| *b += a);
    }
}

/// Calls `put` with each value of B and of Aᵀ.
#[inline(always)]
fn over_blocks<T: Scalar>(
    a: &[T],
    b: &mut [T],
    [rows, columns]: [usize; 2],
    [pitch, b_pitch]: [usize; 2],
    put: impl Fn(&mut T, T),
) {
    for first_column in (0..columns).step_by(SIDE) {
        for first_row in (0..rows).step_by(SIDE) {
            let end_column = columns.min(first_column + SIDE);
            let end_row = rows.min(first_row + SIDE);
            for row in (first_row..end_row).step_by(4) {
                for column in (first_column..end_column).step_by(4) {
                    if row + 4 <= end_row && column + 4 <= end_column {
                        let mut block = [[T::ZERO; 4]; 4];
                        for (i, values) in block.iter_mut().enumerate() {
                            values.copy_from_slice(&a[(row + i) * pitch + column..][..4]);
                        }
                        for (i, values) in T::transposed(block).into_iter().enumerate() {
                            let b = &mut b[(column + i) * b_pitch + row..][..4];
                            for (b, value) in b.iter_mut().zip(values) {
                                put(b, value);
                            }
                        }
                    } else {
                        for row in row..end_row.min(row + 4) {
                            for column in column..end_column.min(column + 4) {
                                put(&mut b[column * b_pitch + row], a[row * pitch + column]);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_with_any_distance_of_rows() {
        let (rows, columns, pitch, b_pitch) = (35, 18, 20, 40);
        let a: Vec<f32> = (0..rows * pitch).map(|i| i as f32).collect();
        let mut sum = vec![1.0f32; columns * b_pitch];
        let mut replaced = sum.clone();
        add_transposed(&a, &mut sum, [rows, columns], [pitch, b_pitch]);
        transpose(&a, &mut replaced, [rows, columns], [pitch, b_pitch]);
        for (i, (sum, replaced)) in sum.iter().zip(&replaced).enumerate() {
            let (column, row) = (i / b_pitch, i % b_pitch);
            let expected = match row < rows {
                true => (1.0 + a[row * pitch + column], a[row * pitch + column]),
                false => (1.0, 1.0),
            };
            assert_eq!((*sum, *replaced), expected);
        }
    }
}
