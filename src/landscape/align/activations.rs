//! Activation matching: pairs units that respond similarly to the same data.

use candle_core::{DType, Tensor};
use ndarray::Array2;

use super::assignment::assign;
use super::{Matching, hidden_units, order, strips};
use crate::data::Dataset;
use crate::error::{Error, Result, check_finite};
use crate::layers::{Layer, Pass, Units};
use crate::model::Model;
use crate::progress::{self, Progress};

/// Number of samples in a forward pass.
const BATCH_SIZE: usize = 512;

/// For each hidden layer, computes the permutation that maximises the sum of Pearson's correlations between units of
/// `a` and units of `b` over `data`, for a convolution also over the pixels (Li et al., "Convergent learning: do
/// different neural networks learn the same representations?", 2016). Layers are matched independently. A unit with
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
    let groups = strips(a.parameters(), &hidden_units(a)?)?;
    let mut progress = Progress::start("activation matching");
    let mut moments: Vec<Moments> = Vec::new();
    let batches = data.batches(BATCH_SIZE)?;
    let total = batches.len();
    for (done, batch) in batches.enumerate() {
        let inputs = batch?.inputs().clone();
        let [a, b] = both.map(|model| hidden(model, &inputs));
        for (layer, (a, b)) in a?.into_iter().zip(b?).enumerate() {
            progress::check()?;
            if moments.len() == layer {
                moments.push(Moments::around(&a, &b)?);
            }
            moments[layer].add(&a, &b)?;
        }
        progress.part(done + 1, total);
    }
    let correlations = moments.iter().map(Moments::correlations);
    let correlations = correlations.collect::<Result<Vec<_>>>()?;
    let permutations = correlations.iter().map(assign);
    let permutations = permutations.collect::<Result<Vec<_>>>()?;
    let units: usize = permutations.iter().map(Vec::len).sum();
    let mean = |place: &dyn Fn(usize, usize) -> usize| {
        let layers = correlations.iter().enumerate();
        let matched = layers.flat_map(|(l, c)| (0..c.nrows()).map(move |i| c[[i, place(l, i)]]));
        match units {
            0 => 1.0,
            _ => matched.sum::<f64>() / units as f64,
        }
    };
    Ok(Matching {
        similarity_before: mean(&|_, i| i),
        similarity_after: mean(&|l, i| permutations[l][i]),
        order: order(a.parameters().len(), &groups, &permutations),
        permutations,
    })
}

/// The input of each layer that ends hidden units, `f64`: one row per sample and position, one column per unit.
fn hidden(model: &impl Model, inputs: &Tensor) -> Result<Vec<Tensor>> {
    let parameters = model.parameters();
    let mut h = inputs.clone();
    let mut entered = Vec::new();
    let mut units = None;
    for layer in model.layers().unwrap_or_default() {
        progress::check()?;
        if let Units::New { weight, .. } = layer.units() {
            if let Some(units) = units {
                let by_unit = if h.rank() != 4 && h.dims().last() == Some(&units) {
                    h.clone()
                } else {
                    // Channels precede positions.
                    h.reshape((h.dim(0)?, units, ()))?.transpose(1, 2)?
                };
                entered.push(by_unit.to_dtype(DType::F64)?.reshape(((), units))?);
            }
            units = Some(parameters.get(&weight)?.dims()[0]);
        }
        h = layer
            .forward(&h, parameters, &mut Pass::Inference)?
            .detach();
    }
    Ok(entered)
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
        let host = |t: &Tensor| -> Result<Vec<f64>> { Ok(t.flatten_all()?.to_vec1()?) };
        let mut means = Vec::new();
        let mut deviations = Vec::new();
        for i in 0..2 {
            let sums: Vec<f64> = host(&self.sums[i])?.iter().map(|s| s / n).collect();
            let (squares, centers) = (host(&self.squares[i])?, host(&self.centers[i])?);
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
        let products = host(&self.products)?;
        check_finite(&products, "the products of hidden activations")?;
        let width = means[1].len();
        Ok(Array2::from_shape_fn((means[0].len(), width), |(i, j)| {
            let covariance = products[i * width + j] / n - means[0][i] * means[1][j];
            let scale = deviations[0][i] * deviations[1][j];
            if scale > 0.0 { covariance / scale } else { 0.0 }
        }))
    }
}
