//! [`PowerIteration`]: the eigenvalue of largest magnitude.

use serde::{Deserialize, Serialize};

use super::Eigenpair;
use crate::error::{Error, Result, counted};
use crate::operator::{LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, norm, scale};

/// Settings of power iteration: v ← Av/‖Av‖ until ‖Av − λv‖ is small, with λ = vᵀAv (von Mises and Pollaczek-Geiringer, 1929).
///
/// The error decreases by |λ₂/λ₁| per step, and a single pair is found. [`Lanczos`](super::Lanczos) needs far fewer products for
/// the same accuracy. If λ and −λ are both largest in magnitude, the iteration does not converge. A small residual shows that λ
/// is near an eigenvalue, not that this is the largest: if the start vector has a small component along the largest one, the
/// iteration can stop at another.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?; // eigenvalues 3 and 1
/// let found = PowerIteration::default().with_tolerance(1e-9)
/// .run(&a)?;
/// assert!(found.converged && (found.pair.value - 3.0).abs() < 1e-9);
/// // The error of v shrinks by |λ₂/λ₁| = ⅓ a step.
/// let [.., before, last] = found.residuals[..] else {
///     unreachable!()
/// };
/// assert!((last / before - 1.0 / 3.0).abs() < 0.01);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PowerIteration {
    /// Largest residual, relative to |λ|, at which the iteration stops.
    pub tolerance: f64,
    /// Seed of the random start vector.
    pub seed: u64,
    /// Number of products after which the iteration stops, converged or not.
    pub max_products: usize,
}

impl Default for PowerIteration {
    /// Tolerance 10⁻³, seed 0, at most 200 products.
    fn default() -> Self {
        Self {
            tolerance: 1e-3,
            seed: 0,
            max_products: 200,
        }
    }
}

/// Result of [`PowerIteration`], with the values of each step.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 0.0], [0.0, -5.0]])?;
/// let found = PowerIteration::default().run(&a)?;
/// assert!((found.pair.value + 5.0).abs() < 1e-3); // largest in magnitude, of either sign
/// assert_eq!(found.values.last(), Some(&found.pair.value));
/// assert_eq!(found.table()?.height(), found.residuals.len());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PowerResult {
    /// The final λ, its residual and v.
    pub pair: Eigenpair,
    /// λ after each product.
    pub values: Vec<f64>,
    /// ‖Av − λv‖ after each product: the distance of λ to an eigenvalue is at most this.
    pub residuals: Vec<f64>,
    /// Whether the last residual is below the tolerance.
    pub converged: bool,
}

impl PowerIteration {
    /// Sets the largest residual, relative to |λ|, at which the iteration stops.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the seed of the random start vector.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of products after which the iteration stops, converged or not.
    #[must_use]
    pub fn with_max_products(mut self, max_products: usize) -> Self {
        self.max_products = max_products;
        self
    }

    /// Computes the eigenvalue of `operator` with the largest |λ|.
    ///
    /// # Errors
    /// `max_products` = 0; products that fail or are not finite. An iteration that does not converge is not an error.
    pub fn run(&self, operator: &dyn LinearOperator) -> Result<PowerResult> {
        if self.max_products == 0 {
            return Err(Error::invalid(
                "max_products is 0: allow at least one product",
            ));
        }
        let mut progress = Progress::start("power iteration");
        let mut v = normal(operator.dim(), Purpose::PowerIteration, self.seed, 0);
        let length = norm(&v);
        scale(&mut v, 1.0 / length);
        let (mut values, mut residuals) = (Vec::new(), Vec::new());
        loop {
            let image = checked_products(operator, std::slice::from_ref(&v))?.swap_remove(0);
            let value = dot(&v, &image);
            let mut rest = image.clone();
            axpy(-value, &v, &mut rest);
            let residual = norm(&rest);
            values.push(value);
            residuals.push(residual);
            progress.tick(|| {
                let products = counted(values.len(), "product");
                format!("{products}, residual {residual:.1e}")
            });

            let converged = residual <= self.tolerance * value.abs();
            if converged || values.len() >= self.max_products {
                return Ok(PowerResult {
                    pair: Eigenpair {
                        value,
                        residual,
                        vector: v,
                        rank: None,
                    },
                    values,
                    residuals,
                    converged,
                });
            }
            let length = norm(&image);
            v = image;
            scale(&mut v, 1.0 / length);
        }
    }
}
