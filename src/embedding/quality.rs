//! How faithful a picture is: questions to the [`Distances`] between the points about the
//! coordinates of an embedding.

use ndarray::Array2;

use super::Distances;
use crate::error::{Error, Result};

impl Distances {
    /// Trustworthiness (Venna and Kaski, "Neighborhood preservation in nonlinear projection
    /// methods", 2001): 1 if the `k` nearest neighbours of each point in the picture are among its
    /// `k` nearest in truth, less by how far away the others are,
    /// 1 − 2 / (nk(2n − 3k − 1)) Σᵢ Σⱼ max(0, r(i, j) − k) over the neighbours j of i in the
    /// picture, where j is i's r-th nearest point in truth. It goes from 0 to 1; a random picture
    /// has about ½. Of equally near points the lower index counts as nearer.
    ///
    /// ```
    /// use loss_landscape::ndarray::Array2;
    /// # use loss_landscape::prelude::*;
    ///
    /// let line = Array2::from_shape_fn((10, 1), |(i, _)| i as f64);
    /// let distances = Distances::new(&line)?;
    /// assert_eq!(distances.trustworthiness(&line, 3)?, 1.0);
    /// assert_eq!(distances.continuity(&line, 3)?, 1.0);
    /// let folded = line.mapv(|x| (x - 4.4).abs()); // two halves on top of each other
    /// assert!(distances.trustworthiness(&folded, 3)? < 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `k` = 0 or ≥ n/2; coordinates of another number of points, without columns, or not finite.
    pub fn trustworthiness(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        preserved(self, &self.picture(coordinates)?, k)
    }

    /// Continuity (Venna and Kaski, 2001): trustworthiness with the two sides exchanged. It is less
    /// than 1 by how far apart the picture tears true neighbours.
    ///
    /// See [`Distances::trustworthiness`] for an example.
    ///
    /// # Errors
    /// As [`Distances::trustworthiness`].
    pub fn continuity(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        preserved(&self.picture(coordinates)?, self, k)
    }

    /// ‖X − X̂‖_F / ‖X − mean‖_F, where x̂ᵢ is the mean of the points that are the `k` nearest
    /// neighbours of i in the picture: what the picture tells of a point by its neighbours. It asks the same of every
    /// method, also of those that have no way back. The point itself takes part in making the picture.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// // Each point is guessed by its neighbour, 1 away; the mean is 5.
    /// let points = array![[0.0], [1.0], [9.0], [10.0]];
    /// let error = Distances::new(&points)?.neighbor_error(&points, 1)?;
    /// assert!((error - (4.0f64 / 82.0).sqrt()).abs() < 1e-9); // 5² + 4² + 4² + 5²
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `k` = 0 or ≥ n; points that are all the same; coordinates as for
    /// [`Distances::trustworthiness`].
    pub fn neighbor_error(&self, coordinates: &Array2<f64>, k: usize) -> Result<f64> {
        let picture = self.picture(coordinates)?;
        let n = self.count();
        if k == 0 || k >= n {
            return Err(Error::invalid(format!(
                "{k} neighbours of {n} points: ask for 1 to {}",
                n - 1
            )));
        }
        let total = self.total();
        if total == 0.0 {
            return Err(Error::invalid(
                "all points are the same: there is nothing to reconstruct",
            ));
        }
        // ‖x − mean of y‖² = mean ‖x − y‖² − mean ‖y − y'‖² / 2, all of them known.
        let size = k as f64;
        let squares = (0..n).map(|i| {
            let near = &picture.neighbors(i)[..k];
            let away: f64 = near.iter().map(|j| self.squared[[i, *j]]).sum();
            let pairs = near.iter().flat_map(|j| near.iter().map(move |l| [*j, *l]));
            let apart: f64 = pairs.map(|pair| self.squared[pair]).sum();
            away / size - apart / (2.0 * size * size)
        });
        Ok((squares.sum::<f64>() / total).max(0.0).sqrt())
    }

    fn picture(&self, coordinates: &Array2<f64>) -> Result<Distances> {
        if coordinates.nrows() != self.count() {
            return Err(Error::invalid(format!(
                "{} rows of coordinates do not belong to {} points: give a row for each",
                coordinates.nrows(),
                self.count()
            )));
        }
        Distances::new(coordinates)
    }
}

/// How far the neighbours in `picture` are neighbours in `truth`.
fn preserved(truth: &Distances, picture: &Distances, k: usize) -> Result<f64> {
    let n = truth.count();
    if k == 0 || 2 * k >= n {
        return Err(Error::invalid(format!(
            "trustworthiness and continuity of {n} points are defined for 1 ≤ k < {}: {k} \
             neighbours are none of that",
            n as f64 / 2.0
        )));
    }
    let mut excess = 0;
    let mut ranks = vec![0; n];
    for i in 0..n {
        for (rank, j) in truth.neighbors(i).into_iter().enumerate() {
            ranks[j] = rank + 1;
        }
        let near = &picture.neighbors(i)[..k];
        excess += near
            .iter()
            .map(|j| ranks[*j].saturating_sub(k))
            .sum::<usize>();
    }
    let worst = (n * k * (2 * n - 3 * k - 1)) as f64;
    Ok(1.0 - 2.0 * excess as f64 / worst)
}
