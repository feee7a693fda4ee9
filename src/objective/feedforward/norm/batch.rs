//! [`BatchNorm`]: y = γ (x − m)/√(v + ε) + β.

use std::ops::Range;

use super::super::Scalar;
use super::super::layer::{Arranged, At, Layer};
use super::{Scales, combine, sums};

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
    pub(super) pixels: usize,
    epsilon: f64,
    pub(super) momentum: f64,
    pub(super) scales: Scales,
    pub(super) statistics: [Range<usize>; 2],
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

    /// Numbers in a sample's row.
    pub(super) fn row(&self) -> usize {
        self.scales.channels * self.pixels
    }

    /// γ, β, m and v of vector `j`.
    pub(super) fn of<'a, T: Scalar>(&self, arranged: &'a Arranged<T>, j: usize) -> [&'a [T]; 4] {
        let n = self.scales.channels;
        [0, 1, 2, 3].map(|i| &arranged.forward[(4 * j + i) * n..][..n])
    }

    /// m and r = 1/√(v + ε) of each channel.
    pub(super) fn statistics_of<'a, T: Scalar>(
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
            .zip(self.statistics_of(theta))
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

    fn places(&self) -> Vec<Range<usize>> {
        self.scales.places()
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
        let statistics: Vec<[f64; 2]> = self.statistics_of(theta).collect();
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
}
