//! [`LinearOperator`]: a symmetric matrix given by its products with vectors, and its kinds.
//!
//! | operator | matrix |
//! | --- | --- |
//! | [`Hessian`] | ∇²L(θ) |
//! | [`GaussNewton`] | (1/n) Σ JᵢᵀHᵢJᵢ, with the Jacobian Jᵢ of the outputs and Hᵢ = ∇²ℓ with respect to the outputs |
//! | [`Fisher`] | covariance of the score under the model's own predictions; for each [`Loss`](crate::objective::Loss) it equals the Gauss–Newton matrix without L2 |
//! | [`EmpiricalFisher`] | (1/n) Σ gᵢgᵢᵀ, with gᵢ = ∇ℓᵢ(θ) |
//! | [`GradientCovariance`] | (1/n) Σ gᵢgᵢᵀ − ggᵀ, with the mean g of the gᵢ |
//! | [`KroneckerFactored`], [`KroneckerInverse`] | K-FAC or EKFAC approximation of the Gauss–Newton matrix by [`Kfac`]; its damped inverse |
//! | [`Shifted`], [`Scaled`], [`Block`] | A + λI, DAD with a diagonal D, rows and columns of A |
//! | [`Blocks`] | several named blocks of A, such as one per layer |
//! | [`Dense`] | entries in memory |
//! | [`External`] | any, with products computed by another process, such as one that runs PyTorch or JAX |
//! | [`Distributed`] | A, with products distributed over ranks |
//! | [`Recorded`] | A, with products saved in a file |
//!
//! `&A`, `Box<A>` and `Arc<A>` are operators if `A` is one.
//!
//! # Which θ
//!
//! An operator of an [`Objective`](crate::objective::Objective) follows the model: each product is taken at the model's
//! current θ, with its current running statistics of batch normalisation. After more training the same operator is the matrix
//! at the new θ. Creating an operator copies nothing.
//!
//! Values cached between products (a forward pass, the mean gradient) are computed again when the model has changed. `at`
//! fixes θ, for curvature at another point or for operators that are combined with vectors of that θ, such as [`Scaled`] by
//! |θ|.
//!
//! A decomposition needs a constant matrix: do not change the model while it runs. [`Recorded`] checks this: it refuses
//! products in another [state](LinearOperator::state).

/// Forwards methods of [`LinearOperator`] to the wrapped operator.
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
    (@ $inner:ident epsilon) => {
        fn epsilon(&self) -> f64 {
            self.$inner.epsilon()
        }
    };
    (@ $inner:ident cancellation) => {
        fn cancellation(&self) -> $crate::error::Result<f64> {
            self.$inner.cancellation()
        }
    };
}

mod attention_heads;
mod block;
mod block_pattern;
mod blocks;
mod curvature;
mod dense;
mod distributed;
mod external;
mod gradient_covariance;
mod kfac;
mod recorded;
mod scaled;
mod shifted;
mod tangent_kernel;

pub use block::Block;
pub use blocks::Blocks;
pub use curvature::{EmpiricalFisher, Fisher, GaussNewton, Hessian};
pub use dense::Dense;
pub use distributed::Distributed;
pub use external::External;
pub use gradient_covariance::GradientCovariance;
pub use kfac::{Kfac, KroneckerFactored, KroneckerInverse};
pub use recorded::Recorded;
pub use scaled::Scaled;
pub use shifted::Shifted;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::DType;

use crate::error::{Error, Result, check_finite, counted};
use crate::parameters::epsilon_of;
use crate::progress;
use crate::vector::{embed, restrict};

/// A real symmetric n × n matrix A, given by its products Av.
///
/// [`Spectral`](crate::spectral::Spectral) lists what can be computed from the products.
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
    /// Number of rows, n.
    fn dim(&self) -> usize;

    /// Returns Av.
    ///
    /// # Shapes
    /// `v` and the result have length n.
    ///
    /// # Errors
    /// A `v` of another length or with entries that are not finite; a failed product.
    fn apply(&self, v: &[f64]) -> Result<Vec<f64>>;

    /// Returns Av for several vectors. Some operators are faster with several vectors than with one after the other.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let product = |v: &Vec<f64>| {
            progress::check()?;
            self.apply(v)
        };
        vectors.iter().map(product).collect()
    }

    /// Returns the products of a [`Block`] with several vectors: v is zero outside the `ranges` of rows, and only these rows
    /// of Av are returned.
    ///
    /// The default implementation computes whole products. An operator that can save work here implements its own.
    ///
    /// # Shapes
    /// Each of the `vectors` and each result holds the rows of the ranges, in order.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); ranges that are empty, overlap, are not ascending or not within the matrix.
    fn apply_restricted(
        &self,
        ranges: &[Range<usize>],
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        let n = self.dim();
        check_restricted(ranges, vectors, n)?;
        let embedded: Vec<_> = vectors.iter().map(|v| embed(v, ranges, n, |x| x)).collect();
        let products = self.apply_block(&embedded)?;
        check_products(&products, vectors.len(), n)?;
        Ok(products
            .iter()
            .map(|product| restrict(product, ranges))
            .collect())
    }

    /// A number that identifies the current state of a matrix that changes, such as one that follows a model: it differs
    /// after the model has changed. A matrix that never changes has the state 0.
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
    /// A device that cannot be read.
    fn state(&self) -> Result<u64> {
        Ok(0)
    }

    /// The floating-point type in which products are computed, if known.
    fn dtype(&self) -> Option<DType> {
        None
    }

    /// Relative rounding error of the arithmetic of products. Stated errors include it. The default is the machine epsilon of
    /// [`dtype`](Self::dtype), or of `f64` if that is unknown.
    fn epsilon(&self) -> f64 {
        self.dtype().map_or(f64::EPSILON, epsilon_of)
    }

    /// Trace of a positive semidefinite matrix that products subtract, 0 if none: ‖g‖² for a covariance, whose products are
    /// those of a second moment minus those of ggᵀ. Stated errors include the rounding of this difference.
    ///
    /// # Errors
    /// A failed computation.
    fn cancellation(&self) -> Result<f64> {
        Ok(0.0)
    }

    /// Saves the products of this operator in a file, so that an interrupted decomposition resumes when it is called again:
    /// see [`Recorded`].
    ///
    /// # Errors
    /// A file that cannot be written, that another process uses, or that does not hold products of an operator of this size
    /// and type.
    fn with_checkpoint(self, path: impl AsRef<Path>) -> Result<Recorded<Self>>
    where
        Self: Sized,
    {
        Recorded::open(self, path.as_ref())
    }
}

/// Implements the trait for a pointer to an operator.
macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<A: LinearOperator + ?Sized> LinearOperator for $pointer {
            fn dim(&self) -> usize {
                (**self).dim()
            }

            fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
                (**self).apply(v)
            }

            fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
                (**self).apply_block(vectors)
            }

            fn apply_restricted(
                &self,
                ranges: &[Range<usize>],
                vectors: &[Vec<f64>],
            ) -> Result<Vec<Vec<f64>>> {
                (**self).apply_restricted(ranges, vectors)
            }

            fn state(&self) -> Result<u64> {
                (**self).state()
            }

            fn dtype(&self) -> Option<DType> {
                (**self).dtype()
            }

            fn epsilon(&self) -> f64 {
                (**self).epsilon()
            }

            fn cancellation(&self) -> Result<f64> {
                (**self).cancellation()
            }
        }
    )+};
}

forward!(&A, Box<A>, Arc<A>);

/// Returns Av for several vectors, with the checks that algorithms rely on.
///
/// # Errors
/// The operator's; a wrong number or length of products; products that are not finite; an interrupt.
pub(crate) fn checked_products(
    operator: &dyn LinearOperator,
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    progress::check()?;
    let products = operator.apply_block(vectors)?;
    check_products(&products, vectors.len(), operator.dim())?;
    Ok(products)
}

/// Refuses products that are not `count` finite vectors of length n.
fn check_products(products: &[Vec<f64>], count: usize, n: usize) -> Result<()> {
    if products.len() != count || products.iter().any(|product| product.len() != n) {
        return Err(Error::invalid(format!(
            "expected {count} products of length {n}, found {} of lengths {:?}: apply, apply_block or apply_restricted of \
             the operator is wrong",
            products.len(),
            products.iter().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    for product in products {
        check_finite(product, "the matrix-vector product")?;
    }
    Ok(())
}

pub(crate) fn check_length(v: &[f64], n: usize) -> Result<()> {
    if v.len() != n {
        return Err(Error::invalid(format!(
            "the vector has {} but the matrix has {}",
            counted(v.len(), "entry"),
            counted(n, "column")
        )));
    }
    Ok(())
}

/// Refuses ranges that are not those of a block of an n × n matrix.
fn check_ranges(ranges: &[Range<usize>], n: usize) -> Result<()> {
    let is_ascending = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let is_valid = |range: &Range<usize>| !range.is_empty() && range.end <= n;
    match is_ascending && !ranges.is_empty() && ranges.iter().all(is_valid) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "rows {ranges:?} are not a block of a matrix with {n} rows: give ascending ranges within 0..{n}, none empty"
        ))),
    }
}

/// Refuses arguments of [`LinearOperator::apply_restricted`] that are not vectors on a block of an n × n matrix.
fn check_restricted(ranges: &[Range<usize>], vectors: &[Vec<f64>], n: usize) -> Result<()> {
    check_ranges(ranges, n)?;
    let size = ranges.iter().map(ExactSizeIterator::len).sum();
    vectors.iter().try_for_each(|v| check_length(v, size))
}
