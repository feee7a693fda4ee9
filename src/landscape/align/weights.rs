//! Weight matching: coordinate descent over the groups of units.

use ndarray::Array2;
use rand::seq::SliceRandom;

use super::assignment::assign_clusters;
use super::strips::{Group, Kind, Strip, find_groups, permute};
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
/// The better of two starts is returned: θ₂ itself, and an arrangement found group by group in the given order, where a group
/// compares only the entries along groups that come before it. From the second, a permuted copy of a deep network is found again.
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
    let groups = find_groups(parameters, groups)?;
    let mut progress = Progress::start("weight matching");
    let start = Arrangement::new(&groups, theta_b);
    let mut best = start
        .clone()
        .descend(&groups, theta_a, seed, &mut progress)?;
    if groups.len() > 1 {
        let built = start.build(&groups, theta_a)?;
        let other = built.descend(&groups, theta_a, seed, &mut progress)?;
        if cosine(theta_a, &other.theta) > cosine(theta_a, &best.theta) + 1e-12 {
            best = other;
        }
    }
    let similarity = [cosine(theta_a, theta_b), cosine(theta_a, &best.theta)];
    let permutations = best.permutations.concat();
    Ok(Matching::new(parameters, &groups, permutations, similarity))
}

/// θ₂ with its units permuted.
#[derive(Clone)]
struct Arrangement {
    theta: Vec<f64>,
    /// The permutation of each kind of each group.
    permutations: Vec<Vec<Vec<usize>>>,
}

impl Arrangement {
    fn new(groups: &[Group], theta: &[f64]) -> Self {
        let identity = |kind: &Kind| (0..kind.units).collect();
        let of_group = |group: &Group| group.kinds.iter().map(identity).collect();
        Self {
            theta: theta.to_vec(),
            permutations: groups.iter().map(of_group).collect(),
        }
    }

    /// Permutes one group after another until none changes.
    fn descend(
        mut self,
        groups: &[Group],
        a: &[f64],
        seed: u64,
        progress: &mut Progress,
    ) -> Result<Self> {
        let mut rng = generator(Purpose::WeightMatching, seed, 0);
        let mut turn: Vec<usize> = (0..groups.len()).collect();
        let mut changed = true;
        // Each change increases the inner product by more than rounding, so this terminates.
        while changed {
            changed = false;
            turn.shuffle(&mut rng);
            for g in &turn {
                changed |= self.permute(*g, &groups[*g], a)?;
            }
            progress.tick(|| format!("cosine {:.4}", cosine(a, &self.theta)));
        }
        Ok(self)
    }

    /// Permutes each group once, comparing only entries that lie along no later group.
    fn build(mut self, groups: &[Group], a: &[f64]) -> Result<Self> {
        let entries = |group: &Group| -> Vec<usize> {
            let strips = group.kinds.iter().flat_map(|kind| &kind.theta);
            strips.flat_map(Strip::all_entries).collect()
        };
        // Number of groups along each entry that are not permuted yet.
        let mut open = vec![0u8; a.len()];
        let along: Vec<Vec<usize>> = groups.iter().map(entries).collect();
        along.iter().flatten().for_each(|i| open[*i] += 1);
        for (g, (group, along)) in groups.iter().zip(&along).enumerate() {
            let visible = a.iter().zip(&open);
            let visible = visible.map(|(a, open)| if *open <= 1 { *a } else { 0.0 });
            self.permute(g, group, &visible.collect::<Vec<_>>())?;
            along.iter().for_each(|i| open[*i] -= 1);
        }
        Ok(self)
    }

    /// Finds the best permutation of a group, and returns whether it changes anything.
    fn permute(&mut self, g: usize, group: &Group, a: &[f64]) -> Result<bool> {
        progress::check()?;
        let kinds = group.kinds.iter();
        let gains = kinds.map(|kind| inner_products(kind, a, &self.theta));
        let best = assign_clusters(&gains.collect::<Vec<_>>(), group.clusters)?;
        let mut changed = false;
        let of_kind = group.kinds.iter().zip(&best).zip(&mut self.permutations[g]);
        for ((kind, best), permutation) in of_kind {
            if best.iter().enumerate().any(|(i, j)| i != *j) {
                permute(&mut self.theta, &kind.theta, best);
                *permutation = best.iter().map(|j| permutation[*j]).collect();
                changed = true;
            }
        }
        Ok(changed)
    }
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
