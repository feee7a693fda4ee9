//! [`Influence`]: how the loss on other data changes with the weight of each training sample.
//!
//! | file | contents |
//! | --- | --- |
//! | `report` | the result |

mod report;

#[cfg(test)]
mod tests;

pub use report::InfluenceReport;

use serde::{Deserialize, Serialize};

use self::report::Solved;
use crate::data::Dataset;
use crate::error::{Error, Result, counted};
use crate::objective::Objective;
use crate::operator::{Kfac, KroneckerInverse, LinearOperator, Shifted};
use crate::spectral::ConjugateGradients;
use crate::vector::{minus, norm};

/// Settings of the influence of training samples on a test loss (Koh and Liang, "Understanding Black-box Predictions via Influence
/// Functions", 2017), with a damped Gauss–Newton matrix G:
///
/// Iᵢ = −(1/n) ∇L_testᵀ (G + λI)⁻¹ ∇ℓᵢ
///
/// It estimates the change of L_test if sample i counted once more in the sum of the n losses; without the sample L_test changes by
/// about −Iᵢ. A positive influence is harmful, a negative one helpful. G contains the L2 term of the objective, L_test does not.
///
/// # Assumptions
///
/// - θ is a minimum of the objective. Elsewhere, and for λ > 0, Iᵢ describes not a new training but the proximal Bregman response:
///   the minimum of the distance in the outputs, plus λ/2 ‖θ' − θ‖², plus the weighted loss of the sample (Bae et al., "If Influence
///   Functions are the Answer, Then What is the Question?", 2022).
/// - One sample moves θ little, so that the network is linear in θ between both minima. Influence is additive; the change by the
///   removal of many samples is not.
///
/// # Method
///
/// (G + λI)x = ∇L_test is solved by conjugate gradients with an EKFAC preconditioner, then ∇ℓᵢ·x is computed for all samples by one
/// forward pass with tangents. [`InfluenceSolver::Ekfac`] uses the inverse of the EKFAC matrix in place of G's (Grosse et al.,
/// "Studying Large Language Model Generalization with Influence Functions", 2023).
///
/// See [`InfluenceReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Influence {
    /// Damping λ ≥ 0; `None`: a tenth of the mean eigenvalue of the EKFAC matrix without the L2 term, as in Grosse et al.
    pub damping: Option<f64>,
    /// How (G + λI)x = ∇L_test is solved.
    pub solver: InfluenceSolver,
    /// Residual of x at which conjugate gradients stop, relative to ‖∇L_test‖.
    pub tolerance: f64,
    /// Number of products after which conjugate gradients stop, converged or not.
    pub max_products: usize,
    /// The preconditioner, or the matrix in place of G.
    pub kfac: Kfac,
}

/// How [`Influence`] solves its linear system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InfluenceSolver {
    /// Conjugate gradients with an EKFAC preconditioner.
    Preconditioned,
    /// Conjugate gradients without a preconditioner. Can take fewer products if few samples dominate G, as after a long training
    /// without an L2 term.
    Plain,
    /// The inverse of the EKFAC matrix alone: one product, to compute the residual.
    Ekfac,
}

impl Default for Influence {
    /// The damping of Grosse et al., preconditioned conjugate gradients, tolerance 10⁻⁴, at most 1,000 products.
    fn default() -> Self {
        Self {
            damping: None,
            solver: InfluenceSolver::Preconditioned,
            tolerance: 1e-4,
            max_products: 1000,
            kfac: Kfac::default(),
        }
    }
}

impl Influence {
    /// Sets the damping λ.
    #[must_use]
    pub fn with_damping(mut self, damping: f64) -> Self {
        self.damping = Some(damping);
        self
    }

    /// Sets how the linear system is solved.
    #[must_use]
    pub fn with_solver(mut self, solver: InfluenceSolver) -> Self {
        self.solver = solver;
        self
    }

    /// Sets the relative residual at which conjugate gradients stop.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the number of products after which conjugate gradients stop, converged or not.
    #[must_use]
    pub fn with_max_products(mut self, max_products: usize) -> Self {
        self.max_products = max_products;
        self
    }

    /// Sets the settings of the preconditioner.
    #[must_use]
    pub fn with_kfac(mut self, kfac: Kfac) -> Self {
        self.kfac = kfac;
        self
    }

    /// Computes the influence of each sample of `objective` on the mean loss of the `test` samples, at the model's current θ. A
    /// solution that does not converge is not an error: see [`InfluenceReport::converged`].
    ///
    /// # Errors
    /// A setting out of range; too few products to reduce the residual; no damping and no L2 term; test data that does not fit the objective; derivatives that are not
    /// finite; an objective without hand-derived rules, see [`Objective::engine`]; samples that are divided among ranks or read in
    /// parts.
    pub fn run(&self, objective: &Objective, test: &Dataset) -> Result<InfluenceReport> {
        let cg = ConjugateGradients::default()
            .with_tolerance(self.tolerance)
            .with_max_products(self.max_products);
        cg.check()?;
        if self.tolerance >= 1.0 {
            return Err(Error::invalid(format!(
                "the tolerance is {}, which the solution x = 0 reaches: give a number below 1",
                self.tolerance
            )));
        }
        if let Some(damping) = self.damping.filter(|d| !(*d >= 0.0 && d.is_finite())) {
            return Err(Error::invalid(format!(
                "the damping is {damping}: give a finite number ≥ 0"
            )));
        }
        let norms = objective.sample_gradient_norms()?;
        let other = objective.with_data(test)?.with_l2(0.0)?;
        let (test_loss, right_side) = other.gradient_at(&objective.parameters().to_flat()?)?;
        let gradient_norm = objective.gradient_norm()?;

        let l2 = 2.0 * objective.l2();
        let needs_factors = self.damping.is_none() || self.solver != InfluenceSolver::Plain;
        let factors = needs_factors
            .then(|| self.kfac.run(objective))
            .transpose()?;
        let mean_eigenvalue = factors.as_ref().map(|factors| {
            let eigenvalues = factors.eigenvalues();
            eigenvalues.iter().sum::<f64>() / eigenvalues.len() as f64 - l2
        });
        let damping = self.damping.or(mean_eigenvalue.map(|mean| 0.1 * mean));
        let damping = damping.unwrap_or_default().max(0.0);
        // The smallest eigenvalue is at least this, because the losses are convex in the outputs.
        let smallest = damping + l2;
        if smallest <= 0.0 {
            return Err(Error::invalid(
                "without damping and without an L2 term, the Gauss–Newton matrix has no inverse in general: set a damping \
                 above 0",
            ));
        }
        let matrix = Shifted::new(objective.gauss_newton(), damping)?;
        let inverse = factors.as_ref().map(|factors| factors.inverse(damping));
        let solved = self.solve(&cg, &matrix, inverse.transpose()?.as_ref(), &right_side)?;
        if solved.x.iter().all(|x| *x == 0.0) && norm(&right_side) > 0.0 {
            return Err(Error::invalid(format!(
                "{} did not reduce the residual: allow more, or use a larger damping or another solver",
                counted(solved.products, "product")
            )));
        }

        let n = objective.samples() as f64;
        let derivatives = objective.sample_derivatives(&solved.x)?;
        let values = derivatives.iter().map(|derivative| -derivative / n);
        // |∇ℓᵢᵀ(G + λI)⁻¹r| ≤ ‖∇ℓᵢ‖‖r‖/(smallest eigenvalue), and the rounding of ∇ℓᵢ·x.
        let of_solution = solved.residual / smallest;
        let rounding = objective.parameters().epsilon() * norm(&solved.x);
        let errors = norms.iter().map(|norm| norm * (of_solution + rounding) / n);
        Ok(InfluenceReport {
            values: values.collect(),
            errors: errors.collect(),
            test_samples: test.len(),
            test_loss,
            gradient_norm,
            damping,
            solver: self.solver,
            relative_residual: solved.relative_residual,
            products: solved.products,
            converged: solved.relative_residual <= self.tolerance,
        })
    }

    fn solve(
        &self,
        cg: &ConjugateGradients,
        matrix: &dyn LinearOperator,
        inverse: Option<&KroneckerInverse>,
        right_side: &[f64],
    ) -> Result<Solved> {
        let solution = match (self.solver, inverse) {
            (InfluenceSolver::Ekfac, Some(inverse)) => {
                let x = inverse.apply(right_side)?;
                let residual = norm(&minus(right_side, &matrix.apply(&x)?));
                let size = norm(right_side);
                return Ok(Solved {
                    x,
                    residual,
                    relative_residual: if size > 0.0 { residual / size } else { 0.0 },
                    products: 1,
                });
            }
            (InfluenceSolver::Preconditioned, Some(inverse)) => {
                cg.solve_preconditioned(matrix, inverse, right_side)?
            }
            _ => cg.solve(matrix, right_side)?,
        };
        Ok(Solved {
            relative_residual: solution.relative_residual(),
            residual: solution.residual + solution.rounding,
            products: solution.products,
            x: solution.x,
        })
    }
}
