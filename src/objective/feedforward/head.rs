//! [`Head`]: the loss of the outputs z, its derivative by them, and its curvature.

use super::Scalar;
use crate::objective::Loss;

/// Where the loss meets the targets of some samples.
#[derive(Clone, Copy)]
pub(super) enum Targets<'a, T> {
    Labels(&'a [u32]),
    Values(&'a [T]),
}

impl<'a, T> Targets<'a, T> {
    pub(super) fn rows(self, start: usize, samples: usize, width: usize) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(&labels[start..start + samples]),
            Self::Values(values) => Self::Values(&values[start * width..][..samples * width]),
        }
    }
}

/// Which matrix stands between Jᵀ and J, for each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curvature {
    /// ∇²ℓ by z, with the network's own second derivatives: the Hessian.
    Hessian,
    /// ∇²ℓ by z: Gauss and Newton's matrix.
    GaussNewton,
    /// The same, without the L2 term of the objective.
    Fisher,
    /// (∇ℓ)(∇ℓ)ᵀ by z: the second moment of the samples' gradients, without the L2 term.
    Gradients,
}

impl Curvature {
    /// What a product with it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hessian => "Hessian-vector product",
            Self::GaussNewton => "Gauss-Newton-vector product",
            Self::Fisher => "Fisher-vector product",
            Self::Gradients => "product with the gradients' second moment",
        }
    }
}

/// The last step of every network: the sum of the samples' losses.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) loss: Loss,
    pub(super) width: usize,
}

impl Head {
    /// The sum of the samples' losses, undivided.
    pub(super) fn loss<T: Scalar>(&self, z: &[T], targets: Targets<T>) -> f64 {
        let rows = z.chunks_exact(self.width).enumerate();
        let of_row = |(i, row): (usize, &[T])| match targets {
            Targets::Labels(labels) if self.width == 1 => {
                row[0].softplus().f64() - f64::from(labels[i]) * row[0].f64()
            }
            Targets::Labels(labels) => {
                let (largest, total) = log_sum(row);
                largest.f64() + total.f64().ln() - row[labels[i] as usize].f64()
            }
            Targets::Values(values) => {
                let values = &values[i * self.width..];
                let squares = row
                    .iter()
                    .zip(values)
                    .map(|(z, v)| (z.f64() - v.f64()).powi(2));
                squares.sum::<f64>() / self.width as f64
            }
        };
        debug_assert!(matches!(
            (self.loss, targets),
            (Loss::CrossEntropy, Targets::Labels(_)) | (Loss::Mse, Targets::Values(_))
        ));
        rows.map(of_row).sum()
    }

    /// The sum of the samples' losses, and how many have their largest output at their label.
    pub(super) fn score<T: Scalar>(&self, z: &[T], targets: Targets<T>) -> (f64, usize) {
        let right = match targets {
            Targets::Labels(labels) => self.right(z, labels),
            Targets::Values(_) => 0,
        };
        (self.loss(z, targets), right)
    }

    fn right<T: Scalar>(&self, z: &[T], labels: &[u32]) -> usize {
        let predicted = |row: &[T]| match row {
            [z] => u32::from(*z > T::ZERO),
            _ => {
                let mut best = 0;
                for i in 1..row.len() {
                    if row[i] > row[best] {
                        best = i;
                    }
                }
                best as u32
            }
        };
        let rows = z.chunks_exact(self.width).zip(labels);
        rows.filter(|(row, label)| predicted(row) == **label)
            .count()
    }

    /// dz, the derivative of each sample's loss.
    pub(super) fn gradient<T: Scalar>(&self, z: &[T], targets: Targets<T>, dz: &mut [T]) {
        let rows = z
            .chunks_exact(self.width)
            .zip(dz.chunks_exact_mut(self.width));
        for (i, (z, dz)) in rows.enumerate() {
            match targets {
                Targets::Labels(labels) if self.width == 1 => {
                    dz[0] = z[0].sigmoid() - T::of(f64::from(labels[i]));
                }
                Targets::Labels(labels) => {
                    softmax(z, dz);
                    dz[labels[i] as usize] += -T::ONE;
                }
                Targets::Values(values) => {
                    let factor = T::of(2.0 / self.width as f64);
                    let values = &values[i * self.width..];
                    for ((d, z), v) in dz.iter_mut().zip(z).zip(values) {
                        *d = factor * (*z - *v);
                    }
                }
            }
        }
    }

    /// rdz for each of `k` tangents rz, by the given curvature.
    pub(super) fn tangent<T: Scalar>(
        &self,
        curvature: Curvature,
        z: &[T],
        dz: &[T],
        rz: &[T],
        rdz: &mut [T],
    ) {
        let k = rz.len() / z.len();
        let mut p = vec![T::ZERO; self.width];
        let rows = z.chunks_exact(self.width).zip(dz.chunks_exact(self.width));
        let tangents = rz
            .chunks_exact(k * self.width)
            .zip(rdz.chunks_exact_mut(k * self.width));
        for ((z, dz), (rz, rdz)) in rows.zip(tangents) {
            if self.width > 1 && self.loss == Loss::CrossEntropy {
                softmax(z, &mut p);
            }
            let rows = rz
                .chunks_exact(self.width)
                .zip(rdz.chunks_exact_mut(self.width));
            for (rz, rdz) in rows {
                match (curvature, self.loss) {
                    (Curvature::Gradients, _) => {
                        let along = dot(dz, rz);
                        for (r, d) in rdz.iter_mut().zip(dz) {
                            *r = along * *d;
                        }
                    }
                    (_, Loss::Mse) => {
                        let factor = T::of(2.0 / self.width as f64);
                        for (r, z) in rdz.iter_mut().zip(rz) {
                            *r = factor * *z;
                        }
                    }
                    (_, Loss::CrossEntropy) if self.width == 1 => {
                        let s = z[0].sigmoid();
                        rdz[0] = s * (T::ONE - s) * rz[0];
                    }
                    (_, Loss::CrossEntropy) => {
                        let mean = dot(&p, rz);
                        for ((r, p), z) in rdz.iter_mut().zip(&p).zip(rz) {
                            *r = *p * (*z - mean);
                        }
                    }
                }
            }
        }
    }
}

fn dot<T: Scalar>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |sum, (a, b)| sum + *a * *b)
}

/// m = max z and Σ exp(z − m).
fn log_sum<T: Scalar>(z: &[T]) -> (T, T) {
    let largest = z.iter().fold(z[0], |m, z| m.max(*z));
    let total = z.iter().fold(T::ZERO, |sum, z| sum + (*z - largest).exp());
    (largest, total)
}

fn softmax<T: Scalar>(z: &[T], p: &mut [T]) {
    let (largest, _) = log_sum(z);
    let mut total = T::ZERO;
    for (p, z) in p.iter_mut().zip(z) {
        *p = (*z - largest).exp();
        total += *p;
    }
    for p in p {
        *p = *p / total;
    }
}
