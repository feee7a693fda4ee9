//! Permutations of hidden units that bring one model closer to another.
//!
//! Permuting the units of a layer, together with all parameters along them, does not change the function, so two
//! trainings find two of many equivalent arrangements. The barrier on the straight line between them is often lower
//! after alignment, and for some wide networks it vanishes (Ainsworth, Hayase and Srinivasa, "Git Re-Basin: merging
//! models modulo permutation symmetries", 2023). [`match_weights`] compares parameters, [`match_activations`] the
//! units' responses to data (Li et al., "Convergent learning", 2016).

mod activations;
mod assignment;
mod weights;

pub use activations::match_activations;
pub use weights::match_weights;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, counted};
use crate::layers::{Layer, Units};
use crate::model::Model;
use crate::parameters::Parameters;

/// Hidden units that can be permuted among themselves, such as a layer's, and the axes along them.
///
/// ```
/// use loss_landscape::landscape::{HiddenUnits, UnitAxis, align};
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let by_hand = HiddenUnits {
///     axes: vec![
///         UnitAxis::new("layers.0.weight", 0),
///         UnitAxis::new("layers.0.bias", 0),
///         UnitAxis::new("layers.1.weight", 1),
///     ],
/// };
/// assert_eq!(align::hidden_units(&model)?, [by_hand]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenUnits {
    /// The axes of parameters; for a dense layer, axis 0 of its weight and bias and axis 1 of the next weight.
    pub axes: Vec<UnitAxis>,
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
}

impl UnitAxis {
    /// An axis with one entry per unit.
    pub fn new(parameter: impl Into<String>, axis: usize) -> Self {
        Self {
            parameter: parameter.into(),
            axis,
            block: 1,
        }
    }

    /// Sets the number of neighbouring entries per unit.
    pub fn block(self, block: usize) -> Self {
        Self { block, ..self }
    }
}

/// One group per hidden layer of a model that lists its [layers](Model::layers): units of dense layers, channels of
/// convolutions.
///
/// ```
/// use loss_landscape::landscape::{UnitAxis, align};
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 4, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let groups = align::hidden_units(&model)?;
/// assert_eq!(groups.len(), 2);
/// assert_eq!(groups[1].axes[0], UnitAxis::new("layers.1.weight", 0));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A model that does not list its layers, or that has others than dense layers, convolutions, activations and pooling
/// in a sequence.
pub fn hidden_units(model: &impl Model) -> Result<Vec<HiddenUnits>> {
    let layers = model
        .layers()
        .ok_or_else(|| undescribed("the model does not list its layers"))?;
    let mut groups = Vec::new();
    let mut open: Option<HiddenUnits> = None;
    for layer in &layers {
        match layer.units() {
            Units::Kept => {}
            Units::Along(parameters) => {
                if let Some(units) = &mut open {
                    let axes = parameters.into_iter().map(|name| UnitAxis::new(name, 0));
                    units.axes.extend(axes);
                }
            }
            Units::New { weight, bias } => {
                let shape = model.parameters().get(&weight)?.dims().to_vec();
                if let Some(mut units) = open.take() {
                    // A channel of a flattened image has several entries.
                    let count = model.parameters().get(&units.axes[0].parameter)?.dims()[0];
                    let block = (shape[1] / count).max(1);
                    units.axes.push(UnitAxis::new(&weight, 1).block(block));
                    groups.push(units);
                }
                let mut axes = vec![UnitAxis::new(weight, 0)];
                axes.extend(bias.map(|bias| UnitAxis::new(bias, 0)));
                open = Some(HiddenUnits { axes });
            }
            Units::Fixed => {
                return Err(undescribed(&format!(
                    "the units around the layer {layer:?} cannot be permuted by themselves"
                )));
            }
        }
    }
    Ok(groups)
}

fn undescribed(problem: &str) -> Error {
    Error::invalid(format!(
        "{problem}: list the axes that run along the hidden units with HiddenUnits, and use match_weights"
    ))
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
/// let groups = align::hidden_units(&model)?;
/// let matching = align::match_weights(model.parameters(), &groups, &a, &b, 0)?;
/// assert_eq!(matching.permutations, [[1, 0]]);
/// assert_eq!(matching.apply(&b)?, a);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// For each group of units a permutation p: the second model's unit p\[i\] moves to position i.
    pub permutations: Vec<Vec<usize>>,
    /// Similarity of the models before alignment, at most 1: the cosine of the angle between θ₁ and θ₂ for
    /// [`match_weights`], the mean correlation of hidden units at the same position for [`match_activations`].
    pub similarity_before: f64,
    /// Similarity after alignment.
    pub similarity_after: f64,
    /// Source index of each entry of the permuted θ.
    order: Vec<usize>,
}

impl Matching {
    /// θ of the second model with its units permuted; the function is unchanged.
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
}

/// An axis of a parameter as the entries of θ in (outer, len, inner) order.
#[derive(Clone, Debug)]
struct Strip {
    start: usize,
    outer: usize,
    len: usize,
    inner: usize,
    block: usize,
}

impl Strip {
    fn units(&self) -> usize {
        self.len / self.block
    }

    /// Indices in θ of a unit's entries, in a fixed order.
    fn entries(&self, unit: usize) -> impl Iterator<Item = usize> {
        let (length, stride) = (self.block * self.inner, self.len * self.inner);
        let first = self.start + unit * length;
        let starts = (0..self.outer).map(move |o| first + o * stride);
        starts.flat_map(move |start| start..start + length)
    }
}

/// Validates the description of each group and finds its axes in θ.
fn strips(parameters: &Parameters, groups: &[HiddenUnits]) -> Result<Vec<Vec<Strip>>> {
    let mut taken = Vec::new();
    let mut found = Vec::with_capacity(groups.len());
    for (g, group) in groups.iter().enumerate() {
        let mut strips: Vec<Strip> = Vec::with_capacity(group.axes.len());
        for UnitAxis {
            parameter,
            axis,
            block,
        } in &group.axes
        {
            let wrong = |what: String| {
                Error::invalid(format!("axis {axis} of `{parameter}` in group {g}: {what}"))
            };
            let dims = parameters.get(parameter)?.dims();
            let Some(&len) = dims.get(*axis) else {
                return Err(wrong(format!("the parameter has the shape {dims:?}")));
            };
            if *block == 0 || len == 0 || len % block != 0 {
                return Err(wrong(format!(
                    "its {len} entries are not a whole number of blocks of {block}"
                )));
            }
            if taken.contains(&(parameter, *axis)) {
                return Err(wrong("it is named twice: an axis has one order".into()));
            }
            if group
                .axes
                .iter()
                .any(|other| other.parameter == *parameter && other.axis != *axis)
            {
                return Err(wrong(
                    "another axis of this parameter runs along the same units, which no linear \
                     assignment can match"
                        .into(),
                ));
            }
            taken.push((parameter, *axis));
            let strip = Strip {
                start: parameters.range(parameter)?.start,
                outer: dims[..*axis].iter().product(),
                len,
                inner: dims[axis + 1..].iter().product(),
                block: *block,
            };
            if let Some(first) = strips.first()
                && first.units() != strip.units()
            {
                return Err(wrong(format!(
                    "it has {}, but the group's first axis has {}",
                    counted(strip.units(), "unit"),
                    first.units()
                )));
            }
            strips.push(strip);
        }
        if strips.is_empty() {
            return Err(Error::invalid(format!("group {g} of units has no axes")));
        }
        found.push(strips);
    }
    Ok(found)
}

/// Moves unit p\[i\] to position i along these axes.
fn permute<T: Copy>(values: &mut [T], strips: &[Strip], permutation: &[usize]) {
    for strip in strips {
        let moved = permutation.iter().flat_map(|unit| strip.entries(*unit));
        let moved: Vec<T> = moved.map(|from| values[from]).collect();
        let places = (0..strip.units()).flat_map(|unit| strip.entries(unit));
        places.zip(moved).for_each(|(to, value)| values[to] = value);
    }
}

/// The order of θ's entries under one permutation per group.
fn order(dim: usize, groups: &[Vec<Strip>], permutations: &[Vec<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dim).collect();
    for (strips, permutation) in groups.iter().zip(permutations) {
        permute(&mut order, strips, permutation);
    }
    order
}
