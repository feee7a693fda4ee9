//! Products of matrices whose rows are separate slices, without copies: dot products of rows, and sums of multiples of rows.

use std::array;

use super::Scalar;
use super::registers::{Array, Register, Registers, registers};
use super::simd::vectorised;

vectorised! {
    /// Adds aᵢᵀbⱼ to `products[i · stride + j]`. All rows have the same length.
    pub(crate) fn add_dot_products(a: &[&[f64]], b: &[&[f64]], products: &mut [f64], stride: usize) {
        match registers() {
            Registers::Wide => dots::<<f64 as Scalar>::Wide, 4, 4>(a, b, products, stride),
            Registers::Fused => dots::<<f64 as Scalar>::Fused, 4, 2>(a, b, products, stride),
            Registers::Plain => dots::<Array<f64, false>, 2, 2>(a, b, products, stride),
        }
    }

    /// Adds Σⱼ cⱼᵢ bⱼ to aᵢ, where row j of C begins at `c[j · stride]`. All rows of A and B have the same length.
    pub(crate) fn add_row_multiples(a: &mut [&mut [f64]], c: &[f64], stride: usize, b: &[&[f64]]) {
        match registers() {
            Registers::Wide => multiples::<<f64 as Scalar>::Wide, 4, 4>(a, c, stride, b),
            Registers::Fused => multiples::<<f64 as Scalar>::Fused, 4, 2>(a, c, stride, b),
            Registers::Plain => multiples::<Array<f64, false>, 2, 2>(a, c, stride, b),
        }
    }
}

/// M rows of A with N rows of B at a time.
#[inline(always)]
fn dots<V: Register<f64>, const M: usize, const N: usize>(
    a: &[&[f64]],
    b: &[&[f64]],
    products: &mut [f64],
    stride: usize,
) {
    for (j, b) in (0..).step_by(N).zip(b.chunks(N)) {
        for (i, a) in (0..).step_by(M).zip(a.chunks(M)) {
            // Repeats the last row where fewer remain.
            let rows: [&[f64]; M] = array::from_fn(|k| a[k.min(a.len() - 1)]);
            let columns: [&[f64]; N] = array::from_fn(|k| b[k.min(b.len() - 1)]);
            let sums = dots_of::<V, M, N>(rows, columns);
            for (i, sums) in (i..).zip(&sums[..a.len()]) {
                let products = &mut products[i * stride + j..][..b.len()];
                for (product, sum) in products.iter_mut().zip(sums) {
                    *product += sum;
                }
            }
        }
    }
}

#[inline(always)]
fn dots_of<V: Register<f64>, const M: usize, const N: usize>(
    a: [&[f64]; M],
    b: [&[f64]; N],
) -> [[f64; N]; M] {
    let len = a[0].len();
    let (a_lanes, b_lanes) = (a.map(V::lanes), b.map(V::lanes));
    let steps = a_lanes[0].len();
    let (a_lanes, b_lanes) = (a_lanes.map(|a| &a[..steps]), b_lanes.map(|b| &b[..steps]));
    let mut sums = [[V::splat(0.0); N]; M];
    for step in 0..steps {
        let b = b_lanes.map(|b| V::load(&b[step]));
        for i in 0..M {
            let a = V::load(&a_lanes[i][step]);
            for j in 0..N {
                sums[i][j] = a.mul_add(b[j], sums[i][j]);
            }
        }
    }
    let rest = len - len % (size_of::<V>() / size_of::<f64>());
    let mut dots = [[0.0; N]; M];
    for i in 0..M {
        for j in 0..N {
            let ends = a[i][rest..].iter().zip(&b[j][rest..]);
            let end: f64 = ends.map(|(a, b)| a * b).sum();
            dots[i][j] = sums[i][j].store().as_ref().iter().sum::<f64>() + end;
        }
    }
    dots
}

/// M rows of A and N registers of each row at a time.
#[inline(always)]
fn multiples<V: Register<f64>, const M: usize, const N: usize>(
    a: &mut [&mut [f64]],
    c: &[f64],
    stride: usize,
    b: &[&[f64]],
) {
    let (groups, rest) = a.as_chunks_mut::<M>();
    let first = M * groups.len();
    for (i, rows) in (0..).step_by(M).zip(groups) {
        multiples_of::<V, M, N>(rows, &c[i..], stride, b);
    }
    let (rest, _) = rest.as_chunks_mut::<1>();
    for (i, row) in (first..).zip(rest) {
        multiples_of::<V, 1, N>(row, &c[i..], stride, b);
    }
}

#[inline(always)]
fn multiples_of<V: Register<f64>, const M: usize, const N: usize>(
    a: &mut [&mut [f64]; M],
    c: &[f64],
    stride: usize,
    b: &[&[f64]],
) {
    let width = N * size_of::<V>() / size_of::<f64>();
    let len = a[0].len();
    let rest = len - len % width;
    for start in (0..rest).step_by(width) {
        let range = start..start + width;
        let mut sums = [[V::splat(0.0); N]; M];
        for i in 0..M {
            let lanes = V::lanes(&a[i][range.clone()]);
            for k in 0..N {
                sums[i][k] = V::load(&lanes[k]);
            }
        }
        for (b, c) in b.iter().zip(c.chunks(stride)) {
            let lanes = V::lanes(&b[range.clone()]);
            let values: [V; N] = array::from_fn(|k| V::load(&lanes[k]));
            let c = &c[..M];
            for i in 0..M {
                let c = V::splat(c[i]);
                for k in 0..N {
                    sums[i][k] = values[k].mul_add(c, sums[i][k]);
                }
            }
        }
        for i in 0..M {
            let lanes = V::lanes_mut(&mut a[i][range.clone()]);
            for k in 0..N {
                lanes[k] = sums[i][k].store();
            }
        }
    }
    for i in 0..M {
        for (b, c) in b.iter().zip(c.chunks(stride)) {
            for (a, b) in a[i][rest..].iter_mut().zip(&b[rest..]) {
                *a += c[i] * b;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{has_avx2, has_avx512};

    const LEN: usize = 83;

    fn rows(count: usize, seed: f64) -> Vec<Vec<f64>> {
        let entry = |i: usize, k: usize| ((i * LEN + k) as f64 * seed).sin();
        let row = |i| (0..LEN).map(|k| entry(i, k)).collect();
        (0..count).map(row).collect()
    }

    fn check<V: Register<f64>, const M: usize, const N: usize>() {
        for (m, n) in [(1, 1), (4, 8), (7, 5), (16, 3)] {
            let (a, b) = (rows(m, 0.7), rows(n, 0.3));
            let [a_rows, b_rows] =
                [&a, &b].map(|rows| rows.iter().map(|r| &r[..]).collect::<Vec<_>>());
            let stride = n + 2;
            let mut products = vec![1.0; m * stride];
            dots::<V, M, N>(&a_rows, &b_rows, &mut products, stride);
            for (i, a) in a.iter().enumerate() {
                for j in 0..stride {
                    let expected = b.get(j).map_or(0.0, |b| crate::vector::dot(a, b));
                    assert!((products[i * stride + j] - 1.0 - expected).abs() < 1e-13);
                }
            }
            let stride = m + 3;
            let c: Vec<f64> = (0..n * stride).map(|i| (0.9 * i as f64).cos()).collect();
            let mut sums = a.clone();
            let mut slices: Vec<&mut [f64]> = sums.iter_mut().map(|row| &mut row[..]).collect();
            multiples::<V, M, N>(&mut slices, &c, stride, &b_rows);
            for (i, (sum, a)) in sums.iter().zip(&a).enumerate() {
                for k in 0..LEN {
                    let terms = b.iter().enumerate().map(|(j, b)| c[j * stride + i] * b[k]);
                    let expected = a[k] + terms.sum::<f64>();
                    assert!((sum[k] - expected).abs() < 1e-13, "{m} {n} {i} {k}");
                }
            }
        }
    }

    #[test]
    fn registers_of_all_kinds_give_the_products() {
        check::<Array<f64, false>, 2, 2>();
        if has_avx2() {
            check::<<f64 as Scalar>::Fused, 4, 2>();
        }
        if has_avx512() {
            check::<<f64 as Scalar>::Wide, 4, 4>();
        }
    }
}
