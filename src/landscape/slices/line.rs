//! [`Line`]: loss along a direction.

use serde::{Deserialize, Serialize};

use super::fingerprint::{check_fingerprint, fingerprint_at};
use super::loss_at_points::scores;
use super::statistics_source::needs_statistics_everywhere;
use super::{StatisticsSource, grid, nan_as_null};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::vector::{axpy, dot, minus, norm};

/// Loss along a direction: L(θ + αd) for several α.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w².
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 0.5])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let line = Line::along(&objective, &[0.0, 1.0], 1.0, 5)?;
/// assert_eq!(line.alphas, [-1.0, -0.5, 0.0, 0.5, 1.0]);
/// assert_eq!(line.losses, [2.0, 1.0, 2.0, 5.0, 10.0]); // 1 + 4(½ + α)²
/// assert_eq!((line.slope, line.curvature), (4.0, 8.0));
/// assert_eq!(line.quadratic(), line.losses);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// α, in units of the direction's norm.
    pub alphas: Vec<f64>,
    /// L(θ + αd) for each α; NaN where it is not finite.
    #[serde(with = "nan_as_null")]
    pub losses: Vec<f64>,
    /// Fraction of samples classified correctly at each α, for data with labels; NaN where the loss is.
    #[serde(with = "nan_as_null")]
    pub accuracies: Option<Vec<f64>>,
    /// ‖∇L(θ + αd)‖ for each α, after [`Line::with_gradient_norms`]; NaN where it is not finite.
    #[serde(with = "nan_as_null")]
    pub gradient_norms: Option<Vec<f64>>,
    /// L(θ).
    pub center: f64,
    /// dL/dα at α = 0: gᵀd.
    pub slope: f64,
    /// d²L/dα² at α = 0: dᵀHd.
    pub curvature: f64,
    /// Source of the batch-normalisation statistics.
    #[serde(default)]
    pub statistics: StatisticsSource,
    /// Hash of θ, the running statistics and the direction. [`Line::with_gradient_norms`] checks it.
    #[serde(default)]
    pub fingerprint: u64,
}

impl Line {
    /// Computes the loss at `points` evenly spaced α from `-radius` to `radius` along `direction`, and the slope and curvature
    /// at the centre from one gradient and one Hessian–vector product.
    ///
    /// # Errors
    /// `direction` has the wrong length or entries that are not finite; `radius` is not positive; `points` is below 2; the loss
    /// or gradient at θ is not finite.
    pub fn along(
        objective: &Objective,
        direction: &[f64],
        radius: f64,
        points: usize,
    ) -> Result<Self> {
        Self::at_alphas(objective, direction, grid::symmetric(radius, points)?)
    }

    /// Computes the loss on the straight line from the model's parameters (α = 0) to `other` (α = 1).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let other = vec![0.0; objective.dim()];
    /// let line = Line::between(&objective, &other, 11)?;
    /// assert_eq!(line.losses[0], objective.loss()?);
    /// assert!((line.losses[10] - 2f64.ln()).abs() < 1e-12); // a network whose output is always ½
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Line::along`]; the model has running statistics of batch normalisation, which do not fit the other end: use an
    /// objective [with batch statistics](Objective::with_batch_statistics), or [`Curve::profile`](crate::landscape::Curve::profile).
    pub fn between(objective: &Objective, other: &[f64], points: usize) -> Result<Self> {
        needs_statistics_everywhere(objective, "a line between two models")?;
        objective.parameters().check_vector(other, "other end")?;
        let direction = minus(other, &objective.parameters().to_flat()?);
        let unit = grid::symmetric(0.5, points)?;
        let alphas = unit.iter().map(|u| u + 0.5).collect();
        Self::at_alphas(objective, &direction, alphas)
    }

    /// Computes the loss at the given increasing `alphas` along `direction`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w², along w from the minimum.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// model.parameters().set_flat(&[0.0, 0.0])?;
    /// let objective = Objective::of(&model, &data, Loss::Mse)?;
    /// let line = Line::at_alphas(&objective, &[0.0, 1.0], vec![0.0, 1.0, 10.0])?;
    /// assert_eq!(line.losses, [0.0, 4.0, 400.0]);
    /// let line = line.with_gradient_norms(&objective, &[0.0, 1.0])?;
    /// assert_eq!(line.gradient_norms, Some(vec![0.0, 8.0, 80.0])); // |8w|
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Line::along`]; `alphas` are not finite or not increasing.
    pub fn at_alphas(objective: &Objective, direction: &[f64], alphas: Vec<f64>) -> Result<Self> {
        grid::check_increasing(&alphas, "α")?;
        objective
            .parameters()
            .check_vector(direction, "direction")?;
        let theta = objective.parameters().to_flat()?;
        let (center, (_, gradient)) = (objective.loss_at(&theta)?, objective.gradient_at(&theta)?);
        let product = objective.hessian().at(theta.clone())?.apply(direction)?;
        let points: Vec<[f64; 2]> = alphas.iter().map(|alpha| [*alpha, 0.0]).collect();
        let vectors = [&theta[..], direction, direction];
        let scores = scores("line", objective, vectors, &points, None)?;
        Ok(Self {
            alphas,
            losses: scores.iter().map(|score| score.loss).collect(),
            accuracies: scores.iter().map(|score| score.accuracy).collect(),
            gradient_norms: None,
            center,
            slope: dot(&gradient, direction),
            curvature: dot(&product, direction),
            statistics: StatisticsSource::from_objective(objective),
            fingerprint: fingerprint_at(objective, &theta, &[direction])?,
        })
    }

    /// Adds the norm of the gradient at each α. `direction` is the one the line was computed along.
    ///
    /// # Errors
    /// As [`Line::along`]; another direction, or the model's parameters have changed.
    pub fn with_gradient_norms(mut self, objective: &Objective, direction: &[f64]) -> Result<Self> {
        objective
            .parameters()
            .check_vector(direction, "direction")?;
        let theta = objective.parameters().to_flat()?;
        let fingerprint = fingerprint_at(objective, &theta, &[direction])?;
        check_fingerprint(fingerprint, self.fingerprint, "line")?;
        let mut progress = Progress::start("gradients");
        let mut norms = Vec::with_capacity(self.alphas.len());
        for alpha in &self.alphas {
            let mut moved = theta.clone();
            axpy(*alpha, direction, &mut moved);
            norms.push(match objective.gradient_at(&moved) {
                Err(Error::NotFinite(_)) => f64::NAN,
                found => norm(&found?.1),
            });
            progress.part(norms.len(), self.alphas.len());
        }
        self.gradient_norms = Some(norms);
        Ok(self)
    }

    /// Returns the second-order Taylor expansion L(θ) + αgᵀd + ½α²dᵀHd for each α.
    pub fn quadratic(&self) -> Vec<f64> {
        let at = |a: &f64| self.center + a * self.slope + 0.5 * a * a * self.curvature;
        self.alphas.iter().map(at).collect()
    }
}
