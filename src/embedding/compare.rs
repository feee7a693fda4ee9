//! [`Comparison`]: all pictures of the same points, measured alike.

use std::time::Instant;

use ndarray::Array2;
use polars::df;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::{Autoencoder, Distances, Pca, Points, Umap, reduced};
use crate::error::{Error, Result};

/// A picture in the plane and how faithful it is.
///
/// See [`Comparison`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// The method's name.
    pub name: String,
    /// A row of two numbers for each point.
    pub coordinates: Array2<f64>,
    /// [`Distances::trustworthiness`]
    pub trustworthiness: f64,
    /// [`Distances::continuity`]
    pub continuity: f64,
    /// [`Distances::neighbor_error`]: the reconstruction error that all methods have.
    pub neighbor_error: f64,
    /// ‖X − X̂‖_F / ‖X − mean‖_F by the method's own way back, if it has one.
    pub reconstruction_error: Option<f64>,
    /// What it took, without reading the points.
    pub seconds: f64,
}

/// [`Pca`], [`Umap`] and [`Autoencoder`] of the same points, in two dimensions and with their usual settings.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let points: Vec<Vec<f64>> = (0..12).map(|i| vec![f64::from(i), 1.0, 0.0]).collect();
/// let comparison = Comparison::of(&points, 0)?;
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
pub struct Comparison {
    /// The pictures.
    pub embeddings: Vec<Embedding>,
    /// k, the neighbours that the measures look at: 5, or as many as fewer than 11 points allow.
    pub neighbors: usize,
}

impl Comparison {
    /// Makes and measures all of them. The points are read once, for coordinates of their span with
    /// the same distances.
    ///
    /// # Errors
    /// Fewer than 3 points, points that are all the same; those of [`Distances::of`].
    pub fn of(points: &(impl Points + ?Sized), seed: u64) -> Result<Self> {
        let n = points.count();
        if n < 3 {
            return Err(Error::invalid(format!(
                "{n} points have no neighbourhoods to compare: give at least 3"
            )));
        }
        let points = reduced(points)?;
        let distances = Distances::of(&points)?;
        let neighbors = 5.min((n - 1) / 2);
        let measure = |name: &str, make: &dyn Fn() -> Result<(Array2<f64>, Option<f64>)>| {
            let started = Instant::now();
            let (coordinates, reconstruction_error) = make()?;
            let seconds = started.elapsed().as_secs_f64();
            Ok(Embedding {
                name: name.to_owned(),
                trustworthiness: distances.trustworthiness(&coordinates, neighbors)?,
                continuity: distances.continuity(&coordinates, neighbors)?,
                neighbor_error: distances.neighbor_error(&coordinates, neighbors)?,
                coordinates,
                reconstruction_error,
                seconds,
            })
        };
        let embeddings = [
            measure("PCA", &|| {
                let pca = Pca::of(&points, 2)?;
                // Points on a line have one component.
                let at = |place| pca.coordinates.get(place).copied().unwrap_or(0.0);
                let coordinates = Array2::from_shape_fn((n, 2), at);
                Ok((coordinates, Some(pca.reconstruction_error)))
            }),
            measure("UMAP", &|| {
                let umap = Umap {
                    seed,
                    ..Umap::default()
                };
                Ok((umap.run(&points)?, None))
            }),
            measure("autoencoder", &|| {
                let autoencoder = Autoencoder {
                    seed,
                    ..Autoencoder::default()
                };
                let encoded = autoencoder.run(&points)?;
                Ok((encoded.coordinates, Some(encoded.reconstruction_error)))
            }),
        ];
        Ok(Self {
            embeddings: embeddings.into_iter().collect::<Result<_>>()?,
            neighbors,
        })
    }

    /// A line for each picture.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        let rows = &self.embeddings;
        let column = |f: fn(&Embedding) -> f64| rows.iter().map(f).collect::<Vec<_>>();
        Ok(df!(
            "method" => rows.iter().map(|e| e.name.clone()).collect::<Vec<_>>(),
            "trustworthiness" => column(|e| e.trustworthiness),
            "continuity" => column(|e| e.continuity),
            "neighbour error" => column(|e| e.neighbor_error),
            "reconstruction error" => rows.iter().map(|e| e.reconstruction_error).collect::<Vec<_>>(),
            "seconds" => column(|e| e.seconds),
        )?)
    }
}
