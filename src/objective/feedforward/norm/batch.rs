//! [`BatchNorm`]: y = γ (x − m)/√(v + ε) + β.

use std::ops::Range;

use super::super::Scalar;
use super::super::layer::{Arranged, At, Layer};
use super::{Scales, combine, distances, sums};

/// Batch normalisation (Ioffe and Szegedy, 2015) with γ and β of each channel at their places of θ.
///
/// The mean m and the variance v of each channel stand behind θ in a point, as running statistics; directions do
/// not turn them. A step of training puts those of its batch in their place ([`BatchNorm::settle`]), and what
/// the derivative gains by them beside it ([`BatchNorm::settle_backward`]): with r = 1/√(v + ε), x̂ = r(x − m)
/// and n numbers of a channel in the batch,
///
/// dx = γ r (dy − Σ dy/n − x̂ Σ dy x̂/n)
///
/// Arranged are γ, β, m and v of each vector; backwards, in training alone, slope and shift of dx by x.
pub(in super::super) struct BatchNorm {
    pixels: usize,
    epsilon: f64,
    momentum: f64,
    scales: Scales,
    statistics: [Range<usize>; 2],
}

/// Some numbers of a channel: their mean, and the sum of their squared distances from it.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Spread {
    mean: f64,
    squares: f64,
}

impl BatchNorm {
    /// For samples of channels × height × width; none where a channel lacks parameters or statistics.
    pub(in super::super) fn new(
        [channels, height, width]: [usize; 3],
        [weight, bias]: [Range<usize>; 2],
        statistics: [Range<usize>; 2],
        [epsilon, momentum]: [f64; 2],
    ) -> Option<Self> {
        let pixels = height.checked_mul(width)?;
        let scales = Scales::new(channels, weight, bias)?;
        let fits = channels > 0 && pixels > 0 && statistics.iter().all(|s| s.len() == channels);
        (fits && epsilon >= 0.0).then_some(Self {
            pixels,
            epsilon,
            momentum,
            scales,
            statistics,
        })
    }

    /// How many numbers of a channel some samples have.
    pub(in super::super) fn count(&self, samples: usize) -> usize {
        samples * self.pixels
    }

    /// Each channel's spread in a tile.
    pub(in super::super) fn spread<T: Scalar>(&self, x: &[T]) -> Vec<Spread> {
        let (row, channels) = (self.row(), self.scales.channels);
        let n = self.count(x.len() / row) as f64;
        let (mut sum, mut means) = (vec![0.0; channels], vec![0.0; channels]);
        for x in x.chunks_exact(row) {
            sums([x, x], &mut sum, |x, _| x);
            for (mean, sum) in means.iter_mut().zip(&sum) {
                *mean += sum / n;
            }
        }
        // Rounding has left the means a little off.
        let near: Vec<T> = means.into_iter().map(T::of).collect();
        let mut totals = vec![[0.0; 2]; channels];
        for x in x.chunks_exact(row) {
            distances(&near, x, &mut totals);
        }
        let spreads = near
            .iter()
            .zip(totals)
            .map(|(near, [plain, square])| Spread {
                mean: near.f64() + plain / n,
                squares: (square - plain * plain / n).max(0.0),
            });
        spreads.collect()
    }

    /// The batch's mean and the sum of squares about it, from tiles of so many samples (Chan, Golub and LeVeque, 1983).
    pub(in super::super) fn together(&self, tiles: &[(usize, &[Spread])]) -> Vec<Spread> {
        let of_channel = |c: usize| {
            let parts = || {
                let tiles = tiles.iter();
                tiles.map(move |(samples, spreads)| (self.count(*samples) as f64, spreads[c]))
            };
            let n: f64 = parts().map(|(n, _)| n).sum();
            let mean = parts().map(|(n, s)| n * s.mean).sum::<f64>() / n;
            let squares = parts().map(|(n, s)| s.squares + n * (s.mean - mean).powi(2));
            Spread {
                mean,
                squares: squares.sum(),
            }
        };
        (0..self.scales.channels).map(of_channel).collect()
    }

    /// Puts a batch's mean and biased variance in the place of the running ones.
    pub(in super::super) fn settle<T: Scalar>(
        &self,
        batch: &[Spread],
        samples: usize,
        theta: &mut Arranged<T>,
    ) {
        let (channels, n) = (self.scales.channels, self.count(samples) as f64);
        let (means, variances) = theta.forward[2 * channels..].split_at_mut(channels);
        for ((m, v), batch) in means.iter_mut().zip(variances).zip(batch) {
            (*m, *v) = (T::of(batch.mean), T::of(batch.squares / n));
        }
    }

    /// Moves the running mean and variance of a point towards a batch's mean and unbiased variance.
    pub(in super::super) fn move_running(
        &self,
        batch: &[Spread],
        samples: usize,
        point: &mut [f64],
    ) {
        let n = self.count(samples) as f64;
        let [means, variances] = self.statistics.clone();
        for ((m, v), batch) in means.zip(variances).zip(batch) {
            for (place, value) in [(m, batch.mean), (v, batch.squares / (n - 1.0))] {
                point[place] = (1.0 - self.momentum) * point[place] + self.momentum * value;
            }
        }
    }

    /// Puts in place what the batch's own statistics add to dx, from dγ and dβ over the whole batch.
    pub(in super::super) fn settle_backward<T: Scalar>(
        &self,
        gradient: &[f64],
        samples: usize,
        theta: &mut Arranged<T>,
    ) {
        let (channels, n) = (self.scales.channels, self.count(samples) as f64);
        let [weights, ..] = self.of(theta, 0);
        let (along, plain) = gradient.split_at(channels);
        let sums = along.iter().zip(plain).zip(weights);
        let both = sums.zip(self.statistics(theta));
        let both = both.map(|(((along, plain), weight), [mean, r])| {
            let slope = -weight.f64() * r * r * along / n;
            [slope, -weight.f64() * r * plain / n - slope * mean]
        });
        let both: Vec<[f64; 2]> = both.collect();
        theta.backward = [0, 1]
            .map(|i| both.iter().map(move |b| T::of(b[i])))
            .into_iter()
            .flatten()
            .collect();
    }

    /// Numbers in a sample's row.
    fn row(&self) -> usize {
        self.scales.channels * self.pixels
    }

    /// γ, β, m and v of vector `j`.
    fn of<'a, T: Scalar>(&self, arranged: &'a Arranged<T>, j: usize) -> [&'a [T]; 4] {
        let n = self.scales.channels;
        [0, 1, 2, 3].map(|i| &arranged.forward[(4 * j + i) * n..][..n])
    }

    /// m and r = 1/√(v + ε) of each channel.
    fn statistics<'a, T: Scalar>(
        &'a self,
        theta: &'a Arranged<T>,
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        let [.., means, variances] = self.of(theta, 0);
        let pairs = means.iter().zip(variances);
        pairs.map(|(m, v)| [m.f64(), 1.0 / (v.f64() + self.epsilon).sqrt()])
    }

    /// Scale and shift of each channel in y = scale x + shift, with γ and β of vector `j`.
    fn affine<'a, T: Scalar>(
        &'a self,
        theta: &'a Arranged<T>,
        vectors: &'a Arranged<T>,
        j: usize,
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        let [weights, biases, ..] = self.of(vectors, j);
        let scales = weights.iter().zip(biases);
        scales
            .zip(self.statistics(theta))
            .map(|((weight, bias), [mean, r])| {
                let scale = weight.f64() * r;
                [scale, bias.f64() - scale * mean]
            })
    }

    /// For each direction and channel the scale, its change and the shift's change.
    fn coefficients<T: Scalar>(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
    ) -> Vec<Vec<[T; 3]>> {
        let of = |j: usize| {
            let both = self
                .affine(theta, theta, 0)
                .zip(self.affine(theta, directions, j));
            both.map(|(a, v)| [a[0], v[0], v[1]].map(T::of)).collect()
        };
        (0..directions.count).map(of).collect()
    }
}

impl<T: Scalar> Layer<T> for BatchNorm {
    fn outputs(&self) -> usize {
        self.row()
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn parameters(&self) -> usize {
        2 * self.scales.channels
    }

    fn batch_norm(&self) -> Option<&BatchNorm> {
        Some(self)
    }

    fn arrange_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let [means, variances] = &self.statistics;
        let arranged = vectors.iter().flat_map(|vector| {
            let scales = self.scales.arrange(&[vector]).into_iter();
            let statistics = vector[means.clone()]
                .iter()
                .chain(&vector[variances.clone()]);
            scales.chain(statistics.copied())
        });
        arranged.collect()
    }

    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], _notes: &mut [T]) {
        let affine = self.affine(theta, theta, 0);
        let affine: Vec<[T; 3]> = affine.map(|[a, b]| [a, b, 0.0].map(T::of)).collect();
        let rows = x.chunks_exact(self.row());
        for (x, y) in rows.zip(y.chunks_exact_mut(self.row())) {
            combine(&affine, [x, x], y, |[scale, shift, _], x, _, _| {
                scale * x + shift
            });
        }
    }

    fn backward(&self, theta: &Arranged<T>, at: &At<T>, dx: &mut [T]) {
        if theta.backward.is_empty() {
            return self.backward_tangent((theta, at), theta, None, at.dy, dx, true);
        }
        let row = self.row();
        let (slopes, shifts) = theta.backward.split_at(self.scales.channels);
        let turned = slopes.iter().zip(shifts);
        let all = self.affine(theta, theta, 0).zip(turned);
        let c: Vec<[T; 3]> = all
            .map(|([scale, _], (a, b))| [T::of(scale), *a, *b])
            .collect();
        let rows = at.dy.chunks_exact(row).zip(at.x.chunks_exact(row));
        for (dx, (dy, x)) in dx.chunks_exact_mut(row).zip(rows) {
            combine(&c, [dy, x], dx, |[scale, slope, shift], dy, x, _| {
                scale * dy + (slope * x + shift)
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
            let (c, x) = (&coefficients[j], &at.x[s * row..][..row]);
            match rx.map(|rx| &rx[i * row..][..row]) {
                Some(rx) => combine(c, [rx, x], ry, |[a, v, b], rx, x, _| a * rx + (v * x + b)),
                None => combine(c, [x, x], ry, |[_, v, b], x, _, _| v * x + b),
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
            if gauss_newton {
                combine(c, [rdy, rdy], rdx, |[a, ..], rdy, _, _| a * rdy);
            } else {
                let dy = &at.dy[s * row..][..row];
                combine(c, [rdy, dy], rdx, |[a, v, _], rdy, dy, _| a * rdy + v * dy);
            }
        }
    }

    fn gradient_tangent(
        &self,
        (theta, at): (&Arranged<T>, &At<T>),
        rx: Option<&[T]>,
        rdy: &[T],
        gradient: &mut [T],
        first: bool,
        gauss_newton: bool,
    ) {
        let (row, channels) = (self.row(), self.scales.channels);
        let k = rdy.len() / at.dy.len();
        let mut totals = vec![[0.0; 2]; k * channels];
        let (mut plain, mut along) = (vec![0.0; channels], vec![0.0; channels]);
        let statistics: Vec<[f64; 2]> = self.statistics(theta).collect();
        for (i, rdy) in rdy.chunks_exact(row).enumerate() {
            let (place, j) = (i / k * row..(i / k + 1) * row, i % k);
            let (x, dy) = (&at.x[place.clone()], &at.dy[place]);
            let totals = &mut totals[j * channels..][..channels];
            // Σ rdy and Σ rdy x̂
            sums([rdy, rdy], &mut plain, |rdy, _| rdy);
            sums([rdy, x], &mut along, |rdy, x| rdy * x);
            let moments = plain.iter().zip(&along).zip(&statistics);
            for (total, ((plain, along), [mean, r])) in totals.iter_mut().zip(moments) {
                total[0] += r * (along - mean * plain);
                total[1] += plain;
            }
            if let (Some(rx), false) = (rx, gauss_newton) {
                let rx = &rx[i * row..][..row];
                sums([dy, rx], &mut along, |dy, rx| dy * rx);
                for ((total, along), [_, r]) in totals.iter_mut().zip(&along).zip(&statistics) {
                    total[0] += r * along;
                }
            }
        }
        self.scales.write(&totals, gradient, first);
    }

    fn add_gradient(&self, gradient: &[T], vectors: &mut [Vec<f64>]) {
        self.scales.add(gradient, vectors);
    }
}
