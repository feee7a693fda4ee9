//! Vector operations. Sums have a fixed order.

use std::ops::Range;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Longer vectors are split into pieces of this length, which threads share.
pub(crate) const PIECE: usize = 1 << 17;

/// aᵀb. The sums of pieces are added in order.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    if a.len() <= PIECE {
        return dot_of_piece(a, b);
    }
    let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE));
    let sums: Vec<f64> = pieces.map(|(a, b)| dot_of_piece(a, b)).collect();
    sums.iter().sum()
}

/// aᵀb, with eight partial sums for speed.
fn dot_of_piece(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// ‖v‖₂, without overflow or underflow of the squares.
pub(crate) fn norm(v: &[f64]) -> f64 {
    let square = dot(v, v);
    if (1e-280..1e280).contains(&square) {
        return square.sqrt();
    }
    let largest = largest(v);
    if largest == 0.0 || !largest.is_finite() || square.is_nan() {
        return square.sqrt();
    }
    let scaled: f64 = v.iter().map(|x| (x / largest).powi(2)).sum();
    largest * scaled.sqrt()
}

/// max |vᵢ|
pub(crate) fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// y ← y + a x
pub(crate) fn axpy(a: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// a − b
pub(crate) fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// v ← a v
pub(crate) fn scale(v: &mut [f64], a: f64) {
    let scale_piece = |piece: &mut [f64]| piece.iter_mut().for_each(|v| *v *= a);
    match v.len() <= PIECE {
        true => scale_piece(v),
        false => v.par_chunks_mut(PIECE).for_each(scale_piece),
    }
}

/// Derives the `i`-th seed from `seed`. Derived seeds of two seeds differ unless the seeds are a multiple of 2³² apart.
pub(crate) fn stream(seed: u64, i: u64) -> u64 {
    seed.wrapping_add(i << 32)
}

/// Independent standard normal entries, drawn from `seed`.
pub(crate) fn gaussian(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// `n` evenly spaced numbers from `-radius` to `radius`; for odd `n` the middle one is exactly 0.
pub(crate) fn symmetric_grid(radius: f64, n: usize) -> Vec<f64> {
    let last = n as f64 - 1.0;
    (0..n)
        .map(|i| radius * ((2.0 * i as f64 - last) / last))
        .collect()
}

/// The vector of length n with the entries of `v`, converted, in these ranges and zeros elsewhere.
pub(crate) fn embed<T: Copy + Default>(
    mut v: &[f64],
    ranges: &[Range<usize>],
    n: usize,
    convert: impl Fn(f64) -> T,
) -> Vec<T> {
    let mut embedded = vec![T::default(); n];
    for range in ranges {
        let (part, rest) = v.split_at(range.len());
        for (entry, x) in embedded[range.clone()].iter_mut().zip(part) {
            *entry = convert(*x);
        }
        v = rest;
    }
    embedded
}

/// The entries of `v` in these ranges.
pub(crate) fn restrict(v: &[f64], ranges: &[Range<usize>]) -> Vec<f64> {
    let parts = ranges.iter().flat_map(|range| &v[range.clone()]);
    parts.copied().collect()
}

/// Serialises to 8 bytes per number, little-endian.
pub(crate) fn to_bytes(v: &[f64]) -> Vec<u8> {
    v.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Inverse of [`to_bytes`]. Ignores an incomplete number at the end.
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|b| f64::from_le_bytes(*b)).collect()
}
