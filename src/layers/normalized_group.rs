//! [`Group`]: a group of values that are normalised together, with the means that occur in derivatives.

use std::ops::Range;

use crate::kernels::Scalar;
use crate::kernels::channels::{combine, sums, weigh};

/// A group's position in a tile, and its cached statistics.
pub(crate) struct Group<T> {
    pub(crate) sample: usize,
    /// Index of the group in its sample.
    pub(crate) index: usize,
    /// Number of groups per sample.
    pub(crate) groups: usize,
    /// Number of values in the group.
    pub(crate) size: usize,
    pub(crate) mean: T,
    /// r = 1/√(σ² + ε)
    pub(crate) r: f64,
}

/// Σ a and Σ a x̂ over each channel of a group.
pub(crate) struct Moments {
    pub(crate) plain: Vec<f64>,
    pub(crate) along: Vec<f64>,
}

impl Moments {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            plain: vec![0.0; channels],
            along: vec![0.0; channels],
        }
    }
}

/// μ and r of a group.
pub(crate) fn statistics<T: Scalar>(x: &[T], epsilon: f64) -> [T; 2] {
    let mean = |f: &dyn Fn(&mut [f64])| {
        let mut sum = [0.0];
        f(&mut sum);
        sum[0] / x.len() as f64
    };
    let near = T::from_f64(mean(&|sum| sums([x, x], sum, |x, _| x)));
    // Corrects the rounding error of the mean.
    let rest = mean(&|sum| sums([x, x], sum, |x, _| x - near));
    let square = |x: T| (x - near) * (x - near);
    let variance = mean(&|sum| sums([x, x], sum, |x, _| square(x))) - rest * rest;
    let r = 1.0 / (variance.max(0.0) + epsilon).sqrt();
    [near.f64() + rest, r].map(T::from_f64)
}

impl<T: Scalar> Group<T> {
    /// Range of the group in a tile.
    pub(crate) fn row(&self) -> Range<usize> {
        self.tangent(0, 1)
    }

    /// Range of the group in row `j` of a tile with `k` rows per sample.
    pub(crate) fn tangent(&self, j: usize, k: usize) -> Range<usize> {
        let start = ((self.sample * k + j) * self.groups + self.index) * self.size;
        start..start + self.size
    }

    /// Writes the moments of a.
    pub(crate) fn moments(&self, a: &[T], x: &[T], moments: &mut Moments) {
        self.sums(a, x, &mut moments.plain, &mut moments.along);
    }

    /// M(a) and M(x̂ a)
    pub(crate) fn means(&self, a: &[T], x: &[T]) -> [f64; 2] {
        let (mut plain, mut along) = ([0.0], [0.0]);
        self.sums(a, x, &mut plain, &mut along);
        [plain, along].map(|[sum]| sum / self.size as f64)
    }

    fn sums(&self, a: &[T], x: &[T], plain: &mut [f64], along: &mut [f64]) {
        let mean = self.mean;
        sums([a, a], plain, |a, _| a);
        sums([a, x], along, |a, x| a * (x - mean));
        along.iter_mut().for_each(|sum| *sum *= self.r);
    }

    /// M(w a), for weights w of the channels, from the sums of a over each channel.
    pub(crate) fn mean(&self, weights: &[T], sums: &[f64]) -> f64 {
        let mut sum = 0.0;
        weigh(weights, sums, &mut sum);
        sum / self.size as f64
    }

    /// Writes Σ dy rx̂ of each channel, from M(rx) and M(x̂ rx).
    pub(crate) fn tangent_sums(
        &self,
        [plain, along]: [f64; 2],
        [dy, rx]: [&[T]; 2],
        of_dy: &Moments,
        totals: &mut [f64],
    ) {
        sums([dy, rx], totals, |dy, rx| dy * rx);
        for ((total, p), a) in totals.iter_mut().zip(&of_dy.plain).zip(&of_dy.along) {
            *total = self.r * (*total - plain * p - along * a);
        }
    }

    /// dx = r P(γ dy) from the moments of dy.
    pub(crate) fn pull_back(
        &self,
        weight: &[T],
        [x, dy]: [&[T]; 2],
        of_dy: &Moments,
        coefficients: &mut [[T; 3]],
        dx: &mut [T],
    ) {
        for (c, weight) in coefficients.iter_mut().zip(weight) {
            c[0] = T::from_f64(self.r * weight.f64());
        }
        let [plain, along] = [&of_dy.plain, &of_dy.along].map(|sums| self.mean(weight, sums));
        let (slope, shift) = (
            T::from_f64(-self.r * self.r * along),
            T::from_f64(-self.r * plain),
        );
        let mean = self.mean;
        combine(coefficients, [dy, x], dx, |[scale, ..], dy, x, _| {
            scale * dy + (slope * (x - mean) + shift)
        });
    }
}
