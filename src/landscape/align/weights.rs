//! Weight matching: coordinate descent over the groups of units.

use ndarray::Array2;
use rand::seq::SliceRandom;

use super::assignment::assign_clusters;
use super::strips::{Kind, find, permute};
use super::{HiddenUnits, Matching};
use crate::error::Result;
use crate::model::Parameters;
use crate::progress::{self, Progress};
use crate::random::{Purpose, generator};
use crate::vector::{dot, norm};

/// Computes permutations P that maximise ⟨θ₁, Pθ₂⟩ and so minimise ‖θ₁ − Pθ₂‖: one group of units at a time, in a
/// random order per round drawn from `seed`, the best permutation given those of the others, until none changes. This
/// is a local optimum (Ainsworth, Hayase and Srinivasa, 2023, algorithm 1); for one group it is the global one. Running statistics
/// are not compared.
///
/// Without groups the alignment is the identity.
///
/// ```
/// use loss_landscape::landscape::align;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let [a, b] = [0, 1].map(|seed| Mlp::new(&[2, 5, 1], Activation::Tanh, seed, &Device::Cpu));
/// let (a, b) = (a?.to_dtype(DType::F64)?, b?.to_dtype(DType::F64)?);
/// let [at, bt] = [a.parameters().to_flat()?, b.parameters().to_flat()?];
/// let matching = align::match_weights(a.parameters(), &align::hidden_units(&a, &data)?, &at, &bt, 0)?;
/// assert!(matching.similarity_after >= matching.similarity_before);
/// let objective = Objective::of(&b, &data, Loss::CrossEntropy)?; // the same function
/// assert!((objective.loss_at(&matching.apply(&bt)?)? - objective.loss()?).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Points that are not in θ-space; an unknown parameter name; axes that a parameter does not have, that have another
/// number of units than the group's first, or that are named twice.
pub fn match_weights(
    parameters: &Parameters,
    groups: &[HiddenUnits],
    theta_a: &[f64],
    theta_b: &[f64],
    seed: u64,
) -> Result<Matching> {
    parameters.check_vector(theta_a, "first model")?;
    parameters.check_vector(theta_b, "second model")?;
    let groups = find(parameters, groups)?;
    let identity = |kind: &Kind| (0..kind.units).collect();
    let identities = groups
        .iter()
        .map(|group| group.kinds.iter().map(identity).collect());
    let mut permutations: Vec<Vec<Vec<usize>>> = identities.collect();
    let mut moved = theta_b.to_vec();
    let mut rng = generator(Purpose::WeightMatching, seed, 0);
    let mut progress = Progress::start("weight matching");
    let mut turn: Vec<usize> = (0..groups.len()).collect();
    let mut changed = true;
    // Each change increases the inner product by more than rounding, so this terminates.
    while changed {
        changed = false;
        turn.shuffle(&mut rng);
        for g in &turn {
            progress::check()?;
            let group = &groups[*g];
            let kinds = group.kinds.iter();
            let gains: Vec<_> = kinds
                .map(|kind| inner_products(kind, theta_a, &moved))
                .collect();
            let best = assign_clusters(&gains, group.clusters)?;
            let of_kind = group.kinds.iter().zip(&best).zip(&mut permutations[*g]);
            for ((kind, best), permutation) in of_kind {
                if best.iter().enumerate().all(|(i, j)| i == *j) {
                    continue;
                }
                permute(&mut moved, &kind.theta, best);
                *permutation = best.iter().map(|j| permutation[*j]).collect();
                changed = true;
            }
        }
        progress.tick(|| format!("cosine {:.4}", cosine(theta_a, &moved)));
    }
    let similarity = [cosine(theta_a, theta_b), cosine(theta_a, &moved)];
    Ok(Matching::new(
        parameters,
        &groups,
        permutations.concat(),
        similarity,
    ))
}

/// ⟨unit i of a, unit j of b⟩ over all entries of the units.
fn inner_products(kind: &Kind, a: &[f64], b: &[f64]) -> Array2<f64> {
    let n = kind.units;
    kind.theta.iter().fold(Array2::zeros((n, n)), |sum, strip| {
        let rows = |theta: &[f64]| {
            let units = (0..n).flat_map(|unit| strip.entries(unit));
            let values: Vec<f64> = units.map(|i| theta[i]).collect();
            let each = values.len() / n;
            Array2::from_shape_fn((n, each), |(i, j)| values[i * each + j])
        };
        sum + rows(a).dot(&rows(b).t())
    })
}

/// ⟨a, b⟩/(‖a‖‖b‖), or 0 if one of them is zero.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let lengths = norm(a) * norm(b);
    if lengths > 0.0 {
        dot(a, b) / lengths
    } else {
        0.0
    }
}
