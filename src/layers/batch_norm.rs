//! [`BatchNorm`]: y = γ (x − m)/√(v + ε) + β with the mean m and the variance v of each channel.

use std::ops::Range;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{BatchStatistics, ChannelMoments, Mode, Packed, Primal, Rules, Tangent, Write};
use super::scale_shift::{ScaleShift, check_dims, check_len, per_channel, scaled};
use super::{Layer, LayerInit, LayerKind, Misfit, Pass, Shape, UnitGraph, var};
use crate::error::{Error, Result};
use crate::kernels::Scalar;
use crate::kernels::channels::{combine, distances, sums};
use crate::parameters::Parameters;

/// Batch normalisation (Ioffe and Szegedy, "Batch normalization", 2015): y = γ (x − m)/√(v + ε) + β, channel by channel.
///
/// In a training step m and v are the batch's mean and biased variance, and update the running statistics: r ← (1 −
/// momentum) r + momentum s with the batch's mean or unbiased variance s. Otherwise m and v are the running
/// statistics, and samples are independent.
///
/// # Shapes
/// Samples of shape (channels, …); the output has the shape of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Name of γ, shape (channels,).
    pub weight: String,
    /// Name of β, shape (channels,).
    pub bias: String,
    /// Name of the running mean among the [statistics](Parameters::statistics), shape (channels,).
    pub mean: String,
    /// Name of the running variance, shape (channels,).
    pub variance: String,
    /// ε, at least 0.
    pub epsilon: f64,
    /// Weight of the batch's statistics in the running ones, from 0 to 1; 0.1 by default.
    pub momentum: f64,
}

impl BatchNorm {
    /// A layer whose parameters and statistics are called `name.weight`, `name.bias`, `name.running_mean` and `name.running_var`, with
    /// ε = 10⁻⁵ and momentum 0.1.
    pub fn new(name: &str) -> Self {
        Self {
            weight: format!("{name}.weight"),
            bias: format!("{name}.bias"),
            mean: format!("{name}.running_mean"),
            variance: format!("{name}.running_var"),
            epsilon: 1e-5,
            momentum: 0.1,
        }
    }

    /// Sets ε.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Sets the momentum.
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Initialises γ = 1, β = 0 and running statistics 0 and 1.
    pub(crate) fn init(init: &mut LayerInit, name: &str, channels: usize) -> Result<LayerKind> {
        let layer = Self::new(name);
        ScaleShift::init(init, name, channels)?;
        init.statistic(layer.mean.clone(), 0.0, channels)?;
        init.statistic(layer.variance.clone(), 1.0, channels)?;
        Ok(layer.into())
    }

    /// Returns what is wrong with the settings, if anything.
    fn problem(&self) -> Option<String> {
        let fits = self.epsilon >= 0.0 && (0.0..=1.0).contains(&self.momentum);
        (!fits).then(|| {
            format!(
                "an epsilon ≥ 0 and a momentum from 0 to 1, not {} and {}",
                self.epsilon, self.momentum
            )
        })
    }
}

impl Layer for BatchNorm {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        if let Some(wanted) = self.problem() {
            return Err(misfit(wanted));
        }
        let [channels, _] = input.channels();
        if input.len() == 0 {
            return Err(misfit("at least one channel".into()));
        }
        for name in [&self.weight, &self.bias] {
            check_len(self, input, parameters, name, channels)?;
        }
        for name in [&self.mean, &self.variance] {
            let statistic = parameters.statistic(name);
            let statistic = statistic.map_err(|e| misfit(format!("its statistics: {e}")))?;
            check_dims(self, input, name, statistic.as_tensor(), channels)?;
        }
        Ok(input.clone())
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        if let Some(wanted) = self.problem() {
            candle_core::bail!("BatchNorm needs {wanted}");
        }
        let statistic = |name| parameters.statistic(name).map_err(candle_core::Error::from);
        let running = [statistic(&self.mean)?, statistic(&self.variance)?];
        let normal = match pass {
            Pass::Training(_) => self.normal_in_batch(x, running)?,
            Pass::Inference | Pass::Recording(_) => {
                let [mean, variance] = running.map(|var| per_channel(x, &var.as_detached_tensor()));
                let deviation = (variance? + self.epsilon)?.sqrt()?;
                x.broadcast_sub(&mean?)?.broadcast_div(&deviation)?
            }
        };
        let (weight, bias) = (var(parameters, &self.weight)?, var(parameters, &self.bias)?);
        scaled(&normal, &weight, &bias)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let (input, parameters) = (network.shape(), network.parameters());
        let shape = self.output_shape(input, parameters)?;
        let [_, pixels] = shape.channels();
        let [weight, bias] = [&self.weight, &self.bias].map(|name| network.range(self, name));
        let statistic = |name| {
            let range = parameters.statistic_range(name);
            range.map_err(|e| Misfit::new(self, input, format!("its statistics: {e}")))
        };
        let rules = BatchNormRules {
            pixels,
            epsilon: self.epsilon,
            momentum: self.momentum,
            scales: ScaleShift::new(weight?, bias?),
            statistics: [statistic(&self.mean)?, statistic(&self.variance)?],
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = graph.read(self, 0);
        for name in [&self.weight, &self.bias, &self.mean, &self.variance] {
            graph.name_axis(name, 0, &units);
        }
        graph.output(shape, 0, units);
        Ok(())
    }
}

impl BatchNorm {
    /// Normalises by the batch's mean and variance, and updates the running ones.
    fn normal_in_batch(&self, x: &Tensor, running: [&Var; 2]) -> candle_core::Result<Tensor> {
        let channels = x.transpose(0, 1)?;
        let rows = channels.flatten_from(1)?.contiguous()?;
        let n = rows.dim(1)?;
        if n == 1 {
            return Err(no_variance().into());
        }
        let mean = rows.mean_keepdim(1)?;
        let centered = rows.broadcast_sub(&mean)?;
        let variance = centered.sqr()?.mean_keepdim(1)?;
        let unbiased = (&variance * (n as f64 / (n as f64 - 1.0)))?;
        for (var, batch) in running.into_iter().zip([&mean, &unbiased]) {
            let batch = batch.flatten_all()?.detach();
            let previous = (var.as_detached_tensor() * (1.0 - self.momentum))?;
            var.set(&(previous + (batch * self.momentum)?)?)?;
        }
        let normal = centered.broadcast_div(&(variance + self.epsilon)?.sqrt()?)?;
        normal.reshape(channels.shape())?.transpose(0, 1)
    }
}

/// The error for a batch of one value per channel.
pub(crate) fn no_variance() -> Error {
    Error::invalid(
        "batch normalisation of one value per channel has no variance to divide by: a training step needs a batch of \
         at least two samples, including the last batch of an epoch",
    )
}

/// The rules; γ and β of each channel are at their ranges in θ.
///
/// In a point, m and v of each channel follow θ as running statistics; directions do not change them. A training step
/// replaces them by those of its batch ([`BatchStatistics::set_forward`]), and adds the derivative of the batch's
/// statistics ([`BatchStatistics::set_backward`]): with r = 1/√(v + ε), x̂ = r(x − m) and n values of a channel in
/// the batch,
///
/// dx = γ r (dy − Σ dy/n − x̂ Σ dy x̂/n)
///
/// Layout per vector: γ, β, m, v; backward, in training only, slope and shift of dx in x.
struct BatchNormRules {
    pixels: usize,
    epsilon: f64,
    momentum: f64,
    scales: ScaleShift,
    statistics: [Range<usize>; 2],
}

impl BatchNormRules {
    /// Number of values of a sample.
    fn row(&self) -> usize {
        self.scales.channels * self.pixels
    }

    /// Number of values of a channel in `samples` samples.
    fn values(&self, samples: usize) -> usize {
        samples * self.pixels
    }

    /// γ, β, m and v of vector `j`.
    fn rows<'a, T: Scalar>(&self, packed: &'a Packed<T>, j: usize) -> [&'a [T]; 4] {
        let n = self.scales.channels;
        [0, 1, 2, 3].map(|i| &packed.forward[(4 * j + i) * n..][..n])
    }

    /// m and r = 1/√(v + ε) of each channel.
    fn statistics_of<'a, T: Scalar>(
        &'a self,
        theta: &'a Packed<T>,
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        let [.., means, variances] = self.rows(theta, 0);
        let pairs = means.iter().zip(variances);
        pairs.map(|(m, v)| [m.f64(), 1.0 / (v.f64() + self.epsilon).sqrt()])
    }

    /// Scale and shift of each channel in y = scale x + shift, with γ and β of vector `j`.
    fn affine<'a, T: Scalar>(
        &'a self,
        theta: &'a Packed<T>,
        vectors: &'a Packed<T>,
        j: usize,
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        let [weights, biases, ..] = self.rows(vectors, j);
        let scales = weights.iter().zip(biases);
        scales
            .zip(self.statistics_of(theta))
            .map(|((weight, bias), [mean, r])| {
                let scale = weight.f64() * r;
                [scale, bias.f64() - scale * mean]
            })
    }

    /// For each direction and channel: the scale, its derivative and the shift's derivative.
    fn coefficients<T: Scalar>(
        &self,
        theta: &Packed<T>,
        directions: &Packed<T>,
    ) -> Vec<Vec<[T; 3]>> {
        let along = |j: usize| {
            let both = self
                .affine(theta, theta, 0)
                .zip(self.affine(theta, directions, j));
            both.map(|(a, v)| [a[0], v[0], v[1]].map(T::from_f64))
                .collect()
        };
        (0..directions.count).map(along).collect()
    }
}

impl<T: Scalar> Rules<T> for BatchNormRules {
    fn output_len(&self) -> usize {
        self.row()
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        self.scales.param_ranges()
    }

    fn batch_statistics(&self) -> Option<&dyn BatchStatistics<T>> {
        Some(self)
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let [means, variances] = &self.statistics;
        let packed = vectors.iter().flat_map(|vector| {
            let scales = self.scales.pack(&[vector]).into_iter();
            let statistics = vector[means.clone()]
                .iter()
                .chain(&vector[variances.clone()]);
            scales.chain(statistics.copied())
        });
        packed.collect()
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        let affine = self.affine(theta, theta, 0);
        let affine: Vec<[T; 3]> = affine.map(|[a, b]| [a, b, 0.0].map(T::from_f64)).collect();
        let rows = x.chunks_exact(self.row());
        for (x, y) in rows.zip(y.chunks_exact_mut(self.row())) {
            combine(&affine, [x, x], y, |[scale, shift, _], x, _, _| {
                scale * x + shift
            });
        }
    }

    fn backward(&self, primal: &Primal<T>, dx: &mut [T]) {
        let theta = primal.theta;
        if theta.backward.is_empty() {
            let tangent = Tangent::of_gradient(primal);
            return self.backward_tangent(primal, &tangent, dx, Mode::GaussNewton);
        }
        let row = self.row();
        let (slopes, shifts) = theta.backward.split_at(self.scales.channels);
        let turned = slopes.iter().zip(shifts);
        let all = self.affine(theta, theta, 0).zip(turned);
        let c: Vec<[T; 3]> = all
            .map(|([scale, _], (a, b))| [T::from_f64(scale), *a, *b])
            .collect();
        let rows = primal.dy.chunks_exact(row).zip(primal.x.chunks_exact(row));
        for (dx, (dy, x)) in dx.chunks_exact_mut(row).zip(rows) {
            combine(&c, [dy, x], dx, |[scale, slope, shift], dy, x, _| {
                scale * dy + (slope * x + shift)
            });
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let (theta, directions, rx) = (primal.theta, tangent.directions, tangent.rx);
        let row = self.row();
        let coefficients = self.coefficients(theta, directions);
        for (i, ry) in ry.chunks_exact_mut(row).enumerate() {
            let (s, j) = (i / directions.count, i % directions.count);
            let (c, x) = (&coefficients[j], &primal.x[s * row..][..row]);
            match rx.map(|rx| &rx[i * row..][..row]) {
                Some(rx) => combine(c, [rx, x], ry, |[a, v, b], rx, x, _| a * rx + (v * x + b)),
                None => combine(c, [x, x], ry, |[_, v, b], x, _, _| v * x + b),
            }
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let (theta, directions, rdy) = (primal.theta, tangent.directions, tangent.rdy);
        let row = self.row();
        let coefficients = self.coefficients(theta, directions);
        for (i, rdx) in rdx.chunks_exact_mut(row).enumerate() {
            let (s, j) = (i / directions.count, i % directions.count);
            let (c, rdy) = (&coefficients[j], &rdy[i * row..][..row]);
            if mode == Mode::GaussNewton {
                combine(c, [rdy, rdy], rdx, |[a, ..], rdy, _, _| a * rdy);
            } else {
                let dy = &primal.dy[s * row..][..row];
                combine(c, [rdy, dy], rdx, |[a, v, _], rdy, dy, _| a * rdy + v * dy);
            }
        }
    }

    fn gradient_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        gradient: &mut [T],
        write: Write,
        mode: Mode,
    ) {
        let (theta, rdy) = (primal.theta, tangent.rdy);
        let rx = tangent.rx.filter(|_| mode == Mode::Hessian);
        let (row, channels) = (self.row(), self.scales.channels);
        let k = rdy.len() / primal.dy.len();
        let mut totals = vec![[0.0; 2]; k * channels];
        let (mut plain, mut along) = (vec![0.0; channels], vec![0.0; channels]);
        let statistics: Vec<[f64; 2]> = self.statistics_of(theta).collect();
        for (i, rdy) in rdy.chunks_exact(row).enumerate() {
            let (place, j) = (i / k * row..(i / k + 1) * row, i % k);
            let (x, dy) = (&primal.x[place.clone()], &primal.dy[place]);
            let totals = &mut totals[j * channels..][..channels];
            // Σ rdy and Σ rdy x̂
            sums([rdy, rdy], &mut plain, |rdy, _| rdy);
            sums([rdy, x], &mut along, |rdy, x| rdy * x);
            let moments = plain.iter().zip(&along).zip(&statistics);
            for (total, ((plain, along), [mean, r])) in totals.iter_mut().zip(moments) {
                total[0] += r * (along - mean * plain);
                total[1] += plain;
            }
            if let Some(rx) = rx {
                let rx = &rx[i * row..][..row];
                sums([dy, rx], &mut along, |dy, rx| dy * rx);
                for ((total, along), [_, r]) in totals.iter_mut().zip(&along).zip(&statistics) {
                    total[0] += r * along;
                }
            }
        }
        self.scales.write(&totals, gradient, write);
    }
}

impl<T: Scalar> BatchStatistics<T> for BatchNormRules {
    fn count(&self, samples: usize) -> usize {
        self.values(samples)
    }

    fn moments(&self, x: &[T]) -> Vec<ChannelMoments> {
        let (row, channels) = (self.row(), self.scales.channels);
        let n = self.values(x.len() / row) as f64;
        let (mut sum, mut means) = (vec![0.0; channels], vec![0.0; channels]);
        for x in x.chunks_exact(row) {
            sums([x, x], &mut sum, |x, _| x);
            for (mean, sum) in means.iter_mut().zip(&sum) {
                *mean += sum / n;
            }
        }
        // Corrects the rounding error of the means.
        let near: Vec<T> = means.into_iter().map(T::from_f64).collect();
        let mut totals = vec![[0.0; 2]; channels];
        for x in x.chunks_exact(row) {
            distances(&near, x, &mut totals);
        }
        let spreads = near
            .iter()
            .zip(totals)
            .map(|(near, [plain, square])| ChannelMoments {
                mean: near.f64() + plain / n,
                squares: (square - plain * plain / n).max(0.0),
            });
        spreads.collect()
    }

    fn merge(&self, tiles: &[(usize, &[ChannelMoments])]) -> Vec<ChannelMoments> {
        let of_channel = |c: usize| {
            let parts = || {
                let tiles = tiles.iter();
                tiles.map(move |(samples, spreads)| (self.values(*samples) as f64, spreads[c]))
            };
            let n: f64 = parts().map(|(n, _)| n).sum();
            let mean = parts().map(|(n, s)| n * s.mean).sum::<f64>() / n;
            let squares = parts().map(|(n, s)| s.squares + n * (s.mean - mean).powi(2));
            ChannelMoments {
                mean,
                squares: squares.sum(),
            }
        };
        (0..self.scales.channels).map(of_channel).collect()
    }

    fn set_forward(&self, batch: &[ChannelMoments], samples: usize, theta: &mut Packed<T>) {
        let (channels, n) = (self.scales.channels, self.values(samples) as f64);
        let (means, variances) = theta.forward[2 * channels..].split_at_mut(channels);
        for ((m, v), batch) in means.iter_mut().zip(variances).zip(batch) {
            (*m, *v) = (T::from_f64(batch.mean), T::from_f64(batch.squares / n));
        }
    }

    fn update_running(
        &self,
        batch: &[ChannelMoments],
        samples: usize,
        running: &mut [T],
        start: usize,
    ) {
        let n = self.values(samples) as f64;
        let [means, variances] = self.statistics.clone();
        for ((m, v), batch) in means.zip(variances).zip(batch) {
            for (place, value) in [(m, batch.mean), (v, batch.squares / (n - 1.0))] {
                let running = &mut running[place - start];
                *running =
                    T::from_f64((1.0 - self.momentum) * running.f64() + self.momentum * value);
            }
        }
    }

    fn set_backward(&self, gradient: &[f64], samples: usize, theta: &mut Packed<T>) {
        let (channels, n) = (self.scales.channels, self.values(samples) as f64);
        let [weights, ..] = self.rows(theta, 0);
        let (along, plain) = gradient.split_at(channels);
        let sums = along.iter().zip(plain).zip(weights);
        let both = sums.zip(self.statistics_of(theta));
        let both = both.map(|(((along, plain), weight), [mean, r])| {
            let slope = -weight.f64() * r * r * along / n;
            [slope, -weight.f64() * r * plain / n - slope * mean]
        });
        let both: Vec<[f64; 2]> = both.collect();
        theta.backward = [0, 1]
            .map(|i| both.iter().map(move |b| T::from_f64(b[i])))
            .into_iter()
            .flatten()
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};

    #[test]
    fn output_matches_the_formula_and_derivatives_match_differences() {
        for (image, samples, k) in [([3, 4, 5], 3, 2), ([1, 1, 1], 1, 1), ([5, 1, 1], 2, 3)] {
            let [c, h, w] = image;
            // γ starts at index 1 of θ, followed by β; the statistics follow other layers' values.
            let start = 2 * c + 2;
            let rules = BatchNormRules {
                pixels: h * w,
                epsilon: 0.1,
                momentum: 0.1,
                scales: ScaleShift::new(1..c + 1, c + 1..2 * c + 1),
                statistics: [start..start + c, start + c..start + 2 * c],
            };
            let mut tile = Tile::random([c * h * w, c * h * w, start], samples, k, 5);
            let means: Vec<f64> = (0..c).map(|i| 0.3 * i as f64 - 0.5).collect();
            let variances: Vec<f64> = (0..c).map(|i| i as f64).collect();
            tile.theta.extend(means.iter().chain(&variances));
            for v in &mut tile.directions {
                v.resize(tile.theta.len(), 0.0);
            }
            let expected = tile.x.iter().enumerate().map(|(i, x)| {
                let channel = i / (h * w) % c;
                let normal = (x - means[channel]) / (variances[channel] + 0.1).sqrt();
                tile.theta[1 + channel] * normal + tile.theta[1 + c + channel]
            });
            let expected: Vec<f64> = expected.collect();
            close("y", &evaluate::<f64>(&rules, &tile).y, &expected, 1e-13);
            check(&rules, &tile, 1e-10);
            check(&rules, &Tile { rx: None, ..tile }, 1e-10);
        }
    }
}
