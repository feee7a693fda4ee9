//! Activation matching: pairs units that respond similarly to the same data.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Tensor};
use ndarray::Array2;

use super::assignment::assign_clusters;
use super::strips::find_groups;
use super::{HiddenUnits, Matching, UnitAxis, hidden_units};
use crate::data::Dataset;
use crate::error::{Error, Result, check_finite};
use crate::layers::{Layer, Pass, Recording};
use crate::model::Model;
use crate::progress::{self, Progress};
use crate::tensor_functions::entries;

/// Maximum number of samples in a forward pass.
const MAX_BATCH_SIZE: usize = 512;

/// Maximum number of activations of a model that are in memory at once.
const MAX_ACTIVATIONS: usize = 1 << 24;

/// For each group of [hidden units](hidden_units), computes the permutation that maximises the sum of Pearson's correlations
/// between units of `a` and units of `b` over `data`, for a convolution also over the pixels (Li et al., "Convergent learning: do
/// different neural networks learn the same representations?", 2016). Groups are matched independently. Activations are the
/// inputs of linear layers and convolutions that read the units; if several do, as along a residual stream, correlations
/// are averaged over them. If none does, as with the keys of attention, they are the outputs of those that write them. A unit with
/// constant output has correlation 0 with every unit.
///
/// Without hidden layers the alignment is the identity.
///
/// ```
/// use loss_landscape::landscape::align;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let [a, b] = [0, 1].map(|seed| Mlp::new(&[2, 5, 1], Activation::Tanh, seed, &Device::Cpu));
/// let (a, b) = (a?.to_dtype(DType::F64)?, b?.to_dtype(DType::F64)?);
/// let same = align::match_activations(&a, &a, &data)?;
/// assert_eq!(same.permutations, [[0, 1, 2, 3, 4]]);
/// assert!((same.similarity_after - 1.0).abs() < 1e-12);
/// let other = align::match_activations(&a, &b, &data)?;
/// assert!(other.similarity_after >= other.similarity_before);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Models that do not list their [layers](Model::layers), or whose layers differ; data that does not fit them;
/// activations that are not finite.
pub fn match_activations<M: Model>(a: &M, b: &M, data: &Dataset) -> Result<Matching> {
    let both = [a, b];
    let [ours, theirs] = both.map(|model| model.parameters().shapes());
    if ours != theirs || a.layers() != b.layers() {
        return Err(Error::invalid(
            "the two models differ in their layers: units can be matched between models of one \
             architecture",
        ));
    }
    let described = hidden_units(a, data)?;
    let groups = find_groups(a.parameters(), &described)?;
    let first = data.first(1)?;
    let all = recorded(a, first.inputs(), None)?;
    let sources = sources(&described, &all);
    let wanted: HashSet<Key> = sources.iter().flatten().map(key).collect();
    let per_sample: usize = wanted.iter().map(|key| all[key].elem_count()).sum();
    let batch_size = (MAX_ACTIVATIONS / per_sample.max(1)).clamp(1, MAX_BATCH_SIZE);
    let mut progress = Progress::start("activation matching");
    let mut moments: Vec<Vec<Option<Moments>>> = Vec::new();
    moments.extend(
        sources
            .iter()
            .map(|of_kind| of_kind.iter().map(|_| None).collect()),
    );
    let batches = data.batches(batch_size)?;
    let total = batches.len();
    for (done, batch) in batches.enumerate() {
        let batch = batch?;
        let [a, b] = both.map(|model| recorded(model, batch.inputs(), Some(&wanted)));
        let (a, b) = (a?, b?);
        for (axis, moments) in sources.iter().flatten().zip(moments.iter_mut().flatten()) {
            progress::check()?;
            let [a, b] = [&a, &b].map(|recorded| by_unit(&recorded[&key(axis)], axis));
            let (a, b) = (a?, b?);
            let moments = match moments {
                Some(moments) => moments,
                None => moments.insert(Moments::around(&a, &b)?),
            };
            moments.add(&a, &b)?;
        }
        progress.part(done + 1, total);
    }
    let mut correlations = Vec::with_capacity(moments.len());
    for (of_kind, units) in moments
        .iter()
        .zip(groups.iter().flat_map(|group| &group.kinds))
    {
        let mut mean = Array2::zeros((units.units, units.units));
        for moments in of_kind.iter().flatten() {
            mean += &moments.correlations()?;
        }
        correlations.push(mean / of_kind.len().max(1) as f64);
    }
    let mut permutations = Vec::with_capacity(correlations.len());
    for group in &groups {
        let kinds = permutations.len()..permutations.len() + group.kinds.len();
        permutations.extend(assign_clusters(&correlations[kinds], group.clusters)?);
    }
    let units: usize = permutations.iter().map(Vec::len).sum();
    let mean = |place: &dyn Fn(usize, usize) -> usize| {
        let kinds = correlations.iter().enumerate();
        let matched = kinds.flat_map(|(k, c)| (0..c.nrows()).map(move |i| c[[i, place(k, i)]]));
        match units {
            0 => 1.0,
            _ => matched.sum::<f64>() / units as f64,
        }
    };
    let similarity = [mean(&|_, i| i), mean(&|k, i| permutations[k][i])];
    Ok(Matching::new(
        a.parameters(),
        &groups,
        permutations,
        similarity,
    ))
}

/// Name of a weight, and its axis along a recorded value.
type Key = (String, usize);

fn key(axis: &UnitAxis) -> Key {
    (axis.parameter.clone(), axis.axis)
}

/// For each kind of units, the axes of weights along which its activations are recorded.
fn sources(groups: &[HiddenUnits], recorded: &HashMap<Key, Tensor>) -> Vec<Vec<UnitAxis>> {
    let kinds = groups.iter().flat_map(|group| &group.kinds);
    let sources = kinds.map(|axes| {
        let along = |axis: usize| {
            let axes = axes.iter().filter(|a| a.axis == axis);
            let axes = axes.filter(|a| recorded.contains_key(&key(a)));
            axes.cloned().collect::<Vec<_>>()
        };
        match along(1) {
            read if read.is_empty() => along(0),
            read => read,
        }
    });
    sources.collect()
}

/// Inputs and outputs of layers, with one column per feature.
fn recorded(
    model: &impl Model,
    inputs: &Tensor,
    wanted: Option<&HashSet<Key>>,
) -> Result<HashMap<Key, Tensor>> {
    let mut pass = Pass::Recording(Recording {
        wanted: wanted.cloned(),
        ..Recording::default()
    });
    let mut h = inputs.clone();
    for layer in model.layers().unwrap_or_default() {
        progress::check()?;
        h = layer.forward(&h, model.parameters(), &mut pass)?.detach();
    }
    match pass {
        Pass::Recording(recording) => Ok(recording.kept),
        _ => Ok(HashMap::new()),
    }
}

/// Activations in `f64`: one row per sample and position, one column per unit.
fn by_unit(value: &Tensor, axis: &UnitAxis) -> Result<Tensor> {
    let value = match &axis.range {
        Some(range) => value.narrow(1, range.start, range.len())?,
        None => value.clone(),
    };
    let value = value.to_dtype(DType::F64)?;
    if axis.block == 1 {
        return Ok(value.contiguous()?);
    }
    let units = value.dim(1)? / axis.block;
    let by_unit = value.reshape(((), units, axis.block))?.transpose(1, 2)?;
    Ok(by_unit.reshape(((), units))?)
}

/// Sums over samples of two layers' units, relative to a constant near their means, to limit cancellation.
struct Moments {
    centers: [Tensor; 2],
    sums: [Tensor; 2],
    squares: [Tensor; 2],
    products: Tensor,
    rows: usize,
}

impl Moments {
    fn around(a: &Tensor, b: &Tensor) -> Result<Self> {
        let centers = [a.mean_keepdim(0)?, b.mean_keepdim(0)?];
        let zeros =
            || -> Result<[Tensor; 2]> { Ok([centers[0].zeros_like()?, centers[1].zeros_like()?]) };
        Ok(Self {
            sums: zeros()?,
            squares: zeros()?,
            products: a.t()?.matmul(b)?.zeros_like()?,
            centers,
            rows: 0,
        })
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        let [a, b] = [(a, 0), (b, 1)].map(|(h, i)| h.broadcast_sub(&self.centers[i]));
        let both = [a?, b?];
        self.rows += both[0].dim(0)?;
        for (i, h) in both.iter().enumerate() {
            self.sums[i] = (&self.sums[i] + h.sum_keepdim(0)?)?;
            self.squares[i] = (&self.squares[i] + h.sqr()?.sum_keepdim(0)?)?;
        }
        self.products = (&self.products + both[0].t()?.matmul(&both[1])?)?;
        Ok(())
    }

    fn correlations(&self) -> Result<Array2<f64>> {
        let n = self.rows as f64;
        let mut means = Vec::new();
        let mut deviations = Vec::new();
        for i in 0..2 {
            let sums: Vec<f64> = entries(&self.sums[i])?.iter().map(|s| s / n).collect();
            let (squares, centers) = (entries(&self.squares[i])?, entries(&self.centers[i])?);
            let deviation = |u: usize| {
                let found = (squares[u] / n - sums[u] * sums[u]).max(0.0).sqrt();
                // A smaller variance is rounding of a constant.
                if found > 1e-10 * centers[u].abs() {
                    found
                } else {
                    0.0
                }
            };
            deviations.push((0..sums.len()).map(deviation).collect::<Vec<_>>());
            means.push(sums);
        }
        let products = entries(&self.products)?;
        check_finite(&products, "the products of hidden activations")?;
        let width = means[1].len();
        Ok(Array2::from_shape_fn((means[0].len(), width), |(i, j)| {
            let covariance = products[i * width + j] / n - means[0][i] * means[1][j];
            let scale = deviations[0][i] * deviations[1][j];
            if scale > 0.0 { covariance / scale } else { 0.0 }
        }))
    }
}
