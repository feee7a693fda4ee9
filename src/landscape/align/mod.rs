//! Permutations of hidden units that bring one model closer to another.
//!
//! Permuting the units of a layer, together with all parameters along them, does not change the function, so two
//! trainings find two of many equivalent arrangements. The barrier on the straight line between them is often lower
//! after alignment, and for some wide networks it vanishes (Ainsworth, Hayase and Srinivasa, "Git Re-Basin: merging
//! models modulo permutation symmetries", 2023). [`match_weights`] compares parameters, [`match_activations`] the
//! units' responses to data (Li et al., "Convergent learning", 2016).

mod activations;
mod assignment;
mod hidden_units;
mod strips;
mod weights;

pub use activations::match_activations;
pub(super) use hidden_units::find_units;
pub use hidden_units::hidden_units;
pub use weights::match_weights;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use self::strips::{Group, Kind, Strip, permute};
use crate::error::{Error, Result, counted};
use crate::parameters::Parameters;

/// Hidden units that can be permuted among themselves, and the axes of parameters along them.
///
/// All layers that write to and read from one stream of residual blocks share one group. Attention has two kinds of units in one
/// group: the features of queries and keys, and those of values. A permutation exchanges features within a head, and whole heads.
///
/// ```
/// use loss_landscape::landscape::{HiddenUnits, UnitAxis, align};
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let by_hand = HiddenUnits::new(vec![
///     UnitAxis::new("layers.0.weight", 0),
///     UnitAxis::new("layers.0.bias", 0),
///     UnitAxis::new("layers.1.weight", 1),
/// ]);
/// assert_eq!(align::hidden_units(&model, &data)?, [by_hand]);
///
/// // Four channels that GroupNorm normalises in two groups.
/// let design = Architecture::Cnn.design().normalization(Norm::Group(2));
/// let model = design.build(&[1, 8, 8], 2, 0, &Device::Cpu)?;
/// let images = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu)?;
/// let data = Dataset::classification(&images, &Tensor::new(&[0u32], &Device::Cpu)?)?;
/// assert_eq!(align::hidden_units(&model, &data)?[0].clusters, 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenUnits {
    /// The axes along each kind of unit; for a dense layer one kind, with axis 0 of its weight and bias and axis 1 of the next
    /// weight. Running statistics of batch normalisation are listed like parameters.
    pub kinds: Vec<Vec<UnitAxis>>,
    /// Number of clusters of neighbouring units of each kind, such as the groups of group normalisation and the heads of
    /// attention. A permutation exchanges units of one cluster, and whole clusters. 1 if all units can be exchanged.
    pub clusters: usize,
}

impl HiddenUnits {
    /// Units of one kind, all of which can be exchanged.
    pub fn new(axes: Vec<UnitAxis>) -> Self {
        Self {
            kinds: vec![axes],
            clusters: 1,
        }
    }

    /// Sets the number of clusters.
    #[must_use]
    pub fn with_clusters(self, clusters: usize) -> Self {
        Self { clusters, ..self }
    }

    /// Adds another kind of unit, whose clusters are exchanged together with those of the others.
    #[must_use]
    pub fn with_kind(mut self, axes: Vec<UnitAxis>) -> Self {
        self.kinds.push(axes);
        self
    }
}

/// An axis of a parameter that runs along hidden units.
///
/// ```
/// use loss_landscape::landscape::UnitAxis;
/// use loss_landscape::prelude::*;
///
/// // Channels of 4 × 4 pixels that are flattened into a dense layer.
/// let axis = UnitAxis::new("head.weight", 1).block(4 * 4);
/// assert_eq!((axis.axis, axis.block), (1, 16));
/// // The last 12 of 28 concatenated channels.
/// let axis = UnitAxis::new("next.weight", 1).range(16..28);
/// assert_eq!(axis.range, Some(16..28));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitAxis {
    /// The parameter's name.
    pub parameter: String,
    /// The axis, counted from 0.
    pub axis: usize,
    /// Number of neighbouring entries per unit: 1, or height × width where a convolution's channels are flattened
    /// into a dense layer's inputs.
    pub block: usize,
    /// The entries of the axis that belong to the units; `None` if all do.
    #[serde(default)]
    pub range: Option<Range<usize>>,
}

impl UnitAxis {
    /// An axis with one entry per unit.
    pub fn new(parameter: impl Into<String>, axis: usize) -> Self {
        Self {
            parameter: parameter.into(),
            axis,
            block: 1,
            range: None,
        }
    }

    /// Sets the number of neighbouring entries per unit.
    #[must_use]
    pub fn block(self, block: usize) -> Self {
        Self { block, ..self }
    }

    /// Sets the entries that belong to the units.
    #[must_use]
    pub fn range(self, range: Range<usize>) -> Self {
        Self {
            range: Some(range),
            ..self
        }
    }
}

/// A permutation of the second model's hidden units that matches them with the first model's.
///
/// ```
/// use loss_landscape::landscape::align;
/// use loss_landscape::prelude::*;
///
/// // The same network with its hidden units in another order: their biases are 1 and 2.
/// let a = [1.0, 2.0, 0.1, 0.2, 0.3, 0.5, 0.6]; // biases, weights 2 × 1, bias, weights 1 × 2
/// let b = [2.0, 1.0, 0.2, 0.1, 0.3, 0.6, 0.5];
/// let model = Mlp::new(&[1, 2, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let x = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
/// let groups = align::hidden_units(&model, &Dataset::regression(&x, &x)?)?;
/// let matching = align::match_weights(model.parameters(), &groups, &a, &b, 0)?;
/// assert_eq!(matching.permutations, [[1, 0]]);
/// assert_eq!(matching.apply(&b)?, a);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// For each kind of units of each group a permutation p: the second model's unit p\[i\] moves to position i.
    pub permutations: Vec<Vec<usize>>,
    /// Similarity of the models before alignment, at most 1: the cosine of the angle between θ₁ and θ₂ for
    /// [`match_weights`], the mean correlation of hidden units at the same position for [`match_activations`].
    pub similarity_before: f64,
    /// Similarity after alignment.
    pub similarity_after: f64,
    /// Source index of each entry of the permuted θ.
    order: Vec<usize>,
    /// Source index of each permuted running statistic.
    #[serde(default)]
    statistics_order: Vec<usize>,
}

impl Matching {
    /// Applies one permutation per kind of units.
    fn new(
        parameters: &Parameters,
        groups: &[Group],
        permutations: Vec<Vec<usize>>,
        [similarity_before, similarity_after]: [f64; 2],
    ) -> Self {
        let order = |len: usize, strips: fn(&Kind) -> &[Strip]| {
            let mut order: Vec<usize> = (0..len).collect();
            let kinds = groups.iter().flat_map(|group| &group.kinds);
            for (kind, permutation) in kinds.zip(&permutations) {
                permute(&mut order, strips(kind), permutation);
            }
            order
        };
        let statistics = parameters.len_with_statistics() - parameters.len();
        Self {
            order: order(parameters.len(), |kind| &kind.theta),
            statistics_order: order(statistics, |kind| &kind.statistics),
            permutations,
            similarity_before,
            similarity_after,
        }
    }

    /// θ of the second model with its units permuted; the function is unchanged. For a model with running statistics of batch
    /// normalisation this holds if they are permuted too, as by [`apply_to`](Self::apply_to), or estimated again.
    ///
    /// # Errors
    /// A vector that is not in θ-space.
    pub fn apply(&self, theta: &[f64]) -> Result<Vec<f64>> {
        if theta.len() != self.order.len() {
            return Err(Error::invalid(format!(
                "the point has {}, but the matched models have {}",
                counted(theta.len(), "entry"),
                counted(self.order.len(), "parameter")
            )));
        }
        Ok(self.order.iter().map(|i| theta[*i]).collect())
    }

    /// Permutes the units of the second model itself: its parameters and its running statistics.
    ///
    /// ```
    /// # use loss_landscape::landscape::align;
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let design = Architecture::Toy.design().normalization(Norm::Batch);
    /// let model = |seed| {
    ///     design
    ///         .build(&[2], 1, seed, &Device::Cpu)?
    ///         .to_dtype(DType::F64)
    /// };
    /// let (a, b) = (model(0)?, model(1)?);
    /// let objective = Objective::of(&b, &data, Loss::CrossEntropy)?;
    /// let before = objective.loss()?;
    /// align::match_activations(&a, &b, &data)?.apply_to(b.parameters())?;
    /// assert!((objective.loss()? - before).abs() < 1e-14);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Parameters of another architecture.
    pub fn apply_to(&self, parameters: &Parameters) -> Result<()> {
        let theta = self.apply(&parameters.to_flat()?)?;
        let statistics = parameters.flat_statistics()?;
        if statistics.len() != self.statistics_order.len() {
            return Err(Error::invalid(format!(
                "the model has {}, but the matched models have {}",
                counted(statistics.len(), "running statistic"),
                self.statistics_order.len()
            )));
        }
        let statistics: Vec<f64> = self
            .statistics_order
            .iter()
            .map(|i| statistics[*i])
            .collect();
        parameters.set_flat(&theta)?;
        parameters.set_flat_statistics(&statistics)
    }
}
