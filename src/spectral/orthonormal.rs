//! Operations on orthonormal bases.
//!
//! They work on chunks of rows that fit in a core's cache, so that a basis is read from memory as rarely as possible. The
//! sums of the chunks are added in order: the bits do not depend on the number of threads.

use rayon::prelude::*;

use crate::kernels::simd::vectorised;
use crate::recycled::zeros;
use crate::vector::{axpy, dot, norm, scale};

/// Rows per chunk.
const CHUNK: usize = 4096;

/// Removes the components along the orthonormal `basis` from `w`, and returns them. Rounding leaves components of about ε‖w‖; if
/// the rest is less than half as long as w, they are removed a second time, which is enough (Kahan and Parlett; Daniel et al.,
/// 1976).
pub(super) fn orthogonalize(w: &mut [f64], basis: &[Vec<f64>]) -> Vec<f64> {
    if basis.is_empty() {
        return Vec::new();
    }
    let (first, square) = components(w, basis, |_, _| ());
    // Squares outside this range may have overflowed, or underflowed.
    if (1e-280..1e280).contains(&square) && dot(&first, &first) <= 0.75 * square {
        subtract_all(w, &first, basis);
        return first;
    }
    // One pass over w removes the first components and computes the second.
    let (second, _) = components(w, basis, |start, w| subtract(w, &first, basis, start));
    subtract_all(w, &second, basis);
    first.iter().zip(&second).map(|(a, b)| a + b).collect()
}

/// Removes the components along the orthonormal `basis` from `w`, once. Rounding leaves components of about ε‖w‖.
pub(super) fn project(w: &mut [f64], basis: &[Vec<f64>]) {
    if basis.is_empty() {
        return;
    }
    let (components, _) = components(w, basis, |_, _| ());
    subtract_all(w, &components, basis);
}

/// Returns Qᵀw and ‖w‖² after applying `change` to each chunk of w.
fn components(
    w: &mut [f64],
    basis: &[Vec<f64>],
    change: impl Fn(usize, &mut [f64]) + Sync,
) -> (Vec<f64>, f64) {
    let parts: Vec<Vec<f64>> = w
        .par_chunks_mut(CHUNK)
        .enumerate()
        .map(|(i, w)| {
            change(i * CHUNK, w);
            let mut part = vec![0.0; basis.len() + 1];
            dots(w, basis, i * CHUNK, &mut part);
            part[basis.len()] = dot(w, w);
            part
        })
        .collect();
    let mut sums = sum_in_order(&parts, basis.len() + 1);
    let square = sums.pop().unwrap_or(0.0);
    (sums, square)
}

/// Adds the parts of the chunks, in order.
pub(super) fn sum_in_order(parts: &[Vec<f64>], len: usize) -> Vec<f64> {
    let mut sum = vec![0.0; len];
    for part in parts {
        axpy(1.0, part, &mut sum);
    }
    sum
}

fn subtract_all(w: &mut [f64], components: &[f64], basis: &[Vec<f64>]) {
    w.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(i, w)| subtract(w, components, basis, i * CHUNK));
}

fn subtract(w: &mut [f64], components: &[f64], basis: &[Vec<f64>], start: usize) {
    add_multiples(w, components, basis, start, -1.0);
}

vectorised! {
    /// Dot products of w with the rows of each basis vector from `start`, four vectors at a time.
    fn dots(w: &[f64], basis: &[Vec<f64>], start: usize, products: &mut [f64]) {
        let rows = start..start + w.len();
        let (basis4, products4) = (basis.chunks_exact(4), products.chunks_exact_mut(4));
        let rest = basis4.remainder();
        let (w16, w_rest) = w.as_chunks::<16>();
        for (q, products) in basis4.zip(products4) {
            let [q0, q1, q2, q3] = [0, 1, 2, 3].map(|i| &q[i][rows.clone()]);
            let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] =
                [q0.as_chunks::<16>(), q1.as_chunks::<16>(), q2.as_chunks::<16>(), q3.as_chunks::<16>()];
            let (mut sa, mut sb, mut sc, mut sd) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
            for ((w, (a, b)), (c, d)) in w16.iter().zip(a.iter().zip(b)).zip(c.iter().zip(d)) {
                for i in 0..16 {
                    sa[i] += w[i] * a[i];
                    sb[i] += w[i] * b[i];
                    sc[i] += w[i] * c[i];
                    sd[i] += w[i] * d[i];
                }
            }
            products[0] = in_pairs(sa) + short_dot(w_rest, a_rest);
            products[1] = in_pairs(sb) + short_dot(w_rest, b_rest);
            products[2] = in_pairs(sc) + short_dot(w_rest, c_rest);
            products[3] = in_pairs(sd) + short_dot(w_rest, d_rest);
        }
        let first = basis.len() - rest.len();
        for (q, product) in rest.iter().zip(&mut products[first..]) {
            let (a, a_rest) = q[rows.clone()].as_chunks::<16>();
            let mut sa = [0.0; 16];
            for (w, a) in w16.iter().zip(a) {
                for i in 0..16 {
                    sa[i] += w[i] * a[i];
                }
            }
            *product = in_pairs(sa) + short_dot(w_rest, a_rest);
        }
    }

    /// w ← w + s Σ cⱼ qⱼ on the rows from `start`, four vectors at a time.
    fn add_multiples(w: &mut [f64], c: &[f64], basis: &[Vec<f64>], start: usize, s: f64) {
        let rows = start..start + w.len();
        let (c4, q4) = (c.chunks_exact(4), basis.chunks_exact(4));
        for (c, q) in c4.remainder().iter().zip(q4.remainder()) {
            for (w, q) in w.iter_mut().zip(&q[rows.clone()]) {
                *w += s * c * q;
            }
        }
        for (c, q) in c4.zip(q4) {
            let [c0, c1, c2, c3] = [s * c[0], s * c[1], s * c[2], s * c[3]];
            let rest = q[1][rows.clone()].iter().zip(&q[2][rows.clone()]).zip(&q[3][rows.clone()]);
            for ((w, q0), ((q1, q2), q3)) in w.iter_mut().zip(&q[0][rows.clone()]).zip(rest) {
                *w += c0 * q0 + c1 * q1 + c2 * q2 + c3 * q3;
            }
        }
    }
}

/// The sum of partial sums, added in pairs.
#[inline(always)]
fn in_pairs(s: [f64; 16]) -> f64 {
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = s[i] + s[i + 8];
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// aᵀb of fewer than 16 entries.
#[inline(always)]
fn short_dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
}

/// Returns Σᵢ cᵢ qᵢ for each list of coefficients c.
pub(super) fn combine(basis: &[Vec<f64>], coefficients: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = basis.first().map_or(0, Vec::len);
    let sums = coefficients.iter().map(|_| zeros(n));
    let mut sums: Vec<Vec<f64>> = sums.collect();
    let chunks = row_ranges(&mut sums, CHUNK).into_par_iter().enumerate();
    chunks.for_each(|(i, rows)| {
        for (sum, c) in rows.into_iter().zip(coefficients) {
            add_multiples(sum, c, basis, i * CHUNK, 1.0);
        }
    });
    sums
}

/// The rows of some vectors, in ranges of `size`: the vectors' slices for each range.
pub(super) fn row_ranges(vectors: &mut [Vec<f64>], size: usize) -> Vec<Vec<&mut [f64]>> {
    let n = vectors.first().map_or(0, Vec::len);
    let mut ranges: Vec<Vec<&mut [f64]>> = Vec::new();
    ranges.resize_with(n.div_ceil(size), Vec::new);
    for v in vectors {
        for (range, rows) in ranges.iter_mut().zip(v.chunks_mut(size)) {
            range.push(rows);
        }
    }
    ranges
}

/// Returns the dot products aᵢᵀbⱼ, a row for each i.
pub(crate) fn products(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = a.first().map_or(0, Vec::len);
    let parts: Vec<Vec<f64>> = (0..n.div_ceil(CHUNK))
        .into_par_iter()
        .map(|i| {
            let rows = i * CHUNK..((i + 1) * CHUNK).min(n);
            let mut part = vec![0.0; a.len() * b.len()];
            for (a, part) in a.iter().zip(part.chunks_mut(b.len().max(1))) {
                dots(&a[rows.clone()], b, rows.start, part);
            }
            part
        })
        .collect();
    let sum = sum_in_order(&parts, a.len() * b.len());
    (0..a.len())
        .map(|i| sum[i * b.len()..][..b.len()].to_vec())
        .collect()
}

/// Orthogonalises `w` against `basis` and scales it to unit length. Returns its components along the basis, the length of the
/// rest, and the unit vector; `None` if the rest is no longer than `smallest`.
pub(super) fn extend(
    mut w: Vec<f64>,
    basis: &[Vec<f64>],
    smallest: f64,
) -> (Vec<f64>, f64, Option<Vec<f64>>) {
    let components = orthogonalize(&mut w, basis);
    let length = norm(&w);
    if length <= smallest {
        return (components, 0.0, None);
    }
    scale(&mut w, 1.0 / length);
    (components, length, Some(w))
}
