//! [`LossRules`]: the hand-derived rules of a loss.

use super::cross_entropy::{ClassProbabilities, Rows};
use super::{Loss, binary_cross_entropy, squared_error};
use crate::kernels::Scalar;

/// The targets of several samples, as slices.
#[derive(Clone, Copy)]
pub(crate) enum TargetSlice<'a, T> {
    Labels(&'a [u32]),
    Values(&'a [T]),
    /// Weights u of a linear functional ⟨u, z⟩ of the outputs, in place of a loss: its gradient is Jᵀu.
    Weights(&'a [T]),
}

/// The matrix C between Jᵀ and J in a product JᵀCJv, for each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curvature {
    /// ∇²ℓ in z, together with the network's own second derivatives: the Hessian.
    Hessian,
    /// ∇²ℓ in z: the Gauss–Newton matrix.
    GaussNewton,
    /// ∇²ℓ in z, without the L2 term of the objective.
    Fisher,
    /// (∇ℓ)(∇ℓ)ᵀ in z: the second moment of the samples' gradients, without the L2 term.
    Gradients,
    /// p_y (e_y − p)(e_y − p)ᵀ for cross-entropy: the term of the sample's own class y in the Fisher matrix.
    OwnClass,
    /// Σ p_c (e_c − p)(e_c − p)ᵀ over c ≠ y for cross-entropy: the terms of the other classes in the Fisher matrix.
    OtherClasses,
}

impl Curvature {
    /// Name of a product with the matrix.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hessian => "Hessian-vector product",
            Self::GaussNewton => "Gauss-Newton-vector product",
            Self::Fisher => "Fisher-vector product",
            Self::Gradients => "product with the gradients' second moment",
            Self::OwnClass => "product with the Fisher matrix's terms of the samples' own classes",
            Self::OtherClasses => "product with the Fisher matrix's terms of the other classes",
        }
    }
}

/// The last step of a network: the samples' losses as functions of the outputs z.
///
/// A sample has `positions` rows of `width` outputs, and for cross-entropy a label per row; its loss is `share` times the sum over
/// the rows.
#[derive(Clone, Debug)]
pub(crate) struct LossRules {
    pub(crate) loss: Loss,
    pub(crate) width: usize,
    pub(crate) positions: usize,
    pub(crate) share: f64,
}

impl LossRules {
    /// Number of outputs of a sample.
    pub(crate) fn size(&self) -> usize {
        self.width * self.positions
    }

    fn rows<'a, T>(&'a self, z: &'a [T], labels: &'a [u32]) -> Rows<'a, T> {
        Rows {
            z,
            labels,
            width: self.width,
            settings: self.loss.settings(),
        }
    }

    /// The targets of `len` samples, starting at `start`.
    pub(crate) fn targets_of<'a, T>(
        &self,
        targets: TargetSlice<'a, T>,
        start: usize,
        len: usize,
    ) -> TargetSlice<'a, T> {
        match targets {
            TargetSlice::Labels(labels) => {
                TargetSlice::Labels(&labels[start * self.positions..][..len * self.positions])
            }
            TargetSlice::Values(values) => {
                TargetSlice::Values(&values[start * self.size()..][..len * self.size()])
            }
            TargetSlice::Weights(weights) => {
                TargetSlice::Weights(&weights[start * self.size()..][..len * self.size()])
            }
        }
    }

    /// The sum of the samples' losses, and the number of counted rows whose largest output is at their label.
    pub(crate) fn score<T: Scalar>(&self, z: &[T], targets: TargetSlice<T>) -> (f64, usize) {
        match targets {
            TargetSlice::Labels(labels) => {
                let rows = self.rows(z, labels);
                (self.share * rows.sum(), rows.correct())
            }
            TargetSlice::Values(values) => match self.loss {
                Loss::BinaryCrossEntropy => (binary_cross_entropy::sum(z, values, self.size()), 0),
                _ => (squared_error::sum(z, values, self.size()), 0),
            },
            TargetSlice::Weights(weights) => {
                let products = z.iter().zip(weights).map(|(z, u)| z.f64() * u.f64());
                (products.sum(), 0)
            }
        }
    }

    /// Writes dz, the derivative of each sample's loss.
    pub(crate) fn gradient<T: Scalar>(&self, z: &[T], targets: TargetSlice<T>, dz: &mut [T]) {
        match targets {
            TargetSlice::Labels(labels) => self.rows(z, labels).gradient(self.share, dz),
            TargetSlice::Values(values) => match self.loss {
                Loss::BinaryCrossEntropy => {
                    binary_cross_entropy::gradient(z, values, self.size(), dz);
                }
                _ => squared_error::gradient(z, values, self.size(), dz),
            },
            TargetSlice::Weights(weights) => dz.copy_from_slice(weights),
        }
    }

    /// Writes dz = Sw with a root SSᵀ of each sample's curvature ∇²ℓ, for weights w of its columns. S has as many columns as a sample
    /// has outputs.
    pub(crate) fn curvature_root<T: Scalar>(
        &self,
        z: &[T],
        targets: TargetSlice<T>,
        weights: &[f64],
        dz: &mut [T],
    ) {
        match targets {
            TargetSlice::Labels(labels) => {
                self.rows(z, labels).curvature_root(self.share, weights, dz);
            }
            TargetSlice::Values(_) => match self.loss {
                Loss::BinaryCrossEntropy => {
                    binary_cross_entropy::curvature_root(z, self.size(), weights, dz);
                }
                _ => squared_error::curvature_root(self.size(), weights, dz),
            },
            TargetSlice::Weights(_) => dz.fill(T::ZERO),
        }
    }

    /// Writes rdz for each of `k` tangents rz, for the given curvature.
    pub(crate) fn tangent<T: Scalar>(
        &self,
        curvature: Curvature,
        (z, dz): (&[T], &[T]),
        targets: TargetSlice<T>,
        rz: &[T],
        rdz: &mut [T],
    ) {
        match (curvature, targets) {
            (Curvature::Gradients, _) => outer_product(self.size(), dz, rz, rdz),
            (Curvature::OwnClass | Curvature::OtherClasses, TargetSlice::Labels(labels)) => {
                let rows = self.rows(z, labels);
                rows.class_product(curvature, self.positions, self.share, rz, rdz);
            }
            (_, TargetSlice::Labels(labels)) => {
                let rows = self.rows(z, labels);
                rows.curvature_product(self.positions, self.share, rz, rdz);
            }
            (_, TargetSlice::Values(_)) => match self.loss {
                Loss::BinaryCrossEntropy => {
                    binary_cross_entropy::curvature_product(z, self.size(), rz, rdz);
                }
                _ => squared_error::curvature_product(self.size(), rz, rdz),
            },
            (_, TargetSlice::Weights(_)) => rdz.fill(T::ZERO),
        }
    }

    /// The classes' probabilities in each row of outputs, and the rows' weights; `None` for targets without classes.
    pub(crate) fn class_probabilities(
        &self,
        z: &[f64],
        labels: &[u32],
    ) -> Option<ClassProbabilities> {
        matches!(self.loss, Loss::CrossEntropy | Loss::CrossEntropyWith(_))
            .then(|| self.rows(z, labels).probabilities(self.share))
    }
}

/// Writes rdz = dz dzᵀ rz for each sample of `size` outputs and each tangent.
fn outer_product<T: Scalar>(size: usize, dz: &[T], rz: &[T], rdz: &mut [T]) {
    let k = rz.len() / dz.len();
    let samples = rz
        .chunks_exact(k * size)
        .zip(rdz.chunks_exact_mut(k * size));
    for (dz, (rz, rdz)) in dz.chunks_exact(size).zip(samples) {
        for (rz, rdz) in rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size)) {
            let along = dz.iter().zip(rz).fold(T::ZERO, |sum, (d, r)| sum + *d * *r);
            for (r, d) in rdz.iter_mut().zip(dz) {
                *r = along * *d;
            }
        }
    }
}
