//! Quality of an embedding: measures of its coordinates against the [`Distances`] between the points.

use ndarray::Array2;

use super::Distances;
use crate::error::{Error, Result, counted};

impl Distances {
    /// Computes the trustworthiness (Venna and Kaski, "Neighborhood Preservation in Nonlinear Projection Methods", 2001):
    /// 1 − 2 / (nk(2n − 3k − 1)) Σᵢ Σⱼ max(0, r(i, j) − k), where j runs over the `k` nearest neighbours of i in the embedding,
    /// and j is the r(i, j)-th nearest neighbour of i among the points. It is 1 if all neighbours in the embedding are true
    /// neighbours, at least 0, and about ½ for random coordinates. Ties are broken by the lower index.
    ///
    /// ```
    /// use loss_landscape::ndarray::Array2;
    /// # use loss_landscape::embedding::Distances;
    /// # use loss_landscape::prelude::*;
    ///
    /// let line = Array2::from_shape_fn((10, 1), |(i, _)| i as f64);
    /// let distances = Distances::new(&line)?;
    /// assert_eq!(distances.trustworthiness(&line, 3)?, 1.0);
    /// assert_eq!(distances.continuity(&line, 3)?, 1.0);
    /// let folded = line.mapv(|x| (x - 4.4).abs()); // two halves overlap
    /// assert!(distances.trustworthiness(&folded, 3)? < 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `k` is 0 or at least n/2; `coordinates` has another number of rows, no columns, or entries that are not finite.
    pub fn trustworthiness(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        neighbor_preservation(self, &self.embedded(coordinates)?, k)
    }

    /// Computes the continuity (Venna and Kaski, 2001): trustworthiness with points and embedding exchanged. It is below 1 if
    /// the embedding separates true neighbours.
    ///
    /// See [`Distances::trustworthiness`] for an example.
    ///
    /// # Errors
    /// As [`Distances::trustworthiness`].
    pub fn continuity(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        neighbor_preservation(&self.embedded(coordinates)?, self, k)
    }

    /// Returns ‖X − X̂‖_F / ‖X − mean‖_F, where x̂ᵢ is the mean of the points that are the `k` nearest neighbours of i in the
    /// embedding. It applies to every method, also those without an inverse map. It is an in-sample error: each point has
    /// contributed to the embedding.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::embedding::Distances;
    /// # use loss_landscape::prelude::*;
    ///
    /// // Each point is predicted by its neighbour at distance 1; the mean is 5.
    /// let points = array![[0.0], [1.0], [9.0], [10.0]];
    /// let error = Distances::new(&points)?.neighbor_error(&points, 1)?;
    /// assert!((error - (4.0f64 / 82.0).sqrt()).abs() < 1e-9); // 5² + 4² + 4² + 5²
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `k` is 0 or at least n; all points are equal; `coordinates` as for [`Distances::trustworthiness`].
    pub fn neighbor_error(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        let embedded = self.embedded(coordinates)?;
        let n = self.count();
        if k == 0 || k >= n {
            return Err(Error::invalid(format!(
                "{} of {}: use 1 to {}",
                counted(k, "neighbour"),
                counted(n, "point"),
                n - 1
            )));
        }
        let total = self.total();
        if total == 0.0 {
            return Err(Error::invalid(
                "all points are equal: there is nothing to reconstruct",
            ));
        }
        // ‖x − mean of y‖² = mean ‖x − y‖² − mean ‖y − y'‖² / 2, which needs distances only.
        let size = k as f64;
        let square = |i: usize| -> Result<f64> {
            let nearest = &embedded.neighbors(i)?[..k];
            let to_point: f64 = nearest.iter().map(|j| self.squared[[i, *j]]).sum();
            let pairs = nearest
                .iter()
                .flat_map(|j| nearest.iter().map(move |l| [*j, *l]));
            let among: f64 = pairs.map(|pair| self.squared[pair]).sum();
            Ok(to_point / size - among / (2.0 * size * size))
        };
        let squares = (0..n).map(square).sum::<Result<f64>>()?;
        Ok((squares / total).max(0.0).sqrt())
    }

    /// Returns the distances between the rows of `coordinates`, one row per point.
    fn embedded(&self, coordinates: &Array2<f64>) -> Result<Distances> {
        if coordinates.nrows() != self.count() {
            return Err(Error::invalid(format!(
                "the coordinates have {}, for {}",
                counted(coordinates.nrows(), "row"),
                counted(self.count(), "point")
            )));
        }
        Distances::new(coordinates)
    }
}

/// Returns the trustworthiness of the neighbours in `found` with respect to those in `truth`.
fn neighbor_preservation(truth: &Distances, found: &Distances, k: usize) -> Result<f64> {
    let n = truth.count();
    if k == 0 || 2 * k >= n {
        return Err(Error::invalid(format!(
            "trustworthiness and continuity of {n} points need 1 ≤ k < {}, found k = {k}",
            n as f64 / 2.0
        )));
    }
    let mut excess = 0;
    let mut ranks = vec![0; n];
    for i in 0..n {
        for (rank, j) in truth.neighbors(i)?.into_iter().enumerate() {
            ranks[j] = rank + 1;
        }
        let nearest = &found.neighbors(i)?[..k];
        excess += nearest
            .iter()
            .map(|j| ranks[*j].saturating_sub(k))
            .sum::<usize>();
    }
    let worst = (n * k * (2 * n - 3 * k - 1)) as f64;
    Ok(1.0 - 2.0 * excess as f64 / worst)
}
