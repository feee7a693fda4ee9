//! [`Shifted`]: A + λI.

use std::ops::Range;

use super::LinearOperator;
use crate::error::{Result, check_finite};
use crate::vector::axpy;

/// A + λI.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Shifted;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?; // eigenvalues 3 and 1
/// let shifted = Shifted::new(&a, -1.0)?;
/// assert_eq!(shifted.apply(&[1.0, 1.0])?, [2.0, 2.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Shifted<A> {
    operator: A,
    shift: f64,
}

impl<A: LinearOperator> Shifted<A> {
    /// Adds `shift` to the diagonal of `operator`.
    ///
    /// # Errors
    /// A shift that is not finite.
    pub fn new(operator: A, shift: f64) -> Result<Self> {
        check_finite(&[shift], "the shift")?;
        Ok(Self { operator, shift })
    }

    fn add_shift(&self, vectors: &[Vec<f64>], products: &mut [Vec<f64>]) {
        for (product, v) in products.iter_mut().zip(vectors) {
            axpy(self.shift, v, product);
        }
    }
}

impl<A: LinearOperator> LinearOperator for Shifted<A> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut product = self.operator.apply(v)?;
        axpy(self.shift, v, &mut product);
        Ok(product)
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut products = self.operator.apply_block(vectors)?;
        self.add_shift(vectors, &mut products);
        Ok(products)
    }

    fn apply_restricted(
        &self,
        ranges: &[Range<usize>],
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        let mut products = self.operator.apply_restricted(ranges, vectors)?;
        self.add_shift(vectors, &mut products);
        Ok(products)
    }

    delegate!(operator: state, dtype, epsilon, cancellation);
}
