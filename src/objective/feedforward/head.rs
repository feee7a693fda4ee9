//! [`Head`]: the loss of the outputs z, its derivative by them, and its curvature.

use super::Scalar;
use crate::objective::Loss;
use crate::simd::vectorised;

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
///
/// It computes in `f64` and without differences of nearly equal numbers: 1 − p of a class is the sum of the others'
/// probabilities. Samples that are classified with large margins have tiny losses and derivatives, and these are right to
/// the rounding of z.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) loss: Loss,
    pub(super) width: usize,
}

impl Head {
    /// The sum of the samples' losses, undivided.
    pub(super) fn loss<T: Scalar>(&self, z: &[T], targets: Targets<T>) -> f64 {
        debug_assert!(matches!(
            (self.loss, targets),
            (Loss::CrossEntropy, Targets::Labels(_)) | (Loss::Mse, Targets::Values(_))
        ));
        match targets {
            Targets::Labels(labels) if self.width == 1 => {
                let margins = z.iter().zip(labels).map(|(z, label)| margin(*z, *label));
                margins.map(|m| (-m).max(0.0) + exp(-m.abs()).ln_1p()).sum()
            }
            Targets::Labels(labels) => {
                let exponentials = Exponentials::of(z, self.width);
                let rows = z.chunks_exact(self.width).zip(exponentials.rows());
                let losses = rows.zip(labels).map(|((z, row), label)| {
                    (z[row.largest].f64() - z[*label as usize].f64()) + row.rest.ln_1p()
                });
                losses.sum()
            }
            Targets::Values(values) => {
                let residuals = z.iter().zip(values).map(|(z, v)| z.f64() - v.f64());
                residuals.map(|r| r * r).sum::<f64>() / self.width as f64
            }
        }
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
            _ => largest(row) as u32,
        };
        let rows = z.chunks_exact(self.width).zip(labels);
        rows.filter(|(row, label)| predicted(row) == **label)
            .count()
    }

    /// dz, the derivative of each sample's loss.
    pub(super) fn gradient<T: Scalar>(&self, z: &[T], targets: Targets<T>, dz: &mut [T]) {
        match targets {
            Targets::Labels(labels) if self.width == 1 => {
                for ((dz, z), label) in dz.iter_mut().zip(z).zip(labels) {
                    let m = margin(*z, *label);
                    let e = exp(-m.abs());
                    let wrong = if m > 0.0 { e } else { 1.0 } / (1.0 + e);
                    *dz = T::of(if *label == 1 { -wrong } else { wrong });
                }
            }
            Targets::Labels(labels) => {
                let exponentials = Exponentials::of(z, self.width);
                let rows = dz.chunks_exact_mut(self.width).zip(exponentials.rows());
                for ((dz, row), label) in rows.zip(labels) {
                    let (total, label) = (1.0 + row.rest, *label as usize);
                    for (d, e) in dz.iter_mut().zip(row.others) {
                        *d = T::of(e / total);
                    }
                    dz[row.largest] = T::of(1.0 / total);
                    dz[label] = T::of(match label == row.largest {
                        true => -row.rest / total,
                        false => -(1.0 + (row.rest - row.others[label])) / total,
                    });
                }
            }
            Targets::Values(values) => {
                let factor = T::of(2.0 / self.width as f64);
                for ((d, z), v) in dz.iter_mut().zip(z).zip(values) {
                    *d = factor * (*z - *v);
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
        let (width, k) = (self.width, rz.len() / z.len());
        let samples = rz
            .chunks_exact(k * width)
            .zip(rdz.chunks_exact_mut(k * width));
        match (curvature, self.loss) {
            (Curvature::Gradients, _) => {
                for (dz, (rz, rdz)) in dz.chunks_exact(width).zip(samples) {
                    for (rz, rdz) in rz.chunks_exact(width).zip(rdz.chunks_exact_mut(width)) {
                        let along = dot(dz, rz);
                        for (r, d) in rdz.iter_mut().zip(dz) {
                            *r = along * *d;
                        }
                    }
                }
            }
            (_, Loss::Mse) => {
                let factor = T::of(2.0 / width as f64);
                for (r, z) in rdz.iter_mut().zip(rz) {
                    *r = factor * *z;
                }
            }
            (_, Loss::CrossEntropy) if width == 1 => {
                for (z, (rz, rdz)) in z.iter().zip(samples) {
                    let e = exp(-z.f64().abs());
                    let curvature = T::of(e / ((1.0 + e) * (1.0 + e)));
                    for (r, z) in rdz.iter_mut().zip(rz) {
                        *r = curvature * *z;
                    }
                }
            }
            (_, Loss::CrossEntropy) => {
                let exponentials = Exponentials::of(z, width);
                for (row, (rz, rdz)) in exponentials.rows().zip(samples) {
                    let total = 1.0 + row.rest;
                    for (rz, rdz) in rz.chunks_exact(width).zip(rdz.chunks_exact_mut(width)) {
                        // (diag p − ppᵀ) rz does not see a shift of rz: the largest class, whose p may round to 1, is at 0.
                        let origin = rz[row.largest].f64();
                        let pairs = row.others.iter().zip(rz);
                        let sum: f64 = pairs.map(|(e, z)| e * (z.f64() - origin)).sum();
                        let mean = sum / total;
                        for ((r, e), z) in rdz.iter_mut().zip(row.others).zip(rz) {
                            *r = T::of(e / total * ((z.f64() - origin) - mean));
                        }
                        rdz[row.largest] = T::of(-mean / total);
                    }
                }
            }
        }
    }
}

/// How far the output of a binary classifier is on the label's side.
fn margin<T: Scalar>(z: T, label: u32) -> f64 {
    if label == 1 { z.f64() } else { -z.f64() }
}

/// Where the largest number is, the first of them.
fn largest<T: Scalar>(row: &[T]) -> usize {
    let mut best = 0;
    for i in 1..row.len() {
        if row[i] > row[best] {
            best = i;
        }
    }
    best
}

fn dot<T: Scalar>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |sum, (a, b)| sum + *a * *b)
}

/// eˣ for x ≤ 0. Where that is no normal number, 0.
#[inline(always)]
fn exp(x: f64) -> f64 {
    if x < -708.0 { 0.0 } else { Scalar::exp(x) }
}

/// exp(z − max z) of some rows of outputs.
struct Exponentials {
    values: Vec<f64>,
    width: usize,
    /// For each row where its largest output is.
    largest: Vec<usize>,
}

/// Of one row. With the sum S of `others` the largest output has the probability 1/(1 + S), and the others e/(1 + S).
struct Row<'a> {
    largest: usize,
    /// exp(z − max z), and 0 for the largest output itself.
    others: &'a [f64],
    /// Their sum.
    rest: f64,
}

impl Exponentials {
    fn of<T: Scalar>(z: &[T], width: usize) -> Self {
        let largest: Vec<usize> = z.chunks_exact(width).map(largest).collect();
        let mut values = vec![0.0; z.len()];
        exponentials(z, &largest, &mut values);
        Self {
            values,
            width,
            largest,
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let rows = self.values.chunks_exact(self.width).zip(&self.largest);
        rows.map(|(others, largest)| Row {
            largest: *largest,
            others,
            rest: others.iter().sum(),
        })
    }
}

vectorised! {
    fn exponentials<T: Scalar>(z: &[T], largest: &[usize], values: &mut [f64]) {
        let width = z.len() / largest.len();
        let rows = z.chunks_exact(width).zip(values.chunks_exact_mut(width));
        for ((z, values), largest) in rows.zip(largest) {
            let top = z[*largest].f64();
            for (value, z) in values.iter_mut().zip(z) {
                *value = exp(z.f64() - top);
            }
            values[*largest] = 0.0;
        }
    }
}
