//! [`Block`]: some rows of A and the same columns.

use std::ops::Range;
use std::slice::from_ref;

use super::{LinearOperator, check_products, check_ranges};
use crate::error::Result;

/// Some rows of A and the same columns, such as the curvature within one layer.
///
/// With an operator of an [`Objective`](crate::objective::Objective), use its method `block`, which takes names of
/// parameters.
///
/// ```
/// use loss_landscape::operator::Block;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
/// let range = model.parameters().range("layers.0.weight")?;
/// let block = Block::new(&hessian, range.clone())?;
/// assert_eq!(block.dim(), 3 * 2);
/// let whole = hessian.dense()?;
/// let entry = block.dense()?.matrix()[[0, 1]];
/// assert!((entry - whole.matrix()[[range.start, range.start + 1]]).abs() < 1e-12);
///
/// let layer = hessian.block(&["layers.0"])?; // bias and weight
/// assert_eq!(layer.dim(), 3 + 3 * 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Block<A> {
    operator: A,
    ranges: Vec<Range<usize>>,
}

impl<A: LinearOperator> Block<A> {
    /// The rows and columns `range` of `operator`. [`Parameters::range`] returns the range of a parameter.
    ///
    /// [`Parameters::range`]: crate::model::Parameters::range
    ///
    /// # Errors
    /// A range that is empty or not within the matrix.
    pub fn new(operator: A, range: Range<usize>) -> Result<Self> {
        Self::from_ranges(operator, vec![range])
    }

    /// The rows and columns of `operator` in several ranges.
    ///
    /// # Errors
    /// No ranges; ranges that are empty, overlap, are not ascending or not within the matrix.
    pub fn from_ranges(operator: A, ranges: Vec<Range<usize>>) -> Result<Self> {
        check_ranges(&ranges, operator.dim())?;
        Ok(Self { operator, ranges })
    }

    /// The ranges of rows, ascending.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }
}

impl<A: LinearOperator> LinearOperator for Block<A> {
    fn dim(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(from_ref(&v.to_vec()))?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let products = self.operator.apply_restricted(&self.ranges, vectors)?;
        check_products(&products, vectors.len(), self.dim())?;
        Ok(products)
    }

    delegate!(operator: state, dtype, epsilon, cancellation);
}
