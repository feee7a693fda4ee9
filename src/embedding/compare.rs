//! [`Comparison`]: all embeddings of the same points, with the same measures.

use std::time::Instant;

use ndarray::{Array2, ArrayView1, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Autoencoder, Distances, Pca, Points, Umap, reduced};
use crate::error::{Error, Result};
use crate::spectral::Estimate;

/// Number of folds of the cross-validation.
const FOLDS: usize = 5;

/// Fits a method to the rows of the first argument and reconstructs the rows of the second.
type Reconstruct<'a> = dyn Fn(&Array2<f64>, &Array2<f64>) -> Result<Array2<f64>> + Sync + 'a;

/// A two-dimensional embedding and measures of how faithful it is.
///
/// See [`Comparison`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ComparedEmbedding {
    /// Name of the method.
    pub name: String,
    /// Coordinates, shape `(n, 2)`.
    pub coordinates: Array2<f64>,
    /// See [`Distances::trustworthiness`].
    pub trustworthiness: f64,
    /// See [`Distances::continuity`].
    pub continuity: f64,
    /// See [`Distances::neighbor_error`]; an in-sample error defined for all methods.
    pub neighbor_error: f64,
    /// ‖X − X̂‖_F / ‖X − mean‖_F by the method's own inverse map, if it has one, on the points that it was fitted to. A flexible
    /// method lowers it by fitting noise: compare methods by `held_out_error`.
    pub reconstruction_error: Option<f64>,
    /// The same error on points that the method was not fitted to, relative to the mean of those that it was: the mean over five
    /// fits, each without every fifth point, and its standard error. It is 1 for a method that has learned nothing. `None`
    /// without an inverse map, or if all fitted points are equal in one of the fits.
    pub held_out_error: Option<Estimate>,
    /// Run time in seconds, without reading the points.
    pub seconds: f64,
}

/// [`Pca`], [`Umap`] and [`Autoencoder`] of the same points, in two dimensions with default settings.
///
/// Held-out snapshots of a training lie between others in time: their error is one of interpolation.
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
/// assert_eq!(comparison.embeddings[0].trustworthiness, 1.0); // PCA preserves a line
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// One embedding per method.
    pub embeddings: Vec<ComparedEmbedding>,
    /// Number k of neighbours used by the measures: 5, or fewer for fewer than 11 points.
    pub neighbors: usize,
}

impl Comparison {
    /// Computes and measures all embeddings. The points are read once, to compute coordinates of their span with the same
    /// distances.
    ///
    /// # Errors
    /// There are fewer than 3 points, or all are equal; as [`Distances::new`].
    pub fn new(points: &dyn Points, seed: u64) -> Result<Self> {
        let n = points.count();
        if n < 3 {
            return Err(Error::invalid(format!(
                "a comparison needs at least 3 points, found {n}"
            )));
        }
        let points = reduced(points)?;
        let distances = Distances::new(&points)?;
        let neighbors = 5.min((n - 1) / 2);
        let measure = |name: &str,
                       embed: &dyn Fn() -> Result<(Array2<f64>, Option<f64>)>,
                       reconstruct: Option<&Reconstruct>| {
            let started = Instant::now();
            let (coordinates, reconstruction_error) = embed()?;
            let seconds = started.elapsed().as_secs_f64();
            Ok(ComparedEmbedding {
                name: name.to_owned(),
                trustworthiness: distances.trustworthiness(&coordinates, neighbors)?,
                continuity: distances.continuity(&coordinates, neighbors)?,
                neighbor_error: distances.neighbor_error(&coordinates, neighbors)?,
                coordinates,
                reconstruction_error,
                held_out_error: match reconstruct {
                    Some(reconstruct) => held_out(&points, reconstruct)?,
                    None => None,
                },
                seconds,
            })
        };
        let autoencoder = Autoencoder::default().with_seed(seed);
        let by_pca = |train: &Array2<f64>, test: &Array2<f64>| {
            let pca = Pca::fit(train, 2)?;
            let back = |row: ArrayView1<f64>| pca.reconstruct(&pca.project(&row.to_vec())?);
            let rows = test.rows().into_iter().map(back);
            let rows = rows.collect::<Result<Vec<_>>>()?;
            Ok(Array2::from_shape_fn(test.dim(), |(i, j)| rows[i][j]))
        };
        let by_autoencoder =
            |train: &Array2<f64>, test: &Array2<f64>| Ok(autoencoder.train(train)?.apply(test)?.1);
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

/// Returns [`ComparedEmbedding::held_out_error`].
fn held_out(points: &Array2<f64>, reconstruct: &Reconstruct) -> Result<Option<Estimate>> {
    let n = points.nrows();
    let folds = FOLDS.min(n);
    let error = |fold: usize| -> Result<Option<f64>> {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| i % folds == fold);
        let [train, test] = [train, test].map(|rows| points.select(Axis(0), &rows));
        let first = train.row(0);
        let Some(mean) = train.mean_axis(Axis(0)) else {
            return Ok(None);
        };
        let squares = |rows: Array2<f64>| rows.iter().map(|x| x * x).sum::<f64>();
        let total = squares(&test - &mean);
        if total == 0.0 || train.rows().into_iter().all(|row| row == first) {
            return Ok(None);
        }
        let lost = squares(&test - &reconstruct(&train, &test)?);
        Ok(Some((lost / total).sqrt()))
    };
    let errors: Vec<Result<Option<f64>>> = (0..folds).into_par_iter().map(error).collect();
    let errors = errors.into_iter().collect::<Result<Option<Vec<f64>>>>()?;
    Ok(errors.map(|errors| Estimate::mean(&errors)))
}
