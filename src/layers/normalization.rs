//! [`GroupedNorm`]: y = γ (x − μ)/√(σ² + ε) + β with μ and σ² of each group of values.

use std::ops::Range;

use super::normalized_group::{Group, Moments, statistics};
use super::rules::{Mode, Packed, Primal, Rules, Tangent, Write};
use super::scale_shift::ScaleShift;
use crate::kernels::Scalar;
use crate::kernels::channels::combine;

/// Rules of layers that normalise groups of neighbouring values of a sample; σ² is the biased variance of a group.
///
/// With r = 1/√(σ² + ε), x̂ = r(x − μ), M the mean over a group and P(a) = a − M(a) − x̂ M(x̂ a),
///
/// rx̂ = r P(rx), dx = r P(γ dy), dγ = Σ dy x̂ and dβ = Σ dy.
///
/// A group of one value is its own mean: x̂ = 0 and P = 0. Rounding would leave a remainder of P that r = 1/√ε makes large.
///
/// μ and r of each group are cached.
pub(crate) struct GroupedNorm {
    /// Number of groups in a sample.
    pub(crate) groups: usize,
    /// Number of channels per group, each with its own γ and β.
    pub(crate) channels: usize,
    /// Number of values per channel.
    pub(crate) pixels: usize,
    pub(crate) epsilon: f64,
    pub(crate) scales: ScaleShift,
    pub(crate) sharing: Sharing,
}

/// Which γ and β the channels of a group use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Each group has its own.
    ByGroup,
    /// All groups share them.
    Shared,
}

impl GroupedNorm {
    /// Indices of the γ and β of a group's channels.
    fn channels_of<T>(&self, group: &Group<T>) -> Range<usize> {
        let start = match self.sharing {
            Sharing::ByGroup => group.index * self.channels,
            Sharing::Shared => 0,
        };
        start..start + self.channels
    }

    /// Number of values in a group.
    fn size(&self) -> usize {
        self.channels * self.pixels
    }

    /// A tile's group with its cached statistics.
    fn group<T: Scalar>(&self, number: usize, [mean, r]: [T; 2]) -> Group<T> {
        Group {
            sample: number / self.groups,
            index: number % self.groups,
            groups: self.groups,
            size: self.size(),
            mean,
            r: r.f64(),
        }
    }

    /// A tile's groups.
    fn groups<T: Scalar>(&self, cached: &[T]) -> impl Iterator<Item = Group<T>> {
        let cached = cached.chunks_exact(2).enumerate();
        cached.map(|(i, cached)| self.group(i, [cached[0], cached[1]]))
    }

    /// A buffer for the coefficients of a group's channels.
    fn coefficients<T: Scalar>(&self) -> Vec<[T; 3]> {
        vec![[T::ZERO; 3]; self.channels]
    }
}

impl<T: Scalar> Rules<T> for GroupedNorm {
    fn output_len(&self) -> usize {
        self.groups * self.size()
    }

    fn needs_input(&self) -> bool {
        true
    }

    fn cached_len(&self) -> usize {
        2 * self.groups
    }

    fn param_ranges(&self) -> Vec<Range<usize>> {
        self.scales.param_ranges()
    }

    fn pack_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        self.scales.pack(vectors)
    }

    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        let size = self.size();
        let mut coefficients = self.coefficients();
        let rows = x.chunks_exact(size).zip(y.chunks_exact_mut(size));
        for (i, (x, y)) in rows.enumerate() {
            let [mean, r] = statistics(x, self.epsilon);
            if !cached.is_empty() {
                cached[2 * i..][..2].copy_from_slice(&[mean, r]);
            }
            let group = self.group(i, [mean, r]);
            let [weight, bias] = self
                .scales
                .channel_params(theta, 0, self.channels_of(&group));
            for ((c, weight), bias) in coefficients.iter_mut().zip(weight).zip(bias) {
                *c = [r * *weight, *bias, T::ZERO];
            }
            combine(&coefficients, [x, x], y, |[scale, shift, _], x, _, _| {
                scale * (x - mean) + shift
            });
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        let (theta, directions) = (primal.theta, tangent.directions);
        let rx = tangent.rx.filter(|_| self.size() > 1);
        let k = directions.count;
        let mut coefficients = self.coefficients();
        for group in self.groups(primal.cached) {
            let (x, channels) = (&primal.x[group.row()], self.channels_of(&group));
            let [weight, _] = self.scales.channel_params(theta, 0, channels.clone());
            let (mean, r) = (group.mean, group.r);
            for j in 0..k {
                let row = group.tangent(j, k);
                let [v, shift] = self.scales.channel_params(directions, j, channels.clone());
                let scales = weight.iter().zip(v).zip(shift);
                let ry = &mut ry[row.clone()];
                // ry = Vγ x̂ + Vβ + γ r P(rx)
                let Some(rx) = rx else {
                    for (c, ((_, v), shift)) in coefficients.iter_mut().zip(scales) {
                        *c = [T::from_f64(r * v.f64()), *shift, T::ZERO];
                    }
                    combine(&coefficients, [x, x], ry, |[slope, shift, _], x, _, _| {
                        slope * (x - mean) + shift
                    });
                    continue;
                };
                let rx = &rx[row];
                let [plain, along] = group.means(rx, x);
                for (c, ((weight, v), shift)) in coefficients.iter_mut().zip(scales) {
                    let scale = r * weight.f64();
                    let slope = r * (v.f64() - scale * along);
                    let shift = shift.f64() - scale * plain;
                    *c = [scale, slope, shift].map(T::from_f64);
                }
                combine(
                    &coefficients,
                    [rx, x],
                    ry,
                    |[scale, slope, shift], rx, x, _| scale * rx + (slope * (x - mean) + shift),
                );
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
        if self.size() == 1 {
            rdx.fill(T::ZERO);
            return;
        }
        let (theta, directions, rx) = (primal.theta, tangent.directions, tangent.rx);
        let rdy = tangent.rdy;
        let k = directions.count;
        let mut coefficients = self.coefficients();
        let [mut of_dy, mut of_rdy] = [(); 2].map(|()| Moments::new(self.channels));
        let mut tangent_sums = vec![0.0; self.channels];
        for group in self.groups(primal.cached) {
            let channels = self.channels_of(&group);
            let (x, dy) = (&primal.x[group.row()], &primal.dy[group.row()]);
            let [weight, _] = self.scales.channel_params(theta, 0, channels.clone());
            let (mean, r) = (group.mean, group.r);
            if mode == Mode::Hessian {
                group.moments(dy, x, &mut of_dy);
            }
            let along_g = group.mean(weight, &of_dy.along);
            let plain_g = group.mean(weight, &of_dy.plain);
            for j in 0..k {
                let row = group.tangent(j, k);
                let (rdy, rdx) = (&rdy[row.clone()], &mut rdx[row.clone()]);
                // r P(γ rdy)
                group.moments(rdy, x, &mut of_rdy);
                group.pull_back(weight, [x, rdy], &of_rdy, &mut coefficients, rdx);
                if mode == Mode::GaussNewton {
                    continue;
                }
                let [v, _] = self.scales.channel_params(directions, j, channels.clone());
                let (mut plain, mut along, mut across) = (0.0, 0.0, 0.0);
                if let Some(rx) = rx {
                    let rx = &rx[row];
                    [plain, along] = group.means(rx, x);
                    group.tangent_sums([plain, along], [dy, rx], &of_dy, &mut tangent_sums);
                    across = group.mean(weight, &tangent_sums);
                    // The rx term of −r rx̂ M(x̂ g); its other terms are along 1 and x̂.
                    let back = T::from_f64(-r * r * along_g);
                    combine(&coefficients, [rx, rx], rdx, |_, rx, _, rdx| {
                        rdx + back * rx
                    });
                }
                // With g = γ dy and q = r M(x̂ rx), this is r P(Vγ dy) − r q P(g), plus −r rx̂ M(x̂ g) − r x̂ M(rx̂
                // g) from the derivative of P itself.
                let q = r * along;
                for ((c, weight), v) in coefficients.iter_mut().zip(weight).zip(v) {
                    c[0] = T::from_f64(r * (v.f64() - q * weight.f64()));
                }
                let plain_v = group.mean(v, &of_dy.plain);
                let along_v = group.mean(v, &of_dy.along);
                let shift = T::from_f64(r * (q * plain_g - plain_v + r * plain * along_g));
                let slope = T::from_f64(r * r * (2.0 * q * along_g - along_v - across));
                combine(&coefficients, [dy, x], rdx, |[scale, ..], dy, x, rdx| {
                    rdx + scale * dy + (slope * (x - mean) + shift)
                });
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
        let rdy = tangent.rdy;
        let k = rdy.len() / primal.dy.len();
        let mut totals = vec![[0.0; 2]; k * self.scales.channels];
        let [mut of_dy, mut of_rdy] = [(); 2].map(|()| Moments::new(self.channels));
        let mut tangent_sums = vec![0.0; self.channels];
        let rx = tangent.rx;
        let rx = rx.filter(|_| mode == Mode::Hessian && self.size() > 1);
        for group in self.groups(primal.cached) {
            let (x, dy) = (&primal.x[group.row()], &primal.dy[group.row()]);
            if rx.is_some() {
                group.moments(dy, x, &mut of_dy);
            }
            for j in 0..k {
                let row = group.tangent(j, k);
                if let Some(rx) = rx {
                    let rx = &rx[row.clone()];
                    group.tangent_sums(group.means(rx, x), [dy, rx], &of_dy, &mut tangent_sums);
                }
                // Σ rdy x̂ + dy rx̂ and Σ rdy
                group.moments(&rdy[row], x, &mut of_rdy);
                let totals = &mut totals[j * self.scales.channels..][self.channels_of(&group)];
                let sums = of_rdy.along.iter().zip(&tangent_sums).zip(&of_rdy.plain);
                for (total, ((along, tangent_sum), plain)) in totals.iter_mut().zip(sums) {
                    total[0] += along + tangent_sum;
                    total[1] += plain;
                }
            }
        }
        self.scales.write(&totals, gradient, write);
    }
}
