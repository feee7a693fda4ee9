//! Seeded random numbers: an independent stream for each purpose, seed and index.
//!
//! Estimates that are compared must not share random vectors, even with the same seed. The ChaCha key of a stream therefore
//! contains the purpose.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Purpose of a random stream.
///
/// The discriminants are part of the key: changing one changes all results.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// Start vectors and restarts of [`Lanczos`](crate::spectral::Lanczos).
    Lanczos = 1,
    /// Start vector of [`PowerIteration`](crate::spectral::PowerIteration).
    PowerIteration = 2,
    /// Probes of [`Trace`](crate::spectral::Trace).
    Trace = 3,
    /// Vectors whose images span the range in Hutch++.
    TraceRange = 4,
    /// Probes of [`Diagonal`](crate::spectral::Diagonal).
    Diagonal = 5,
    /// Probes of [`DensitySettings`](crate::spectral::DensitySettings).
    Density = 6,
    /// Probes of [`Alignment`](crate::spectral::Alignment).
    Alignment = 7,
    /// Directions of lines and planes.
    Direction = 8,
    /// Directions of a random search for the worst perturbation.
    RandomSearch = 9,
    /// Lengths of the perturbations of a random search.
    RandomSearchRadius = 10,
    /// Perturbations on the sphere of average-case sharpness.
    SphereSharpness = 11,
    /// Random starts of the worst-case search for sharpness.
    WorstCase = 12,
    /// Weights drawn from the posterior of [`PacBayes`](crate::landscape::PacBayes).
    PacBayes = 13,
    /// Order in which weight matching visits the groups of units.
    WeightMatching = 14,
    /// Times along a path that is trained.
    PathTimes = 15,
    /// Gaussian perturbations of average-case sharpness.
    GaussianSharpness = 16,
    /// Initial layout of UMAP.
    UmapStart = 17,
    /// Negative samples of UMAP.
    UmapNegatives = 18,
    /// Initial weights of the autoencoder.
    Autoencoder = 19,
    /// Vector that identifies the operator of a file of products.
    Fingerprint = 20,
    /// Point and direction of the check of derivatives.
    DerivativeCheck = 21,
    /// Directions in which flatness is measured.
    Flatness = 22,
    /// Signs of the perturbations that measure the rounding of a loss.
    Rounding = 23,
    /// Vectors that check the symmetry of an [`External`](crate::operator::External) matrix.
    Symmetry = 24,
    /// Random lists of the fit of a [`PowerLaw`](crate::spectral::PowerLaw).
    PowerLaw = 25,
    /// Samples of a random subset of a dataset.
    Subsample = 40,
    /// Probes of the sampling error of a trace.
    SubsampleTrace = 41,
    /// Random starts of the search for Keskar et al.'s sharpness.
    Keskar = 60,
    /// Samples that get a wrong label, and the labels.
    LabelNoise = 61,
    /// Samples and separating direction of [`linearly_separable`](crate::data::synthetic::linearly_separable).
    LinearlySeparable = 62,
    /// Positions of the windows of a [`Text`](crate::data::Text).
    TextWindows = 63,
    /// Searches between the checks of [`Following`](crate::spectral::Following).
    Following = 64,
    /// Chains of [`LearningCoefficient`](crate::landscape::LearningCoefficient).
    LearningCoefficient = 65,
    /// Batches of [`BatchSharpness`](crate::landscape::BatchSharpness).
    BatchSharpness = 66,
    /// Signs of the backward passes of [`Kfac`](crate::operator::Kfac).
    Kfac = 67,
    /// Gaussian matrices of [`OutlierTest`](crate::spectral::OutlierTest).
    OutlierTest = 80,
    /// Batches of [`MSharpness`](crate::landscape::MSharpness).
    MSharpness = 70,
    /// Steps of the optimisation of [`DiagonalPacBayes`](crate::landscape::DiagonalPacBayes).
    PacBayesSteps = 71,
}

/// Returns the generator of the `index`-th stream for `purpose` and `seed`.
pub(crate) fn generator(purpose: Purpose, seed: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Returns `n` independent standard normal numbers of the `index`-th stream for `purpose` and `seed`.
pub(crate) fn normal(n: usize, purpose: Purpose, seed: u64, index: u64) -> Vec<f64> {
    StandardNormal
        .sample_iter(generator(purpose, seed, index))
        .take(n)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::dot;

    #[test]
    fn streams_of_different_purposes_seeds_and_indices_are_independent() {
        let n = 10_000;
        let first = normal(n, Purpose::Trace, 7, 0);
        assert_eq!(first, normal(n, Purpose::Trace, 7, 0));
        for other in [
            normal(n, Purpose::Lanczos, 7, 0),
            normal(n, Purpose::Trace, 8, 0),
            normal(n, Purpose::Trace, 7, 1),
        ] {
            let correlation = dot(&first, &other) / n as f64;
            assert!(correlation.abs() < 0.04, "{correlation}"); // four standard errors
        }
    }
}
