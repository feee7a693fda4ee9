//! [`Spectrum::principal_angles`]: the angles between the leading eigenspaces of two matrices.

use std::f64::consts::FRAC_PI_2;

use super::orthonormal::products;
use super::{Bracket, Spectrum};
use crate::error::Result;
use crate::kernels::symmetric_eigen;

impl Spectrum {
    /// The principal angles between the spans of the eigenvectors U and V of the `k` largest eigenvalues of two matrices, such as
    /// the Hessians at two points, in radians, smallest first: arccos of the singular values of UᵀV (Björck and Golub, "Numerical
    /// Methods for Computing Angles Between Linear Subspaces", 1973). 0 for directions in both spaces, π/2 for a direction of one
    /// that is orthogonal to the other. The mean of cos² is [`Spectrum::subspace_overlap`].
    ///
    /// The bounds add the largest angles to the exact spaces, by which each principal angle changes at most (Qiu, Zhang and Li,
    /// "Unitarily Invariant Metrics on the Grassmann Space", 2005). Angles below 10⁻⁷ are rounding. Both spectra need `k` + 1
    /// pairs, or all. Without a gap after the `k`-th eigenvalue the bounds are 0 and π/2.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// let a = Dense::new(array![[2.0, 0.0], [0.0, 1.0]])?.eigen()?; // first eigenvector (1, 0)
    /// let b = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?; // first eigenvector (1, 1)/√2
    /// let angle = a.principal_angles(&b, 1)?[0];
    /// assert!((angle.value - std::f64::consts::FRAC_PI_4).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Spectrum::subspace_overlap`].
    pub fn principal_angles(&self, other: &Self, k: usize) -> Result<Vec<Bracket>> {
        self.check_subspaces(other, k)?;
        let cosines = products(&self.leading_vectors(k), &other.leading_vectors(k));
        let square =
            |i: usize, j: usize| cosines[i].iter().zip(&cosines[j]).map(|(a, b)| a * b).sum();
        let (squares, _) = symmetric_eigen(k, square)?;
        let error = self.max_sine(k).asin() + other.max_sine(k).asin();
        let angle = |square: &f64| {
            let value = square.clamp(0.0, 1.0).sqrt().acos();
            Bracket {
                value,
                low: (value - error).max(0.0),
                high: (value + error).min(FRAC_PI_2),
            }
        };
        Ok(squares.iter().rev().map(angle).collect())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::operator::Dense;

    /// Planes that share a direction, with angle 0.3 between the others.
    #[test]
    fn angles_between_planes_are_those_of_the_construction() -> Result<()> {
        let (sine, cosine) = 0.3f64.sin_cos();
        let matrix = |v: [f64; 4]| {
            let v = Array2::from_shape_vec((4, 1), v.to_vec()).unwrap();
            let first = Array2::from_diag(&array![2.0, 0.0, 0.0, 0.0]);
            Dense::new(first + v.dot(&v.t()))?.eigen()
        };
        let a = matrix([0.0, 1.0, 0.0, 0.0])?;
        let b = matrix([0.0, cosine, sine, 0.0])?;
        let angles = a.principal_angles(&b, 2)?;
        assert!(angles[0].value < 1e-7, "{}", angles[0]);
        assert!((angles[1].value - 0.3).abs() < 1e-12, "{}", angles[1]);
        assert!(angles[1].low <= 0.3 && angles[1].high >= 0.3 && angles[1].high < 0.301);
        let overlap = a.subspace_overlap(&b, 2)?.value;
        assert!((overlap - (1.0 + cosine * cosine) / 2.0).abs() < 1e-12);
        Ok(())
    }
}
