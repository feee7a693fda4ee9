//! [`Density::effective_dimension`]: the number of eigenvalues that are large beside a given one.

use super::Estimate;
use super::density::{Density, Quadrature};
use super::orthonormal::orthogonalize;
use crate::error::{Error, Result, check_positive};
use crate::vector::{dot, norm, scale};

impl Density {
    /// The effective dimensionality Σ λ/(λ + α) (MacKay, 1992; Maddox, Benton and Wilson, "Rethinking Parameter Counting in Deep
    /// Models", 2020): the number of eigenvalues that are large beside α. In Bayesian terms it is the number of directions
    /// that the data determine rather than a Gaussian prior of precision α. Note that a Hessian is of the mean loss: for n
    /// samples and a prior of precision p use α = p/n.
    ///
    /// ```
    /// use loss_landscape::ndarray::{Array1, Array2};
    /// # use loss_landscape::prelude::*;
    ///
    /// // 5 eigenvalues 2 and 25 zeros.
    /// let diagonal = Array1::from_shape_fn(30, |i| if i < 5 { 2.0 } else { 0.0 });
    /// let density = Dense::new(Array2::from_diag(&diagonal))?.density()?;
    /// let dimension = density.effective_dimension(0.5)?;
    /// assert!((dimension.value - 5.0 * 2.0 / 2.5).abs() <= 5.0 * dimension.standard_error + 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// An α that is not a positive number; negative eigenvalues beyond rounding, for which the sum has no meaning.
    pub fn effective_dimension(&self, alpha: f64) -> Result<Estimate> {
        check_positive(alpha, "α")?;
        let [lowest, highest] = self.range();
        let rounding = self.node_rounding()(highest);
        if lowest < -rounding {
            return Err(Error::invalid(format!(
                "the matrix has the eigenvalue {lowest:.3e}, and effective dimensionality needs eigenvalues of at least 0: use \
                 the Gauss-Newton matrix, objective.gauss_newton()"
            )));
        }
        let n = self.dim as f64;
        // For each probe the integral of α/(x + α), from below and from above.
        let bounds = |probe: &Quadrature| -> [f64; 2] {
            let gauss = probe.integrate(|x| alpha / (x.max(0.0) + alpha));
            match self.is_exact() {
                true => [gauss; 2],
                false => [gauss, radau(probe, alpha, -rounding).max(gauss)],
            }
        };
        let middle = self.over_probes(|probe| 1.0 - 0.5 * bounds(probe).iter().sum::<f64>());
        let reach = self.over_probes(|probe| 0.5 * (bounds(probe)[1] - bounds(probe)[0]));
        // |d/dx x/(x + α)| ≤ 1/α
        let sums = 4.0 * f64::EPSILON;
        let by_rounding = self.over_probes(|probe| {
            probe.integrate(|x| {
                alpha * rounding.min(x.max(0.0) + alpha) / (x.max(0.0) + alpha).powi(2)
            })
        });
        let error = reach.value.hypot(by_rounding.value + sums);
        Ok(middle.with_error(error).scaled(n))
    }
}

/// Returns an upper bound of the integral of α/(x + α) over the measure whose Gauss quadrature is `probe` and whose support is
/// above `below`: the Gauss–Radau quadrature with a node there (Golub and Meurant, "Matrices, Moments and Quadrature", 1994).
fn radau(probe: &Quadrature, alpha: f64, below: f64) -> f64 {
    let (mut diagonal, beside) = jacobi(probe);
    let m = diagonal.len();
    // The last entry for which `below` is an eigenvalue.
    let mut pivot = f64::INFINITY;
    for i in 0..m {
        let above = match i {
            0 => 0.0,
            _ => beside[i - 1].powi(2) / pivot,
        };
        if i == m - 1 {
            diagonal[i] = below + above;
        }
        pivot = diagonal[i] - below - above;
    }
    // The first entry of (T + α)⁻¹, as a continued fraction.
    let mut rest = 0.0;
    for i in (0..m).rev() {
        let next = match i + 1 < m {
            true => beside[i].powi(2) / rest,
            false => 0.0,
        };
        rest = diagonal[i] + alpha - next;
    }
    (alpha / rest).min(1.0)
}

/// The diagonal of the Jacobi matrix with the nodes as eigenvalues and the weights as the squares of its eigenvectors' first
/// entries, and the numbers beside the diagonal, by Lanczos iteration on the nodes.
fn jacobi(probe: &Quadrature) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut v: Vec<f64> = probe.weights.iter().map(|weight| weight.sqrt()).collect();
    let length = norm(&v);
    scale(&mut v, 1.0 / length);
    let size = probe.nodes.iter().fold(0.0f64, |size, x| size.max(x.abs()));
    loop {
        let mut image: Vec<f64> = v.iter().zip(&probe.nodes).map(|(v, x)| v * x).collect();
        diagonal.push(dot(&v, &image));
        basis.push(v);
        orthogonalize(&mut image, &basis);
        let length = norm(&image);
        if basis.len() == probe.nodes.len() || length <= f64::EPSILON * size {
            return (diagonal, beside);
        }
        beside.push(length);
        scale(&mut image, 1.0 / length);
        v = image;
    }
}
