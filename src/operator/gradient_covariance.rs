//! [`GradientCovariance`]: the covariance of the per-sample gradients.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{EmpiricalFisher, LinearOperator, check_restricted};
use crate::error::Result;
use crate::losses::Curvature;
use crate::objective::Objective;
use crate::vector::{axpy, dot, restrict};

/// The covariance (1/n) Σ gᵢgᵢᵀ − ggᵀ of the per-sample gradients. For batches of B samples drawn with replacement it is B
/// times the covariance of the batch gradient.
///
/// The mean gradient g is cached, and computed again after the model's parameters have changed.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// // The per-sample gradients are (0, 0) and (4, 8) at b = 1, w = ½.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.5])?;
/// let covariance = Objective::of(&line, &data, Loss::Mse)?.gradient_covariance()?;
/// assert_eq!(covariance.dense()?.matrix(), array![[4.0, 8.0], [8.0, 16.0]]);
/// line.parameters().set_flat(&[0.0, 0.0])?; // both gradients are 0
/// assert_eq!(covariance.dense()?.matrix(), array![[0.0, 0.0], [0.0, 0.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientCovariance {
    second_moment: EmpiricalFisher,
    cached: Arc<Mutex<Option<MeanGradient>>>,
}

/// g at `point`, which is θ followed by the running statistics.
#[derive(Clone, Debug)]
struct MeanGradient {
    point: Vec<f64>,
    gradient: Arc<Vec<f64>>,
}

impl Objective {
    /// The covariance of the per-sample gradients, as an operator. Computes one gradient.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; an objective [with batch statistics](Self::with_batch_statistics).
    pub fn gradient_covariance(&self) -> Result<GradientCovariance> {
        self.needs_independent_samples("the covariance of the per-sample gradients")?;
        let covariance = GradientCovariance {
            second_moment: self.clone().with_l2(0.0)?.empirical_fisher(),
            cached: Arc::default(),
        };
        covariance.mean_gradient()?;
        Ok(covariance)
    }
}

impl GradientCovariance {
    /// The same matrix at a fixed θ, which does not follow the model. The model's parameters do not change.
    ///
    /// # Errors
    /// A θ of the wrong length or not finite.
    pub fn at(self, theta: Vec<f64>) -> Result<Self> {
        Ok(Self {
            second_moment: self.second_moment.at(theta)?,
            cached: Arc::default(),
        })
    }

    /// The current θ, and the mean gradient there.
    fn mean_gradient(&self) -> Result<(Vec<f64>, Arc<Vec<f64>>)> {
        let objective = &self.second_moment.objective;
        let point = objective.point(self.second_moment.theta.as_deref())?;
        let theta = point[..objective.dim()].to_vec();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mean) = &*cached
            && mean.point == point
        {
            return Ok((theta, mean.gradient.clone()));
        }
        let gradient = Arc::new(objective.gradient_at(&theta)?.1);
        *cached = Some(MeanGradient {
            point,
            gradient: gradient.clone(),
        });
        Ok((theta, gradient))
    }

    /// Subtracts ggᵀv from each product.
    fn subtract_mean(&self, gradient: &[f64], vectors: &[Vec<f64>], products: &mut [Vec<f64>]) {
        for (product, v) in products.iter_mut().zip(vectors) {
            axpy(-dot(gradient, v), gradient, product);
            // The covariance of a single gradient is 0; the difference is only rounding.
            if self.second_moment.objective.samples() == 1 {
                product.fill(0.0);
            }
        }
    }
}

impl LinearOperator for GradientCovariance {
    fn dim(&self) -> usize {
        self.second_moment.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let (theta, gradient) = self.mean_gradient()?;
        let objective = &self.second_moment.objective;
        let mut products = objective.products(Some(&theta), vectors, Curvature::Gradients)?;
        self.subtract_mean(&gradient, vectors, &mut products);
        Ok(products)
    }

    fn apply_restricted(
        &self,
        ranges: &[Range<usize>],
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        check_restricted(ranges, vectors, self.dim())?;
        let (theta, gradient) = self.mean_gradient()?;
        let second_moment = self.second_moment.clone().at(theta)?;
        let mut products = second_moment.apply_restricted(ranges, vectors)?;
        self.subtract_mean(&restrict(&gradient, ranges), vectors, &mut products);
        Ok(products)
    }

    delegate!(second_moment: state, dtype, epsilon);

    fn cancellation(&self) -> Result<f64> {
        if self.second_moment.objective.samples() == 1 {
            return Ok(0.0);
        }
        let (_, gradient) = self.mean_gradient()?;
        Ok(dot(&gradient, &gradient))
    }
}
