//! Sums and combinations of rows of channels × pixels, channel by channel: the arithmetic of normalisation layers.

use super::Scalar;
use super::simd::vectorised;

/// Number of parallel partial sums, so that loops vectorise.
const LANES: usize = 16;

/// Block length: sums within a block use the type's own precision, sums of blocks `f64`.
const BLOCK: usize = 1024;

vectorised! {
    /// Writes the sum of f(a, b) over each channel's pixels.
    pub(crate) fn sums<T: Scalar, F: Fn(T, T) -> T>(rows: [&[T]; 2], sums: &mut [f64], f: F) {
        let [a, b] = rows;
        let pixels = a.len() / sums.len();
        if pixels == 1 {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = f(*a, *b).f64();
            }
            return;
        }
        let channels = a.chunks_exact(pixels).zip(b.chunks_exact(pixels));
        for (sum, (a, b)) in sums.iter_mut().zip(channels) {
            let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK));
            *sum = blocks.map(|(a, b)| total(a, b, &f).f64()).sum();
        }
    }

    /// Adds for each channel the sums over its pixels of x − m and (x − m)².
    pub(crate) fn distances<T: Scalar>(centers: &[T], x: &[T], sums: &mut [[f64; 2]]) {
        let pixels = x.len() / centers.len();
        if pixels == 1 {
            for ((sum, m), x) in sums.iter_mut().zip(centers).zip(x) {
                let d = (*x - *m).f64();
                *sum = [sum[0] + d, sum[1] + d * d];
            }
            return;
        }
        for ((sum, m), x) in sums.iter_mut().zip(centers).zip(x.chunks_exact(pixels)) {
            for x in x.chunks(BLOCK) {
                sum[0] += total(x, x, |x, _| x - *m).f64();
                sum[1] += total(x, x, |x, _| (x - *m) * (x - *m)).f64();
            }
        }
    }

    /// Writes the weighted sum of the channels' sums.
    pub(crate) fn weigh<T: Scalar>(weights: &[T], sums: &[f64], weighted: &mut f64) {
        let mut lanes = [0.0; LANES];
        let (w, s) = (weights.chunks_exact(LANES), sums.chunks_exact(LANES));
        let tail = w.remainder().iter().zip(s.remainder());
        let tail: f64 = tail.map(|(w, s)| w.f64() * s).sum();
        for (w, s) in w.zip(s) {
            for i in 0..LANES {
                lanes[i] += w[i].f64() * s[i];
            }
        }
        *weighted = lanes.iter().sum::<f64>() + tail;
    }

    /// target ← f(the channel's coefficients, a, b, target), pixel by pixel.
    pub(crate) fn combine<T: Scalar, F: Fn([T; 3], T, T, T) -> T>(
        coefficients: &[[T; 3]],
        rows: [&[T]; 2],
        target: &mut [T],
        f: F,
    ) {
        let [a, b] = rows;
        let pixels = target.len() / coefficients.len();
        if pixels == 1 {
            for (((t, c), a), b) in target.iter_mut().zip(coefficients).zip(a).zip(b) {
                *t = f(*c, *a, *b, *t);
            }
            return;
        }
        let rows = a.chunks_exact(pixels).zip(b.chunks_exact(pixels));
        for ((target, c), (a, b)) in target.chunks_exact_mut(pixels).zip(coefficients).zip(rows) {
            for ((t, a), b) in target.iter_mut().zip(a).zip(b) {
                *t = f(*c, *a, *b, *t);
            }
        }
    }
}

/// The sum of f(a, b) over a block. Pairwise reduction of the lanes would not stay in registers.
#[inline(always)]
pub(super) fn total<T: Scalar>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut sum = T::ZERO;
    for (a, b) in a.remainder().iter().zip(b.remainder()) {
        sum += f(*a, *b);
    }
    let mut lanes = [T::ZERO; LANES];
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for lane in lanes {
        sum += lane;
    }
    sum
}
