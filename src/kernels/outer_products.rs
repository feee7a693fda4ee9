//! [`multiply`]: products of small matrices whose rows lie in memory one after another, without packing.

use super::Scalar;
use super::registers::{Array, Register, Registers, registers};
use crate::kernels::simd::vectorised;

/// Numbers of columns are multiples of this.
pub(super) const LANES: usize = 16;

/// The product of a matrix A with entries `a[r · steps[0] + i · steps[1]]` and a matrix B with `depth` rows.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a, T> {
    pub(super) a: &'a [T],
    pub(super) steps: [usize; 2],
    pub(super) b: &'a [T],
    pub(super) depth: usize,
}

vectorised! {
    /// C ← the sum of AB over the terms, or C plus this sum if `add`, for `rows` rows of `columns` columns.
    pub(super) fn multiply<T: Scalar>(
        terms: [Option<Factors<T>>; 2],
        c: &mut [T],
        rows: usize,
        columns: usize,
        add: bool,
    ) {
        for term in terms.iter().flatten() {
            let last = (rows - 1) * term.steps[0] + (term.depth - 1) * term.steps[1];
            assert!(last < term.a.len() && term.depth * columns <= term.b.len());
        }
        assert!(columns.is_multiple_of(LANES) && rows * columns <= c.len());
        match registers() {
            Registers::Wide => {
                let first = over_columns::<T, T::Wide, 2, 8>(&terms, c, [rows, columns], 0, add);
                over_columns::<T, T::Wide, 1, 16>(&terms, c, [rows, columns], first, add);
            }
            Registers::Fused => {
                over_columns::<T, T::Fused, 2, 6>(&terms, c, [rows, columns], 0, add);
            }
            Registers::Plain => {
                over_columns::<T, Array<T, false>, 2, 4>(&terms, c, [rows, columns], 0, add);
            }
        }
    }
}

/// Computes columns from `first` on, R rows and M registers at a time. Returns the first column that does not fit.
#[inline(always)]
#[allow(unsafe_code)]
#[expect(clippy::needless_range_loop, reason = "arrays of a constant length")]
fn over_columns<T: Scalar, V: Register<T>, const M: usize, const R: usize>(
    terms: &[Option<Factors<T>>],
    c: &mut [T],
    [rows, columns]: [usize; 2],
    mut first: usize,
    add: bool,
) -> usize {
    let step = M * size_of::<V>() / size_of::<T>();
    while first + step <= columns {
        for row in (0..rows).step_by(R) {
            let mut sums = [[V::splat(T::ZERO); M]; R];
            for term in terms.iter().flatten() {
                // SAFETY: `multiply` checked the largest indices of both.
                unsafe {
                    // Repeats the last row where fewer than R remain.
                    let mut a = [term.a.as_ptr(); R];
                    for r in 0..R {
                        a[r] = a[r].add((row + r).min(rows - 1) * term.steps[0]);
                    }
                    let mut b = term.b.as_ptr().add(first).cast::<[V::Lanes; M]>();
                    let mut at = 0;
                    for _ in 0..term.depth {
                        let mut values = [V::splat(T::ZERO); M];
                        for m in 0..M {
                            values[m] = V::load(&(&*b)[m]);
                        }
                        for r in 0..R {
                            let a = V::splat(*a[r].add(at));
                            for m in 0..M {
                                sums[r][m] = values[m].mul_add(a, sums[r][m]);
                            }
                        }
                        b = b.cast::<T>().add(columns).cast();
                        at = at.wrapping_add(term.steps[1]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows - row) {
                let c = V::lanes_mut(&mut c[(row + r) * columns + first..][..step]);
                for (c, sum) in c.iter_mut().zip(sums) {
                    let sum = match add {
                        true => sum.mul_add(V::splat(T::ONE), V::load(c)),
                        false => *sum,
                    };
                    *c = sum.store();
                }
            }
        }
        first += step;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{has_avx2, has_avx512};

    const ROWS: usize = 19;
    const DEPTH: usize = 5;

    fn numbers<T: Scalar>(count: usize, seed: f64) -> Vec<T> {
        (0..count)
            .map(|i| T::from_f64((i as f64 * seed).sin()))
            .collect()
    }

    /// Compares each kind of register that this processor has with sums computed one by one, for A and for Aᵀ in memory.
    fn check<T: Scalar, V: Register<T>, const M: usize, const R: usize>(
        columns: usize,
        epsilon: f64,
    ) {
        let (a, b) = (
            numbers::<T>(ROWS * DEPTH, 0.7),
            numbers::<T>(DEPTH * columns, 0.3),
        );
        for steps in [[DEPTH, 1], [1, ROWS]] {
            let factors = Factors {
                a: &a,
                steps,
                b: &b,
                depth: DEPTH,
            };
            for add in [false, true] {
                let mut c = vec![T::ONE; ROWS * columns];
                let terms = [Some(factors), Some(factors)];
                let end = over_columns::<T, V, M, R>(&terms, &mut c, [ROWS, columns], 0, add);
                assert!(end <= columns && columns - end < M * LANES);
                for row in 0..ROWS {
                    for column in 0..end {
                        let product = |i: usize| {
                            a[row * steps[0] + i * steps[1]].f64() * b[i * columns + column].f64()
                        };
                        let sum = 2.0 * (0..DEPTH).map(product).sum::<f64>();
                        let expected = if add { sum + 1.0 } else { sum };
                        let found = c[row * columns + column].f64();
                        assert!((found - expected).abs() < 32.0 * epsilon);
                    }
                }
            }
        }
    }

    fn check_all<T: Scalar>(epsilon: f64) {
        for columns in [16, 32, 48] {
            check::<T, Array<T, false>, 2, 4>(columns, epsilon);
            check::<T, Array<T, true>, 2, 4>(columns, epsilon);
            if has_avx2() {
                check::<T, T::Fused, 2, 6>(columns, epsilon);
            }
            if has_avx512() {
                check::<T, T::Wide, 1, 16>(columns, epsilon);
                check::<T, T::Wide, 2, 8>(columns, epsilon);
            }
        }
    }

    #[test]
    fn registers_of_all_kinds_give_the_products() {
        check_all::<f64>(f64::EPSILON);
        check_all::<f32>(f32::EPSILON.into());
    }
}
