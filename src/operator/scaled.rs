//! [`Scaled`]: DAD with a diagonal matrix D.

use std::ops::Range;

use super::{LinearOperator, check_length, check_restricted};
use crate::error::{Result, check_finite};
use crate::vector::{largest, restrict};

/// DAD with a diagonal matrix D: A in other units.
///
/// D is constant. If it depends on θ, as |θ| does in adaptive sharpness, pass an operator at that θ:
/// `objective.hessian().at(theta)?`. Otherwise A follows the model and D does not.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Scaled;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[4.0, 2.0], [2.0, 4.0]])?;
/// let scaled = Scaled::new(a, vec![1.0, 0.5])?;
/// assert_eq!(scaled.dense()?.matrix(), array![[4.0, 1.0], [1.0, 1.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scaled<A> {
    operator: A,
    diagonal: Vec<f64>,
}

impl<A: LinearOperator> Scaled<A> {
    /// Multiplies `operator` on both sides by the diagonal matrix with this `diagonal`.
    ///
    /// # Errors
    /// A diagonal of another length than the operator's, or not finite.
    pub fn new(operator: A, diagonal: Vec<f64>) -> Result<Self> {
        check_length(&diagonal, operator.dim())?;
        check_finite(&diagonal, "the diagonal")?;
        Ok(Self { operator, diagonal })
    }
}

impl<A: LinearOperator> LinearOperator for Scaled<A> {
    fn dim(&self) -> usize {
        self.diagonal.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        check_length(v, self.dim())?;
        let product = self.operator.apply(&times(v, &self.diagonal))?;
        Ok(times(&product, &self.diagonal))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        for v in vectors {
            check_length(v, self.dim())?;
        }
        let products = self
            .operator
            .apply_block(&all_times(vectors, &self.diagonal))?;
        Ok(all_times(&products, &self.diagonal))
    }

    fn apply_restricted(
        &self,
        ranges: &[Range<usize>],
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        check_restricted(ranges, vectors, self.dim())?;
        let diagonal = restrict(&self.diagonal, ranges);
        let products = self
            .operator
            .apply_restricted(ranges, &all_times(vectors, &diagonal))?;
        Ok(all_times(&products, &diagonal))
    }

    delegate!(operator: state, dtype, epsilon);

    fn cancellation(&self) -> Result<f64> {
        Ok(largest(&self.diagonal).powi(2) * self.operator.cancellation()?)
    }
}

fn times(v: &[f64], diagonal: &[f64]) -> Vec<f64> {
    v.iter().zip(diagonal).map(|(v, d)| v * d).collect()
}

fn all_times(vectors: &[Vec<f64>], diagonal: &[f64]) -> Vec<Vec<f64>> {
    vectors.iter().map(|v| times(v, diagonal)).collect()
}
