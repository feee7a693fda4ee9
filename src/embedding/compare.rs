//! [`Comparison`]: all pictures of the same points, measured alike.

use std::time::Instant;

use ndarray::{Array2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Autoencoder, Distances, Pca, Points, Umap, reduced};
use crate::error::{Error, Result};
use crate::spectral::Estimate;

/// Fits without a part of the points.
const FOLDS: usize = 5;

/// What a method that was fitted to some points makes of others, a row each.
type WayBack<'a> = dyn Fn(&Array2<f64>, &Array2<f64>) -> Result<Array2<f64>> + Sync + 'a;

/// A picture in the plane and how faithful it is.
///
/// See [`Comparison`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ComparedEmbedding {
    /// The method's name.
    pub name: String,
    /// A row of two numbers for each point.
    pub coordinates: Array2<f64>,
    /// [`Distances::trustworthiness`]
    pub trustworthiness: f64,
    /// [`Distances::continuity`]
    pub continuity: f64,
    /// [`Distances::neighbor_error`]: an in-sample error that all methods have.
    pub neighbor_error: f64,
    /// ‖X − X̂‖_F / ‖X − mean‖_F by the method's own way back, if it has one, on the points that the method was fitted to.
    /// A flexible method lowers it by fitting noise: compare methods by `held_out_error`.
    pub reconstruction_error: Option<f64>,
    /// The same on points that the method has not seen, with X − mean for the mean of those that it has: the mean over
    /// five fits, each without every fifth point, and its standard error. It is 1 for a method that has learned nothing.
    /// None without a way back, or if the other points are all the same in one of the fits.
    pub held_out_error: Option<Estimate>,
    /// What it took, without reading the points.
    pub seconds: f64,
}

/// [`Pca`], [`Umap`] and [`Autoencoder`] of the same points, in two dimensions and with their usual settings.
///
/// Snapshots of a training that are held out lie between others in time: the error there is one of interpolation.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let points: Vec<Vec<f64>> = (0..12).map(|i| vec![f64::from(i), 1.0, 0.0]).collect();
/// let comparison = Comparison::new(&points, 0)?;
/// let names: Vec<_> = comparison
///     .embeddings
///     .iter()
///     .map(|e| e.name.as_str())
///     .collect();
/// assert_eq!(names, ["PCA", "UMAP", "autoencoder"]);
/// assert_eq!(comparison.embeddings[0].trustworthiness, 1.0); // a line is flat: PCA keeps it
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The pictures.
    pub embeddings: Vec<ComparedEmbedding>,
    /// k, the neighbours that the measures look at: 5, or as many as fewer than 11 points allow.
    pub neighbors: usize,
}

impl Comparison {
    /// Makes and measures all of them. The points are read once, for coordinates of their span with
    /// the same distances.
    ///
    /// # Errors
    /// Fewer than 3 points, points that are all the same; those of [`Distances::new`].
    pub fn new(points: &(impl Points + ?Sized), seed: u64) -> Result<Self> {
        let n = points.count();
        if n < 3 {
            return Err(Error::invalid(format!(
                "{n} points have no neighbourhoods to compare: give at least 3"
            )));
        }
        let points = reduced(points)?;
        let distances = Distances::new(&points)?;
        let neighbors = 5.min((n - 1) / 2);
        let measure = |name: &str,
                       make: &dyn Fn() -> Result<(Array2<f64>, Option<f64>)>,
                       back: Option<&WayBack>| {
            let started = Instant::now();
            let (coordinates, reconstruction_error) = make()?;
            let seconds = started.elapsed().as_secs_f64();
            Ok(ComparedEmbedding {
                name: name.to_owned(),
                trustworthiness: distances.trustworthiness(&coordinates, neighbors)?,
                continuity: distances.continuity(&coordinates, neighbors)?,
                neighbor_error: distances.neighbor_error(&coordinates, neighbors)?,
                coordinates,
                reconstruction_error,
                held_out_error: match back {
                    Some(back) => held_out(&points, back)?,
                    None => None,
                },
                seconds,
            })
        };
        let autoencoder = Autoencoder::default().with_seed(seed);
        let by_pca = |seen: &Array2<f64>, unseen: &Array2<f64>| {
            let pca = Pca::fit(seen, 2)?;
            let back = |row: ArrayView1<f64>| pca.reconstruct(&pca.project(&row.to_vec())?);
            let rows = unseen.rows().into_iter().map(back);
            let rows = rows.collect::<Result<Vec<_>>>()?;
            Ok(Array2::from_shape_fn(unseen.dim(), |(i, j)| rows[i][j]))
        };
        let by_autoencoder = |seen: &Array2<f64>, unseen: &Array2<f64>| {
            Ok(autoencoder.train(seen)?.apply(unseen)?.1)
        };
        let pca = || {
            let pca = Pca::fit(&points, 2)?;
            // Points on a line have one component.
            let at = |place| pca.coordinates.get(place).copied().unwrap_or(0.0);
            let coordinates = Array2::from_shape_fn((n, 2), at);
            Ok((coordinates, Some(pca.reconstruction_error)))
        };
        let umap = || {
            let umap = Umap::default().with_seed(seed);
            Ok((umap.run(&points)?, None))
        };
        let encoded = || {
            let encoded = autoencoder.run(&points)?;
            Ok((encoded.coordinates, Some(encoded.reconstruction_error)))
        };
        let embeddings = [
            measure("PCA", &pca, Some(&by_pca)),
            measure("UMAP", &umap, None),
            measure("autoencoder", &encoded, Some(&by_autoencoder)),
        ];
        Ok(Self {
            embeddings: embeddings.into_iter().collect::<Result<_>>()?,
            neighbors,
        })
    }
}

/// [`ComparedEmbedding::held_out_error`]
fn held_out(points: &Array2<f64>, back: &WayBack) -> Result<Option<Estimate>> {
    let n = points.nrows();
    let folds = FOLDS.min(n);
    let error = |fold: usize| -> Result<Option<f64>> {
        let (unseen, seen): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| i % folds == fold);
        let [seen, unseen] = [seen, unseen].map(|rows| points.select(Axis(0), &rows));
        let first = seen.row(0);
        let Some(mean) = seen.mean_axis(Axis(0)) else {
            return Ok(None);
        };
        let squares = |rows: Array2<f64>| rows.iter().map(|x| x * x).sum::<f64>();
        let total = squares(&unseen - &mean);
        if total == 0.0 || seen.rows().into_iter().all(|row| row == first) {
            return Ok(None);
        }
        let lost = squares(&unseen - &back(&seen, &unseen)?);
        Ok(Some((lost / total).sqrt()))
    };
    let errors: Vec<Result<Option<f64>>> = (0..folds).into_par_iter().map(error).collect();
    let errors = errors.into_iter().collect::<Result<Option<Vec<f64>>>>()?;
    Ok(errors.map(|errors| Estimate::mean(&errors)))
}
