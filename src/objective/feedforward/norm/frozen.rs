//! [`BatchNorm`]: y = γ (x − m)/√(v + ε) + β with statistics that stay as they are.

use std::ops::Range;

use super::super::Scalar;
use super::super::layer::{Arranged, At, Layer};
use super::{Scales, combine, sums};

/// Batch normalisation (Ioffe and Szegedy, 2015) with the mean m and the variance v of each channel as
/// training has left them, and γ and β at their places of θ, or 1 and 0 without.
pub(in super::super) struct BatchNorm {
    pixels: usize,
    means: Vec<f64>,
    /// 1/√(v + ε)
    factors: Vec<f64>,
    scales: Option<Scales>,
}

impl BatchNorm {
    /// For samples of channels × height × width; none where a channel lacks statistics or parameters,
    /// or v + ε is not positive.
    pub(in super::super) fn new(
        [channels, height, width]: [usize; 3],
        [means, variances]: [&[f64]; 2],
        epsilon: f64,
        scales: Option<[Range<usize>; 2]>,
    ) -> Option<Self> {
        let pixels = height.checked_mul(width)?;
        let scales = match scales {
            Some([weight, bias]) => Some(Scales::new(channels, weight, bias)?),
            None => None,
        };
        let fits = channels > 0 && pixels > 0 && [means.len(), variances.len()] == [channels; 2];
        let positive = variances.iter().all(|v| v + epsilon > 0.0);
        (fits && positive).then(|| Self {
            pixels,
            means: means.to_vec(),
            factors: variances
                .iter()
                .map(|v| 1.0 / (v + epsilon).sqrt())
                .collect(),
            scales,
        })
    }

    /// Numbers in a sample's row.
    fn row(&self) -> usize {
        self.means.len() * self.pixels
    }

    /// Scale and shift of each channel: y = scale x + shift.
    fn affine<T: Scalar>(&self, theta: &Arranged<T>) -> Vec<[f64; 2]> {
        match &self.scales {
            Some(_) => self.turned(theta, 0),
            None => {
                let statistics = self.means.iter().zip(&self.factors);
                statistics
                    .map(|(mean, factor)| [*factor, -factor * mean])
                    .collect()
            }
        }
    }

    /// What scale and shift change along direction `j`.
    fn turned<T: Scalar>(&self, directions: &Arranged<T>, j: usize) -> Vec<[f64; 2]> {
        let Some(scales) = &self.scales else {
            return vec![[0.0; 2]; self.means.len()];
        };
        let [weights, biases] = scales.of(directions, j, 0..self.means.len());
        let statistics = self.means.iter().zip(&self.factors);
        let affine = statistics.zip(weights.iter().zip(biases));
        affine
            .map(|((mean, factor), (weight, bias))| {
                let scale = weight.f64() * factor;
                [scale, bias.f64() - scale * mean]
            })
            .collect()
    }

    /// For each direction and channel the scale, its change and the shift's change.
    fn coefficients<T: Scalar>(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
    ) -> Vec<Vec<[T; 3]>> {
        let affine = self.affine(theta);
        let of = |j: usize| {
            let turned = self.turned(directions, j);
            let all = affine.iter().zip(&turned);
            all.map(|(a, v)| [a[0], v[0], v[1]].map(T::of)).collect()
        };
        (0..directions.count).map(of).collect()
    }
}

impl<T: Scalar> Layer<T> for BatchNorm {
    fn outputs(&self) -> usize {
        self.row()
    }

    fn keeps_input(&self) -> bool {
        self.scales.is_some()
    }

    fn parameters(&self) -> usize {
        self.scales.as_ref().map_or(0, |scales| 2 * scales.channels)
    }

    fn arrange_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let scales = self.scales.as_ref();
        scales.map_or_else(Vec::new, |scales| scales.arrange(vectors))
    }

    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], _notes: &mut [T]) {
        let affine = self.affine(theta).into_iter();
        let affine: Vec<[T; 3]> = affine.map(|[a, b]| [a, b, 0.0].map(T::of)).collect();
        let rows = x.chunks_exact(self.row());
        for (x, y) in rows.zip(y.chunks_exact_mut(self.row())) {
            combine(&affine, [x, x], y, |[scale, shift, _], x, _, _| {
                scale * x + shift
            });
        }
    }

    fn forward_tangent(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
        at: &At<T>,
        rx: Option<&[T]>,
        ry: &mut [T],
    ) {
        let row = self.row();
        let coefficients = self.coefficients(theta, directions);
        for (i, ry) in ry.chunks_exact_mut(row).enumerate() {
            let (s, j) = (i / directions.count, i % directions.count);
            let (c, rx) = (&coefficients[j], rx.map(|rx| &rx[i * row..][..row]));
            match (rx, &self.scales) {
                (Some(rx), Some(_)) => {
                    let x = &at.x[s * row..][..row];
                    combine(c, [rx, x], ry, |[a, v, b], rx, x, _| a * rx + (v * x + b));
                }
                (Some(rx), None) => combine(c, [rx, rx], ry, |[a, ..], rx, _, _| a * rx),
                (None, Some(_)) => {
                    let x = &at.x[s * row..][..row];
                    combine(c, [x, x], ry, |[_, v, b], x, _, _| v * x + b);
                }
                (None, None) => ry.fill(T::ZERO),
            }
        }
    }

    fn backward_tangent(
        &self,
        (theta, at): (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        _rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    ) {
        let row = self.row();
        let coefficients = self.coefficients(theta, directions);
        for (i, rdx) in rdx.chunks_exact_mut(row).enumerate() {
            let (s, j) = (i / directions.count, i % directions.count);
            let (c, rdy) = (&coefficients[j], &rdy[i * row..][..row]);
            if gauss_newton || self.scales.is_none() {
                combine(c, [rdy, rdy], rdx, |[a, ..], rdy, _, _| a * rdy);
            } else {
                let dy = &at.dy[s * row..][..row];
                combine(c, [rdy, dy], rdx, |[a, v, _], rdy, dy, _| a * rdy + v * dy);
            }
        }
    }

    fn gradient_tangent(
        &self,
        at: &At<T>,
        rx: Option<&[T]>,
        rdy: &[T],
        gradient: &mut [T],
        first: bool,
        gauss_newton: bool,
    ) {
        let Some(scales) = &self.scales else {
            return;
        };
        let (row, channels) = (self.row(), self.means.len());
        let k = rdy.len() / at.dy.len();
        let mut totals = vec![[0.0; 2]; k * channels];
        let (mut plain, mut along) = (vec![0.0; channels], vec![0.0; channels]);
        let statistics = || self.means.iter().zip(&self.factors);
        for (i, rdy) in rdy.chunks_exact(row).enumerate() {
            let (place, j) = (i / k * row..(i / k + 1) * row, i % k);
            let (x, dy) = (&at.x[place.clone()], &at.dy[place]);
            let totals = &mut totals[j * channels..][..channels];
            // Σ rdy and Σ rdy x̂
            sums([rdy, rdy], &mut plain, |rdy, _| rdy);
            sums([rdy, x], &mut along, |rdy, x| rdy * x);
            let moments = plain.iter().zip(&along);
            for ((total, (plain, along)), (mean, factor)) in
                totals.iter_mut().zip(moments).zip(statistics())
            {
                total[0] += factor * (along - mean * plain);
                total[1] += plain;
            }
            if let (Some(rx), false) = (rx, gauss_newton) {
                let rx = &rx[i * row..][..row];
                sums([dy, rx], &mut along, |dy, rx| dy * rx);
                for ((total, along), factor) in totals.iter_mut().zip(&along).zip(&self.factors) {
                    total[0] += factor * along;
                }
            }
        }
        scales.write(&totals, gradient, first);
    }

    fn add_gradient(&self, gradient: &[T], vectors: &mut [Vec<f64>]) {
        if let Some(scales) = &self.scales {
            scales.add(gradient, vectors);
        }
    }
}
