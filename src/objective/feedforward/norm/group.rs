//! [`GroupNorm`]: y = γ (x − μ)/√(σ² + ε) + β with μ and σ² of a group of the sample's channels.

use std::ops::Range;

use super::super::Scalar;
use super::super::layer::{Arranged, At, Layer};
use super::moments::{Group, Moments, statistics};
use super::{Scales, combine};

/// Group normalisation (Wu and He, "Group normalization", 2018) with γ and β of each channel at these
/// places of θ; σ² is the biased variance of a group's pixels.
///
/// Layer normalisation is one group of channels of one pixel.
///
/// With r = 1/√(σ² + ε), x̂ = r(x − μ), M the mean over a group and P(a) = a − M(a) − x̂ M(x̂ a),
///
/// rx̂ = r P(rx), dx = r P(γ dy), dγ = Σ dy x̂ and dβ = Σ dy.
///
/// The notes are μ and r of each group.
pub(in super::super) struct GroupNorm {
    pixels: usize,
    groups: usize,
    epsilon: f64,
    scales: Scales,
}

impl GroupNorm {
    /// For samples of channels × height × width; none where the channels do not divide into the groups
    /// or do not have a γ and a β each.
    pub(in super::super) fn new(
        [channels, height, width]: [usize; 3],
        groups: usize,
        epsilon: f64,
        weight: Range<usize>,
        bias: Range<usize>,
    ) -> Option<Self> {
        let pixels = height.checked_mul(width)?;
        let divides = channels > 0 && pixels > 0 && groups > 0 && channels.is_multiple_of(groups);
        let scales = Scales::new(channels, weight, bias)?;
        (divides && epsilon >= 0.0).then_some(Self {
            pixels,
            groups,
            epsilon,
            scales,
        })
    }

    /// Channels in a group.
    fn together(&self) -> usize {
        self.scales.channels / self.groups
    }

    /// The channels of a group.
    fn channels<T>(&self, group: &Group<T>) -> Range<usize> {
        group.number * self.together()..(group.number + 1) * self.together()
    }

    /// A tile's group with its notes.
    fn group<T: Scalar>(&self, number: usize, [mean, r]: [T; 2]) -> Group<T> {
        Group {
            sample: number / self.groups,
            number: number % self.groups,
            of: self.groups,
            size: self.together() * self.pixels,
            mean,
            r: r.f64(),
        }
    }

    /// A tile's groups.
    fn groups<T: Scalar>(&self, notes: &[T]) -> impl Iterator<Item = Group<T>> {
        let notes = notes.chunks_exact(2).enumerate();
        notes.map(|(i, notes)| self.group(i, [notes[0], notes[1]]))
    }

    /// Room for the coefficients of a group's channels.
    fn coefficients<T: Scalar>(&self) -> Vec<[T; 3]> {
        vec![[T::ZERO; 3]; self.together()]
    }
}

impl<T: Scalar> Layer<T> for GroupNorm {
    fn outputs(&self) -> usize {
        self.scales.channels * self.pixels
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn notes(&self) -> usize {
        2 * self.groups
    }

    fn places(&self) -> Vec<Range<usize>> {
        self.scales.places()
    }

    fn arrange_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        self.scales.arrange(vectors)
    }

    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], notes: &mut [T]) {
        let size = self.together() * self.pixels;
        let mut coefficients = self.coefficients();
        let rows = x.chunks_exact(size).zip(y.chunks_exact_mut(size));
        for (i, (x, y)) in rows.enumerate() {
            let [mean, r] = statistics(x, self.epsilon);
            if !notes.is_empty() {
                notes[2 * i..][..2].copy_from_slice(&[mean, r]);
            }
            let group = self.group(i, [mean, r]);
            let [weight, bias] = self.scales.of(theta, 0, self.channels(&group));
            for ((c, weight), bias) in coefficients.iter_mut().zip(weight).zip(bias) {
                *c = [r * *weight, *bias, T::ZERO];
            }
            combine(&coefficients, [x, x], y, |[scale, shift, _], x, _, _| {
                scale * (x - mean) + shift
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
        let k = directions.count;
        let mut coefficients = self.coefficients();
        for group in self.groups(at.notes) {
            let (x, channels) = (&at.x[group.row()], self.channels(&group));
            let [weight, _] = self.scales.of(theta, 0, channels.clone());
            let (mean, r) = (group.mean, group.r);
            for j in 0..k {
                let row = group.tangent(j, k);
                let [v, shift] = self.scales.of(directions, j, channels.clone());
                let scales = weight.iter().zip(v).zip(shift);
                let ry = &mut ry[row.clone()];
                // ry = Vγ x̂ + Vβ + γ r P(rx)
                let Some(rx) = rx else {
                    for (c, ((_, v), shift)) in coefficients.iter_mut().zip(scales) {
                        *c = [T::of(r * v.f64()), *shift, T::ZERO];
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
                    *c = [scale, slope, shift].map(T::of);
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
        (theta, at): (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    ) {
        let k = directions.count;
        let mut coefficients = self.coefficients();
        let [mut of_dy, mut of_rdy] = [(); 2].map(|()| Moments::new(self.together()));
        let mut turned = vec![0.0; self.together()];
        for group in self.groups(at.notes) {
            let channels = self.channels(&group);
            let (x, dy) = (&at.x[group.row()], &at.dy[group.row()]);
            let [weight, _] = self.scales.of(theta, 0, channels.clone());
            let (mean, r) = (group.mean, group.r);
            if !gauss_newton {
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
                if gauss_newton {
                    continue;
                }
                let [v, _] = self.scales.of(directions, j, channels.clone());
                let (mut plain, mut along, mut across) = (0.0, 0.0, 0.0);
                if let Some(rx) = rx {
                    let rx = &rx[row];
                    [plain, along] = group.means(rx, x);
                    group.turned([plain, along], [dy, rx], &of_dy, &mut turned);
                    across = group.mean(weight, &turned);
                    // The part of −r rx̂ M(x̂ g) that is not along 1 or x̂.
                    let back = T::of(-r * r * along_g);
                    combine(&coefficients, [rx, rx], rdx, |_, rx, _, rdx| {
                        rdx + back * rx
                    });
                }
                // With g = γ dy and q = r M(x̂ rx), there are r P(Vγ dy) − r q P(g) and, of what P itself
                // turns by, −r rx̂ M(x̂ g) − r x̂ M(rx̂ g).
                let q = r * along;
                for ((c, weight), v) in coefficients.iter_mut().zip(weight).zip(v) {
                    c[0] = T::of(r * (v.f64() - q * weight.f64()));
                }
                let plain_v = group.mean(v, &of_dy.plain);
                let along_v = group.mean(v, &of_dy.along);
                let shift = T::of(r * (q * plain_g - plain_v + r * plain * along_g));
                let slope = T::of(r * r * (2.0 * q * along_g - along_v - across));
                combine(&coefficients, [dy, x], rdx, |[scale, ..], dy, x, rdx| {
                    rdx + scale * dy + (slope * (x - mean) + shift)
                });
            }
        }
    }

    fn gradient_tangent(
        &self,
        (_, at): (&Arranged<T>, &At<T>),
        rx: Option<&[T]>,
        rdy: &[T],
        gradient: &mut [T],
        first: bool,
        gauss_newton: bool,
    ) {
        let k = rdy.len() / at.dy.len();
        let mut totals = vec![[0.0; 2]; k * self.scales.channels];
        let [mut of_dy, mut of_rdy] = [(); 2].map(|()| Moments::new(self.together()));
        let mut turned = vec![0.0; self.together()];
        let rx = rx.filter(|_| !gauss_newton);
        for group in self.groups(at.notes) {
            let (x, dy) = (&at.x[group.row()], &at.dy[group.row()]);
            if rx.is_some() {
                group.moments(dy, x, &mut of_dy);
            }
            for j in 0..k {
                let row = group.tangent(j, k);
                if let Some(rx) = rx {
                    let rx = &rx[row.clone()];
                    group.turned(group.means(rx, x), [dy, rx], &of_dy, &mut turned);
                }
                // Σ rdy x̂ + dy rx̂ and Σ rdy
                group.moments(&rdy[row], x, &mut of_rdy);
                let totals = &mut totals[j * self.scales.channels..][self.channels(&group)];
                let sums = of_rdy.along.iter().zip(&turned).zip(&of_rdy.plain);
                for (total, ((along, turned), plain)) in totals.iter_mut().zip(sums) {
                    total[0] += along + turned;
                    total[1] += plain;
                }
            }
        }
        self.scales.write(&totals, gradient, first);
    }
}
