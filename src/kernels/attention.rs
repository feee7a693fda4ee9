//! Softmax of the rows of a matrix of scores, and its derivatives: the arithmetic of attention.

use super::Scalar;
use super::channels::total;
use super::simd::vectorised;

/// Rows of scores.
#[derive(Clone, Copy)]
pub(crate) struct ScoreRows {
    pub(crate) columns: usize,
    /// Number of scores of the first row that are not masked; each next row has one more. `None`: no score is masked.
    pub(crate) first_visible: Option<usize>,
}

vectorised! {
    /// Replaces scores S by P = softmax(cS), with 0 where they are masked.
    pub(crate) fn softmax<T: Scalar>(rows: ScoreRows, c: T, scores: &mut [T]) {
        for (i, row) in scores.chunks_exact_mut(rows.columns).enumerate() {
            let visible = rows.first_visible.map_or(rows.columns, |first| first + i);
            row[visible..].fill(T::from_f64(f64::NEG_INFINITY));
            let largest = largest(row);
            for s in row.iter_mut() {
                *s = (c * (*s - largest)).exp();
            }
            row[visible..].fill(T::ZERO);
            let scale = T::ONE / total(row, row, |p, _| p);
            for p in row {
                *p = scale * *p;
            }
        }
    }

    /// Replaces Ṡ by Ṗ = cP∘(Ṡ − rowsum(P∘Ṡ)).
    pub(crate) fn softmax_tangent<T: Scalar>(columns: usize, c: T, p: &[T], rs: &mut [T]) {
        for (p, rs) in p.chunks_exact(columns).zip(rs.chunks_exact_mut(columns)) {
            let sum = total(p, rs, |p, rs| p * rs);
            for (p, rs) in p.iter().zip(rs) {
                *rs = c * *p * (*rs - sum);
            }
        }
    }

    /// Replaces dP by E = dP − rowsum(P∘dP), and writes dS = cP∘E.
    pub(crate) fn softmax_backward<T: Scalar>(
        columns: usize,
        c: T,
        p: &[T],
        dp: &mut [T],
        ds: &mut [T],
    ) {
        let rows = p.chunks_exact(columns).zip(dp.chunks_exact_mut(columns));
        for ((p, dp), ds) in rows.zip(ds.chunks_exact_mut(columns)) {
            let sum = total(p, dp, |p, dp| p * dp);
            for ((p, dp), ds) in p.iter().zip(dp).zip(ds) {
                *dp = *dp - sum;
                *ds = c * *p * *dp;
            }
        }
    }

    /// Replaces dṖ by dṠ = cṖ∘E + cP∘(dṖ − rowsum(Ṗ∘E + P∘dṖ)), for `rows` P, E and Ṗ.
    pub(crate) fn softmax_backward_tangent<T: Scalar>(
        columns: usize,
        c: T,
        rows: [&[T]; 3],
        rdp: &mut [T],
    ) {
        let [p, e, rp] = rows.map(|rows| rows.chunks_exact(columns));
        for (((p, e), rp), rdp) in p.zip(e).zip(rp).zip(rdp.chunks_exact_mut(columns)) {
            let sum = total(rp, e, |rp, e| rp * e) + total(p, rdp, |p, rdp| p * rdp);
            for (((p, e), rp), rdp) in p.iter().zip(e).zip(rp).zip(rdp) {
                *rdp = c * (*rp * *e + *p * (*rdp - sum));
            }
        }
    }
}

/// The largest number of a row.
#[inline(always)]
fn largest<T: Scalar>(row: &[T]) -> T {
    const LANES: usize = 16;
    let chunks = row.chunks_exact(LANES);
    let mut largest = chunks.remainder().iter().fold(row[0], |a, b| a.max(*b));
    let mut lanes = [row[0]; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*x);
        }
    }
    for lane in lanes {
        largest = largest.max(lane);
    }
    largest
}
