//! Batch normalisation in a step of training: what it takes of the whole batch.

use super::super::Scalar;
use super::super::layer::Arranged;
use super::{BatchNorm, distances, sums};

/// Some numbers of a channel: their mean, and the sum of their squared distances from it.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Spread {
    mean: f64,
    squares: f64,
}

impl BatchNorm {
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

    /// Moves the running mean and variance towards a batch's mean and unbiased variance; `running` are a point's numbers
    /// from `start` on.
    pub(in super::super) fn move_running<T: Scalar>(
        &self,
        batch: &[Spread],
        samples: usize,
        (running, start): (&mut [T], usize),
    ) {
        let n = self.count(samples) as f64;
        let [means, variances] = self.statistics.clone();
        for ((m, v), batch) in means.zip(variances).zip(batch) {
            for (place, value) in [(m, batch.mean), (v, batch.squares / (n - 1.0))] {
                let running = &mut running[place - start];
                *running = T::of((1.0 - self.momentum) * running.f64() + self.momentum * value);
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
        let both = sums.zip(self.statistics_of(theta));
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
}
