//! [`ConjugateGradients`]: solutions of Ax = b for a positive definite matrix.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Short;
use crate::error::{Error, Result, check_finite, check_positive, counted};
use crate::operator::{LinearOperator, check_length, checked_products};
use crate::progress::Progress;
use crate::vector::{axpy, dot, minus, norm, scale};

/// Settings of conjugate gradients, which solve Ax = b for a symmetric positive definite A (Hestenes and Stiefel, 1952).
///
/// After k products the error in the norm √(eᵀAe) is at most 2((√κ − 1)/(√κ + 1))ᵏ of the first one, for the condition number κ
/// of A. With a preconditioner M⁻¹ ≈ A⁻¹, κ is that of M⁻¹A.
///
/// The iteration updates its residual without products, so rounding lets it drift from b − Ax. When it reaches the tolerance,
/// b − Ax is computed, and the iteration starts again from there if it is larger. The reported residual is always that of a product.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::ConjugateGradients;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?;
/// let solved = ConjugateGradients::default().solve(&a, &[3.0, 3.0])?;
/// assert!(solved.x.iter().all(|x| (x - 1.0).abs() < 1e-12));
/// assert!(solved.verdict.is_converged() && solved.residual < 1e-12);
/// // b is an eigenvector: one product solves, the other computes the residual.
/// assert_eq!(solved.products, 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ConjugateGradients {
    /// ‖b − Ax‖ at which the iteration stops, relative to ‖b‖.
    pub tolerance: f64,
    /// Number of products after which the iteration stops, converged or not. At least 2.
    pub max_products: usize,
}

impl Default for ConjugateGradients {
    /// Tolerance 10⁻⁶, at most 1,000 products.
    fn default() -> Self {
        Self {
            tolerance: 1e-6,
            max_products: 1000,
        }
    }
}

/// Why [`ConjugateGradients`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SolverVerdict {
    /// The residual is at most the tolerance.
    Converged,
    /// The maximum number of products was reached.
    TooFewProducts,
    /// Rounding of the products keeps the residual above the tolerance.
    LimitedByRounding,
}

impl SolverVerdict {
    /// Whether the residual is at most the tolerance.
    pub fn is_converged(self) -> bool {
        self == Self::Converged
    }
}

impl fmt::Display for SolverVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::TooFewProducts => "not converged: too few products",
            Self::LimitedByRounding => "not converged: limited by rounding",
        })
    }
}

/// A solution x of Ax = b, by [`ConjugateGradients`].
///
/// The error of x is (A⁻¹)(b − Ax), so its length is at most the residual over the smallest eigenvalue of A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinearSolution {
    /// x, length n.
    pub x: Vec<f64>,
    /// ‖b − Ax‖, from a product with x.
    pub residual: f64,
    /// Estimated rounding error of `residual`: ε(‖b‖ + λ‖x‖) with the operator's ε and the largest vᵀAv/vᵀv that was met, λ.
    pub rounding: f64,
    /// ‖b‖
    pub right_side: f64,
    /// Number of products with A, including those that compute residuals.
    pub products: usize,
    /// Whether the residual is at most the tolerance, or why not.
    pub verdict: SolverVerdict,
}

impl LinearSolution {
    /// ‖b − Ax‖/‖b‖, or 0 if b = 0.
    pub fn relative_residual(&self) -> f64 {
        match self.right_side > 0.0 {
            true => self.residual / self.right_side,
            false => 0.0,
        }
    }
}

impl fmt::Display for LinearSolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: relative residual {:.1} after {}",
            self.verdict,
            Short(self.relative_residual()),
            counted(self.products, "product")
        )
    }
}

impl ConjugateGradients {
    /// Sets ‖b − Ax‖ at which the iteration stops, relative to ‖b‖.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the number of products after which the iteration stops, converged or not.
    #[must_use]
    pub fn with_max_products(mut self, max_products: usize) -> Self {
        self.max_products = max_products;
        self
    }

    /// Solves Ax = b from x = 0. An iteration that does not converge is not an error: see [`LinearSolution::verdict`].
    ///
    /// # Errors
    /// A setting out of range; a b of the wrong length or not finite; a matrix that is not positive definite, if the iteration
    /// meets a direction v with vᵀAv ≤ 0; products that fail or are not finite.
    pub fn solve(&self, operator: &dyn LinearOperator, b: &[f64]) -> Result<LinearSolution> {
        self.run(operator, None, b)
    }

    /// Solves Ax = b with a preconditioner: an operator whose products approximate those of A⁻¹, such as a
    /// [`KroneckerInverse`](crate::operator::KroneckerInverse). It must be symmetric and positive definite.
    ///
    /// ```
    /// use loss_landscape::ndarray::{Array1, Array2};
    /// use loss_landscape::prelude::*;
    /// use loss_landscape::spectral::ConjugateGradients;
    ///
    /// // diag(1, 2, …, 1000) and its inverse.
    /// let diagonal = Array1::from_iter((1..=1000).map(f64::from));
    /// let a = Dense::new(Array2::from_diag(&diagonal))?;
    /// let inverse = Dense::new(Array2::from_diag(&diagonal.mapv(f64::recip)))?;
    /// let (cg, b) = (ConjugateGradients::default(), vec![1.0; 1000]);
    /// assert!(cg.solve(&a, &b)?.products > 100);
    /// assert_eq!(cg.solve_preconditioned(&a, &inverse, &b)?.products, 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`solve`](Self::solve); a preconditioner of another size, or that is not positive definite.
    pub fn solve_preconditioned(
        &self,
        operator: &dyn LinearOperator,
        preconditioner: &dyn LinearOperator,
        b: &[f64],
    ) -> Result<LinearSolution> {
        if preconditioner.dim() != operator.dim() {
            return Err(Error::invalid(format!(
                "the preconditioner has {} and the matrix {}: both must have the same size",
                counted(preconditioner.dim(), "row"),
                operator.dim()
            )));
        }
        self.run(operator, Some(preconditioner), b)
    }

    fn run(
        &self,
        operator: &dyn LinearOperator,
        preconditioner: Option<&dyn LinearOperator>,
        b: &[f64],
    ) -> Result<LinearSolution> {
        self.check()?;
        check_length(b, operator.dim())?;
        check_finite(b, "the right-hand side")?;
        let right_side = norm(b);
        if right_side == 0.0 {
            return Ok(LinearSolution {
                x: vec![0.0; b.len()],
                residual: 0.0,
                rounding: 0.0,
                right_side,
                products: 0,
                verdict: SolverVerdict::Converged,
            });
        }
        let mut iteration = Iteration {
            operator,
            preconditioner,
            tolerance: self.tolerance,
            max_products: self.max_products,
            products: 0,
            largest: 0.0,
            progress: Progress::start("conjugate gradients"),
        };
        // With ‖b‖ = 1, products of long vectors neither overflow nor underflow.
        let b: Vec<f64> = b.iter().map(|b| b / right_side).collect();
        let (mut x, residual, verdict) = iteration.solve(&b)?;
        let rounding = operator.epsilon() * (1.0 + iteration.largest * norm(&x));
        scale(&mut x, right_side);
        check_finite(&x, "the solution")?;
        Ok(LinearSolution {
            x,
            residual: residual * right_side,
            rounding: rounding * right_side,
            right_side,
            products: iteration.products,
            verdict,
        })
    }

    /// Returns an error for a setting out of range.
    pub(crate) fn check(&self) -> Result<()> {
        check_positive(self.tolerance, "the tolerance")?;
        if self.max_products < 2 {
            return Err(Error::invalid(format!(
                "max_products is {}: allow at least 2, for a step and its residual",
                self.max_products
            )));
        }
        Ok(())
    }
}

struct Iteration<'a> {
    operator: &'a dyn LinearOperator,
    preconditioner: Option<&'a dyn LinearOperator>,
    tolerance: f64,
    max_products: usize,
    products: usize,
    /// Largest vᵀAv/vᵀv so far.
    largest: f64,
    progress: Progress,
}

impl Iteration<'_> {
    /// Returns x, ‖b − Ax‖ and the verdict, for ‖b‖ = 1.
    fn solve(&mut self, b: &[f64]) -> Result<(Vec<f64>, f64, SolverVerdict)> {
        let (mut best, mut residual, mut size) = (vec![0.0; b.len()], b.to_vec(), 1.0);
        loop {
            let mut x = best.clone();
            self.descend(&mut x, residual)?;
            residual = minus(b, &self.product(&x)?);
            let found = norm(&residual);
            let is_limited = found > 0.5 * size;
            if found < size {
                (best, size) = (x, found);
            }
            let verdict = if size <= self.tolerance {
                SolverVerdict::Converged
            } else if self.products + 2 > self.max_products {
                SolverVerdict::TooFewProducts
            } else if is_limited {
                SolverVerdict::LimitedByRounding
            } else {
                continue;
            };
            return Ok((best, size, verdict));
        }
    }

    /// Adds steps to x until the updated residual is at most the tolerance, or only one product is left.
    fn descend(&mut self, x: &mut [f64], mut residual: Vec<f64>) -> Result<()> {
        let (mut direction, mut square) = (Vec::new(), 0.0);
        while norm(&residual) > self.tolerance && self.products + 1 < self.max_products {
            let reduced = self.precondition(&residual)?;
            let next = dot(&residual, &reduced);
            if next.is_nan() || next <= 0.0 {
                return Err(Error::invalid(format!(
                    "the preconditioner is not positive definite: rᵀM⁻¹r = {next:.1e} for a residual r"
                )));
            }
            match direction.is_empty() {
                true => direction = reduced,
                false => {
                    scale(&mut direction, next / square);
                    axpy(1.0, &reduced, &mut direction);
                }
            }
            square = next;
            let image = self.product(&direction)?;
            let (curvature, length) = (dot(&direction, &image), dot(&direction, &direction));
            self.largest = self.largest.max(curvature / length);
            if curvature <= f64::EPSILON * self.largest * length {
                return Err(Error::invalid(format!(
                    "the matrix is not positive definite: vᵀAv/vᵀv = {:.1e} for a direction v of step {}; add more than \
                     the opposite of this to the diagonal with operator::Shifted",
                    curvature / length,
                    self.products
                )));
            }
            axpy(square / curvature, &direction, x);
            axpy(-square / curvature, &image, &mut residual);
            let size = norm(&residual);
            let products = self.products;
            self.progress
                .tick(|| format!("{}, residual {size:.1e}", counted(products, "product")));
        }
        Ok(())
    }

    fn product(&mut self, v: &[f64]) -> Result<Vec<f64>> {
        self.products += 1;
        Ok(checked_products(self.operator, &[v.to_vec()])?.swap_remove(0))
    }

    /// M⁻¹r
    fn precondition(&self, residual: &[f64]) -> Result<Vec<f64>> {
        match self.preconditioner {
            None => Ok(residual.to_vec()),
            Some(operator) => Ok(checked_products(operator, &[residual.to_vec()])?.swap_remove(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::operator::Dense;
    use crate::vector::gaussian;

    fn diagonal(values: impl IntoIterator<Item = f64>) -> Dense {
        Dense::new(Array2::from_diag(&Array1::from_iter(values))).unwrap()
    }

    /// QDQᵀ for a random reflection Q.
    fn reflected(values: &[f64]) -> Dense {
        let n = values.len();
        let mut v = gaussian(n, 3);
        let length = norm(&v);
        scale(&mut v, 1.0 / length);
        let v = Array1::from(v).insert_axis(ndarray::Axis(1));
        let q = Array2::eye(n) - 2.0 * v.dot(&v.t());
        let d = Array2::from_diag(&Array1::from(values.to_vec()));
        Dense::new(q.dot(&d).dot(&q)).unwrap()
    }

    #[test]
    fn the_solution_and_its_residual_are_those_of_the_matrix() {
        let values: Vec<f64> = (0..60).map(|i| 1e4f64.powf(f64::from(i) / 59.0)).collect();
        let a = reflected(&values);
        let exact = gaussian(60, 1);
        let b = a.apply(&exact).unwrap();
        let cg = ConjugateGradients::default().with_tolerance(1e-10);
        let found = cg.solve(&a, &b).unwrap();
        assert!(found.verdict.is_converged(), "{found}");
        let residual = norm(&minus(&b, &a.apply(&found.x).unwrap()));
        assert!((found.residual - residual).abs() <= found.rounding);
        assert!(found.relative_residual() <= 1e-10);
        // ‖e‖ ≤ ‖r‖/λ_min with λ_min = 1.
        assert!(norm(&minus(&found.x, &exact)) <= found.residual + found.rounding);
        // The length of b neither overflows nor underflows.
        for factor in [1e-200, 1e200] {
            let b: Vec<f64> = b.iter().map(|b| factor * b).collect();
            let other = cg.solve(&a, &b).unwrap();
            assert!(other.verdict.is_converged());
            assert!((norm(&other.x) / (factor * norm(&found.x)) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn products_are_at_most_the_distinct_eigenvalues_and_one() {
        let values: Vec<f64> = (0..40).map(|i| [1.0, 5.0, 70.0][i % 3]).collect();
        let found = ConjugateGradients::default()
            .solve(&reflected(&values), &gaussian(40, 2))
            .unwrap();
        assert!(
            found.verdict.is_converged() && found.products == 4,
            "{found}"
        );
    }

    #[test]
    fn a_preconditioner_changes_the_number_of_products_and_not_the_solution() {
        let values: Vec<f64> = (1..=200).map(|i| f64::from(i).powi(2)).collect();
        let a = diagonal(values.clone());
        let near = diagonal(values.iter().enumerate().map(|(i, v)| {
            let wrong = 1.0 + 0.3 * (i as f64).sin();
            wrong / v
        }));
        let b = gaussian(200, 4);
        let cg = ConjugateGradients::default();
        let plain = cg.solve(&a, &b).unwrap();
        let faster = cg.solve_preconditioned(&a, &near, &b).unwrap();
        assert!(plain.verdict.is_converged() && faster.verdict.is_converged());
        assert!(5 * faster.products < plain.products, "{plain}; {faster}");
        assert!(norm(&minus(&plain.x, &faster.x)) <= plain.residual + faster.residual);
    }

    #[test]
    fn what_cannot_be_solved_is_said() {
        let cg = ConjugateGradients::default();
        let message = |result: Result<LinearSolution>| result.unwrap_err().to_string();
        let indefinite = diagonal([2.0, -1.0, 3.0]);
        let found = message(cg.solve(&indefinite, &[1.0; 3]));
        assert!(found.contains("not positive definite"), "{found}");
        // Singular, and b is not in the range: of a zero matrix, and of one with a null vector.
        let zero = message(cg.solve(&diagonal([0.0; 2]), &[1.0; 2]));
        assert!(zero.contains("not positive definite"), "{zero}");
        let null = message(cg.solve(&diagonal([0.0, 1.0]), &[1.0; 2]));
        assert!(null.contains("not positive definite"), "{null}");
        let one = diagonal([1.0, 1.0]);
        assert!(
            message(cg.solve(&one, &[f64::NAN, 1.0])).contains("right-hand side is not finite")
        );
        assert!(message(cg.solve(&one, &[1.0])).contains("1 entry"));
        let wrong = message(cg.solve_preconditioned(&one, &diagonal([1.0]), &[1.0; 2]));
        assert!(wrong.contains("same size"), "{wrong}");
        let negative = message(cg.solve_preconditioned(&one, &diagonal([-1.0; 2]), &[1.0; 2]));
        assert!(negative.contains("preconditioner is not positive definite"));
        let few = cg.clone().with_max_products(1);
        assert!(message(few.solve(&one, &[1.0; 2])).contains("at least 2"));
        let loose = cg.with_tolerance(0.0);
        assert!(message(loose.solve(&one, &[1.0; 2])).contains("above 0"));
    }

    #[test]
    fn edge_cases_have_results() {
        let cg = ConjugateGradients::default();
        let zero = cg.solve(&diagonal([1.0, 2.0]), &[0.0; 2]).unwrap();
        assert_eq!((zero.x, zero.products), (vec![0.0; 2], 0));
        assert!(zero.verdict.is_converged());
        let one = cg.solve(&diagonal([4.0]), &[2.0]).unwrap();
        assert_eq!((one.x, one.residual, one.products), (vec![0.5], 0.0, 2));
        // A singular matrix whose range contains b.
        let inside = cg
            .solve(&diagonal([0.0, 2.0, 3.0]), &[0.0, 2.0, 3.0])
            .unwrap();
        assert!(inside.verdict.is_converged() && inside.x[0] == 0.0);
        let values: Vec<f64> = (0..100).map(|i| 1e6f64.powf(f64::from(i) / 99.0)).collect();
        let (hard, b) = (reflected(&values), gaussian(100, 5));
        let stopped = cg.clone().with_max_products(10).solve(&hard, &b).unwrap();
        assert_eq!(stopped.verdict, SolverVerdict::TooFewProducts);
        assert_eq!(stopped.products, 10);
        let residual = norm(&minus(&b, &hard.apply(&stopped.x).unwrap()));
        assert!((stopped.residual - residual).abs() < 1e-12 * norm(&b));
        let exact = cg.with_tolerance(1e-30).with_max_products(100_000);
        let rounded = exact.solve(&hard, &b).unwrap();
        assert_eq!(
            rounded.verdict,
            SolverVerdict::LimitedByRounding,
            "{rounded}"
        );
    }
}
