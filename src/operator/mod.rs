//! [`LinearOperator`]: a symmetric matrix known by its products, and its kinds.
//!
//! | operator | matrix |
//! | --- | --- |
//! | [`Hessian`] | ∇²L(θ) |
//! | [`GaussNewton`] | (1/n) Σ JᵢᵀHᵢJᵢ, with Jᵢ the outputs' Jacobian and Hᵢ = ∇²ℓ by the outputs |
//! | [`Fisher`] | the covariance of the score under the model's own predictions; for each [`Loss`](crate::objective::Loss) it equals Gauss–Newton's matrix without L2 |
//! | [`EmpiricalFisher`] | (1/n) Σ gᵢgᵢᵀ, with gᵢ = ∇ℓᵢ(θ) |
//! | [`GradientCovariance`] | (1/n) Σ gᵢgᵢᵀ − ggᵀ, with g the mean of the gᵢ |
//! | [`Shifted`], [`Scaled`], [`Block`] | A + λI, DAD with a diagonal D, rows and columns of A |
//! | [`Dense`] | entries in memory |
//! | [`Divided`] | another operator's, its products made by several ranks |
//! | [`Recorded`] | another operator's, its products kept in a file |
//!
//! # The point
//!
//! An operator of an [`Objective`] has the rule that the objective itself has: each product is taken where the model stands
//! at that moment, with every part of the matrix at that one point. After more training the same operator is the matrix at
//! the new θ, with the running statistics of batch normalisation as they are then. Making an operator copies nothing.
//!
//! Whatever an operator keeps from one product to the next (a forward pass, the mean gradient) is kept together with its
//! point, and is computed again when the model has moved. `at` fixes θ, for curvature elsewhere or for operators that are
//! combined with vectors of that θ, such as [`Scaled`] by |θ|.
//!
//! A decomposition needs one matrix: do not move the model while it runs. [`Recorded`], which keeps products for longer,
//! refuses them for another [state](LinearOperator::state).

/// Methods of [`LinearOperator`] that an operator made of another one takes from it.
macro_rules! delegate {
    ($inner:ident: $($method:ident),+) => {
        $(delegate!(@ $inner $method);)+
    };
    (@ $inner:ident state) => {
        fn state(&self) -> $crate::error::Result<u64> {
            self.$inner.state()
        }
    };
    (@ $inner:ident dtype) => {
        fn dtype(&self) -> Option<candle_core::DType> {
            self.$inner.dtype()
        }
    };
    (@ $inner:ident cancelled) => {
        fn cancelled(&self) -> $crate::error::Result<f64> {
            self.$inner.cancelled()
        }
    };
}

mod changed;
mod dense;
mod divided;
mod recorded;

pub use changed::{Block, Scaled, Shifted};
pub use dense::Dense;
pub use divided::Divided;
pub use recorded::Recorded;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::DType;

use crate::checkpoint::fingerprint;
use crate::error::{Error, Result, check_finite};
use crate::model::epsilon_of;
use crate::objective::{Curvature, Objective};
use crate::vector::{axpy, dot};

/// A real symmetric n × n matrix A that is known by the products Av.
///
/// What can be asked of it is in [`Spectral`](crate::spectral::Spectral).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // diag(1, 2, …, n)
/// struct Ramp(usize);
///
/// impl LinearOperator for Ramp {
///     fn dim(&self) -> usize {
///         self.0
///     }
///
///     fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
///         Ok((1..).zip(v).map(|(k, v)| f64::from(k) * v).collect())
///     }
/// }
///
/// let largest = &Ramp(50).top(1)?.pairs[0];
/// assert!((largest.value - 50.0).abs() <= largest.residual);
/// # Ok::<(), Error>(())
/// ```
pub trait LinearOperator {
    /// n, the number of rows.
    fn dim(&self) -> usize;

    /// Av.
    ///
    /// # Errors
    /// A `v` whose length is not [`dim`](Self::dim), or whose entries are not finite; what the
    /// computation of the product runs into.
    fn apply(&self, v: &[f64]) -> Result<Vec<f64>>;

    /// Av for several vectors, which is faster together than one by one where the operator can.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        vectors.iter().map(|v| self.apply(v)).collect()
    }

    /// A number that tells the states of a matrix that changes apart, such as one that follows a model: it is another after
    /// the model has moved. A matrix that never changes has the state 0.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
    /// let (state, fixed) = (hessian.state()?, hessian.clone().at(vec![0.0; 13])?);
    /// let before = fixed.state()?;
    /// model.parameters().set_flat(&[0.5; 13])?;
    /// assert_ne!(hessian.state()?, state);
    /// assert_eq!(fixed.state()?, before);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// candle's, when a device cannot be read.
    fn state(&self) -> Result<u64> {
        Ok(0)
    }

    /// The floating-point type in which products are computed, if it is known: it tells how they are rounded. Stated errors of
    /// what is computed from products include that rounding, by default that of `f64`.
    fn dtype(&self) -> Option<DType> {
        None
    }

    /// The trace of a positive semidefinite matrix that products lose by subtraction: ‖g‖² for a covariance, whose products
    /// are those of a second moment less ggᵀ. Stated errors include its rounding. 0 where nothing is subtracted.
    ///
    /// # Errors
    /// Those of computing it.
    fn cancelled(&self) -> Result<f64> {
        Ok(0.0)
    }

    /// This operator with its products kept in the file at `path`, so that a decomposition that was broken off goes on
    /// where it was when it is called again: see [`Recorded`].
    ///
    /// # Errors
    /// A file that cannot be written to, that another process uses, or that is no record of products of an operator of
    /// this size and type.
    fn resuming(self, path: impl AsRef<Path>) -> Result<Recorded<Self>>
    where
        Self: Sized,
    {
        Recorded::open(self, path.as_ref())
    }
}

impl<A: LinearOperator + ?Sized> LinearOperator for Box<A> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        (**self).apply(v)
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        (**self).apply_block(vectors)
    }

    fn state(&self) -> Result<u64> {
        (**self).state()
    }

    fn dtype(&self) -> Option<DType> {
        (**self).dtype()
    }

    fn cancelled(&self) -> Result<f64> {
        (**self).cancelled()
    }
}

/// Machine epsilon of the type in which products are computed.
pub(crate) fn epsilon(operator: &(impl LinearOperator + ?Sized)) -> f64 {
    operator.dtype().map_or(f64::EPSILON, epsilon_of)
}

/// Av for several vectors, looked at before anything is built on it.
///
/// # Errors
/// The operator's; answers of another number or length than the questions; numbers that are not finite.
pub(crate) fn images(
    operator: &(impl LinearOperator + ?Sized),
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let images = operator.apply_block(vectors)?;
    let n = operator.dim();
    if images.len() != vectors.len() || images.iter().any(|image| image.len() != n) {
        return Err(Error::invalid(format!(
            "the operator answers {} vectors of length {n} with {} of lengths {:?}: its apply or \
             apply_block is wrong",
            vectors.len(),
            images.len(),
            images.iter().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    for image in &images {
        check_finite(image, "the matrix-vector product")?;
    }
    Ok(images)
}

macro_rules! curvature_operator {
    ($(#[$meta:meta])* $name:ident, $curvature:expr, $method:ident, $(#[$of:meta])*) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            objective: Objective,
            theta: Option<Vec<f64>>,
        }

        impl $name {
            /// The same matrix at another θ, wherever the model goes. The model stays where it is. Running statistics of
            /// batch normalisation are those of the model at each product.
            ///
            /// # Errors
            /// A θ of the wrong length or not finite.
            pub fn at(mut self, theta: Vec<f64>) -> Result<Self> {
                self.objective.parameters().check_vector(&theta, "point")?;
                self.theta = Some(theta);
                Ok(self)
            }
        }

        impl Objective {
            $(#[$of])*
            pub fn $method(&self) -> $name {
                $name {
                    objective: self.clone(),
                    theta: None,
                }
            }
        }

        impl LinearOperator for $name {
            fn dim(&self) -> usize {
                self.objective.dim()
            }

            fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
                Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
            }

            fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
                self.objective.products(self.theta.as_deref(), vectors, $curvature)
            }

            fn state(&self) -> Result<u64> {
                Ok(fingerprint(&[&self.objective.point(self.theta.as_deref())?]))
    }

            fn dtype(&self) -> Option<DType> {
                Some(self.objective.parameters().dtype())
            }
        }
    };
}

curvature_operator! {
    /// The Hessian H = ∇²L(θ) of an objective where its model stands, n × n for n parameters.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// // L(b, w) = b² + 4w².
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let hessian = Objective::of(&line, &data, Loss::Mse)?.hessian();
    /// assert_eq!(hessian.apply(&[1.0, 1.0])?, [2.0, 8.0]);
    /// let elsewhere = hessian.at(vec![3.0, 3.0])?; // the same: the loss is quadratic
    /// assert_eq!(elsewhere.dense()?.matrix(), array![[2.0, 0.0], [0.0, 8.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    Hessian, Curvature::Hessian, hessian,
    /// The Hessian of this objective, as an operator: nothing is computed yet.
}

curvature_operator! {
    /// Gauss and Newton's matrix G = (1/n) Σ JᵢᵀHᵢJᵢ + 2λI (Schraudolph, 2002): the Hessian without
    /// the network's own second derivatives.
    ///
    /// For a loss that is convex in the outputs, as both of [`Loss`](crate::objective::Loss) are, it has no eigenvalue below
    /// 2λ. With a loss of your own ([`Objective::from_loss`]) that is not convex in the outputs, Hᵢ and G can have negative
    /// eigenvalues, and G is no Fisher matrix.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?.with_l2(0.01)?;
    /// let g = objective.gauss_newton().dense()?.eigen()?.values();
    /// let h = objective.hessian().dense()?.eigen()?.values();
    /// assert!(g[12] > 0.02 - 1e-12); // no eigenvalue below 2λ
    /// assert!(h[12] < 0.02);
    /// # Ok::<(), Error>(())
    /// ```
    GaussNewton, Curvature::GaussNewton, gauss_newton,
    /// The Gauss–Newton matrix of this objective, as an operator.
}

curvature_operator! {
    /// The Fisher information E ∇ln p ∇ln pᵀ of the model's own predictions p ∝ exp(−ℓ), averaged over
    /// the inputs. For cross-entropy and for squared error it equals the Gauss–Newton matrix of the
    /// loss without its L2 term (Martens, "New insights and perspectives on the natural gradient
    /// method", 2020), and is computed so, exactly.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?.with_l2(0.01)?;
    /// let v = direction::gaussian(model.parameters(), 0);
    /// let fisher = Shifted::new(objective.fisher(), 2.0 * 0.01)?;
    /// for (a, b) in fisher
    ///     .apply(&v)?
    ///     .iter()
    ///     .zip(objective.gauss_newton().apply(&v)?)
    /// {
    ///     assert!((a - b).abs() < 1e-12);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    Fisher, Curvature::Fisher, fisher,
    /// The Fisher information of this objective's model, as an operator.
}

curvature_operator! {
    /// The empirical Fisher matrix (1/n) Σ gᵢgᵢᵀ: the second moment of the samples' gradients. It is
    /// not the Fisher information (Kunstner, Hennig and Balles, 2019).
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// // The samples' losses (w·x + b)² at x = ±2 have the gradients (0, 0) and (4, 8) where b = 1, w = ½.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// let objective = Objective::of(&line, &data, Loss::Mse)?;
    /// let moment = objective.empirical_fisher().dense()?;
    /// assert_eq!(moment.matrix(), array![[8.0, 16.0], [16.0, 32.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    EmpiricalFisher, Curvature::Gradients, empirical_fisher,
    /// The second moment of the samples' gradients, as an operator.
}

/// The covariance (1/n) Σ gᵢgᵢᵀ − ggᵀ of the samples' gradients, which for batches of B samples drawn
/// with replacement is B times the covariance of the batch gradient.
///
/// The mean gradient g is kept with its point and taken again where the model has moved.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// // The samples' gradients are (0, 0) and (4, 8) where b = 1, w = ½.
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
    moment: EmpiricalFisher,
    mean: Arc<Mutex<Option<MeanGradient>>>,
}

/// g and the point where it was taken: θ and the running statistics.
#[derive(Clone, Debug)]
struct MeanGradient {
    point: Vec<f64>,
    gradient: Arc<Vec<f64>>,
}

impl Objective {
    /// The covariance of the samples' gradients, as an operator; it takes one gradient.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; an objective [with batch statistics](Self::with_batch_statistics).
    pub fn gradient_covariance(&self) -> Result<GradientCovariance> {
        self.needs_independent_samples("the covariance of the samples' gradients")?;
        let covariance = GradientCovariance {
            moment: self.clone().with_l2(0.0)?.empirical_fisher(),
            mean: Arc::default(),
        };
        covariance.place()?;
        Ok(covariance)
    }
}

impl GradientCovariance {
    /// The same matrix at another θ, wherever the model goes; the model stays where it is.
    ///
    /// # Errors
    /// A θ of the wrong length or not finite.
    pub fn at(self, theta: Vec<f64>) -> Result<Self> {
        Ok(Self {
            moment: self.moment.at(theta)?,
            mean: Arc::default(),
        })
    }

    /// θ at this moment, and the mean gradient there.
    fn place(&self) -> Result<(Vec<f64>, Arc<Vec<f64>>)> {
        let objective = &self.moment.objective;
        let point = objective.point(self.moment.theta.as_deref())?.into_owned();
        let theta = point[..objective.dim()].to_vec();
        let mut kept = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mean) = &*kept
            && mean.point == point
        {
            return Ok((theta, mean.gradient.clone()));
        }
        let gradient = Arc::new(objective.gradient_at(&theta)?.1);
        *kept = Some(MeanGradient {
            point,
            gradient: gradient.clone(),
        });
        Ok((theta, gradient))
    }
}

impl LinearOperator for GradientCovariance {
    fn dim(&self) -> usize {
        self.moment.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let (theta, gradient) = self.place()?;
        let objective = &self.moment.objective;
        let mut products = objective.products(Some(&theta), vectors, Curvature::Gradients)?;
        for (product, v) in products.iter_mut().zip(vectors) {
            axpy(-dot(&gradient, v), &gradient, product);
            // One gradient does not vary: what is left is rounding, and of no matrix.
            if objective.samples() == 1 {
                product.fill(0.0);
            }
        }
        Ok(products)
    }

    delegate!(moment: state, dtype);

    fn cancelled(&self) -> Result<f64> {
        if self.moment.objective.samples() == 1 {
            return Ok(0.0);
        }
        let (_, gradient) = self.place()?;
        Ok(dot(&gradient, &gradient))
    }
}

impl Objective {
    /// The empirical neural tangent kernel JJᵀ where the model stands, with a row for each output of each sample (Jacot,
    /// Gabriel and Hongler, "Neural Tangent Kernel: Convergence and Generalization in Neural Networks", 2018). For squared
    /// error without an L2 term its eigenvalues but zeros are those of [`GaussNewton`], times half its number of rows.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let set = teacher_student(5, &[2, 3, 1], 0.1, 0, &Device::Cpu)?;
    /// let student =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&student, &set.data, Loss::Mse)?;
    /// let kernel = objective.tangent_kernel()?.eigen()?.values(); // 5 × 5
    /// let newton = objective.gauss_newton().dense()?.eigen()?.values(); // 13 × 13
    /// for (k, g) in kernel.iter().zip(&newton) {
    ///     assert!((k - g * 5.0 / 2.0).abs() < 1e-10);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; as [`Objective::jacobian`].
    pub fn tangent_kernel(&self) -> Result<Dense> {
        let jacobian = self.jacobian()?;
        if jacobian.nrows() > Dense::MAX_DIM {
            return Err(Error::invalid(format!(
                "a tangent kernel of {} rows is too large (dense matrices go up to {}): take fewer samples",
                jacobian.nrows(),
                Dense::MAX_DIM
            )));
        }
        Ok(Dense::new(jacobian.dot(&jacobian.t()))?.computed_in(self.parameters().dtype()))
    }
}

fn check_length(v: &[f64], n: usize) -> Result<()> {
    if v.len() != n {
        return Err(Error::invalid(format!(
            "the vector has {} entries but the matrix has {n} columns",
            v.len()
        )));
    }
    Ok(())
}
